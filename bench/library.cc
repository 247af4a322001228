// SPDX-License-Identifier: Apache-2.0
//
// What a packet costs an embedder: esplane_outbound() and esplane_inbound() over buffers of his
// own, beside the daemon's pipeline on the same packets in the same run.  The pipeline adds what
// the library leaves to the embedder: hop count, next hop, Ethernet header, handing to a port.
//
//   verified  what the library encrypts it decrypts to what it was, outside the timing
#include <cstdio>

#include <esplane/esplane.h>

#include "bench/path.h"

namespace esplane::bench {
namespace {

constexpr std::uint16_t headroom = 128;
constexpr std::size_t buffer_size = 2048;

void must(int returned) {
    if (returned >= 0) return;
    std::fprintf(stderr, "bench library: %s\n", esplane_error_text());
    std::exit(EXIT_FAILURE);
}

esplane_address address_of(const ipsec::address& a) {
    esplane_address out{};
    std::copy(a.bytes.begin(), a.bytes.end(), out.bytes);
    out.family = static_cast<std::uint8_t>(a.fam);
    return out;
}

/// The gateway of one site of a hub, with what path_case programs.
class library_gateway {
  public:
    library_gateway(unsigned site, const shape& s) {
        esplane_engine_options o;
        esplane_engine_options_init(&o);
        must(esplane_engine_create(&o, &engine_));
        const auto own = address_of(*ipsec::address::parse("192.168.77." + std::to_string(site)));
        must(esplane_set_addresses(engine_, &own, 1));
        for (unsigned n = 0; n < s.sas; ++n)
            add_sa(tunnel(n), n);
        for (unsigned i = 0; i < s.sites(); ++i)
            for (const auto dir : {ipsec::policy_direction::out, ipsec::policy_direction::fwd})
                add_policy(site_policy(site, dir, i, i % s.sas + 1));
    }
    ~library_gateway() { must(esplane_engine_destroy(engine_)); }
    library_gateway(const library_gateway&) = delete;
    library_gateway& operator=(const library_gateway&) = delete;

    /// Work of the calling thread as this gateway's worker.
    template <typename Work>
    void working(Work work) {
        esplane_worker* w = nullptr;
        must(esplane_worker_register(engine_, &w));
        work(w);
        must(esplane_worker_unregister(w));
    }

  private:
    void add_sa(const tests::tunnel_options& o, unsigned n) {
        const auto algorithms = tests::make_algorithms(o.run, n + 1);
        const auto key = algorithms.aead.key.bytes();
        esplane_sa s;
        esplane_sa_init(&s);
        s.source = address_of(*ipsec::address::parse("192.168.77.1"));
        s.id.destination = address_of(*ipsec::address::parse("192.168.77.2"));
        s.id.spi = o.spi;
        s.reqid = o.reqid;
        s.replay_window = o.replay_window;
        s.aead = {"rfc4106(gcm(aes))", key.data(), static_cast<std::uint32_t>(key.size()), 128};
        must(esplane_sa_add(engine_, &s, esplane_now()));
    }
    void add_policy(const ipsec::policy& from) {
        const ipsec::template_& t = from.templates.front();
        esplane_template via;
        esplane_template_init(&via);
        via.family = ESPLANE_IPV4;
        via.id.destination = address_of(t.id.destination);
        via.source = address_of(t.source);
        via.reqid = t.reqid;
        esplane_policy p;
        esplane_policy_init(&p);
        p.direction = static_cast<std::uint8_t>(from.dir);
        p.priority = from.priority;
        p.selector.family = ESPLANE_IPV4;
        p.selector.source = address_of(from.sel.source);
        p.selector.destination = address_of(from.sel.destination);
        p.selector.source_prefix = from.sel.source_prefix;
        p.selector.destination_prefix = from.sel.destination_prefix;
        p.templates = &via;
        p.template_count = 1;
        must(esplane_policy_add(engine_, &p, esplane_now()));
    }

    esplane_engine* engine_ = nullptr;
};

class library_case {
  public:
    explicit library_case(const shape& s)
        : shape_(s)
        , near_(1, s)
        , far_(2, s)
        , memory_(s.pool() * buffer_size)
        , packets_(s.pool()) {
        for (unsigned f = 0; f < flows; ++f)
            inner_.push_back(flow_packet(s, f, 64));
    }

    /// Seconds a packet took, mean of a chunk.
    [[nodiscard]] double chunk() {
        double seconds = 0;
        feed();
        near_.working([&](esplane_worker* w) { seconds = seconds_of([&] { outbound(w); }); });
        if (!shape_.outbound)
            far_.working([&](esplane_worker* w) { seconds = seconds_of([&] { inbound(w); }); });
        return seconds / shape_.pool();
    }

    [[nodiscard]] bool verify() {
        const unsigned first = next_flow_;
        (void)chunk();
        if (shape_.outbound) far_.working([&](esplane_worker* w) { inbound(w); });
        for (unsigned i = 0; i < packets_.size(); ++i) {
            const esplane_packet& p = packets_[i];
            const frame& expected = inner_[(first + i) % flows];
            if (p.verdict != ESPLANE_DECRYPTED || p.length != expected.size() ||
                std::memcmp(p.data, expected.data(), p.length) != 0)
                return false;
        }
        return true;
    }

  private:
    void feed() {
        for (unsigned i = 0; i < packets_.size(); ++i) {
            const frame& f = inner_[(next_flow_ + i) % flows];
            esplane_packet& p = packets_[i];
            p = {};
            p.data = memory_.data() + i * buffer_size + headroom;
            p.length = static_cast<std::uint32_t>(f.size());
            p.headroom = headroom;
            p.tailroom = static_cast<std::uint16_t>(buffer_size - headroom - f.size());
            std::memcpy(p.data, f.data(), f.size());
        }
        next_flow_ = (next_flow_ + shape_.pool()) % flows;
    }
    void outbound(esplane_worker* w) {
        const esplane_time when = esplane_now();
        for (std::size_t at = 0; at < packets_.size(); at += burst)
            must(esplane_outbound(w, packets_.data() + at, burst, when, 0));
    }
    void inbound(esplane_worker* w) {
        const esplane_time when = esplane_now();
        for (std::size_t at = 0; at < packets_.size(); at += burst)
            must(esplane_inbound(w, packets_.data() + at, burst, when));
    }

    shape shape_;
    library_gateway near_;
    library_gateway far_;
    std::vector<frame> inner_;
    std::vector<std::uint8_t> memory_;
    std::vector<esplane_packet> packets_;
    unsigned next_flow_ = 0;
};

} // namespace
} // namespace esplane::bench

int main(int argc, char** argv) {
    using namespace esplane::bench;
    report r("library", argc, argv);
    r.name_columns("library", "path");
    for (const std::uint32_t length : {64u, 1420u})
        for (const unsigned sas : {1u, 1000u})
            for (const bool outbound : {true, false}) {
                const shape s{outbound, sas, length};
                auto library = std::make_shared<library_case>(s);
                if (!library->verify()) {
                    std::fprintf(stderr, "bench library: %s: what came out is wrong\n",
                                 s.name().c_str());
                    return EXIT_FAILURE;
                }
                register_case("library", s, library);
                register_case("path", s, std::make_shared<path_case>(s));
                r.row({s.name(), "library/" + s.name(), "path/" + s.name()});
                r.target_ratio(s.name(), 1.1);
            }
    return r.run();
}

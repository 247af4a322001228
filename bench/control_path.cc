// SPDX-License-Identifier: Apache-2.0
//
// The data path beside a busy control plane.
//
//   endless port --> worker on CPU 0 --> endless port      1,000 SAs
//   client, server and control layer on CPU 1: 5,000 other SAs/s come, and as many go
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <thread>

#include "bench/control.h"
#include "bench/control_server.h"
#include "bench/endless_port.h"
#include "tests/support/esp_peer.h"

namespace esplane::bench {
namespace {

constexpr std::uint32_t frames = 4096;
constexpr auto run_time = std::chrono::milliseconds(100);
constexpr int runs = 15;
constexpr unsigned churn_per_second = 5000;
constexpr auto churn_step = std::chrono::milliseconds(5);
constexpr unsigned step_sas = churn_per_second / 200;

/// A gateway that encrypts as fast as it can.
class busy_gateway {
  public:
    busy_gateway()
        : site_(1, 64)
        , pool_(*fastpath::buffer_pool::make(frames, 1))
        , plain_("plain", *pool_, 1)
        , secure_("secure", *pool_, 1) {
        const shape s{true, 1000, 64};
        program(site_, s);
        std::vector<frame> packets;
        for (unsigned f = 0; f < flows; ++f)
            packets.push_back(tests::with_ethernet(flow_packet(s, f, 64)));
        plain_.feed(0, std::move(packets));
        worker_ = fastpath::worker::make(site_.tables, *pool_, ports_,
                                         {.index = 0, .cpu = 0, .idle_loops = ~0u})
                      .value();
        if (!worker_->start()) std::abort();
    }
    ~busy_gateway() { worker_->stop(); }

    [[nodiscard]] lab& site() noexcept { return site_; }

    /// Packets sent in `during`, in millions a second.
    template <typename During>
    [[nodiscard]] double rate(During&& during) {
        const auto begun = std::chrono::steady_clock::now();
        const std::uint64_t before = secure_.sent();
        during(begun + run_time);
        const std::uint64_t sent = secure_.sent() - before;
        const std::chrono::duration<double, std::micro> time =
            std::chrono::steady_clock::now() - begun;
        return static_cast<double>(sent) / time.count();
    }

  private:
    lab site_;
    std::unique_ptr<fastpath::buffer_pool> pool_;
    endless_port plain_, secure_;
    std::array<fastpath::port*, 2> ports_{&plain_, &secure_};
    std::unique_ptr<fastpath::worker> worker_;
};

/// SAs of other peers, the oldest out as new ones come.
class churner {
  public:
    explicit churner(raw_client& c)
        : client_(c) {}

    void until(std::chrono::steady_clock::time_point end) {
        for (auto next = std::chrono::steady_clock::now(); next < end; next += churn_step) {
            std::this_thread::sleep_until(next);
            for (unsigned i = 0; i < step_sas; ++i)
                client_.add(sa(number_++));
            client_.finish();
            for (unsigned i = 0; i < step_sas; ++i)
                client_.remove(sa(removed_++).id);
            client_.finish();
        }
    }
    [[nodiscard]] std::uint32_t count() const noexcept { return number_; }

  private:
    ipsec::sa sa(std::uint32_t n) {
        ipsec::sa s;
        s.id = {ipsec::address::v4(wire::be32(0x14000000 + n)), wire::be32(0x20000000 + n), 50};
        s.source = *ipsec::address::parse("192.168.77.1");
        s.reqid = 100'000 + n;
        std::array<std::uint8_t, 20> key{1};
        std::memcpy(key.data() + 4, &n, sizeof n);
        s.algs.aead = {"rfc4106(gcm(aes))", secret(key), 128};
        return s;
    }

    raw_client& client_;
    std::uint32_t number_ = 0, removed_ = 0;
};

double median(std::vector<double> all) {
    std::nth_element(all.begin(), all.begin() + all.size() / 2, all.end());
    return all[all.size() / 2];
}

} // namespace

figure_rows measure_churn() {
    constexpr const char* name = "churn";
    if (std::thread::hardware_concurrency() < 2) return {not_measured(name, "needs two CPUs")};
    std::ofstream("/proc/self/autogroup") << "-15";
    busy_gateway gateway;
    std::vector<double> at_rest, busy;
    std::uint32_t came = 0;
    {
        const served_lab served(gateway.site(), 1);
        raw_client client(served.socket());
        churner others(client);
        for (int i = 0; i < runs; ++i) {
            at_rest.push_back(gateway.rate([](auto end) { std::this_thread::sleep_until(end); }));
            busy.push_back(gateway.rate([&](auto end) { others.until(end); }));
        }
        came = others.count();
        if (client.errors() != 0) return {not_measured(name, "the server refused requests")};
    }
    std::array<char, 128> note;
    std::snprintf(note.data(), note.size(), "%.2f and %.2f million packets/s; %u SAs came and went",
                  median(busy), median(at_rest), came);
    return {{name, median(busy) / median(at_rest), "x", figure_row::bound::at_least, 0.93,
             note.data()}};
}

namespace {

/// A packet for an SA that has just been acknowledged; whether it came through.
class prober {
  public:
    prober(lab& gateway, raw_client& client)
        : gateway_(gateway)
        , client_(client) {}

    [[nodiscard]] bool accepted(std::uint32_t n) {
        tests::tunnel_options o;
        o.spi = 0x10000 + 2 * n;
        o.key_seed = n + 1;
        tests::esp_peer peer(o);
        const frame inner = tests::make_packet({.number = n});
        const frame esp = tests::with_ethernet(peer.seal(peer.text_of(inner, 4), 1));
        const ipsec::sa s = inbound_sa(o);
        client_.add(s);
        client_.finish(); // acknowledged: from here on it must be taken
        (void)gateway_.ports[lab::secure]->inject(esp);
        const bool came = comes_out(n);
        client_.remove(s.id);
        client_.finish();
        return came;
    }

  private:
    ipsec::sa inbound_sa(const tests::tunnel_options& o) {
        ipsec::sa s;
        s.id = gateway_.sa_of(o, false);
        s.source = *ipsec::address::parse("192.168.77.1");
        s.reqid = o.reqid;
        s.algs = tests::make_algorithms(o.run, o.key_seed * 2 + 1);
        return s;
    }
    [[nodiscard]] bool comes_out(std::uint32_t n) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
        while (std::chrono::steady_clock::now() < end)
            for (const frame& f : gateway_.ports[lab::plain]->take_sent())
                if (tests::number_of(tests::without_ethernet(f)) == n) return true;
        return false;
    }

    lab& gateway_;
    raw_client& client_;
};

} // namespace

figure_rows measure_accepted() {
    constexpr unsigned tries = 10'000;
    lab gateway(2);
    gateway.add_policies({});
    if (!gateway.worker->start()) return {not_measured("accepted", "no worker")};
    unsigned accepted = 0;
    {
        const served_lab served(gateway);
        raw_client client(served.socket());
        prober probe(gateway, client);
        for (unsigned n = 0; n < tries; ++n)
            accepted += probe.accepted(n) ? 1 : 0;
    }
    gateway.worker->stop();
    return {{"accepted", static_cast<double>(accepted), "", figure_row::bound::at_least, tries,
             "packets for an SA whose NEWSA was just acknowledged, of 10,000"}};
}

} // namespace esplane::bench

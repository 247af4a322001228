// SPDX-License-Identifier: Apache-2.0
//
// The path as a benchmark's case: a hub's policies and SAs, packets of 1,024 flows, and a pipeline
// between ports that are always ready.
#pragma once

#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>

#include <benchmark/benchmark.h>

#include "bench/ready_port.h"
#include "bench/report.h"
#include "tests/support/lab.h"

namespace esplane::bench {

using fastpath::packet;
using tests::frame;
using tests::lab;

inline constexpr unsigned flows = 1024;
inline constexpr unsigned least_policies = 100;
inline constexpr std::size_t burst = 32;
inline constexpr unsigned site_bits = 6; ///< a site is a /26: 64 hosts

struct shape {
    bool outbound;
    unsigned sas;
    std::uint32_t length;

    [[nodiscard]] unsigned sites() const { return std::max(sas, least_policies); }
    /// So many that they lie in the second-level cache with their buffers.
    [[nodiscard]] unsigned pool() const { return length > 1024 ? 256 : length > 256 ? 512 : 1024; }
    [[nodiscard]] std::string name() const {
        return std::string(outbound ? "out" : "in") + "/" + std::to_string(length) + "B/" +
               std::to_string(sas) + "SA";
    }
};

inline double seconds_of(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// One policy of a hub: the networks of site number `index` at both ends.
inline ipsec::policy site_policy(unsigned local, ipsec::policy_direction dir, unsigned index,
                                 std::uint32_t reqid) {
    const unsigned from = dir == ipsec::policy_direction::out ? local : 3 - local;
    const auto network = [&](unsigned of) {
        auto a = *ipsec::address::parse("10." + std::to_string(of) + ".0.0");
        wire::store(a.bytes.data() + 2, wire::be16(static_cast<std::uint16_t>(index << site_bits)));
        return a;
    };
    ipsec::policy p;
    p.dir = dir;
    p.sel.fam = ipsec::family::ipv4;
    p.sel.source = network(from);
    p.sel.destination = network(3 - from);
    p.sel.source_prefix = p.sel.destination_prefix = 32 - site_bits;
    p.priority = 1000;
    ipsec::template_ t;
    t.id.destination = *ipsec::address::parse("192.168.77." + std::to_string(3 - from));
    t.source = *ipsec::address::parse("192.168.77." + std::to_string(from));
    t.fam = ipsec::family::ipv4;
    t.reqid = reqid;
    p.templates = {t};
    return p;
}

inline tests::tunnel_options tunnel(unsigned n) {
    return {.replay_window = 64, .spi = 0x10000 + 2 * n, .reqid = n + 1, .key_seed = n + 1};
}

inline void program(lab& l, const shape& s) {
    for (unsigned n = 0; n < s.sas; ++n)
        l.add_sas(tunnel(n));
    for (unsigned i = 0; i < s.sites(); ++i)
        for (const auto dir : {ipsec::policy_direction::out, ipsec::policy_direction::fwd,
                               ipsec::policy_direction::in})
            l.add_policy(site_policy(l.site, dir, i, i % s.sas + 1));
}

inline frame flow_packet(const shape& s, unsigned flow, std::uint8_t ttl) {
    tests::packet_spec spec;
    spec.host =
        static_cast<std::uint16_t>((flow % s.sites()) << site_bits | (10 + flow / s.sites()));
    spec.length = s.length;
    spec.number = flow;
    spec.ttl = ttl;
    return tests::make_packet(spec);
}

/// The path of one gateway, and the packets it is fed with.
class path_case {
  public:
    explicit path_case(const shape& s)
        : shape_(s)
        , packets_(s.pool()) {
        program(near_, s);
        program(far_, s);
        for (unsigned f = 0; f < flows; ++f)
            inner_.push_back(flow_packet(s, f, 64));
        if (!s.outbound) {
            near_.push(lab::plain, inner_);
            encrypted_ = near_.sent(lab::secure);
        }
        auto engine = crypto::engine::make();
        if (!engine) std::abort();
        crypto_ = std::move(*engine);
        lab& l = under_test();
        pipeline_ = std::make_unique<fastpath::pipeline>(l.tables, *crypto_, *l.pool, ports_, 0);
        for (packet& p : packets_)
            if (!l.pool->allocate(p, 0)) std::abort();
        empty_ = packets_;
    }

    /// Seconds a packet took, mean of a chunk.
    [[nodiscard]] double chunk() {
        feed();
        return seconds_of([&] { run(); }) / shape_.pool();
    }

    /// Whether everything that the path makes is what it must be.
    [[nodiscard]] bool verify() {
        for (unsigned done = 0; done < flows; done += shape_.pool()) {
            const unsigned first = next_flow_;
            feed();
            run();
            if (!check(first)) return false;
        }
        return true;
    }

  private:
    lab& under_test() { return shape_.outbound ? near_ : far_; }

    /// The next packets as they are received; anti-replay windows as before them.
    void feed() {
        const std::vector<frame>& source = shape_.outbound ? inner_ : encrypted_;
        for (unsigned i = 0; i < packets_.size(); ++i) {
            const frame f = tests::with_ethernet(source[(next_flow_ + i) % flows]);
            packets_[i] = empty_[i];
            std::memcpy(packets_[i].data, f.data(), f.size());
            packets_[i].extend(static_cast<int>(f.size()));
        }
        next_flow_ = (next_flow_ + shape_.pool()) % flows;
        if (!shape_.outbound) reopen_windows();
    }

    void reopen_windows() {
        for (unsigned n = 0; n < shape_.sas; ++n) {
            const ipsec::sa_id id = far_.sa_of(tunnel(n), false);
            const std::uint32_t hash =
                fastpath::hash_of_spi(id.spi, id.destination.bytes.data(), ipsec::family::ipv4);
            far_.tables.inbound()
                .find(hash, [&](const fastpath::sa_in& sa) { return sa.spi == id.spi; })
                ->window.restore(0, std::vector<std::uint32_t>(2));
        }
    }

    void run() noexcept {
        const std::span<packet> all(packets_);
        for (std::size_t at = 0; at < all.size(); at += burst)
            pipeline_->process(all.subspan(at, burst), shape_.outbound ? lab::plain : lab::secure,
                               near_.clock);
    }

    [[nodiscard]] bool check(unsigned first) {
        std::vector<frame> out;
        for (const packet& p : packets_) {
            if (p.drop != 0) return false;
            out.push_back(tests::without_ethernet({p.data, p.data + p.length}));
        }
        if (shape_.outbound) {
            far_.push(lab::secure, out);
            out = far_.sent(lab::plain);
        }
        if (out.size() != packets_.size()) return false;
        for (unsigned i = 0; i < out.size(); ++i)
            if (out[i] != flow_packet(shape_, (first + i) % flows, 62)) return false;
        return true;
    }

    shape shape_;
    lab near_{1, 2048};
    lab far_{2, 2048};
    std::vector<frame> inner_;
    std::vector<frame> encrypted_;
    ready_port port_;
    fastpath::port* ports_[2] = {&port_, &port_};
    std::unique_ptr<crypto::engine> crypto_;
    std::unique_ptr<fastpath::pipeline> pipeline_;
    std::vector<packet> packets_;
    std::vector<packet> empty_;
    unsigned next_flow_ = 0;
};

/// A case has chunk(): seconds a packet took, mean of a chunk.
template <typename Case>
void register_case(const std::string& name, const shape& s, std::shared_ptr<Case> made) {
    benchmark::RegisterBenchmark((name + "/" + s.name()).c_str(),
                                 [made](benchmark::State& state) {
                                     for (auto _ : state)
                                         state.SetIterationTime(made->chunk());
                                 })
        ->UseManualTime()
        ->Iterations(1)
        ->Repetitions(chunks)
        ->Unit(benchmark::kNanosecond);
}

} // namespace esplane::bench

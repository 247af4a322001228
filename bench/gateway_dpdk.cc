// SPDX-License-Identifier: Apache-2.0
#include "bench/gateway.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <limits>
#include <memory>
#include <sched.h>
#include <unistd.h>
#include <vector>

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "bench/memif_generator.h"
#include "fastpath/dpdk/eal.h"
#include "fastpath/dpdk/port_dpdk.h"
#include "tests/support/lab.h"

namespace esplane::bench {

namespace {

using fastpath::dpdk_port;
using fastpath::packet;

constexpr unsigned burst = 32;
constexpr unsigned frames_in_ring = 256;
constexpr unsigned bench_mib = 64;
constexpr unsigned bench_pages = 128;    ///< for both processes, of 2 MiB each
constexpr unsigned bursts_a_chunk = 400; ///< well below a millisecond
constexpr unsigned chunks = 200;         ///< of each side, taken in turn; the best counts

double now_ns() {
    timespec t;
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

/// A ring whose frames go round: what is sent is received.
class ring_port {
  public:
    [[nodiscard]] static result<std::unique_ptr<ring_port>> open() {
        auto r = std::unique_ptr<ring_port>(new ring_port);
        fastpath::dpdk_port_options o;
        o.name = "ring";
        o.device = "net_ring_bench";
        auto port = dpdk_port::open(std::move(o), r->memory_, std::nullopt);
        if (!port) return tl::unexpected(port.error());
        r->port_ = std::move(*port);
        if (::rte_eth_dev_get_port_by_name("net_ring_bench", &r->id_) != 0)
            return fail(ENODEV, "net_ring_bench");
        r->fill();
        return r;
    }

    /// As testpmd's io forwarding does it.
    void forward_bare() noexcept {
        std::array<rte_mbuf*, burst> mbufs;
        const std::uint16_t n = rte_eth_rx_burst(id_, 0, mbufs.data(), burst);
        const std::uint16_t sent = rte_eth_tx_burst(id_, 0, mbufs.data(), n);
        if (sent != n) rte_pktmbuf_free_bulk(&mbufs[sent], n - sent);
    }

    /// The same through the port.
    void forward_as_packets() noexcept {
        const std::size_t n = port_->receive(0, {packets_.data(), burst});
        const std::size_t sent = port_->send(0, {list_.data(), n});
        for (std::size_t i = sent; i < n; ++i)
            packets_[i].owner->release({&list_[i], 1});
    }

  private:
    ring_port() {
        for (unsigned i = 0; i < burst; ++i)
            list_[i] = &packets_[i];
    }
    void fill() {
        std::array<packet, 1> one;
        for (unsigned i = 0; i < frames_in_ring; ++i) {
            if (!memory_.allocate(one[0], 64)) return;
            one[0].extend(64);
            packet* const p[] = {&one[0]};
            (void)port_->send(0, p);
        }
    }

    fastpath::mbuf_memory memory_;
    std::unique_ptr<dpdk_port> port_;
    std::uint16_t id_ = 0;
    std::array<packet, burst> packets_;
    std::array<packet*, burst> list_;
};

template <typename Forward>
double ns_a_packet(Forward forward) {
    const double start = now_ns();
    for (unsigned i = 0; i < bursts_a_chunk; ++i)
        forward();
    return (now_ns() - start) / (bursts_a_chunk * burst);
}

/// Runs on one CPU for as long as it lives.
class pinned {
  public:
    explicit pinned(unsigned cpu) {
        (void)::sched_getaffinity(0, sizeof before_, &before_);
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        (void)::sched_setaffinity(0, sizeof one, &one);
    }
    ~pinned() { (void)::sched_setaffinity(0, sizeof before_, &before_); }
    pinned(const pinned&) = delete;
    pinned& operator=(const pinned&) = delete;

  private:
    cpu_set_t before_;
};

/// Huge pages for the time of a measurement, where this process may ask for them.
class hugepages {
  public:
    hugepages() { before_ = exchange(bench_pages); }
    ~hugepages() { (void)exchange(before_); }
    hugepages(const hugepages&) = delete;
    hugepages& operator=(const hugepages&) = delete;

  private:
    static unsigned exchange(unsigned pages) {
        constexpr const char* file = "/proc/sys/vm/nr_hugepages";
        unsigned there = 0;
        std::ifstream(file) >> there;
        std::ofstream(file) << pages;
        return there;
    }
    unsigned before_ = 0;
};

/// A gateway, with or without a tunnel.
class memif_gateway {
  public:
    memif_gateway(std::span<fastpath::port* const> ports, bool tunnel) {
        if (tunnel) lab_.add_tunnel({});
        worker_ = std::move(*fastpath::worker::make(lab_.tables, *lab_.pool, ports, {}));
    }
    /// Packets a second that the port sent.
    [[nodiscard]] double rate(const fastpath::port& port, double ns) {
        run(ns / 4); // caches, and what was under way
        const std::uint64_t before = port.counters().tx_packets;
        const double took = run(ns);
        return static_cast<double>(port.counters().tx_packets - before) * 1e9 / took;
    }

  private:
    double run(double ns) {
        const double start = now_ns();
        while (now_ns() - start < ns)
            for (unsigned i = 0; i < 16; ++i)
                (void)worker_->run_once(fastpath::now());
        return now_ns() - start;
    }
    tests::lab lab_{1};
    std::unique_ptr<fastpath::worker> worker_;
};

double median(std::vector<double> all) {
    std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2),
                     all.end());
    return all[all.size() / 2];
}

constexpr double run_ns = 20e6;
constexpr unsigned runs = 21; ///< of each kind, in turn; medians count

gateway_row esp_against_clear(memif_generator& generator, const fastpath::port& port,
                              memif_gateway& clear, memif_gateway& esp, std::uint32_t length,
                              double limit) {
    generator.send(tests::with_ethernet(tests::make_packet({.length = length})));
    std::vector<double> in_clear, encrypted, ratios;
    for (unsigned i = 0; i < runs; ++i) {
        in_clear.push_back(clear.rate(port, run_ns));
        encrypted.push_back(esp.rate(port, run_ns));
    }
    const double bare = median(in_clear), with_esp = median(encrypted);
    gateway_row row;
    row.name = "memif_esp_" + std::to_string(length);
    row.measured = bare > 0 ? with_esp / bare : 0;
    row.unit = "x";
    row.limit_is = gateway_row::bound::at_least;
    row.limit = limit;
    char note[96];
    std::snprintf(note, sizeof note, "ESP %.2f, clear %.2f million packets a second",
                  with_esp / 1e6, bare / 1e6);
    row.note = note;
    return row;
}

result<std::unique_ptr<dpdk_port>> connect(const std::string& socket,
                                           fastpath::mbuf_memory& memory) {
    fastpath::dpdk_port_options o;
    o.name = "memif";
    o.device = "net_memif0";
    o.arguments = "role=client,zero-copy=yes,rsize=9,socket-abstract=no,socket=" + socket;
    auto port = dpdk_port::open(std::move(o), memory, std::nullopt);
    if (!port) return port;
    for (unsigned i = 0; i < 50 && !(*port)->up(); ++i) {
        ::usleep(100'000);
        if (auto tended = (*port)->tend(); !tended) return tl::unexpected(tended.error());
    }
    if (!(*port)->up()) return fail(ENOTCONN, "the memif does not connect");
    return port;
}

/// One memif is both ports: of DPDK 22.11 a process has one that is zero-copy, as it closes EAL's
/// descriptor of the memory it shares.
result<gateway_rows> measure_memif(memif_generator& generator) {
    fastpath::mbuf_memory memory;
    auto port = connect(generator.socket(), memory);
    if (!port) return tl::unexpected(port.error());
    fastpath::port* const ports[] = {port->get(), port->get()};
    memif_gateway clear(ports, false), esp(ports, true);
    const pinned here(1);
    return gateway_rows{esp_against_clear(generator, **port, clear, esp, 64, 0.45),
                        esp_against_clear(generator, **port, clear, esp, 1400, 0.6)};
}

gateway_rows measure_ring() {
    const std::string name = "dpdk_port_cost";
    auto ring = ring_port::open();
    if (!ring) return {not_measured(name, ring.error().text)};
    double bare = std::numeric_limits<double>::max(), packets = bare;
    for (unsigned i = 0; i < chunks; ++i) {
        bare = std::min(bare, ns_a_packet([&] { (*ring)->forward_bare(); }));
        packets = std::min(packets, ns_a_packet([&] { (*ring)->forward_as_packets(); }));
    }
    gateway_row row;
    row.name = name;
    row.measured = packets - bare;
    row.unit = "ns";
    row.limit = 15;
    char note[96];
    std::snprintf(note, sizeof note, "a packet: %.1f as packets, %.1f as testpmd forwards", packets,
                  bare);
    row.note = note;
    return {row};
}

} // namespace

/// One EAL a process, and the generator has to be forked before it starts.
gateway_rows measure_dpdk() {
    const hugepages pages;
    auto generator = memif_generator::start(0);
    const auto started = fastpath::start_eal({"--single-file-segments", {}, bench_mib});
    if (!started) return {not_measured("dpdk_port_cost", started.error().text)};
    gateway_rows rows = measure_ring();
    result<gateway_rows> memif = generator
                                     ? measure_memif(**generator)
                                     : result<gateway_rows>(tl::unexpected(generator.error()));
    if (memif)
        rows.insert(rows.end(), memif->begin(), memif->end());
    else
        for (const char* name : {"memif_esp_64", "memif_esp_1400"})
            rows.push_back(not_measured(name, memif.error().text));
    return rows;
}

} // namespace esplane::bench

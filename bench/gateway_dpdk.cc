// SPDX-License-Identifier: Apache-2.0
#include "bench/gateway.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <limits>
#include <memory>

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "fastpath/dpdk/eal.h"
#include "fastpath/dpdk/port_dpdk.h"

namespace esplane::bench {

namespace {

using fastpath::dpdk_port;
using fastpath::packet;

constexpr unsigned burst = 32;
constexpr unsigned frames_in_ring = 256;
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
        if (auto started = fastpath::start_eal({}); !started)
            return tl::unexpected(started.error());
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

} // namespace

gateway_rows measure_dpdk_port() {
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

} // namespace esplane::bench

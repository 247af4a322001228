// SPDX-License-Identifier: Apache-2.0
//
// The mempools of all DPDK ports, and the owner of packets that are mbufs.
//
//   mbuf   [ struct rte_mbuf ][ headroom 128 ][ data ... ][ tailroom ]
//
// A packet's handle is its mbuf, which knows its mempool: one owner serves them all, so a port
// sends what another port received without a copy.  Mempools exist from the port's opening on.
// Threads: release and allocate by any worker; make_pool by control.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fastpath/packet.h"
#include "lib/base/result.h"

struct rte_mempool;

namespace esplane::fastpath {

class mbuf_memory final : public buffer_owner {
  public:
    /// Bytes that ESP and VLAN tags may add behind a frame of the largest size.
    static constexpr std::uint32_t room_behind = 128;
    /// Of a frame that a device has written: RTE_PKTMBUF_HEADROOM.  ESP in UDP over IPv6 with two
    /// VLAN tags in front takes 94, the Ethernet header's 14 are free.
    static constexpr std::uint32_t headroom = 128;

    mbuf_memory() = default;
    ~mbuf_memory() override;
    mbuf_memory(const mbuf_memory&) = delete;
    mbuf_memory& operator=(const mbuf_memory&) = delete;

    /// A mempool of `count` mbufs for frames of up to `largest_frame` bytes, near NUMA node
    /// `node` (-1: any).  Errors: ENOMEM.
    [[nodiscard]] result<rte_mempool*> make_pool(const std::string& name, std::uint32_t count,
                                                 std::uint32_t largest_frame, int node);

    void release(std::span<packet* const> packets) noexcept override;
    /// From the first mempool.
    [[nodiscard]] bool allocate(packet& into, std::uint32_t room) noexcept override;

  private:
    std::vector<rte_mempool*> pools_;
};

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "fastpath/dpdk/mbuf_memory.h"

#include <algorithm>
#include <array>
#include <limits>

#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "fastpath/dpdk/mbuf_packet.h"

namespace esplane::fastpath {

namespace {

constexpr std::uint32_t cached_per_lane = 256;
/// In front of what is allocated for packets of our own: buffer_owner::allocate promises as much.
constexpr std::uint16_t room_in_front = 256;

static_assert(mbuf_memory::headroom == RTE_PKTMBUF_HEADROOM);

} // namespace

mbuf_memory::~mbuf_memory() {
    for (rte_mempool* pool : pools_)
        ::rte_mempool_free(pool);
}

result<rte_mempool*> mbuf_memory::make_pool(const std::string& name, std::uint32_t count,
                                            std::uint32_t largest_frame, int node) {
    const std::uint32_t room = headroom + largest_frame + room_behind;
    if (room > std::numeric_limits<std::uint16_t>::max())
        return fail(EMSGSIZE, "frames of " + std::to_string(largest_frame) +
                                  " bytes do not fit a packet buffer: set a smaller MTU");
    rte_mempool* pool =
        ::rte_pktmbuf_pool_create(name.c_str(), count, std::min(cached_per_lane, count / 2), 0,
                                  static_cast<std::uint16_t>(room), node);
    if (pool == nullptr)
        return fail(rte_errno, std::to_string(count) + " packet buffers of " +
                                   std::to_string(room) + " bytes: " + rte_strerror(rte_errno) +
                                   ": give DPDK more memory (huge pages, or --eal \"-m MIB\")");
    pools_.push_back(pool);
    return pool;
}

void mbuf_memory::release(std::span<packet* const> packets) noexcept {
    std::array<rte_mbuf*, max_burst> mbufs;
    while (!packets.empty()) {
        const std::size_t n = std::min(packets.size(), mbufs.size());
        for (std::size_t i = 0; i < n; ++i)
            mbufs[i] = reinterpret_cast<rte_mbuf*>(packets[i]->handle);
        ::rte_pktmbuf_free_bulk(mbufs.data(), static_cast<unsigned>(n));
        packets = packets.subspan(n);
    }
}

bool mbuf_memory::allocate(packet& into, std::uint32_t room) noexcept {
    if (pools_.empty()) return false;
    rte_mbuf* m = ::rte_pktmbuf_alloc(pools_.front());
    if (m == nullptr) return false;
    if (std::uint32_t{m->buf_len} < room_in_front + room) {
        ::rte_pktmbuf_free(m);
        return false;
    }
    m->data_off = room_in_front;
    describe_mbuf(into, *m, *this);
    return true;
}

} // namespace esplane::fastpath

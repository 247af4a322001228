// SPDX-License-Identifier: Apache-2.0
//
// From an mbuf to a packet and back: what each frame costs.  For the sources of this room alone.
#pragma once

#include <rte_mbuf.h>

#include "fastpath/packet.h"

namespace esplane::fastpath {

/// Whether an mbuf is all of its frame, and nobody else holds that memory: it may be written to.
[[nodiscard]] inline bool is_whole_and_ours(rte_mbuf& m) noexcept {
    if (m.nb_segs != 1 || rte_mbuf_refcnt_read(&m) != 1) return false;
    if (RTE_MBUF_DIRECT(&m)) [[likely]]
        return true;
    return RTE_MBUF_HAS_EXTBUF(&m) && rte_mbuf_ext_refcnt_read(m.shinfo) == 1;
}

inline constexpr std::uint64_t said_of_checksums =
    RTE_MBUF_F_RX_IP_CKSUM_MASK | RTE_MBUF_F_RX_L4_CKSUM_MASK;

/// What the device found right, as packet_flag.  What it calls bad is left to the path to judge,
/// and where it looked into a tunnel it speaks of the inner headers.
[[nodiscard]] inline std::uint16_t checksum_flags(const rte_mbuf& m) noexcept {
    if ((m.ol_flags & said_of_checksums) == 0) return 0;
    const std::uint32_t tunnel = m.packet_type & RTE_PTYPE_TUNNEL_MASK;
    if (tunnel != 0 && tunnel != RTE_PTYPE_TUNNEL_ESP) return 0;
    const bool ip = (m.ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD;
    const bool l4 = (m.ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    return static_cast<std::uint16_t>((ip ? packet_flag::ip_sum_good : 0) |
                                      (l4 ? packet_flag::l4_sum_done : 0));
}

/// Sets every field of `into` for a frame in one mbuf, which is the packet's from now on.
inline void describe_mbuf(packet& into, rte_mbuf& m, buffer_owner& owner) noexcept {
    into = packet{};
    into.data = static_cast<std::uint8_t*>(m.buf_addr) + m.data_off;
    into.length = m.data_len;
    into.headroom = m.data_off;
    into.tailroom = static_cast<std::uint16_t>(m.buf_len - m.data_off - m.data_len);
    into.flags = checksum_flags(m);
    into.owner = &owner;
    into.handle = reinterpret_cast<std::uint64_t>(&m);
}

/// The mbuf of a packet, with the frame where the packet has it now.  What the device said about
/// the frame that came in does not hold for the one that leaves; whose memory it lies in does.
[[nodiscard]] inline rte_mbuf* take_mbuf(const packet& p) noexcept {
    auto* m = reinterpret_cast<rte_mbuf*>(p.handle);
    m->data_off = static_cast<std::uint16_t>(p.data - static_cast<std::uint8_t*>(m->buf_addr));
    m->data_len = static_cast<std::uint16_t>(p.length);
    m->pkt_len = p.length;
    m->ol_flags &= RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL;
    return m;
}

} // namespace esplane::fastpath

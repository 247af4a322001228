// SPDX-License-Identifier: Apache-2.0
//
// From an mbuf to a packet and back: what each frame costs.  For the sources of this room alone.
#pragma once

#include <rte_mbuf.h>

#include "fastpath/packet.h"

namespace esplane::fastpath {

/// Sets every field of `into` for a frame in one mbuf, which is the packet's from now on.
inline void describe_mbuf(packet& into, rte_mbuf& m, buffer_owner& owner) noexcept {
    into = packet{};
    into.data = static_cast<std::uint8_t*>(m.buf_addr) + m.data_off;
    into.length = m.data_len;
    into.headroom = m.data_off;
    into.tailroom = static_cast<std::uint16_t>(m.buf_len - m.data_off - m.data_len);
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

// SPDX-License-Identifier: Apache-2.0
//
// The usual packet, parsed in one step: all that can be wrong is asked before anything is written.
// Whatever is not usual goes by parse_ip(), which says what it is, or why it is dropped.
#pragma once

#include "fastpath/fib.h"
#include "fastpath/packet.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

/// How a packet came to be, which parsing leaves as it is.
inline constexpr std::uint16_t flags_before_parsing =
    packet_flag::created | packet_flag::l4_sum_done | packet_flag::from_stack;

/// Whether an address of IPv4 may be one that no router forwards, by its first byte: of
/// 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4, or the broadcast.
[[nodiscard]] constexpr bool may_be_confined(std::uint8_t first) noexcept {
    return static_cast<std::uint8_t>(first - 1) >= 223 || first == 127;
}

/// Of an IPv4 header of five words: what a right checksum makes of it sums to ones.
[[nodiscard]] inline std::uint64_t plain_header_sum(const std::uint8_t* ip) noexcept {
    return std::uint64_t{wire::load<std::uint32_t>(ip)} + wire::load<std::uint32_t>(ip + 4) +
           wire::load<std::uint32_t>(ip + 8) + wire::load<std::uint32_t>(ip + 12) +
           wire::load<std::uint32_t>(ip + 16);
}

/// Moves the packet to the IP packet within it and does what parse_ip() does, where that is TCP or
/// UDP over IPv4 without options, whole, between addresses that may be forwarded, by a route of one
/// hop, and its checksum is not known to be right.  False: it is none of that, or there is
/// something wrong; nothing has changed.
///
/// at     where it begins, from p.data
/// room   bytes it may have
[[nodiscard, gnu::always_inline]] inline bool
parse_plain(packet& p, std::uint32_t at, std::uint32_t room, const fib& routes) noexcept {
    constexpr std::uint8_t no_options = 4 << 4 | sizeof(wire::ipv4_header) / 4;
    constexpr std::uint32_t shortest = sizeof(wire::ipv4_header) + sizeof(wire::udp_header);
    std::uint8_t* const data = p.data + at;
    const auto& ip = *reinterpret_cast<const wire::ipv4_header*>(data);
    if (room < shortest || ip.version_ihl != no_options) return false;
    const std::uint32_t length = ip.total_length.host();
    if (length - shortest > room - shortest) return false; // shorter, too
    if (ip.protocol != wire::proto_tcp && ip.protocol != wire::proto_udp) return false;
    const std::uint16_t fragment = ip.fragment.host();
    if ((fragment & (wire::ipv4_mf | wire::ipv4_offset_mask)) != 0) return false;
    if (!wire::sums_to_ones(plain_header_sum(data))) return false;
    const auto* const source = reinterpret_cast<const std::uint8_t*>(&ip.source);
    const auto* const destination = reinterpret_cast<const std::uint8_t*>(&ip.destination);
    if (may_be_confined(source[0]) || may_be_confined(destination[0])) return false;
    const route_target to = routes.find<4>(routes.vrf_at(p.interface), destination);
    if (to.is_group()) return false;

    std::uint16_t flags = p.flags & flags_before_parsing;
    if ((fragment & wire::ipv4_df) != 0) flags |= packet_flag::dont_fragment;
    if (to.only().kind == adjacency_kind::local) flags |= packet_flag::for_machine;
    p.flags = flags;
    p.data = data;
    p.headroom = static_cast<std::uint16_t>(p.headroom + at);
    p.tailroom = static_cast<std::uint16_t>(p.tailroom + (p.length - at - length));
    p.length = length;
    p.family = ipsec::family::ipv4;
    p.protocol = ip.protocol;
    p.tos = ip.tos;
    p.l4_offset = sizeof(wire::ipv4_header);
    p.source_port = wire::load<wire::be16>(data + sizeof ip);
    p.destination_port = wire::load<wire::be16>(data + sizeof ip + 2);
    p.next = &to.only();
    return true;
}

} // namespace esplane::fastpath

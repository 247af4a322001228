// SPDX-License-Identifier: Apache-2.0
//
// The packets that nearly all are, parsed in place: IPv4 without options, whole, TCP, UDP or ESP,
// between addresses that may be forwarded, nothing of them left to a device.
//
// open_plain() does all that parse_ip() does but the route, or nothing at all: then the packet is
// parse_ip()'s.  Every byte is read once, in the widest loads that hold it.
#pragma once

#include <array>

#include "fastpath/parse.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace plain {

inline constexpr std::uint32_t header = sizeof(wire::ipv4_header);
/// A plain packet is not shorter: the checksum field of TCP is within.
inline constexpr std::uint32_t least = header + 18;

/// Of the first eight bytes as they are loaded: version and header length, and what of flags and
/// offset makes a fragment.
inline constexpr std::uint64_t shape_mask =
    0xff | std::uint64_t{wire::be16(wire::ipv4_mf | wire::ipv4_offset_mask).network()} << 48;
inline constexpr std::uint64_t shape = 4 << 4 | header / 4;
inline constexpr std::uint64_t dont_fragment = std::uint64_t{wire::be16(wire::ipv4_df).network()}
                                               << 48;

/// What an upper layer is to us: where its checksum is, counted from its header; 0: not plain.
/// (ESP has none: see open_plain().)
inline constexpr std::array<std::uint8_t, 256> checksum_at = [] {
    std::array<std::uint8_t, 256> at{};
    at[wire::proto_tcp] = 16;
    at[wire::proto_udp] = 6;
    at[wire::proto_esp] = 1;
    return at;
}();

/// Whether addresses that begin with a byte may have to stay on their link or machine: 0/8, 127/8,
/// 224/4 and what lies beyond.
inline constexpr std::array<bool, 256> confined = [] {
    std::array<bool, 256> is{};
    is[0] = is[127] = true;
    for (unsigned first = 224; first < is.size(); ++first)
        is[first] = true;
    return is;
}();

} // namespace plain

/// Parses the IP packet behind the first `skip` bytes of a packet, if it is plain: sets what
/// parse_ip() sets, except the route, and moves the front.  False: nothing has changed.
///
/// from_wire   as of parse_ip()
[[nodiscard, gnu::always_inline]] inline bool open_plain(packet& p, std::uint32_t skip,
                                                         bool from_wire) noexcept {
    if (p.length < skip + plain::least) [[unlikely]]
        return false;
    const std::uint8_t* const ip = p.data + skip;
    const auto first = wire::load<std::uint64_t>(ip);
    if ((first & plain::shape_mask) != plain::shape) [[unlikely]]
        return false;
    const std::uint32_t total =
        wire::be16::from_network(static_cast<std::uint16_t>(first >> 16)).host();
    const std::uint32_t there = p.length - skip;
    if (total < plain::least || total > there) [[unlikely]]
        return false;

    // No sum overflows: the last byte of `first`, its highest, is 0.
    const auto second = wire::load<std::uint64_t>(ip + 8);
    const std::uint64_t addresses = (second >> 32) + wire::load<std::uint32_t>(ip + 16);
    if (!wire::sums_to_ones(first + (second & 0xffffffff) + addresses)) [[unlikely]]
        return false;
    if (plain::confined[ip[12]] || plain::confined[ip[16]]) [[unlikely]]
        return false;

    const std::uint8_t protocol = ip[9];
    const std::uint32_t at = plain::checksum_at[protocol];
    if (at == 0) [[unlikely]]
        return false;
    const std::uint8_t* const l4 = ip + plain::header;
    std::uint32_t ports = 0;
    if (protocol != wire::proto_esp) {
        ports = wire::load<std::uint32_t>(l4);
        if (from_wire) {
            const std::uint32_t l4_length = total - plain::header;
            const std::uint64_t pseudo = addresses + wire::be32(l4_length + protocol).network();
            const auto field = static_cast<std::uint16_t>(~wire::load<std::uint16_t>(l4 + at));
            if (wire::sums_to_ones(pseudo + field)) [[unlikely]] // to be completed
                return false;
        }
    }

    constexpr unsigned kept =
        packet_flag::created | packet_flag::l4_sum_done | packet_flag::from_stack;
    const unsigned df = (first & plain::dont_fragment) != 0 ? packet_flag::dont_fragment : 0;
    p.data += skip;
    p.headroom = static_cast<std::uint16_t>(p.headroom + skip);
    p.tailroom = static_cast<std::uint16_t>(p.tailroom + there - total); // Ethernet padding
    p.length = total;
    p.flags = static_cast<std::uint16_t>((p.flags & kept) | df);
    p.family = ipsec::family::ipv4;
    p.protocol = protocol;
    p.tos = static_cast<std::uint8_t>(first >> 8);
    p.l4_offset = plain::header;
    p.source_port = wire::be16::from_network(static_cast<std::uint16_t>(ports));
    p.destination_port = wire::be16::from_network(static_cast<std::uint16_t>(ports >> 16));
    return true;
}

/// The rest of a packet that open_plain() took.
[[gnu::always_inline]] inline void route_plain(packet& p, route_target to) noexcept {
    if (to.is_group()) [[unlikely]] { // never the machine
        p.next = &to.choose(flow_hash_of(p));
        return;
    }
    p.next = &to.only();
    if (p.next->kind == adjacency_kind::local) p.flags |= packet_flag::for_machine;
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// The last stage before tx: TTL, path MTU, next hop, Ethernet header.
#pragma once

#include "fastpath/stage.h"

namespace esplane::fastpath {

/// RFC 1812 section 5.3.1.  False: it was the last hop.
[[nodiscard]] inline bool decrement_ttl(packet& p) noexcept {
    if (p.family == ipsec::family::ipv6) {
        if (p.ipv6().hop_limit <= 1) return false;
        --p.ipv6().hop_limit;
        return true;
    }
    wire::ipv4_header& ip = p.ipv4();
    if (ip.ttl <= 1) return false;
    // RFC 1141: one less in the high byte of a word is 0x0100 more in the sum.
    const std::uint32_t sum = ip.checksum.network() + wire::be16(0x0100).network();
    ip.checksum = wire::be16::from_network(static_cast<std::uint16_t>(sum + (sum >= 0xffff)));
    --ip.ttl;
    return true;
}

/// Drops a packet whose TTL is used up and tells its source.
void refuse_last_hop(stage& s, packet& p) noexcept;

/// Counts a hop (TTL, hop limit) of a packet that passes through; not of one that the machine's
/// stack gave.  False: that was the last one; it is dropped and its source told.
[[nodiscard]] inline bool age(stage& s, packet& p) noexcept {
    if ((p.flags & (packet_flag::own | packet_flag::from_stack)) != 0) return true;
    if (decrement_ttl(p)) [[likely]]
        return true;
    refuse_last_hop(s, p);
    return false;
}

/// Why nothing can leave by a route that is neither forward, unresolved nor bare.
[[nodiscard]] drop_reason refusal_of(const adjacency& route) noexcept;

/// Why nothing can leave by a route; none where something can.
[[nodiscard]] inline drop_reason refusal(const adjacency& route) noexcept {
    if (route.kind == adjacency_kind::forward) [[likely]]
        return drop_reason::none;
    return refusal_of(route);
}

/// False: the packet's route does not take its size; it is dropped and its source told.  What may
/// be fragmented is marked for it.
[[nodiscard]] bool check_size(stage& s, packet& p) noexcept;

/// False: the packet's route leads nowhere, or does not take its size, or there is no room for its
/// Ethernet header; it is dropped.
[[nodiscard]] bool check_route(stage& s, packet& p) noexcept;

[[nodiscard]] inline wire::be16 ethertype_of(const packet& p) noexcept {
    return wire::be16(p.family == ipsec::family::ipv4 ? wire::ethertype_ipv4
                                                      : wire::ethertype_ipv6);
}

/// As write_ethernet(), where there are tags.
void write_tagged(packet& p, const wire::mac_address& to, const wire::mac_address& from,
                  const vlan_tags& tags) noexcept;

/// Bytes of the Ethernet header and tags with which packets leave.
[[nodiscard]] inline unsigned ethernet_length(const adjacency& next) noexcept {
    if (next.kind == adjacency_kind::bare) return 0;
    return static_cast<unsigned>(sizeof(wire::ethernet_header)) + next.tags.length;
}

/// Puts an Ethernet header and VLAN tags in front.  The caller has checked the headroom.
inline void write_ethernet(packet& p, const wire::mac_address& to, const wire::mac_address& from,
                           const vlan_tags& tags) noexcept {
    if (tags.length != 0) [[unlikely]] {
        write_tagged(p, to, from, tags);
        return;
    }
    p.pull(-static_cast<int>(sizeof(wire::ethernet_header)));
    auto& frame = *reinterpret_cast<wire::ethernet_header*>(p.data);
    frame.destination = to;
    frame.source = from;
    frame.type = ethertype_of(p);
}

/// Writes the Ethernet header and moves `p` to the port and interface it leaves by.  False: the
/// next hop has no MAC address yet; nothing has changed.
[[nodiscard]] inline bool address_frame(packet& p) noexcept {
    const adjacency& next = *p.next;
    if (next.kind == adjacency_kind::unresolved) return false;
    p.port = next.port;
    p.interface = next.interface;
    if (next.kind != adjacency_kind::bare)
        write_ethernet(p, next.destination, next.source, next.tags);
    return true;
}

/// Puts an Ethernet header before a packet that came out of an SA and is for the machine, as if the
/// interface it came in on had received it.
void address_host_frame(packet& p, const fib& routes) noexcept;

/// The address whose MAC `p` waits for.
[[nodiscard]] ipsec::address next_hop_of(const packet& p) noexcept;

} // namespace esplane::fastpath

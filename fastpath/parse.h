// SPDX-License-Identifier: Apache-2.0
//
// From a received frame to an IP packet with its flow known.
//
// Checks every length before it believes it, and the IPv4 header's checksum unless the device has
// found it right.  Completes the upper-layer checksums that a virtual device left unfinished. Takes
// off VLAN tags: with its port they name the interface a packet came in by.  Does not: reassemble,
// follow source routes.
#pragma once

#include "fastpath/stage.h"
#include "lib/ipsec/selector.h"

namespace esplane::fastpath {

/// Parses the IP packet at p.data, which came in by p.interface.  One that is neither for the
/// machine nor made by it must have addresses that may be forwarded.  Sets length (trimmed to what
/// the IP header says), family, protocol, tos, flags, l4_offset, ports, next.  Anything but none:
/// the packet is to be dropped for that reason; nothing of the buffer has changed.
///
/// from_wire   whether it came in by a port as it is: a virtual device may have left the
/// upper-layer
///             checksum to us, and a fragment is refused.  Of other fragments the ports are 0,
///             which no selector with ports matches, as in the kernel
[[nodiscard]] drop_reason parse_ip(packet& p, const fib& routes, bool from_wire) noexcept;

/// Of a packet whose family is known.
[[nodiscard]] inline ipsec::address source_of(const packet& p) noexcept {
    return p.family == ipsec::family::ipv4 ? ipsec::address::v4(p.ipv4().source)
                                           : ipsec::address::v6(p.ipv6().source);
}

/// A parsed packet's flow, as selectors take it.
[[nodiscard]] inline ipsec::flow flow_of(const packet& p) noexcept {
    ipsec::flow f;
    f.source = source_of(p);
    f.destination = p.family == ipsec::family::ipv4 ? ipsec::address::v4(p.ipv4().destination)
                                                    : ipsec::address::v6(p.ipv6().destination);
    f.source_port = p.source_port;
    f.destination_port = p.destination_port;
    f.protocol = p.protocol;
    return f;
}

/// Of a parsed packet's addresses, protocol and ports, or the SPI: what chooses among hops of equal
/// cost.
[[nodiscard]] std::uint32_t flow_hash_of(const packet& p) noexcept;

/// Sets the ports, or what ipsec::flow has in their place, of a packet whose family, protocol and
/// l4_offset are known.  Anything but none: there are not enough bytes for them.
[[nodiscard]] drop_reason read_ports(packet& p) noexcept;

/// Completes the upper-layer checksum of an IP packet that is not parsed, where a virtual device
/// left it unfinished.  Nothing else changes.
void complete_checksum(const packet& ip) noexcept;

/// Whether a packet for the machine, its ports known, is ESP in UDP (RFC 3948): to a port that
/// carries it, not a keepalive, no non-ESP marker.
[[nodiscard]] bool is_esp_in_udp(const packet& p, const tables& shared) noexcept;

/// IP packets that the machine itself sends into interfaces: `next`, their way out, stays.
void parse_own(stage& s, std::span<packet> packets, packet_list& clear) noexcept;

/// IP packets that the machine's stack sends, or forwards, into the port that is the machine.
void parse_from_stack(stage& s, std::span<packet> packets, packet_list& clear) noexcept;

/// Sorts frames of one port: ESP for the machine to `esp`, everything else that is IP to `clear`.
///
/// ethernet   whether frames of this burst begin with an Ethernet header
void parse(stage& s, std::span<packet> frames, bool ethernet, packet_list& esp,
           packet_list& clear) noexcept;

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// The part of an IP packet that ESP in transport mode leaves in front of itself (RFC 4303
// section 3.1.1), and the upper-layer checksum behind it.
//
//   IPv4   [ IP, options ]                                          | ESP | TCP ...
//   IPv6   [ IP ][ hop-by-hop, destination options, routing ]       | ESP | destination options,
//   ...
#pragma once

#include "fastpath/packet.h"

namespace esplane::fastpath {

struct ip_front {
    std::uint32_t length = 0;  ///< bytes
    std::uint32_t next_at = 0; ///< offset of the field that says what comes behind it
};

/// Of a parsed packet that is no fragment: all up to its upper layer.
[[nodiscard]] ip_front front_of(const packet& p) noexcept;

/// Of the same, what stays in front of ESP: options for the last destination, behind a routing
/// header, do not (the kernel's ip6_find_1stfragopt).
[[nodiscard]] ip_front front_before_esp(const packet& p) noexcept;

/// Makes the header say that `protocol` comes behind it, and p.length bytes are there in all.
void rewrite_front(packet& p, const ip_front& front, std::uint8_t protocol) noexcept;

/// Computes the checksum of a parsed packet whose addresses a NAT has changed under ESP: RFC 3948
/// section 3.1.2.  TCP, UDP (unless it has none) and ICMPv6; no other covers addresses that a NAT
/// would leave working.
void renew_checksum(packet& p) noexcept;

/// The checksum of the UDP header at p.l4_offset over all that follows: IPv6 asks for one (RFC 8200
/// section 8.1), also around ESP.
void write_udp_checksum(packet& p) noexcept;

} // namespace esplane::fastpath

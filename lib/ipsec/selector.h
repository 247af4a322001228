// SPDX-License-Identifier: Apache-2.0
//
// Which packets: a traffic selector (RFC 4301 section 4.4.1.1) in the form XFRM gives it, and the
// flow of one packet that it is held against.
#pragma once

#include <cstdint>
#include <string>

#include "lib/ipsec/address.h"

namespace esplane::ipsec {

/// What a packet shows to selectors.
///
/// Ports are the TCP, UDP, UDP-Lite, SCTP or DCCP ports.  As the kernel has it, they hold the type
/// and the code of ICMP and ICMPv6; the type of the IPv6 Mobility Header and 0; the upper and the
/// lower half of the GRE key.  For other protocols, and GRE without a key, both are 0.
struct flow {
    address source;
    address destination;
    wire::be16 source_port;
    wire::be16 destination_port;
    std::uint8_t protocol = 0;
};

/// XFRM's selector.  A field with prefix length, mask or protocol 0 matches everything.
struct selector {
    address source;
    address destination;
    std::uint8_t source_prefix = 0;      ///< bits
    std::uint8_t destination_prefix = 0; ///< bits
    wire::be16 source_port;
    wire::be16 source_port_mask;
    wire::be16 destination_port;
    wire::be16 destination_port_mask;
    std::uint8_t protocol = 0;
    /// unspecified: any family (only SAs may have that).
    family fam = family::unspecified;
    std::int32_t ifindex = 0; ///< carried and compared; 0 = any
    std::uint32_t user = 0;   ///< carried and compared

    /// Says whether the flow is covered.  An unspecified family covers both.
    [[nodiscard]] bool matches(const flow& f) const noexcept;
    /// Says whether there are flows that both cover.  Neither has an unspecified family.
    [[nodiscard]] bool overlaps(const selector& other) const noexcept;
    /// "10.1.0.0/24 10.2.0.0/24 proto 17 sport 500": for people.
    [[nodiscard]] std::string to_string() const;

    friend bool operator==(const selector&, const selector&) = default;
};

} // namespace esplane::ipsec

// SPDX-License-Identifier: Apache-2.0
//
// The tunnels that esplane and the Linux kernel are held against each other with, and the `ip`
// commands that set them up.
//
// Tunnel i carries host number 256 * (i + 1) + 10 of site 1 to the same of site 2:
//
//   10.1.i+1.0/24 or fd01::(i+1)00/120  ---  10.2.i+1.0/24 or fd02::(i+1)00/120
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/support/lab.h"

namespace esplane::tests {

struct tunnel {
    unsigned index = 0;
    std::string name; ///< "aes128-gcm16 v4-in-v4 udp esn window 32"
    ipsec::family inner = ipsec::family::ipv4;
    tunnel_options options; ///< if_id not 0: a route leads into it, and its policies cover all
};

/// " aead NAME KEY BITS" and so on: algorithms as `ip xfrm state` takes them.
[[nodiscard]] std::string algorithm_words(const ipsec::algorithms& a);

/// Of every suite, 16: families, encapsulation and ESN in all combinations.  Windows take turns:
/// each meets every such combination under some suite.  Their index has room in one byte.
[[nodiscard]] std::vector<tunnel> all_tunnels();

/// By route: an interface each, on both sides.
[[nodiscard]] std::vector<tunnel> routed_tunnels();

/// The prefix that a site's hosts of a tunnel have.
[[nodiscard]] std::string network_of(const tunnel& t, unsigned site);

/// The number of the last packet before the first; with ESN the low half wraps in the middle of
/// `packets`.
[[nodiscard]] std::uint32_t sequence_before(const tunnel& t, std::uint32_t packets);

/// SAs and policies of one site as lines for `ip -batch`.
/// Those of tunnels by route follow interface_lines().
[[nodiscard]] std::string xfrm_lines(std::span<const tunnel> tunnels, unsigned site,
                                     std::uint32_t packets);

/// The interfaces and routes of Linux's site, for tunnels by route, as lines for `ip -batch`.
[[nodiscard]] std::string interface_lines(std::span<const tunnel> tunnels, unsigned site,
                                          const std::string& device);

/// The packet with this number, as sent by a host of site `from`.  Length, traffic class, hop limit
/// and DF follow from the number.
[[nodiscard]] packet_spec spec_of(const tunnel& t, unsigned from, std::uint32_t number);
/// make_packet, and with IPv6 a flow label that follows from the number.
[[nodiscard]] frame make_labelled(const packet_spec& spec);

} // namespace esplane::tests

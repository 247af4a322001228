// SPDX-License-Identifier: Apache-2.0
//
// rtnetlink messages as control's terms: links, addresses, rules, routes, neighbours.
//
// Each function reads one message and copies what it needs; nullopt where the message is not of
// that kind, is malformed, or says something that forwarding does not look at.
// Threads: any.
#pragma once

#include <cstdint>
#include <optional>

#include "lib/control/network.h"

struct nlmsghdr;

namespace esplane::xfrm {

/// A rule of `ip rule`.
struct routing_rule {
    ipsec::family fam = ipsec::family::unspecified;
    std::uint32_t priority = 0;
    std::uint32_t table = 0;
    bool plain = false; ///< "from all lookup TABLE" and nothing else
};

/// RTM_NEWLINK.
[[nodiscard]] std::optional<control::link> parse_link(const nlmsghdr& message);
/// RTM_NEWADDR.
[[nodiscard]] std::optional<control::interface_address> parse_address(const nlmsghdr& message);
/// RTM_NEWRULE.
[[nodiscard]] std::optional<routing_rule> parse_rule(const nlmsghdr& message);
/// RTM_NEWROUTE; of several next hops the first that is alive.  Left out: cloned and multicast
/// routes, those for a TOS or a source, "throw".
[[nodiscard]] std::optional<control::route> parse_route(const nlmsghdr& message);
/// RTM_NEWNEIGH and RTM_DELNEIGH of IPv4 and IPv6.  A deleted one is not resolved.
[[nodiscard]] std::optional<control::neighbour> parse_neighbour(const nlmsghdr& message);

} // namespace esplane::xfrm

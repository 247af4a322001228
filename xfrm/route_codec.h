// SPDX-License-Identifier: Apache-2.0
//
// rtnetlink messages as control's terms: links, addresses, rules, routes, next hops, neighbours.
//
// Each function reads one message and copies what it needs; nothing where the message is not of
// that kind, is malformed, or says something that forwarding does not look at.
// Threads: any.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "lib/control/network.h"

struct nlmsghdr;

namespace esplane::xfrm {

/// What a link is, and what of its state decides whether the kernel keeps its routes.
struct link_message {
    control::link link; ///< vrf only of a VRF itself; whoever knows its master
                        /// < fills in the others'
    bool gone = false;
    std::uint32_t flags = 0; ///< IFF_UP, IFF_LOWER_UP
};

/// A rule of `ip rule`.
struct routing_rule {
    enum class reach : std::uint8_t {
        everything,  ///< "from all lookup TABLE" and nothing else
        l3mdev,      ///< "from all lookup [l3mdev-table]": each VRF's own table
        conditional, ///< for some traffic only
        own,         ///< of host_routes: what it leads away has come to us already
    };
    std::uint32_t priority = 0;
    std::uint32_t table = 0;
    reach what = reach::conditional;
};

/// One way out of the machine.
struct next_hop {
    int ifindex = 0;        ///< 0 where the kernel would wrap the packet (MPLS, SRv6): not ours
    ipsec::address gateway; ///< of either family; unspecified = on the link
    std::uint8_t weight = 1;
    bool dead = false; ///< the kernel passes it over

    friend bool operator==(const next_hop&, const next_hop&) = default;
};

/// What a route says, whatever its prefix.
struct route_path {
    control::route_kind kind = control::route_kind::unicast;
    std::uint32_t mtu = 0;
    ipsec::address preferred_source;
    std::uint32_t nexthop_id = 0; ///< of `ip nexthop`, which then has the hops; 0 = none
    bool advertised = false;      ///< by an IPv6 router
    std::vector<next_hop> hops;

    friend bool operator==(const route_path&, const route_path&) = default;
};

/// Where a new route stands among those of its table, prefix and metric.
enum class route_place : std::uint8_t { first, last, instead };

struct route_message {
    ipsec::address destination;
    std::uint8_t prefix = 0;
    std::uint32_t table = 0;
    std::uint32_t metric = 0;
    route_path path;
    route_place place = route_place::first;
    bool gone = false;
};

/// `ip nexthop`: a hop, or a group of them.
struct nexthop_message {
    struct member {
        std::uint32_t id = 0;
        std::uint8_t weight = 1;
        friend bool operator==(const member&, const member&) = default;
    };
    std::uint32_t id = 0;
    bool gone = false;
    bool blackhole = false;
    next_hop hop;
    std::vector<member> group;

    friend bool operator==(const nexthop_message&, const nexthop_message&) = default;
};

/// RTM_NEWLINK and RTM_DELLINK.
[[nodiscard]] std::optional<link_message> parse_link(const nlmsghdr& message);
/// RTM_NEWADDR and RTM_DELADDR.
[[nodiscard]] std::optional<control::interface_address> parse_address(const nlmsghdr& message);
/// RTM_NEWRULE.
[[nodiscard]] std::optional<routing_rule> parse_rule(const nlmsghdr& message);
/// RTM_NEWROUTE and RTM_DELROUTE.  Left out: cloned and multicast routes, those for a TOS or a
/// source, "throw".
///
/// into  keeps its memory from one call to the next; undefined where this
/// returns false
[[nodiscard]] bool parse_route(const nlmsghdr& message, route_message& into);
/// RTM_NEWNEXTHOP and RTM_DELNEXTHOP.
[[nodiscard]] std::optional<nexthop_message> parse_nexthop(const nlmsghdr& message);
/// RTM_NEWNEIGH and RTM_DELNEIGH of IPv4 and IPv6.  A deleted one is not resolved.
[[nodiscard]] std::optional<control::neighbour> parse_neighbour(const nlmsghdr& message);

} // namespace esplane::xfrm

// SPDX-License-Identifier: Apache-2.0
//
// The machine's forwarding state as control describes it: links, addresses, routes, neighbours.
//
// xfrm/route reads it from the kernel over rtnetlink; fastpath/fib makes tables of it.  Tests and
// the offline engine write it by hand.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/ipsec/address.h"
#include "lib/wire/headers.h"

namespace esplane::control {

enum class link_kind : std::uint8_t { other, vlan, vrf, bond, tun };

struct link {
    int ifindex = 0;
    std::string name;
    wire::mac_address mac{};
    std::uint32_t mtu = 0; ///< bytes from the IP header on
    bool up = false;
    link_kind kind = link_kind::other;
    int parent = 0;                  ///< vlan: the ifindex of the link its frames are tagged on
    std::uint16_t vlan_id = 0;       ///< vlan: 1 to 4094
    std::uint16_t vlan_protocol = 0; ///< vlan: 0x8100 or 0x88a8
    int master = 0;                  ///< ifindex of the bond, bridge or VRF it belongs to; 0 = none
    std::uint32_t vrf = 0;           ///< table of the VRF it is, or belongs to; 0 = none

    friend bool operator==(const link&, const link&) = default;
};

struct interface_address {
    int ifindex = 0;
    ipsec::address local;
    std::uint8_t prefix = 0;

    friend bool operator==(const interface_address&, const interface_address&) = default;
};

enum class route_kind : std::uint8_t {
    unicast,
    local,
    broadcast,
    blackhole,
    unreachable,
    prohibit
};

/// One of several ways of equal cost.
struct hop {
    int ifindex = 0;
    ipsec::address gateway; ///< unspecified = on the link
    std::uint8_t weight = 1;

    friend bool operator==(const hop&, const hop&) = default;
};

/// The way to a destination.  With several of one destination the lowest metric wins.
struct route {
    ipsec::address destination;
    std::uint8_t prefix = 0;
    route_kind kind = route_kind::unicast;
    std::uint32_t table = 254; ///< main = 254, local = 255
    std::uint32_t metric = 0;
    int ifindex = 0;        ///< where it leaves; 0 for the kinds that leave nowhere
    ipsec::address gateway; ///< unspecified = on the link
    std::uint32_t mtu = 0;  ///< RTAX_MTU; 0 = the link's
    ipsec::address preferred_source;
    /// Table of the VRF whose traffic it is for; 0 = all other.  As in the kernel, a VRF's traffic
    /// that finds no route of its own goes by those of 0: an unreachable default keeps it in.
    std::uint32_t vrf = 0;
    std::uint8_t weight = 1; ///< of the first hop, where there are more
    std::vector<hop> more{}; ///< further hops of equal cost: flows are spread by their hash

    friend bool operator==(const route&, const route&) = default;
};

struct neighbour {
    int ifindex = 0;
    ipsec::address ip;
    wire::mac_address mac{};
    bool resolved = false; ///< mac may be used

    friend bool operator==(const neighbour&, const neighbour&) = default;
};

/// Everything at one moment.  `routes` holds those that forwarding uses, from all its tables, in
/// order of the rules' preference: for one prefix the first entry wins.
struct network {
    std::vector<link> links;
    std::vector<interface_address> addresses;
    std::vector<route> routes;
    std::vector<neighbour> neighbours;
};

/// What became of a network from one moment to the next.
struct network_change {
    struct route_change {
        route what; ///< the route that wins now for its VRF and prefix; gone: of these alone
        bool gone = false;
    };
    struct neighbour_change {
        neighbour what;
        bool gone = false;
    };
    bool interfaces = false;    ///< links, addresses or VRFs are others: read them all again
    bool routes_afresh = false; ///< all routes known before are gone; `routes` follows
    bool continues = false;     ///< the next change has more; they count when all are there
    std::vector<route_change> routes;
    std::vector<neighbour_change> neighbours;

    [[nodiscard]] bool empty() const noexcept {
        return !interfaces && !routes_afresh && routes.empty() && neighbours.empty();
    }
};

} // namespace esplane::control

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

struct link {
    int ifindex = 0;
    std::string name;
    wire::mac_address mac{};
    std::uint32_t mtu = 0; ///< bytes from the IP header on
    bool up = false;
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

/// One way to a destination.  With several of one destination the lowest metric wins.
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

} // namespace esplane::control

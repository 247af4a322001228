// SPDX-License-Identifier: Apache-2.0
//
// Tunnels by route, packet by packet: which policies and SAs a packet meets follows from the
// interface its route leads into, or that its SA names.
//
//   10.1.0.0/16 --- [plain] gateway 1 [secure] ======= [secure] gateway 2 [plain] --- 10.2.0.0/16
//                     ipsec10, ipsec11                   ipsec10, ipsec11
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "lib/wire/checksum.h"
#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using enum ipsec::policy_direction;

using gateway_ports::plain;
using gateway_ports::secure;

ipsec::policy bypass(ipsec::policy_direction dir, std::uint32_t if_id) {
    ipsec::policy p;
    p.dir = dir;
    p.sel.fam = ipsec::family::ipv4;
    p.if_id = if_id;
    return p;
}

ipsec::policy block(ipsec::policy_direction dir, std::uint32_t if_id) {
    ipsec::policy p = bypass(dir, if_id);
    p.action = ipsec::policy_action::block;
    return p;
}

/// A tunnel like the lab's, its policies for everything.
ipsec::policy protect(const lab& l, ipsec::policy_direction dir, std::uint32_t if_id,
                      std::uint32_t reqid = 1) {
    const std::string here = "192.168.77." + std::to_string(l.site);
    const std::string there = "192.168.77." + std::to_string(3 - l.site);
    ipsec::policy p = bypass(dir, if_id);
    ipsec::template_ t;
    t.fam = ipsec::family::ipv4;
    t.source = *ipsec::address::parse(dir == out ? here : there);
    t.id.destination = *ipsec::address::parse(dir == out ? there : here);
    t.reqid = reqid;
    p.templates = {t};
    return p;
}

struct RouteTunnel : testing::Test {
    lab one{1}, two{2};
    const tunnel_options ten{.if_id = 10};
    const tunnel_options eleven{.spi = 0x2000, .if_id = 11, .key_seed = 7};

    void connect(lab& l, const tunnel_options& o) {
        l.add_interface(o.if_id, std::to_string(o.if_id) + ".0.0.0/8"); // nobody's
        l.add_sas(o);
        for (const auto dir : {out, in, fwd})
            l.add_policy(protect(l, dir, o.if_id));
    }
    /// Both gateways, everything there but routes.
    void connect(const tunnel_options& o) {
        connect(one, o);
        connect(two, o);
    }
    static std::uint32_t spi_of(const frame& esp) {
        return wire::load<wire::be32>(&esp.at(20)).host();
    }
    std::vector<frame> leaves_one(const packet_spec& p = {}) {
        one.push(plain, {make_packet(p)});
        return one.sent(secure);
    }
};

TEST_F(RouteTunnel, ARouteIntoAnInterfaceProtectsWhatTakesIt) {
    connect(ten);
    one.add_route(10, "10.2.0.0/16");
    const auto wire = leaves_one({.number = 42});
    ASSERT_EQ(wire.size(), 1u);
    EXPECT_EQ(spi_of(wire[0]), 0x1000u);
    two.push(secure, wire);
    const auto arrived = two.sent(plain);
    ASSERT_EQ(arrived.size(), 1u);
    EXPECT_EQ(number_of(arrived[0]), 42u);
    EXPECT_TRUE(one.worker->counters().balanced());
    EXPECT_TRUE(two.worker->counters().balanced());
}

TEST_F(RouteTunnel, WithoutARouteIntoItsInterfaceAPolicyIsNotAsked) {
    connect(ten);
    const auto wire = leaves_one({.number = 42});
    ASSERT_EQ(wire.size(), 1u);
    EXPECT_EQ(number_of(wire[0]), 42u) << "in clear, as routed";
}

TEST_F(RouteTunnel, ARouteThatMovesTakesItsPacketsAlongAtOnce) {
    connect(ten);
    connect(eleven);
    one.add_route(10, "10.2.0.0/16");
    EXPECT_EQ(spi_of(leaves_one().at(0)), 0x1000u);
    one.withdraw_route("10.2.0.0/16");
    one.add_route(11, "10.2.0.0/16");
    EXPECT_EQ(spi_of(leaves_one().at(0)), 0x2000u);
    one.withdraw_route("10.2.0.0/16");
    EXPECT_EQ(number_of(leaves_one({.number = 7}).at(0)), 7u);
}

TEST_F(RouteTunnel, OverlappingSelectorsOfTwoInterfacesDoNotMeet) {
    connect(ten);
    connect(eleven);
    one.add_route(10, "10.2.0.0/24");
    one.add_route(11, "10.2.1.0/24");
    EXPECT_EQ(spi_of(leaves_one({.host = 10}).at(0)), 0x1000u);
    EXPECT_EQ(spi_of(leaves_one({.host = 256 + 10}).at(0)), 0x2000u);
}

TEST_F(RouteTunnel, WhatItsPoliciesDoNotProtectNeverLeaves) {
    one.add_interface(10, "10.2.0.0/16");
    EXPECT_TRUE(leaves_one().empty());
    EXPECT_EQ(one.drops(drop_reason::interface_unprotected), 1u) << "no policy";
    one.add_policy(bypass(out, 10));
    EXPECT_TRUE(leaves_one().empty());
    EXPECT_EQ(one.drops(drop_reason::interface_unprotected), 2u) << "a bypass";
    one.add_policy(protect(one, out, 11));
    EXPECT_TRUE(leaves_one().empty());
    EXPECT_EQ(one.drops(drop_reason::interface_unprotected), 3u) << "another interface's";
    ASSERT_TRUE(one.control.delete_policy({out, bypass(out, 10).sel, 0, 10}, {}));
    one.add_policy(protect(one, out, 10));
    EXPECT_TRUE(leaves_one().empty());
    EXPECT_EQ(one.drops(drop_reason::sa_missing), 1u) << "no SA";
    one.add_sas({.if_id = 11});
    EXPECT_TRUE(leaves_one().empty());
    EXPECT_EQ(one.drops(drop_reason::sa_missing), 2u) << "another interface's SA";
}

// ip_forward() asks the policies of no interface before the packet reaches xfrmi_xmit().
TEST_F(RouteTunnel, APolicyOfNoInterfaceComesFirst) {
    connect(ten);
    one.add_route(10, "10.2.0.0/16");
    one.add_policy(block(out, 0));
    EXPECT_TRUE(leaves_one().empty());
    EXPECT_EQ(one.drops(drop_reason::policy_block), 1u);
    ASSERT_TRUE(one.control.delete_policy({out, block(out, 0).sel, 0, 0}, {}));
    one.add_policy(protect(one, out, 0, 5));
    one.add_sas({.spi = 0x3000, .reqid = 5, .key_seed = 9});
    EXPECT_EQ(spi_of(leaves_one().at(0)), 0x3000u);
}

TEST_F(RouteTunnel, AnSaOfAnInterfaceCarriesNothingElse) {
    one.add_sas({.if_id = 10});
    one.add_policy(protect(one, out, 0));
    EXPECT_TRUE(leaves_one().empty());
    EXPECT_EQ(one.drops(drop_reason::sa_missing), 1u);
}

TEST_F(RouteTunnel, WhatComesOutOfAnSaIsHeldAgainstThePoliciesOfItsInterface) {
    connect(ten);
    one.add_route(10, "10.2.0.0/16");
    const auto wire = leaves_one();
    two.add_policy(block(fwd, 0));
    two.push(secure, {wire});
    EXPECT_EQ(two.sent(plain).size(), 1u);
    ASSERT_TRUE(two.control.delete_policy({fwd, block(fwd, 0).sel, 0, 10}, {}));
    two.push(secure, leaves_one());
    EXPECT_EQ(two.drops(drop_reason::policy_missing), 1u);
}

TEST_F(RouteTunnel, WhatComesOutOfAnSaIsRoutedInTheVrfOfItsInterface) {
    connect(ten);
    one.add_route(10, "10.2.0.0/16");
    two.network.links.back().vrf = 77;
    control::route nowhere;
    nowhere.destination = *ipsec::address::parse("10.2.0.0");
    nowhere.prefix = 16;
    nowhere.kind = control::route_kind::blackhole;
    nowhere.vrf = 77;
    two.network.routes.push_back(nowhere);
    two.publish_network();
    two.push(secure, leaves_one());
    EXPECT_EQ(two.drops(drop_reason::route_denied), 1u);
    EXPECT_TRUE(two.sent(plain).empty());
}

// As seen on Linux 6.12: an SA with an if_id whose interface is not there is held against the
// policies of none.
TEST_F(RouteTunnel, WithoutItsInterfaceThePoliciesOfNoneAdmit) {
    connect(one, ten);
    one.add_route(10, "10.2.0.0/16");
    two.add_sas(ten);
    two.add_policy(protect(two, fwd, 10));
    two.push(secure, leaves_one());
    EXPECT_EQ(two.drops(drop_reason::policy_missing), 1u);
    two.add_policy(protect(two, fwd, 0));
    two.push(secure, leaves_one());
    EXPECT_EQ(two.sent(plain).size(), 1u);
}

TEST_F(RouteTunnel, AnInterfaceThatIsDownIsNotThere) {
    connect(ten);
    one.add_route(10, "10.2.0.0/16");
    two.network.links.back().up = false;
    two.publish_network();
    two.push(secure, leaves_one());
    EXPECT_EQ(two.drops(drop_reason::policy_missing), 1u);
    two.add_policy(protect(two, in, 0));
    two.push(secure, leaves_one({.host = 1}));
    EXPECT_EQ(two.punted(secure).size(), 1u) << "as if it had come by the port";
}

TEST_F(RouteTunnel, AnUpdateMovesAnSaToAnotherInterface) {
    connect(ten);
    one.add_route(10, "10.2.0.0/16");
    EXPECT_EQ(leaves_one().size(), 1u);
    ipsec::sa moved = one.control.get_sa(one.sa_of(ten, true))->clone();
    moved.if_id = 11;
    ASSERT_TRUE(one.control.update_sa(std::move(moved), {}, one.clock));
    EXPECT_TRUE(leaves_one().empty());
    EXPECT_EQ(one.drops(drop_reason::sa_missing), 1u);
}

TEST_F(RouteTunnel, WhatTheMachineSendsIntoAnInterfaceIsProtected) {
    connect(ten);
    const packet_spec own{.number = 5, .ttl = 1};
    one.send_own(10, {make_packet(own)});
    const auto wire = one.sent(secure);
    ASSERT_EQ(wire.size(), 1u) << "no hop is counted: the machine is its source";
    EXPECT_EQ(spi_of(wire[0]), 0x1000u);
    two.push(secure, wire);
    EXPECT_EQ(two.drops(drop_reason::ttl_exceeded), 1u) << "it arrived with its TTL of 1";
}

TEST_F(RouteTunnel, WhatTheMachineSendsIntoAnInterfaceMeetsNoInOrFwdPolicy) {
    connect(ten);
    for (const auto dir : {in, fwd})
        one.add_policy(block(dir, 0));
    one.send_own(10, {make_packet({})});
    EXPECT_EQ(one.sent(secure).size(), 1u);
    EXPECT_TRUE(one.worker->counters().balanced());
}

/// What is the machine's own in the first port's VRF is somebody else's outside of it.
TEST_F(RouteTunnel, WhatTheMachineSendsIsLookedUpInTheVrfOfItsInterface) {
    constexpr std::uint32_t vrf = 5;
    connect(ten);
    one.network.links[0].vrf = vrf;
    control::route own;
    own.destination = *ipsec::address::parse("10.2.0.10");
    own.prefix = 32;
    own.kind = control::route_kind::local;
    own.table = own.vrf = vrf;
    own.ifindex = one.network.links[0].ifindex;
    one.network.routes.push_back(own);
    one.publish_network();
    frame from_loopback = make_packet({});
    auto ip = wire::load<wire::ipv4_header>(from_loopback.data());
    ip.source = wire::be32(0x7f000001);
    ip.checksum = {};
    ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
    wire::store(from_loopback.data(), ip);
    one.send_own(10, {from_loopback});
    EXPECT_EQ(one.drops(drop_reason::ip_scope), 1u);
    one.send_own(10, {make_packet({})});
    EXPECT_EQ(one.sent(secure).size(), 1u);
}

TEST_F(RouteTunnel, WhatTheMachineSendsWithoutAPolicyIsLost) {
    one.add_interface(10, "10.2.0.0/16");
    one.send_own(10, {make_packet({})});
    EXPECT_TRUE(one.sent(secure).empty());
    EXPECT_EQ(one.drops(drop_reason::interface_unprotected), 1u);
}

TEST_F(RouteTunnel, WhatComesForTheMachineGoesUpByItsInterface) {
    connect(ten);
    connect(eleven);
    one.send_own(11, {make_packet({.host = 1, .number = 6})}); // to 10.2.0.1, the gateway itself
    two.push(secure, one.sent(secure));
    const auto up = two.came_up(11);
    ASSERT_EQ(up.size(), 1u);
    EXPECT_EQ(number_of(up[0]), 6u);
    EXPECT_TRUE(two.came_up(10).empty());
    EXPECT_TRUE(two.punted(secure).empty());
    EXPECT_TRUE(two.worker->counters().balanced());
}

TEST_F(RouteTunnel, AnInterfaceThatIsRemovedTakesNoPacketAnyMore) {
    connect(ten);
    one.interfaces->remove(10);
    one.tunnels.clear();
    one.publish_network();
    EXPECT_EQ(::send(one.machine_ends.at(10).get(), "x", 1, MSG_NOSIGNAL), -1);
    EXPECT_EQ(leaves_one().size(), 1u) << "other routes are what they were";
}

TEST_F(RouteTunnel, APacketLargerThanTheInterfaceIsRefusedAndItsSourceTold) {
    connect(ten);
    one.add_route(10, "10.2.0.0/16");
    EXPECT_TRUE(leaves_one({.length = 1421}).empty());
    EXPECT_EQ(one.drops(drop_reason::too_big), 1u);
    EXPECT_EQ(one.sent(plain).size(), 1u) << "ICMP: fragmentation needed";
    EXPECT_EQ(leaves_one({.length = 1420}).size(), 1u);
}

TEST_F(RouteTunnel, EspWhoseRouteLeadsIntoAnInterfaceIsNotWrappedAgain) {
    connect(ten);
    one.add_route(10, "10.2.0.0/16");
    one.add_route(10, "192.168.77.2/32");
    EXPECT_TRUE(leaves_one().empty());
    EXPECT_EQ(one.drops(drop_reason::route_tunnel), 1u);
}

TEST_F(RouteTunnel, AnErrorDoesNotFollowARouteIntoAnInterface) {
    connect(ten);
    one.add_route(10, "10.1.0.0/16"); // where the packet's source is
    EXPECT_TRUE(leaves_one({.ttl = 1}).empty());
    EXPECT_TRUE(one.sent(plain).empty());
    EXPECT_TRUE(one.sent(secure).empty());
    EXPECT_EQ(one.drops(drop_reason::ttl_exceeded), 1u);
    EXPECT_TRUE(one.worker->counters().balanced());
}

} // namespace
} // namespace esplane::tests

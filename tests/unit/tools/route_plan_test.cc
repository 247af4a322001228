// SPDX-License-Identifier: Apache-2.0
#include "tools/route_plan.h"

#include <gtest/gtest.h>

#include "tools/routing_options.h"

namespace esplane::tools {
namespace {

using enum planned_route::way;

constexpr int device = 7;

ipsec::address ip(const std::string& text) {
    return ipsec::address::parse(text).value();
}

xfrm::host_prefix prefix(const std::string& text, unsigned length) {
    return {ip(text), static_cast<std::uint8_t>(length)};
}

/// Of `out`, with a tunnel to 192.0.2.2.
ipsec::policy protecting(std::uint32_t index, const std::string& from, unsigned from_length,
                         const std::string& to, unsigned to_length) {
    ipsec::policy p;
    p.index = index;
    p.position = index;
    p.priority = 100;
    p.sel.fam = ip(to).fam;
    p.sel.source = ip(from);
    p.sel.source_prefix = static_cast<std::uint8_t>(from_length);
    p.sel.destination = ip(to);
    p.sel.destination_prefix = static_cast<std::uint8_t>(to_length);
    p.templates.emplace_back();
    p.templates.back().id.destination = ip("192.0.2.2");
    p.templates.back().source = ip("192.0.2.1");
    return p;
}

ipsec::policy passing(ipsec::policy p) {
    p.templates.clear();
    return p;
}

control::network with_addresses(std::vector<control::interface_address> all) {
    control::network n;
    n.addresses = std::move(all);
    return n;
}

class RoutePlan : public ::testing::Test {
  protected:
    /// What a destination's route does; nullopt: it has none.
    std::optional<planned_route::way> way(const std::string& to, unsigned length) const {
        const auto r = plan_.route_to(prefix(to, length));
        return r ? std::optional(r->what) : std::nullopt;
    }

    routing_options options_;
    route_plan plan_{options_, {}};
};

TEST_F(RoutePlan, WhatIsProtectedOrBlockedGoesIntoTheDevice) {
    plan_.learn(protecting(9, "10.1.0.0", 24, "10.2.0.0", 16));
    ipsec::policy block = passing(protecting(17, "0.0.0.0", 0, "10.9.0.0", 16));
    block.action = ipsec::policy_action::block;
    plan_.learn(block);
    EXPECT_EQ(way("10.2.0.0", 16), into);
    EXPECT_EQ(way("10.9.0.0", 16), into);
    EXPECT_EQ(way("10.3.0.0", 16), std::nullopt);
    plan_.forget(9);
    EXPECT_EQ(way("10.2.0.0", 16), std::nullopt);
}

TEST_F(RoutePlan, PoliciesOfOtherDirectionsHaveNoRoutes) {
    for (const auto dir : {ipsec::policy_direction::in, ipsec::policy_direction::fwd}) {
        ipsec::policy p = protecting(8, "10.2.0.0", 16, "10.1.0.0", 24);
        p.dir = dir;
        EXPECT_TRUE(plan_.learn(p).empty());
    }
    EXPECT_TRUE(plan_.destinations().empty());
}

TEST_F(RoutePlan, ADestinationKeepsItsRouteUntilItsLastPolicyIsGone) {
    plan_.learn(protecting(9, "10.1.0.0", 24, "10.2.0.0", 16));
    plan_.learn(protecting(17, "10.1.1.0", 24, "10.2.0.0", 16));
    plan_.forget(9);
    EXPECT_EQ(way("10.2.0.0", 16), into);
    plan_.forget(17);
    EXPECT_EQ(way("10.2.0.0", 16), std::nullopt);
}

TEST_F(RoutePlan, WhatPassesGoesAround) {
    plan_.learn(passing(protecting(9, "0.0.0.0", 0, "10.3.0.0", 16)));
    EXPECT_EQ(way("10.3.0.0", 16), around);
}

TEST_F(RoutePlan, ABetterPolicyThatPassesForAllSourcesGoesAroundAWiderOneThatProtects) {
    plan_.learn(protecting(9, "10.1.0.0", 24, "0.0.0.0", 0));
    ipsec::policy pass = passing(protecting(17, "10.1.0.0", 16, "10.3.0.0", 16));
    pass.priority = 50;
    const auto touched = plan_.learn(pass);
    EXPECT_TRUE(touched.contains(prefix("10.3.0.0", 16)));
    EXPECT_EQ(way("10.3.0.0", 16), around);
}

TEST_F(RoutePlan, NothingGoesAroundThatAnotherPolicyProtects) {
    ipsec::policy pass = passing(protecting(9, "10.1.0.0", 16, "10.3.0.0", 16));
    plan_.learn(pass);
    const auto touched = plan_.learn(protecting(17, "10.0.0.0", 8, "0.0.0.0", 0));
    EXPECT_TRUE(touched.contains(prefix("10.3.0.0", 16)));
    EXPECT_EQ(way("10.3.0.0", 16), std::nullopt) << "its sources are more";
    pass.sel.source_prefix = 0;
    plan_.learn(pass);
    EXPECT_EQ(way("10.3.0.0", 16), around);
    pass.priority = 200;
    plan_.learn(pass);
    EXPECT_EQ(way("10.3.0.0", 16), std::nullopt) << "it loses";
    pass.priority = 50;
    pass.sel.protocol = 6;
    plan_.learn(pass);
    EXPECT_EQ(way("10.3.0.0", 16), std::nullopt) << "it is for TCP alone";
}

TEST_F(RoutePlan, ADestinationThatOneProtectsAndOnePassesGoesIntoTheDevice) {
    ipsec::policy pass = passing(protecting(9, "0.0.0.0", 0, "10.2.0.0", 16));
    pass.priority = 1;
    plan_.learn(pass);
    plan_.learn(protecting(17, "10.1.0.0", 24, "10.2.0.0", 16));
    EXPECT_EQ(way("10.2.0.0", 16), into);
}

TEST_F(RoutePlan, TheSourceIsAnAddressInsideTheSelectorVirtualOnesFirst) {
    plan_.set_addresses(with_addresses({{1, ip("127.0.0.1"), 8},
                                        {2, ip("10.1.0.5"), 24},
                                        {2, ip("10.1.0.7"), 32},
                                        {2, ip("192.0.2.1"), 24}}),
                        device);
    plan_.learn(protecting(9, "10.1.0.0", 24, "10.2.0.0", 16));
    EXPECT_EQ(plan_.route_to(prefix("10.2.0.0", 16))->source, ip("10.1.0.7"));
    plan_.learn(protecting(9, "10.1.0.0", 29, "10.2.0.0", 16));
    plan_.set_addresses(with_addresses({{2, ip("10.1.0.5"), 24}}), device);
    EXPECT_EQ(plan_.route_to(prefix("10.2.0.0", 16))->source, ip("10.1.0.5"));
    plan_.learn(protecting(9, "10.4.0.0", 16, "10.2.0.0", 16));
    EXPECT_TRUE(plan_.route_to(prefix("10.2.0.0", 16))->source.is_any()) << "none of its own";
}

TEST_F(RoutePlan, AnAddressOfTheDeviceComesBeforeOthers) {
    plan_.set_addresses(with_addresses({{2, ip("fd01::5"), 64}, {device, ip("fd01::9"), 64}}),
                        device);
    plan_.learn(protecting(9, "fd01::", 64, "fd02::", 64));
    EXPECT_EQ(plan_.route_to(prefix("fd02::", 64))->source, ip("fd01::9"));
}

TEST_F(RoutePlan, ASelectorOfEverythingLeavesTheSourceToTheKernel) {
    plan_.set_addresses(with_addresses({{2, ip("10.1.0.5"), 24}}), device);
    plan_.learn(protecting(9, "0.0.0.0", 0, "10.2.0.0", 16));
    EXPECT_TRUE(plan_.route_to(prefix("10.2.0.0", 16))->source.is_any());
}

TEST_F(RoutePlan, AddressesOfAVrfAreNoSources) {
    control::network n = with_addresses({{2, ip("10.1.0.5"), 24}});
    n.links.push_back({.ifindex = 2, .vrf = 10});
    plan_.set_addresses(n, device);
    plan_.learn(protecting(9, "10.1.0.0", 24, "10.2.0.0", 16));
    EXPECT_TRUE(plan_.route_to(prefix("10.2.0.0", 16))->source.is_any());
}

TEST_F(RoutePlan, ThePeerInsideATunnelIsProtectedToo) {
    plan_.learn(protecting(9, "10.1.0.0", 24, "0.0.0.0", 0));
    EXPECT_TRUE(plan_.peers().empty());
    plan_.learn(protecting(17, "192.0.2.1", 32, "192.0.2.2", 32));
    EXPECT_EQ(way("192.0.2.2", 32), into);
}

class RoutePlanWithoutPeers : public RoutePlan {
  protected:
    RoutePlanWithoutPeers() {
        options_.allow_peer_ts = false;
        plan_ = route_plan(options_, {});
    }
};

TEST_F(RoutePlanWithoutPeers, ThePeerGoesPastTheDeviceWhileAPolicyCoversIt) {
    const auto touched = plan_.learn(protecting(9, "10.1.0.0", 24, "0.0.0.0", 0));
    EXPECT_TRUE(touched.contains(prefix("192.0.2.2", 32)));
    EXPECT_EQ(way("192.0.2.2", 32), past);
    EXPECT_EQ(plan_.peers(), route_plan::prefixes{prefix("192.0.2.2", 32)});
    EXPECT_TRUE(plan_.forget(9).contains(prefix("192.0.2.2", 32)));
    EXPECT_EQ(way("192.0.2.2", 32), std::nullopt);
}

TEST_F(RoutePlanWithoutPeers, ATunnelForThePeerAloneIsBlocked) {
    plan_.learn(protecting(9, "192.0.2.1", 32, "192.0.2.2", 32));
    EXPECT_EQ(way("192.0.2.2", 32), nowhere);
}

TEST_F(RoutePlanWithoutPeers, TransportModeIsForThePeerAndWorks) {
    ipsec::policy p = protecting(9, "192.0.2.1", 32, "192.0.2.2", 32);
    p.templates.back().run_mode = ipsec::mode::transport;
    plan_.learn(p);
    EXPECT_EQ(way("192.0.2.2", 32), into);
}

TEST_F(RoutePlan, PoliciesWithAnInterfaceHaveRoutesByRequestAlone) {
    ipsec::policy p = protecting(9, "10.1.0.0", 24, "10.2.0.0", 16);
    p.if_id = 5;
    plan_.learn(p);
    EXPECT_EQ(way("10.2.0.0", 16), std::nullopt);
    options_.install_routes_xfrmi = true;
    route_plan asked(options_, {});
    asked.learn(p);
    EXPECT_EQ(asked.route_to(prefix("10.2.0.0", 16))->if_id, 5u);
}

TEST_F(RoutePlan, TheSmallestMtuOfADestinationsPoliciesIsItsRoutes) {
    const auto mtu = [](const ipsec::policy& p) { return p.index == 9 ? 1400u : 1300u; };
    route_plan asks(options_, mtu);
    asks.learn(protecting(9, "10.1.0.0", 24, "10.2.0.0", 16));
    asks.learn(protecting(17, "10.1.1.0", 24, "10.2.0.0", 16));
    EXPECT_EQ(asks.route_to(prefix("10.2.0.0", 16))->mtu, 1300u);
    options_.mtu = 1280;
    route_plan told(options_, mtu);
    told.learn(protecting(9, "10.1.0.0", 24, "10.2.0.0", 16));
    EXPECT_EQ(told.route_to(prefix("10.2.0.0", 16))->mtu, 1280u);
}

TEST_F(RoutePlan, AfterAFlushNothingIsLeft) {
    plan_.learn(protecting(9, "10.1.0.0", 24, "10.2.0.0", 16));
    plan_.learn(passing(protecting(17, "0.0.0.0", 0, "10.3.0.0", 16)));
    EXPECT_EQ(plan_.forget_all(ipsec::policy_type::main).size(), 2u);
    EXPECT_TRUE(plan_.destinations().empty());
}

TEST_F(RoutePlan, AFlushIsOfOneType) {
    ipsec::policy sub = protecting(9, "10.1.0.0", 24, "10.2.0.0", 16);
    sub.type = ipsec::policy_type::sub;
    plan_.learn(sub);
    plan_.learn(protecting(17, "10.1.0.0", 24, "10.3.0.0", 16));
    plan_.forget_all(ipsec::policy_type::main);
    EXPECT_EQ(way("10.2.0.0", 16), into);
    EXPECT_EQ(way("10.3.0.0", 16), std::nullopt);
}

TEST_F(RoutePlan, ASubPolicyThatLetsPassLeadsNothingAround) {
    plan_.learn(protecting(9, "10.1.0.0", 24, "10.2.0.0", 16));
    ipsec::policy sub = passing(protecting(17, "0.0.0.0", 0, "10.2.0.0", 16));
    sub.type = ipsec::policy_type::sub;
    sub.priority = 1;
    plan_.learn(sub);
    EXPECT_EQ(way("10.2.0.0", 16), into) << "the main policy may protect";
}

TEST(RoutingOptions, AreReadByCharonsNames) {
    routing_options o;
    ASSERT_TRUE(set_routing_options(
        o, "install_routes=no,routing_table=300,routing_table_prio=0x12c,fwmark=0x10/0xff,mtu=1300,"
           "mss=1200,allow_peer_ts=no,install_routes_xfrmi=yes,roam_events=no"));
    EXPECT_EQ(o, (routing_options{.install_routes = false,
                                  .table = 300,
                                  .priority = 300,
                                  .mark = {0x10, 0xff},
                                  .unless_marked = false,
                                  .mtu = 1300,
                                  .mss = 1200,
                                  .allow_peer_ts = false,
                                  .install_routes_xfrmi = true,
                                  .roam_events = false}));
}

TEST(RoutingOptions, WithoutAWordLeaveOutWhatCarriesTheMarkOfEsp) {
    const routing_options o;
    EXPECT_TRUE(o.unless_marked);
    EXPECT_EQ(o.mark, (ipsec::mark_mask{0xe5, 0xffffffff}));
    EXPECT_EQ(o.table, 219u);
}

TEST(RoutingOptions, RefusesWithALineThatSaysWhatThereIs) {
    routing_options o;
    for (const char* bad : {"mtu=12", "mtu=", "mtu", "fwmark=!", "fwmark=0x1/0", "fwmark=0x100/0xf",
                            "routing_table=254", "routing_table=0", "routing_table_prio=2",
                            "routing_table_prio=32766", "roam_events=maybe"}) {
        const auto set = set_routing_options(o, bad);
        ASSERT_FALSE(set) << bad;
        EXPECT_NE(set.error().text.find("give "), std::string::npos) << set.error().text;
    }
    const auto unknown = set_routing_options(o, "table=5");
    ASSERT_FALSE(unknown);
    EXPECT_NE(unknown.error().text.find("routing_table"), std::string::npos);
    EXPECT_EQ(o, routing_options{});
}

} // namespace
} // namespace esplane::tools

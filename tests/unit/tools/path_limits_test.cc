// SPDX-License-Identifier: Apache-2.0
#include "tools/path_limits.h"

#include <gtest/gtest.h>

namespace esplane::tools {
namespace {

const ipsec::address local = *ipsec::address::parse("192.0.2.1");
const ipsec::address peer = *ipsec::address::parse("192.0.2.2");
const ipsec::address peer_v6 = *ipsec::address::parse("2001:db8::2");
constexpr std::uint64_t second = 1'000'000'000;

ipsec::sa sa_to(const ipsec::address& to, std::uint32_t spi, std::uint32_t reqid = 1) {
    ipsec::sa s;
    s.id = {to, wire::be32(spi), 50};
    s.source = local;
    s.reqid = reqid;
    s.algs.run = ipsec::suite::aes128_gcm16;
    return s;
}

ipsec::policy policy_to(const ipsec::address& to, std::uint32_t index, std::uint32_t reqid = 1) {
    ipsec::policy p;
    p.index = index;
    ipsec::template_ t;
    t.id.destination = to;
    t.reqid = reqid;
    p.templates.push_back(t);
    return p;
}

class PathLimits : public ::testing::Test {
  protected:
    void add(const ipsec::sa& s) { limits.on_event(ipsec::sa_added{s, {}}); }
    void add(const ipsec::policy& p) { limits.on_event(ipsec::policy_added{p, {}}); }

    std::uint32_t route = 1500;
    std::map<ipsec::sa_id, std::optional<std::uint32_t>> told;
    path_limits limits{{.route_mtu = [this](const ipsec::address&) { return route; },
                        .limit_sa = [this](const ipsec::sa_id& id,
                                           std::optional<std::uint32_t> mtu) { told[id] = mtu; }}};
};

TEST_F(PathLimits, FollowTheRouteAndTheCostOfTheSa) {
    const ipsec::policy p = policy_to(peer, 9);
    add(p);
    EXPECT_EQ(limits.mtu_for(p), 0u);
    EXPECT_EQ(limits.smallest_mtu(), std::nullopt);
    add(sa_to(peer, 1));
    EXPECT_EQ(limits.mtu_for(p), 1446u);
    ipsec::sa other = sa_to(peer, 2);
    other.encap.emplace();
    add(other);
    EXPECT_EQ(limits.mtu_for(p), 1438u) << "the dearest SA";
    route = 1400;
    EXPECT_EQ(limits.smallest_mtu(), 1338u);
}

TEST_F(PathLimits, OfAPolicyAreThoseOfItsOwnSas) {
    add(sa_to(peer, 1, 1));
    ipsec::sa other = sa_to(peer, 2, 2);
    other.encap.emplace();
    add(other);
    EXPECT_EQ(limits.mtu_for(policy_to(peer, 9, 1)), 1446u);
    EXPECT_EQ(limits.mtu_for(policy_to(peer, 17, 2)), 1438u);
    EXPECT_EQ(limits.mtu_for(policy_to(peer_v6, 25, 1)), 0u);
}

TEST_F(PathLimits, BelieveWhatNamesAnSaOnly) {
    add(sa_to(peer, 1));
    limits.heard(sa_to(peer, 2).id, local, 1300, 0);
    limits.heard(sa_to(peer_v6, 1).id, local, 1300, 0);
    limits.heard(sa_to(peer, 1).id, peer, 1300, 0);
    limits.learnt(peer_v6, 1300, 0);
    EXPECT_TRUE(told.empty());
    limits.heard(sa_to(peer, 1).id, local, 1300, 0);
    EXPECT_EQ(told.at(sa_to(peer, 1).id), 1300u);
}

TEST_F(PathLimits, GoNoLowerThanEveryLinkTakes) {
    add(sa_to(peer, 1));
    add(sa_to(peer_v6, 1));
    limits.learnt(peer, 68, 0);
    limits.learnt(peer_v6, 68, 0);
    EXPECT_EQ(told.at(sa_to(peer, 1).id), 576u);
    EXPECT_EQ(told.at(sa_to(peer_v6, 1).id), 1280u);
}

TEST_F(PathLimits, DoNotGrowUntilTheyAreForgotten) {
    const ipsec::policy p = policy_to(peer, 9);
    add(p);
    add(sa_to(peer, 1));
    limits.learnt(peer, 1300, 0);
    limits.learnt(peer, 1400, 5 * second);
    limits.learnt(peer, 1600, 5 * second);
    EXPECT_EQ(limits.mtu_for(p), 1246u);
    EXPECT_TRUE(limits.tend(599 * second));
    EXPECT_FALSE(limits.tend(599 * second)) << "nothing new";
    EXPECT_EQ(limits.mtu_for(p), 1246u);
    EXPECT_TRUE(limits.tend(600 * second));
    EXPECT_EQ(limits.mtu_for(p), 1446u);
    EXPECT_EQ(told.at(sa_to(peer, 1).id), std::nullopt);
}

TEST_F(PathLimits, TellOfAnotherMtuAlone) {
    add(policy_to(peer, 9));
    EXPECT_FALSE(limits.tend(0)) << "no SA, no MTU";
    add(sa_to(peer, 1));
    EXPECT_TRUE(limits.tend(0));
    add(sa_to(peer, 2)); // as after a rekey
    limits.on_event(ipsec::sa_deleted{sa_to(peer, 1), {}});
    limits.network_changed();
    EXPECT_FALSE(limits.tend(0));
    route = 1400;
    limits.network_changed();
    EXPECT_TRUE(limits.tend(0));
}

TEST_F(PathLimits, TellOfThePolicyThatIsGone) {
    ipsec::sa dear = sa_to(peer, 2, 2);
    dear.encap.emplace();
    add(policy_to(peer, 9, 1));
    add(policy_to(peer, 17, 2));
    add(sa_to(peer, 1, 1));
    add(dear);
    EXPECT_TRUE(limits.tend(0));
    EXPECT_EQ(limits.smallest_mtu(), 1438u);
    limits.on_event(ipsec::policy_deleted{policy_to(peer, 17, 2), false, {}});
    EXPECT_TRUE(limits.tend(0)) << "the device may take more now";
    EXPECT_EQ(limits.smallest_mtu(), 1446u);
    EXPECT_FALSE(limits.tend(0));
}

TEST_F(PathLimits, AreTakenOverByTheSaThatFollows) {
    add(sa_to(peer, 1));
    limits.learnt(peer, 1300, 0);
    limits.on_event(ipsec::sa_deleted{sa_to(peer, 1), {}});
    add(sa_to(peer, 2));
    EXPECT_EQ(told.at(sa_to(peer, 2).id), 1300u);
}

TEST_F(PathLimits, CountPoliciesThatAreThereAndOfNoInterface) {
    add(sa_to(peer, 1));
    ipsec::policy of_interface = policy_to(peer, 9);
    of_interface.if_id = 7;
    add(of_interface);
    ipsec::policy inwards = policy_to(peer, 8);
    inwards.dir = ipsec::policy_direction::in;
    add(inwards);
    EXPECT_EQ(limits.smallest_mtu(), std::nullopt);
    const ipsec::policy p = policy_to(peer, 17);
    add(p);
    EXPECT_EQ(limits.smallest_mtu(), 1446u);
    limits.on_event(ipsec::policy_deleted{p, false, {}});
    EXPECT_EQ(limits.smallest_mtu(), std::nullopt);
}

} // namespace
} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
#include "tools/guarding.h"

#include <gtest/gtest.h>

namespace esplane::tools {
namespace {

using enum ipsec::policy_direction;

ipsec::policy protecting(ipsec::policy_direction dir, std::uint32_t index) {
    ipsec::policy p;
    p.dir = dir;
    p.index = index;
    p.templates.emplace_back();
    return p;
}

ipsec::policy bypassing(ipsec::policy_direction dir, std::uint32_t index) {
    ipsec::policy p = protecting(dir, index);
    p.templates.clear();
    return p;
}

ipsec::policy blocking(ipsec::policy_direction dir, std::uint32_t index) {
    ipsec::policy p = bypassing(dir, index);
    p.action = ipsec::policy_action::block;
    return p;
}

/// After a daemon that was not released; without devices.
class ClosedGuarding : public ::testing::Test {
  protected:
    ClosedGuarding() {
        guarding_.stay_closed([this] { ++opened_; });
    }
    void add(const ipsec::policy& p) { guarding_.on_event(ipsec::policy_added{p, {}}); }

    guarding guarding_{{}, [](const std::string&) {}};
    int opened_ = 0;
};

TEST_F(ClosedGuarding, StaysClosedUntilAnOutPolicyProtects) {
    add(protecting(in, 8));
    add(protecting(fwd, 18));
    add(bypassing(out, 25));
    guarding_.on_event(ipsec::policy_deleted{bypassing(out, 25), false, {}});
    EXPECT_EQ(opened_, 0);
    EXPECT_TRUE(guarding_.closed());
    add(protecting(out, 33));
    EXPECT_EQ(opened_, 1);
    EXPECT_FALSE(guarding_.closed());
}

TEST_F(ClosedGuarding, OpensOnceWithAnOutPolicyThatBlocks) {
    add(blocking(in, 8));
    EXPECT_TRUE(guarding_.closed());
    add(blocking(out, 17));
    add(protecting(out, 25));
    EXPECT_EQ(opened_, 1);
}

TEST_F(ClosedGuarding, OpensWithAPolicyOfAnInterfaceToo) {
    ipsec::policy p = protecting(out, 17);
    p.if_id = 10;
    add(p);
    EXPECT_EQ(opened_, 1);
}

TEST_F(ClosedGuarding, OpensWhereNothingLeavesByDefault) {
    guarding_.on_event(ipsec::defaults_changed{
        {ipsec::policy_action::block, ipsec::policy_action::allow, ipsec::policy_action::block}});
    EXPECT_EQ(opened_, 0);
    guarding_.on_event(ipsec::defaults_changed{
        {ipsec::policy_action::allow, ipsec::policy_action::block, ipsec::policy_action::allow}});
    EXPECT_EQ(opened_, 1);
}

TEST_F(ClosedGuarding, AnUpdateOpensAsAnAdditionDoes) {
    guarding_.on_event(ipsec::policy_updated{protecting(out, 9), {}});
    EXPECT_EQ(opened_, 1);
}

/// Whether a packet from 10.0.0.1 to `to` may leave in clear.
bool may_leave(const guarding& g, const char* to) {
    const ipsec::flow f{*ipsec::address::parse("10.0.0.1"), *ipsec::address::parse(to), {}, {}, 17};
    const fastpath::egress_rule* best = nullptr;
    const auto rules = g.out_rules();
    for (const fastpath::egress_rule& r : rules)
        if (r.sel.matches(f) && (best == nullptr || r.priority < best->priority)) best = &r;
    return best == nullptr || best->allow;
}

class EgressRules : public ::testing::Test {
  protected:
    void add(ipsec::policy p, std::uint32_t index, const char* to, ipsec::policy_type type) {
        p.index = index;
        p.position = index;
        p.type = type;
        p.sel.fam = p.sel.source.fam = ipsec::family::ipv4;
        p.sel.destination = *ipsec::address::parse(to);
        p.sel.destination_prefix = 32;
        guarding_.on_event(ipsec::policy_added{p, {}});
    }
    void default_out(ipsec::policy_action a) {
        guarding_.on_event(ipsec::defaults_changed{{ipsec::policy_action::allow, a}});
    }
    void flush(ipsec::policy_type type) { guarding_.on_event(ipsec::policy_flushed{type, {}}); }

    guarding guarding_{{}, [](const std::string&) {}};
};

TEST_F(EgressRules, ADefaultThatBlocksIsBehindAllPolicies) {
    using enum ipsec::policy_type;
    add(bypassing(out, 1), 1, "10.0.0.2", main);
    EXPECT_TRUE(may_leave(guarding_, "10.0.0.3"));
    default_out(ipsec::policy_action::block);
    EXPECT_FALSE(may_leave(guarding_, "10.0.0.3"));
    EXPECT_FALSE(guarding_.out_rules().back().allow) << "IPv6, too";
    EXPECT_EQ(guarding_.out_rules().back().sel.fam, ipsec::family::ipv6);
    EXPECT_TRUE(may_leave(guarding_, "10.0.0.2"));
    flush(main);
    EXPECT_FALSE(may_leave(guarding_, "10.0.0.2"));
    default_out(ipsec::policy_action::allow);
    EXPECT_TRUE(may_leave(guarding_, "10.0.0.2"));
}

TEST_F(EgressRules, ASubPolicyDeniesBeforeAndAllowsBehindTheMainOnes) {
    using enum ipsec::policy_type;
    add(bypassing(out, 1), 1, "10.0.0.2", main);
    add(blocking(out, 2), 2, "10.0.0.2", sub);
    EXPECT_FALSE(may_leave(guarding_, "10.0.0.2"));
    add(protecting(out, 3), 3, "10.0.0.3", main);
    add(bypassing(out, 4), 4, "10.0.0.3", sub);
    EXPECT_FALSE(may_leave(guarding_, "10.0.0.3"));
    add(bypassing(out, 5), 5, "10.0.0.4", sub);
    default_out(ipsec::policy_action::block);
    EXPECT_TRUE(may_leave(guarding_, "10.0.0.4"));
    flush(sub);
    EXPECT_FALSE(may_leave(guarding_, "10.0.0.4"));
    EXPECT_TRUE(may_leave(guarding_, "10.0.0.2"));
}

TEST_F(EgressRules, AmongEqualPrioritiesTheEarlierComesFirstAfterManyChanges) {
    for (std::uint32_t n = 0; n < 6; ++n) {
        ipsec::policy p = bypassing(out, n + 1);
        p.position = 0xfffffffbULL + n;
        guarding_.on_event(ipsec::policy_added{p, {}});
    }
    ipsec::policy moved = protecting(out, 2); // where it was
    moved.position = 0xfffffffcULL;
    guarding_.on_event(ipsec::policy_updated{moved, {}});
    const auto rules = guarding_.out_rules();
    ASSERT_EQ(rules.size(), 6u);
    for (std::uint32_t n = 0; n + 1 < 6; ++n)
        EXPECT_LT(rules[n].position, rules[n + 1].position);
    EXPECT_TRUE(rules[0].allow);
    EXPECT_FALSE(rules[1].allow);
}

} // namespace
} // namespace esplane::tools

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

TEST_F(ClosedGuarding, AnUpdateOpensAsAnAdditionDoes) {
    guarding_.on_event(ipsec::policy_updated{protecting(out, 9), {}});
    EXPECT_EQ(opened_, 1);
}

} // namespace
} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// The rules for policies, seen from outside: requests into the layer, calls to a fake backend and
// events out of it, time made by hand.
#include <gtest/gtest.h>

#include "lib/control/layer.h"
#include "tests/unit/lib/event_log.h"
#include "tests/unit/lib/fake_backend.h"

namespace esplane::control::policy_keeper_test {
namespace {

using lines = std::vector<std::string>;
using enum ipsec::policy_direction;

const ipsec::originator client{42, 7};
const moment start{5'000'000'000, 1'000'000};

moment after(std::uint64_t seconds) {
    return {start.monotonic_ns + seconds * 1'000'000'000, start.realtime_s + seconds};
}

ipsec::policy from(const char* source, std::uint32_t priority = 0) {
    ipsec::policy p;
    p.dir = out;
    p.priority = priority;
    p.sel.fam = ipsec::family::ipv4;
    p.sel.source = *ipsec::address::parse(source);
    p.sel.source_prefix = 24;
    return p;
}

ipsec::policy timed(const char* source, std::uint64_t soft_s, std::uint64_t hard_s) {
    ipsec::policy p = from(source);
    p.limits.soft_add_s = soft_s;
    p.limits.hard_add_s = hard_s;
    return p;
}

class PolicyRules : public testing::Test {
  protected:
    PolicyRules() { layer_.subscribe(&events_); }

    void add(ipsec::policy p) { ASSERT_TRUE(layer_.add_policy(std::move(p), client, start)); }
    void given(ipsec::policy p) {
        add(std::move(p));
        forget();
    }
    void forget() {
        (void)backend_.taken_calls();
        (void)events_.taken();
    }
    std::vector<std::uint32_t> walk() {
        std::vector<std::uint32_t> found;
        cursor c;
        while (const ipsec::policy* p = layer_.next_policy(c))
            found.push_back(p->index);
        return found;
    }

    fake_backend backend_;
    event_log events_;
    layer layer_{backend_, [](std::span<std::uint8_t>) {}};
};

TEST_F(PolicyRules, APolicyAddedReachesTheBackendAndIsAnnounced) {
    add(from("192.168.1.0"));
    EXPECT_EQ(backend_.taken_calls(), (lines{"add_policy 1"}));
    EXPECT_EQ(events_.taken(), (lines{"policy added 1 by 42"}));
    EXPECT_EQ(layer_.get_policy({out, from("192.168.1.0").sel, 0})->current.add_time,
              start.realtime_s);
}

TEST_F(PolicyRules, APolicyThatIsThereIsNotAddedAgainWhateverItsPriority) {
    given(from("192.168.1.0", 1));
    EXPECT_EQ(layer_.add_policy(from("192.168.1.0", 2), client, start).error().code, EEXIST);
    EXPECT_TRUE(backend_.taken_calls().empty());
}

TEST_F(PolicyRules, WhatTheBackendRefusesLeavesNoTrace) {
    backend_.refuse = error{EINVAL, "too many templates", "XFRMA_TMPL"};
    EXPECT_EQ(layer_.add_policy(timed("192.168.1.0", 1, 2), client, start).error().field,
              "XFRMA_TMPL");
    EXPECT_EQ(layer_.policy_counts().out, 0u);
    EXPECT_FALSE(layer_.next_deadline_ns());
    EXPECT_TRUE(events_.taken().empty());
    backend_.refuse.reset();
    add(from("192.168.1.0"));
    EXPECT_EQ(walk(), (std::vector<std::uint32_t>{1})) << "no index was used up";
}

TEST_F(PolicyRules, AnUpdateTheBackendRefusesLeavesThePolicyAsItWas) {
    given(from("192.168.1.0", 1));
    backend_.refuse = error{ENOMEM, {}, {}};
    EXPECT_FALSE(layer_.update_policy(from("192.168.1.0", 2), client, start));
    EXPECT_EQ(layer_.get_policy({out, {}, 1})->priority, 1u);
}

TEST_F(PolicyRules, AnIndexOfAnotherDirectionIsInvalid) {
    ipsec::policy p = from("192.168.1.0");
    p.index = 8;
    EXPECT_EQ(layer_.add_policy(p, client, start).error().code, EINVAL);
    EXPECT_EQ(layer_.update_policy(p, client, start).error().code, EINVAL);
}

TEST_F(PolicyRules, AnUpdateOfNothingAdds) {
    ASSERT_TRUE(layer_.update_policy(from("192.168.1.0"), client, start));
    EXPECT_EQ(backend_.taken_calls(), (lines{"add_policy 1"}));
    EXPECT_EQ(events_.taken(), (lines{"policy updated 1 by 42"}));
}

TEST_F(PolicyRules, AnUpdateKeepsTheIndexAndMakesThePolicyTheNewest) {
    add(from("192.168.1.0", 5));
    add(from("192.168.2.0", 5));
    forget();
    ipsec::policy change = from("192.168.1.0", 5);
    change.index = 0x1001;
    ASSERT_TRUE(layer_.update_policy(change, client, after(3)));
    EXPECT_EQ(backend_.taken_calls(), (lines{"update_policy 1"}));
    EXPECT_EQ(events_.taken(), (lines{"policy updated 1 by 42"}));
    EXPECT_EQ(walk(), (std::vector<std::uint32_t>{1, 9}));
    EXPECT_GT(backend_.positions[1], backend_.positions[9]);
    EXPECT_EQ(layer_.get_policy({out, {}, 1})->current.add_time, after(3).realtime_s);
}

TEST_F(PolicyRules, PositionsGivenToTheBackendAreThoseShown) {
    add(from("192.168.1.0"));
    add(from("192.168.2.0"));
    ASSERT_TRUE(layer_.update_policy(from("192.168.1.0", 3), client, start));
    for (const auto& [index, position] : backend_.positions)
        EXPECT_EQ(layer_.get_policy({out, {}, index})->position, position) << index;
}

TEST_F(PolicyRules, ADeletionByIndexSaysSo) {
    add(from("192.168.1.0"));
    add(from("192.168.2.0"));
    forget();
    ASSERT_TRUE(layer_.delete_policy({out, {}, 1}, client));
    ASSERT_TRUE(layer_.delete_policy({out, from("192.168.2.0").sel, 0}, client));
    EXPECT_EQ(events_.taken(), (lines{"policy deleted 1 by index", "policy deleted 9"}));
    EXPECT_EQ(backend_.taken_calls(), (lines{"delete_policy 1", "delete_policy 9"}));
}

TEST_F(PolicyRules, WhatIsNotThereCannotBeDeletedOrShown) {
    given(from("192.168.1.0"));
    EXPECT_EQ(layer_.delete_policy({in, from("192.168.1.0").sel, 0}, client).error().code, ENOENT);
    EXPECT_EQ(layer_.delete_policy({in, {}, 1}, client).error().code, ENOENT);
    EXPECT_EQ(layer_.get_policy({out, {}, 9}), nullptr);
}

TEST_F(PolicyRules, AFlushTakesAllInOneBatch) {
    add(from("192.168.1.0"));
    add(from("192.168.2.0"));
    forget();
    layer_.flush_policies(ipsec::policy_type::main, client);
    EXPECT_EQ(backend_.taken_calls(),
              (lines{"begin_batch", "delete_policy 9", "delete_policy 1", "end_batch"}));
    EXPECT_EQ(events_.taken(), (lines{"policies flushed by 42"}));
    EXPECT_TRUE(walk().empty());
}

TEST_F(PolicyRules, AnEmptyFlushSaysNothing) {
    layer_.flush_policies(ipsec::policy_type::main, client);
    EXPECT_TRUE(events_.taken().empty());
}

TEST_F(PolicyRules, AreCountedByDirection) {
    add(from("192.168.1.0"));
    ipsec::policy p = from("192.168.1.0");
    p.dir = fwd;
    add(p);
    EXPECT_EQ(layer_.policy_counts().out, 1u);
    EXPECT_EQ(layer_.policy_counts().fwd, 1u);
    EXPECT_EQ(layer_.policy_counts().in, 0u);
}

TEST_F(PolicyRules, SoftComesThenHardTakesThePolicy) {
    given(timed("192.168.1.0", 1, 2));
    layer_.tick(after(1));
    layer_.tick(after(2));
    EXPECT_EQ(events_.taken(), (lines{"policy expired 1 soft", "policy expired 1 hard"}));
    EXPECT_TRUE(walk().empty());
    EXPECT_FALSE(layer_.next_deadline_ns());
}

TEST_F(PolicyRules, SoftIsRepeatedEveryThirtySeconds) {
    given(timed("192.168.1.0", 10, 100));
    for (std::uint64_t s = 1; s <= 75; ++s)
        layer_.tick(after(s));
    EXPECT_EQ(events_.taken(), lines(3, "policy expired 1 soft")) << "after 10, 40 and 70 s";
}

TEST_F(PolicyRules, LimitsSinceUseHangOnTheLastUse) {
    ipsec::policy p = from("192.168.1.0");
    p.limits.hard_use_s = 10;
    given(p);
    backend_.policy_usage[1].use_time = after(8).realtime_s;
    layer_.tick(after(10));
    EXPECT_TRUE(events_.taken().empty());
    EXPECT_EQ(layer_.next_deadline_ns(), after(18).monotonic_ns);
    layer_.tick(after(18));
    EXPECT_EQ(events_.taken(), (lines{"policy expired 1 hard"}));
}

TEST_F(PolicyRules, LimitsSinceUseCountFromTheAdditionWhereThereWasNone) {
    ipsec::policy p = from("192.168.1.0");
    p.limits.hard_use_s = 10;
    given(p);
    layer_.tick(after(10));
    EXPECT_EQ(events_.taken(), (lines{"policy expired 1 hard"}));
}

TEST_F(PolicyRules, AnUpdateStartsItsLifeAnew) {
    given(timed("192.168.1.0", 0, 10));
    ASSERT_TRUE(layer_.update_policy(timed("192.168.1.0", 0, 10), client, after(5)));
    layer_.tick(after(14));
    EXPECT_EQ(walk().size(), 1u);
    layer_.tick(after(15));
    EXPECT_TRUE(walk().empty());
}

} // namespace
} // namespace esplane::control::policy_keeper_test

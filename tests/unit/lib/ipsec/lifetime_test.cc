// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/lifetime.h"

#include <gtest/gtest.h>

namespace esplane::ipsec {
namespace {

constexpr std::int64_t second = 1'000'000'000;

lifetime_limits add_limits(std::uint64_t soft_s, std::uint64_t hard_s) {
    lifetime_limits l;
    l.soft_add_s = soft_s;
    l.hard_add_s = hard_s;
    return l;
}

lifetime_limits use_limits(std::uint64_t soft_s, std::uint64_t hard_s) {
    lifetime_limits l;
    l.soft_use_s = soft_s;
    l.hard_use_s = hard_s;
    return l;
}

TEST(TimeLimits, WithoutAnyNothingIsEverDue) {
    const auto c = check_time_limits({}, {}, false, 1'000'000 * second);
    EXPECT_EQ(c.verdict, lifetime_verdict::running);
    EXPECT_FALSE(c.next_ns);
}

TEST(TimeLimits, AreDueAtTheirSecondAndNotBefore) {
    const lifetime_limits l = add_limits(10, 20);
    EXPECT_EQ(check_time_limits(l, {}, false, 10 * second - 1).verdict, lifetime_verdict::running);
    EXPECT_EQ(check_time_limits(l, {}, false, 10 * second).verdict, lifetime_verdict::soft);
    EXPECT_EQ(check_time_limits(l, {}, false, 20 * second).verdict, lifetime_verdict::hard);
}

TEST(TimeLimits, NameTheNextOneThatIsToCome) {
    const lifetime_limits l = add_limits(10, 20);
    EXPECT_EQ(check_time_limits(l, {}, false, 0).next_ns, 10 * second);
    EXPECT_EQ(check_time_limits(l, {}, false, 10 * second).next_ns, 20 * second);
    EXPECT_EQ(check_time_limits(l, {}, true, 0).next_ns, 20 * second);
}

TEST(TimeLimits, SinceUseDoNotRunBeforeTheFirst) {
    const lifetime_limits l = use_limits(10, 20);
    EXPECT_FALSE(check_time_limits(l, {0, std::nullopt}, false, 100 * second).next_ns);
    EXPECT_EQ(check_time_limits(l, {0, 100 * second}, false, 109 * second).next_ns, 110 * second);
    EXPECT_EQ(check_time_limits(l, {0, 100 * second}, false, 120 * second).verdict,
              lifetime_verdict::hard);
}

TEST(TimeLimits, TooLongForNanosecondsAreNeverDue) {
    const auto c = check_time_limits(add_limits(0, no_limit), {}, false, 1'000'000'000 * second);
    EXPECT_EQ(c.verdict, lifetime_verdict::running);
}

TEST(TimeLimits, TheFirstIsFoundEvenWhereItHasPassed) {
    EXPECT_EQ(first_time_limit(add_limits(10, 20), {-100 * second, std::nullopt}), -90 * second);
    EXPECT_EQ(first_time_limit(add_limits(0, 20), {}), 20 * second);
    EXPECT_FALSE(first_time_limit({}, {}));
}

TEST(MonotonicOf, CountsBackFromNow) {
    const moment now{5'000'000'000, 1000};
    EXPECT_EQ(monotonic_of(1000, now), 5 * second);
    EXPECT_EQ(monotonic_of(990, now), -5 * second);
    EXPECT_EQ(monotonic_of(2000, now), 5 * second) << "the future is now";
}

TEST(CountLimits, AreReachedAtTheirNumber) {
    lifetime_limits l;
    l.soft_packets = 2;
    l.hard_packets = 4;
    lifetime_current c;
    c.packets = 1;
    EXPECT_EQ(check_count_limits(l, c, false), lifetime_verdict::running);
    c.packets = 2;
    EXPECT_EQ(check_count_limits(l, c, false), lifetime_verdict::soft);
    EXPECT_EQ(check_count_limits(l, c, true), lifetime_verdict::running);
    c.packets = 4;
    EXPECT_EQ(check_count_limits(l, c, true), lifetime_verdict::hard);
}

TEST(CountLimits, InBytesCountToo) {
    lifetime_limits l;
    l.hard_bytes = 1000;
    lifetime_current c;
    c.bytes = 999;
    EXPECT_EQ(check_count_limits(l, c, false), lifetime_verdict::running);
    c.bytes = 1000;
    EXPECT_EQ(check_count_limits(l, c, false), lifetime_verdict::hard);
}

} // namespace
} // namespace esplane::ipsec

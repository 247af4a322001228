// SPDX-License-Identifier: Apache-2.0
#include "lib/control/timer_queue.h"

#include <gtest/gtest.h>

namespace esplane::control {
namespace {

TEST(TimerQueue, GivesTheEarliestFirstAndNothingEarly) {
    timer_queue q;
    q.arm(1, 300);
    q.arm(2, 100);
    EXPECT_EQ(q.next_ns(), 100);
    EXPECT_EQ(q.take_due(99), std::nullopt);
    EXPECT_EQ(q.take_due(300), 2u);
    EXPECT_EQ(q.take_due(300), 1u);
    EXPECT_EQ(q.take_due(300), std::nullopt);
    EXPECT_EQ(q.next_ns(), std::nullopt);
}

TEST(TimerQueue, ADeadlineMovedIsNotLeftBehind) {
    timer_queue q;
    q.arm(1, 100);
    q.arm(1, 200);
    EXPECT_EQ(q.take_due(150), std::nullopt);
    EXPECT_EQ(q.take_due(200), 1u);
    EXPECT_EQ(q.next_ns(), std::nullopt);
}

TEST(TimerQueue, ADeadlineCancelledNeverComes) {
    timer_queue q;
    q.arm(1, 100);
    q.arm(2, 100);
    q.disarm(1);
    q.disarm(7);
    EXPECT_EQ(q.take_due(100), 2u);
    EXPECT_EQ(q.take_due(100), std::nullopt);
}

} // namespace
} // namespace esplane::control

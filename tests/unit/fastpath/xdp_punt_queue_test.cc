// SPDX-License-Identifier: Apache-2.0
//
// The queue of frames on their way up to the stack, where the way itself is shut.
#include "fastpath/xdp/punt_queue.h"

#include <gtest/gtest.h>

#include <vector>

namespace esplane::fastpath {
namespace {

constexpr int no_program = -1; // hand_up() gets nothing through
const std::vector<std::uint8_t> frame(60, 1);

/// How many of one kind find room.
std::size_t filled(punt_queue& q, bool urgent) {
    std::size_t n = 0;
    while (n <= punt_queue::capacity && q.push(frame, urgent))
        ++n;
    return n;
}

TEST(PuntQueue, KeepsRoomThatOnlyUrgentFramesMayTake) {
    punt_queue q(no_program, 1, {});
    EXPECT_EQ(filled(q, false), punt_queue::capacity - punt_queue::urgent_share);
    EXPECT_EQ(filled(q, true), punt_queue::urgent_share);
    EXPECT_FALSE(q.push(frame, true));
}

TEST(PuntQueue, UrgentFramesMayTakeItAll) {
    punt_queue q(no_program, 1, {});
    EXPECT_EQ(filled(q, true), punt_queue::capacity);
}

TEST(PuntQueue, WhatTheKernelRefusesIsCountedAndMakesRoom) {
    punt_queue q(no_program, 1, {});
    (void)filled(q, false);
    const auto outcome = q.hand_up();
    EXPECT_EQ(outcome.taken, 0u);
    EXPECT_EQ(outcome.refused, punt_queue::frames_a_loop);
    EXPECT_EQ(filled(q, false), punt_queue::frames_a_loop);
}

TEST(PuntQueue, TakesNoFrameThatIsTooLongOrHasNoEthernetHeader) {
    punt_queue q(no_program, 1, {});
    EXPECT_FALSE(q.push(std::vector<std::uint8_t>(punt_queue::max_frame + 1), true));
    EXPECT_FALSE(q.push(std::vector<std::uint8_t>(13), true));
}

} // namespace
} // namespace esplane::fastpath

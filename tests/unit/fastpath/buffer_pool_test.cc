// SPDX-License-Identifier: Apache-2.0
#include "fastpath/buffer_pool.h"

#include <array>
#include <atomic>
#include <set>
#include <thread>

#include <gtest/gtest.h>

namespace esplane::fastpath {
namespace {

std::vector<std::uint64_t> take_all(buffer_pool& pool) {
    std::vector<std::uint64_t> all(pool.count());
    all.resize(pool.take(all));
    return all;
}

TEST(BufferPool, ALaneCanHaveEveryFrameOnce) {
    for (const unsigned lanes : {1u, 3u}) {
        const auto pool = buffer_pool::make(1000, lanes).value();
        const auto frames = take_all(*pool);
        EXPECT_EQ(std::set(frames.begin(), frames.end()).size(), 1000u);
        EXPECT_EQ(pool->free_frames(), 0u);
        packet p;
        EXPECT_FALSE(pool->allocate(p, 64));
        pool->give(frames);
        EXPECT_EQ(pool->free_frames(), 1000u);
    }
}

TEST(BufferPool, WhatOneLaneFreesAnotherCanHave) {
    const auto pool = buffer_pool::make(4096, 2).value();
    enter_lane(0);
    const auto frames = take_all(*pool);
    enter_lane(1);
    EXPECT_EQ(pool->within_reach(), 0u);
    pool->give(frames);
    enter_lane(0);
    EXPECT_GT(pool->within_reach(), 3000u);
    const auto again = take_all(*pool);
    EXPECT_GT(again.size(), 3000u);
    EXPECT_EQ(pool->free_frames(), 4096u - again.size());
}

TEST(BufferPool, WhatAnotherLaneFreedLastIsTakenFirst) {
    const auto pool = buffer_pool::make(4096, 2).value();
    enter_lane(0);
    std::vector<std::uint64_t> some(2 * frame_depot::chunk);
    ASSERT_EQ(pool->take(some), some.size());
    some.resize(frame_depot::chunk);
    enter_lane(1);
    pool->give(some);
    enter_lane(0);
    std::vector<std::uint64_t> again(some.size());
    ASSERT_EQ(pool->take(again), again.size());
    EXPECT_EQ(std::set(again.begin(), again.end()), std::set(some.begin(), some.end()))
        << "others lie in no cache";
}

// Two threads pass frames to each other through the depots alone, as each wants more than are at
// home.  What they note themselves puts nothing in order, so that TSan sees whether the depots do.
TEST(BufferPool, NoFrameIsLostOrHeldTwiceBetweenThreads) {
    const auto pool = buffer_pool::make(2048, 2).value();
    std::vector<std::atomic<int>> holders(2048);
    const auto holder = [&](std::uint64_t frame) -> std::atomic<int>& {
        return holders[frame / buffer_pool::frame_size];
    };
    std::atomic<bool> twice{false};
    std::array<std::uint64_t, 2> foreign{};
    const auto work = [&](unsigned lane) {
        enter_lane(lane);
        std::vector<std::uint64_t> frames(1400);
        for (int round = 0; round < 2000; ++round) {
            const std::size_t n = pool->take(std::span(frames).first(1 + (round * 37) % 1400));
            for (std::size_t i = 0; i < n; ++i) {
                if (holder(frames[i]).fetch_add(1, std::memory_order_relaxed) != 0) twice = true;
                foreign[lane] += pool->home_of(frames[i]) != lane;
            }
            for (std::size_t i = 0; i < n; ++i)
                holder(frames[i]).fetch_sub(1, std::memory_order_relaxed);
            pool->give(std::span(frames).first(n));
        }
    };
    std::thread other(work, 1);
    work(0);
    other.join();
    enter_lane(0);
    EXPECT_FALSE(twice);
    EXPECT_GT(foreign[0], 0u);
    EXPECT_GT(foreign[1], 0u);
    EXPECT_EQ(pool->free_frames(), 2048u);
}

} // namespace
} // namespace esplane::fastpath

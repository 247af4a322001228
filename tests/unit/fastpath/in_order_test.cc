// SPDX-License-Identifier: Apache-2.0
#include "fastpath/in_order.h"

#include <array>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace esplane::fastpath {
namespace {

packet numbered(std::uint64_t n) {
    packet p;
    p.handle = n;
    return p;
}

/// Finishes a run of one packet for each of `numbers` and of `nothing` tickets behind.
void put(in_order& ring, std::uint64_t first, std::initializer_list<std::uint64_t> numbers,
         unsigned nothing = 0) {
    unsigned placed = 0;
    for (const std::uint64_t n : numbers)
        ring.place(first + placed++, numbered(n));
    ring.finish(first, placed, placed + nothing);
}

std::vector<std::uint64_t> released(in_order& ring) {
    std::array<packet*, max_burst> burst;
    std::vector<std::uint64_t> numbers;
    while (const std::size_t n = ring.peek(burst)) {
        for (std::size_t i = 0; i < n; ++i)
            numbers.push_back(burst[i]->handle);
        ring.release();
    }
    ring.release();
    return numbers;
}

TEST(InOrder, NothingPassesATicketThatIsNotFinished) {
    in_order ring(2);
    const std::uint64_t a = ring.take(2).value();
    const std::uint64_t b = ring.take(1).value();
    put(ring, b, {3});
    put(ring, a + 1, {2});
    EXPECT_FALSE(ring.ready());
    EXPECT_TRUE(released(ring).empty());
    put(ring, a, {1});
    EXPECT_TRUE(ring.ready());
    EXPECT_EQ(released(ring), (std::vector<std::uint64_t>{1, 2, 3}));
    EXPECT_TRUE(ring.settled());
}

TEST(InOrder, TicketsWithoutPacketsHoldNobodyUp) {
    in_order ring(1);
    const std::uint64_t first = ring.take(6).value();
    put(ring, first + 5, {5});
    put(ring, first + 3, {3}, 1);
    put(ring, first, {}, 2);
    EXPECT_TRUE(released(ring).empty());
    put(ring, first + 2, {2});
    EXPECT_EQ(released(ring), (std::vector<std::uint64_t>{2, 3, 5}));
    EXPECT_TRUE(ring.settled());
}

TEST(InOrder, ARunComesInPiecesWhereThereIsNoRoomForAllOfIt) {
    in_order ring(1);
    put(ring, ring.take(4).value(), {1, 2, 3}, 1);
    put(ring, ring.take(1).value(), {4});
    std::array<packet*, 2> two;
    ASSERT_EQ(ring.peek(two), 2u);
    EXPECT_EQ(two[1]->handle, 2u);
    EXPECT_TRUE(ring.ready());
    ring.release();
    EXPECT_FALSE(ring.settled());
    ASSERT_EQ(ring.peek(two), 2u);
    EXPECT_EQ(two[0]->handle, 3u);
    EXPECT_EQ(two[1]->handle, 4u);
    ring.release();
    EXPECT_TRUE(ring.settled());
}

TEST(InOrder, TicketsRunOutBeforeTheRingIsFull) {
    in_order ring(2);
    std::uint64_t taken = 0;
    while (const auto first = ring.take(max_burst)) {
        for (unsigned i = 0; i < max_burst; ++i)
            ring.place(*first + i, numbered(*first + i));
        ring.finish(*first, max_burst, max_burst);
        taken += max_burst;
    }
    EXPECT_GE(taken, 16u * max_burst);
    EXPECT_EQ(released(ring).size(), taken);
    EXPECT_TRUE(ring.take(max_burst).has_value());
}

// Three workers finish bursts of all lengths at their own pace, with gaps; one of them releases.
TEST(InOrder, OrderHoldsBetweenThreads) {
    constexpr std::uint64_t total = 300'000;
    in_order ring(3);
    std::atomic<std::uint64_t> skipped{0};
    std::uint64_t next = 0, out_of_order = 0, came = 0;
    const auto drain = [&] {
        for (const std::uint64_t n : released(ring)) {
            out_of_order += n < next;
            next = n + 1;
            ++came;
        }
    };
    const auto work = [&](unsigned self) {
        std::mt19937 engine(self);
        const auto random = [&] { return static_cast<unsigned>(engine()); };
        while (ring.taken() < total) {
            if (self == 0) drain();
            const unsigned n = 1 + random() % max_burst;
            const auto first = ring.take(n);
            if (!first) {
                std::this_thread::yield();
                continue;
            }
            const unsigned placed = random() % 4 == 0 ? random() % (n + 1) : n;
            skipped += n - placed;
            for (unsigned i = 0; i < placed; ++i)
                ring.place(*first + i, numbered(*first + i));
            ring.finish(*first, placed, n);
        }
    };
    std::thread one(work, 1), two(work, 2);
    work(0);
    one.join();
    two.join();
    drain();
    EXPECT_EQ(out_of_order, 0u);
    EXPECT_EQ(came + skipped, ring.taken());
    EXPECT_TRUE(ring.settled());
}

} // namespace
} // namespace esplane::fastpath

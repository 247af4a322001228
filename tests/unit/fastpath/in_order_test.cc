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
    ring.put(b, numbered(3));
    ring.put(a + 1, numbered(2));
    EXPECT_TRUE(released(ring).empty());
    ring.put(a, numbered(1));
    EXPECT_EQ(released(ring), (std::vector<std::uint64_t>{1, 2, 3}));
    EXPECT_TRUE(ring.settled());
}

TEST(InOrder, ASkippedTicketHoldsNobodyUp) {
    in_order ring(1);
    const std::uint64_t first = ring.take(3).value();
    ring.put(first + 2, numbered(3));
    ring.skip(first + 1);
    ring.skip(first);
    EXPECT_EQ(released(ring), (std::vector<std::uint64_t>{3}));
}

TEST(InOrder, TicketsRunOutBeforeTheRingIsFull) {
    in_order ring(2);
    std::uint64_t taken = 0;
    while (const auto first = ring.take(max_burst)) {
        for (unsigned i = 0; i < max_burst; ++i)
            ring.put(*first + i, numbered(*first + i));
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
        std::mt19937 random(self);
        while (ring.taken() < total) {
            if (self == 0) drain();
            const unsigned n = 1 + random() % max_burst;
            const auto first = ring.take(n);
            if (!first) {
                std::this_thread::yield();
                continue;
            }
            for (unsigned i = 0; i < n; ++i)
                if (random() % 16 == 0) {
                    ring.skip(*first + i);
                    ++skipped;
                } else
                    ring.put(*first + i, numbered(*first + i));
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

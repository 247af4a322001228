// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/lent_frames.h"

#include <algorithm>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace esplane::fastpath {
namespace {

constexpr std::uint64_t size = buffer_pool::frame_size;

std::vector<std::uint64_t> taken_back(lent_frames& lent, unsigned lane) {
    std::vector<std::uint64_t> frames;
    lent.take_back(lane, [&](std::uint64_t frame) { frames.push_back(frame); });
    return frames;
}

TEST(LentFrames, EachLaneTakesBackItsOwnAndOnce) {
    lent_frames lent(8);
    lent.lend(0, 0);
    lent.lend(3 * size + 256, 1);
    lent.lend(4 * size, 0);
    lent.lend(5 * size, 0);
    lent.returned(4 * size + 300);
    EXPECT_EQ(taken_back(lent, 0), (std::vector<std::uint64_t>{0, 5 * size}));
    EXPECT_EQ(taken_back(lent, 0), std::vector<std::uint64_t>{});
    EXPECT_EQ(taken_back(lent, 1), std::vector<std::uint64_t>{3 * size});
}

/// One lane goes on while another looks for its own: TSan watches.
TEST(LentFrames, ALaneThatTakesBackNeitherSeesNorLosesWhatOthersLend) {
    constexpr std::uint32_t frames = 256;
    lent_frames lent(frames);
    std::thread other([&] {
        for (int round = 0; round < 1000; ++round)
            for (std::uint64_t i = 0; i < frames; i += 2) {
                lent.lend(i * size, 1);
                if (round != 999) lent.returned(i * size);
            }
    });
    std::size_t mine = 0;
    for (int round = 0; round < 100; ++round) {
        for (std::uint64_t i = 1; i < frames; i += 2)
            lent.lend(i * size, 0);
        const auto back = taken_back(lent, 0);
        EXPECT_TRUE(std::all_of(back.begin(), back.end(),
                                [](std::uint64_t f) { return f / size % 2 == 1; }));
        mine += back.size();
    }
    other.join();
    EXPECT_EQ(mine, 100u * frames / 2);
    EXPECT_EQ(taken_back(lent, 1).size(), frames / 2);
}

} // namespace
} // namespace esplane::fastpath

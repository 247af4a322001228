// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/replay.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace esplane::ipsec {
namespace {

using enum replay_verdict;

/// The dumbest correct window: remembers every number it took.
class plain_window {
  public:
    explicit plain_window(std::uint64_t size)
        : size_(size) {}

    [[nodiscard]] replay_verdict check(std::uint64_t seq) const {
        if (seq == 0) return zero;
        if (seq > highest_) return fresh;
        if (seq + size_ <= highest_) return too_old;
        return taken_.contains(seq) ? duplicate : fresh;
    }
    void commit(std::uint64_t seq) {
        taken_.insert(seq);
        highest_ = std::max(highest_, seq);
    }
    [[nodiscard]] std::uint64_t highest() const { return highest_; }
    [[nodiscard]] bool taken(std::uint64_t seq) const { return taken_.contains(seq); }

  private:
    std::uint64_t size_;
    std::uint64_t highest_ = 0;
    std::set<std::uint64_t> taken_;
};

/// Numbers as a bad network delivers them: mostly near the top, at times far off on either side.
class traffic {
  public:
    traffic(std::uint32_t seed, std::uint64_t window)
        : random_(seed)
        , window_(window) {}

    std::uint64_t next(std::uint64_t highest) {
        const std::uint64_t kind = pick(100);
        if (kind < 40) return highest + 1;
        if (kind < 85) return back(highest, window_ + 70);
        if (kind < 95) return highest + 1 + pick(130);
        if (kind < 98) return highest + pick(3 * window_ + 200);
        return back(highest, highest + 1);
    }

  private:
    std::uint64_t pick(std::uint64_t below) { return random_() % below; }
    std::uint64_t back(std::uint64_t from, std::uint64_t most) {
        const std::uint64_t steps = pick(most);
        return steps > from ? 0 : from - steps;
    }

    std::mt19937_64 random_;
    std::uint64_t window_;
};

void expect_same_bits(const replay_window& window, const plain_window& plain) {
    const auto bitmap = window.snapshot();
    ASSERT_EQ(bitmap.size(), (window.size() + 31) / 32);
    for (std::uint64_t i = 0; i < window.size(); ++i) {
        const bool expected = i < plain.highest() && plain.taken(plain.highest() - i);
        ASSERT_EQ(((bitmap[i / 32] >> (i % 32)) & 1) != 0, expected) << "number highest - " << i;
    }
}

class ReplayWindowOfSize : public testing::TestWithParam<std::uint32_t> {};

TEST_P(ReplayWindowOfSize, AgreesWithASetOnRandomTraffic) {
    replay_window window(GetParam());
    plain_window plain(window.size());
    traffic numbers(GetParam(), window.size());
    for (int i = 0; i < 100'000; ++i) {
        const std::uint64_t seq = numbers.next(plain.highest());
        const replay_verdict expected = plain.check(seq);
        ASSERT_EQ(window.check(seq), expected) << "packet " << i << ", number " << seq;
        ASSERT_EQ(window.commit(seq), expected) << "packet " << i << ", number " << seq;
        if (expected == fresh) plain.commit(seq);
        ASSERT_EQ(window.highest(), plain.highest());
    }
    expect_same_bits(window, plain);
}

TEST_P(ReplayWindowOfSize, TakesARunAsItTakesItsNumbersOneByOne) {
    replay_window window(GetParam());
    plain_window plain(window.size());
    std::mt19937_64 random(GetParam());
    traffic numbers(GetParam(), window.size());
    for (int i = 0; i < 2'000; ++i) {
        const std::uint64_t late = numbers.next(plain.highest());
        const replay_verdict expected = plain.check(late);
        ASSERT_EQ(window.commit(late), expected) << "packet " << i << ", number " << late;
        if (expected == fresh) plain.commit(late);
        const std::uint64_t first = plain.highest() + 1 + (random() % 4 == 0 ? random() % 200 : 0);
        const auto count = static_cast<unsigned>(1 + random() % 64);
        window.commit_run(first, count);
        for (unsigned n = 0; n < count; ++n)
            plain.commit(first + n);
        ASSERT_EQ(window.highest(), plain.highest());
        if (i % 100 == 0) expect_same_bits(window, plain);
    }
}

TEST_P(ReplayWindowOfSize, RestoredFromItsSnapshotAnswersAsBefore) {
    replay_window window(GetParam());
    traffic numbers(99, window.size());
    for (int i = 0; i < 5'000; ++i)
        (void)window.commit(numbers.next(window.highest()));
    replay_window restored(GetParam());
    restored.restore(window.highest(), window.snapshot());
    EXPECT_EQ(restored.snapshot(), window.snapshot());
    for (std::uint64_t back = 0; back < window.size() + 100 && back < window.highest(); ++back) {
        const std::uint64_t seq = window.highest() - back;
        ASSERT_EQ(restored.check(seq), window.check(seq)) << "number highest - " << back;
    }
    EXPECT_EQ(restored.check(window.highest() + 1), fresh);
}

TEST_P(ReplayWindowOfSize, TakesEachOfItsNumbersOnceInReverseOrder) {
    replay_window window(GetParam());
    const std::uint64_t top = 1'000'000;
    ASSERT_EQ(window.commit(top), fresh);
    for (std::uint64_t back = 1; back < window.size(); ++back)
        ASSERT_EQ(window.commit(top - back), fresh) << back;
    for (std::uint64_t back = 0; back < window.size(); ++back)
        ASSERT_EQ(window.commit(top - back), duplicate) << back;
    EXPECT_EQ(window.commit(top - window.size()), too_old);
}

INSTANTIATE_TEST_SUITE_P(Sizes, ReplayWindowOfSize,
                         testing::Values(1u, 4u, 32u, 64u, 65u, 100u, 128u, 1024u, 4096u));

TEST(ReplayWindow, SizesAreKeptAndCutAt4096) {
    EXPECT_EQ(replay_window(1).size(), 1u);
    EXPECT_EQ(replay_window(100).size(), 100u);
    EXPECT_EQ(replay_window(4096).size(), 4096u);
    EXPECT_EQ(replay_window(5000).size(), 4096u);
}

TEST(ReplayWindow, ACheckAloneLeavesNoTrace) {
    replay_window window(64);
    ASSERT_EQ(window.commit(10), fresh);
    EXPECT_EQ(window.check(1'000'000), fresh);
    EXPECT_EQ(window.check(9), fresh);
    EXPECT_EQ(window.highest(), 10u);
    EXPECT_EQ(window.commit(9), fresh);
}

TEST(ReplayWindow, ACommitRefusedMovesNothing) {
    replay_window window(32);
    ASSERT_EQ(window.commit(100), fresh);
    const auto before = window.snapshot();
    EXPECT_EQ(window.commit(100), duplicate);
    EXPECT_EQ(window.commit(68), too_old);
    EXPECT_EQ(window.commit(0), zero);
    EXPECT_EQ(window.snapshot(), before);
    EXPECT_EQ(window.highest(), 100u);
}

TEST(ReplayWindow, OfSizeZeroTakesEverythingAndKeepsNothing) {
    replay_window window(0);
    EXPECT_EQ(window.commit(7), fresh);
    EXPECT_EQ(window.commit(7), fresh);
    EXPECT_EQ(window.commit(1), fresh);
    EXPECT_EQ(window.commit(0), fresh);
    EXPECT_EQ(window.highest(), 0u);
    EXPECT_TRUE(window.snapshot().empty());
}

TEST(ReplayWindow, HoldsAtTheEndOfTheNumberSpace) {
    const std::uint64_t last = ~std::uint64_t{0};
    replay_window window(64);
    EXPECT_EQ(window.commit(5), fresh);
    EXPECT_EQ(window.commit(last), fresh);
    EXPECT_EQ(window.commit(last), duplicate);
    EXPECT_EQ(window.commit(last - 63), fresh);
    EXPECT_EQ(window.commit(last - 64), too_old);
    EXPECT_EQ(window.commit(5), too_old);
}

/// RFC 4303 section 2.2.1 in one sentence: the number that has these low bits and is nearest above
/// the bottom of the window.
std::uint64_t plain_esn(std::uint32_t low, std::uint64_t highest, std::uint32_t window) {
    const std::uint64_t bottom = highest - (window == 0 ? 1 : window) + 1;
    const std::uint32_t distance = low - static_cast<std::uint32_t>(bottom);
    return bottom + distance;
}

TEST(InferEsn, AgreesWithTheDefinitionEverywhere) {
    std::mt19937_64 random(3);
    for (std::uint32_t window : {0u, 1u, 32u, 64u, 1024u, 4096u})
        for (int i = 0; i < 100'000; ++i) {
            const std::uint64_t epoch = random() % 5 << 32;
            const std::uint64_t highest = epoch + random() % 10'000 - (epoch ? 5'000 : 0);
            const auto low = random() % 2 == 0
                                 ? static_cast<std::uint32_t>(random())
                                 : static_cast<std::uint32_t>(highest + random() % 20'000 - 10'000);
            ASSERT_EQ(infer_esn(low, highest, window), plain_esn(low, highest, window))
                << "low " << low << ", highest " << highest << ", window " << window;
        }
}

TEST(InferEsn, FollowsASenderAcrossSeveralTurnsOfTheLowHalf) {
    replay_window window(1024);
    std::mt19937_64 random(4);
    std::uint64_t sent = 1;
    while (sent < std::uint64_t{5} << 32) {
        const std::uint64_t late = random() % 1024;
        const std::uint64_t seq = late < sent ? sent - late : sent;
        const auto low = static_cast<std::uint32_t>(seq);
        if (seq + 1024 > window.highest()) {
            ASSERT_EQ(infer_esn(low, window.highest(), 1024), seq);
        }
        (void)window.commit(seq);
        sent += random() % 2 == 0 ? 1 : random() % 4'000'000;
    }
}

} // namespace
} // namespace esplane::ipsec

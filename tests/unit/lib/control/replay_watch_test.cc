// SPDX-License-Identifier: Apache-2.0
//
// Who hears when of replay states that move, with a backend that moves them when the test says so.
#include <gtest/gtest.h>

#include "lib/control/layer.h"
#include "tests/unit/lib/event_log.h"
#include "tests/unit/lib/fake_backend.h"

namespace esplane::control {
namespace {

using lines = std::vector<std::string>;
constexpr std::uint64_t never = ~std::uint64_t{0};

class ReplayWatch : public testing::Test {
  protected:
    ReplayWatch() { layer_.subscribe(&events_); }
    ~ReplayWatch() override { layer_.unsubscribe(&events_); }

    static ipsec::sa_id id_of(std::uint32_t spi) {
        return {*ipsec::address::parse("10.1.0.2"), wire::be32(spi), 50};
    }
    void add(std::uint32_t spi, std::uint32_t threshold, std::uint32_t timer) {
        ipsec::sa s;
        s.id = id_of(spi);
        s.replay_threshold = threshold;
        s.replay_timer = timer;
        ASSERT_TRUE(layer_.add_sa(std::move(s), {}, now_));
        (void)events_.taken();
    }
    /// As if the data path had sent so far and said so.
    lines send(std::uint32_t spi, std::uint64_t sent) {
        backend_.usage[id_of(spi)].replay.sent = sent;
        backend_.listener->on_replay(id_of(spi));
        return events_.taken();
    }
    lines wait(std::uint64_t tenths) {
        now_.monotonic_ns += tenths * 100'000'000;
        layer_.tick(now_);
        return events_.taken();
    }
    [[nodiscard]] std::uint64_t goal(std::uint32_t spi) const {
        const auto at = backend_.goals.find(id_of(spi));
        return at == backend_.goals.end() ? never : at->second.first;
    }

    fake_backend backend_;
    layer layer_{backend_, [](auto into) { std::ranges::fill(into, 1); }};
    event_log events_;
    moment now_{1'000'000'000, 1'700'000'000};
};

TEST_F(ReplayWatch, NothingIsAskedOfTheBackendWhileNobodyListens) {
    add(1, 2, 10);
    EXPECT_TRUE(wait(100).empty());
    EXPECT_TRUE(backend_.goals.empty());
    EXPECT_EQ(layer_.next_deadline_ns(), std::nullopt);
}

TEST_F(ReplayWatch, AnSaWithoutThresholdAndTimerIsNotLookedAt) {
    layer_.hear_replays(&events_, true);
    add(1, 0, 0);
    EXPECT_TRUE(backend_.goals.empty());
}

TEST_F(ReplayWatch, TheNextGoalIsAThresholdFromTheLastEvent) {
    layer_.hear_replays(&events_, true);
    add(1, 3, 0);
    EXPECT_EQ(goal(1), 3u);
    EXPECT_EQ(send(1, 5), lines{"sa moved 1 threshold"});
    EXPECT_EQ(goal(1), 8u);
    EXPECT_EQ(send(1, 7), lines{}) << "a report that came too early";
    EXPECT_EQ(goal(1), 8u);
}

TEST_F(ReplayWatch, ANumberThatWasReachedMeanwhileIsToldOfByTheNextTick) {
    layer_.hear_replays(&events_, true);
    add(1, 3, 0);
    EXPECT_EQ(send(1, 3).size(), 1u);
    backend_.ahead = 10; // what is sent between the look at the number and the goal
    EXPECT_EQ(send(1, 6).size(), 1u);
    backend_.ahead = 0;
    backend_.usage[id_of(1)].replay.sent = 16;
    EXPECT_EQ(layer_.next_deadline_ns(), 0u);
    EXPECT_EQ(wait(0), lines{"sa moved 1 threshold"});
}

TEST_F(ReplayWatch, ManySasAreLookedAtInSteps) {
    constexpr std::uint32_t count = 10'000;
    for (std::uint32_t spi = 1; spi <= count; ++spi)
        add(spi, 2, 10);
    layer_.hear_replays(&events_, true);
    (void)wait(1);
    EXPECT_LT(backend_.goals.size(), count);
    EXPECT_EQ(layer_.next_deadline_ns(), 0u);
    (void)wait(0);
    (void)wait(0);
    EXPECT_EQ(backend_.goals.size(), count);
}

TEST_F(ReplayWatch, AnSaThatIsGoneIsNotTimed) {
    layer_.hear_replays(&events_, true);
    add(1, 2, 10);
    EXPECT_NE(layer_.next_deadline_ns(), std::nullopt);
    ASSERT_TRUE(layer_.delete_sa(id_of(1), {}));
    EXPECT_EQ(layer_.next_deadline_ns(), std::nullopt);
}

} // namespace
} // namespace esplane::control

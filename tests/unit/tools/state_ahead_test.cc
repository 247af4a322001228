// SPDX-License-Identifier: Apache-2.0
//
// A daemon that takes over brings SAs back while the other one goes on: what happens meanwhile
// counts, not what was there when it began.
#include <gtest/gtest.h>

#include "tests/unit/tools/daemon_site.h"

namespace esplane::tools {
namespace {

constexpr std::uint32_t old_sas = 4;

/// Two daemons of one directory: `old` is at work, `next` has prepared.
class StateAhead : public testing::Test {
  protected:
    StateAhead() {
        std::string pattern = "/dev/shm/state_ahead_test.XXXXXX";
        directory_ = ::mkdtemp(pattern.data());
        old_ = std::make_unique<daemon_site>(directory_);
        for (std::uint32_t spi = 1; spi <= old_sas; ++spi)
            EXPECT_TRUE(old_->control.add_sa(some_sa(spi), {}, now));
    }
    ~StateAhead() override {
        next_.reset();
        old_.reset();
        for (const char* name : {"/state", "/live", "/state.new", "/live.new", "/state.name"})
            ::unlink((directory_ + name).c_str());
        ::rmdir(directory_.c_str());
    }

    void prepare() {
        next_ = std::make_unique<daemon_site>(directory_, ahead);
        EXPECT_TRUE(next_->state->restore_ahead(next_->control, now));
    }
    [[nodiscard]] bool catch_up() {
        unique_fd live(::dup(old_->state->live_descriptor()));
        return next_->state->catch_up(next_->control, old_->state->log_descriptor(), live, now);
    }
    /// The old one stops, the new one goes on.
    void take_over() {
        ASSERT_TRUE(catch_up());
        next_->restore();
    }
    /// What a worker does: by a packet, both directions.
    void packets(std::uint32_t spi, std::uint64_t highest) {
        control::sa_usage u;
        u.replay.sent = highest;
        u.replay.received = 2 * highest;
        u.current = {.bytes = 100 * highest, .packets = highest, .add_time = 0, .use_time = 7};
        u.last_used = 9;
        old_->backend.begin_from(some_sa(spi).id, u);
    }
    /// The old one's log is mostly past then.
    void change_much() {
        for (int i = 0; i < 5000; ++i) {
            ASSERT_TRUE(old_->control.add_policy(some_policy(1), {}, now));
            ASSERT_TRUE(old_->control.delete_policy({.sel = some_policy(1).sel}, {}));
            (void)old_->state->tend(now);
        }
    }
    /// Indices, the newest first.
    static std::vector<std::uint32_t> policies_of(daemon_site& site) {
        std::vector<std::uint32_t> indices;
        control::cursor c;
        while (const ipsec::policy* p = site.control.next_policy(c))
            indices.push_back(p->index);
        return indices;
    }
    const ipsec::sa* found(std::uint32_t spi) { return next_->control.get_sa(some_sa(spi).id); }

    std::string directory_;
    std::unique_ptr<daemon_site> old_, next_;
};

TEST_F(StateAhead, NumbersAreThoseThatTheOldDaemonEndedWith) {
    packets(1, 5000);
    prepare();
    packets(1, 6000);
    packets(2, 7000);
    take_over();
    ASSERT_NE(found(1), nullptr);
    EXPECT_EQ(found(1)->replay.received, 12000u);
    EXPECT_EQ(found(1)->replay.bitmap, (std::vector<std::uint32_t>{~0u, ~0u}));
    EXPECT_EQ(found(1)->current.packets, 6000u);
    EXPECT_EQ(found(1)->current.bytes, 600000u);
    EXPECT_EQ(found(1)->last_used, 9u);
    EXPECT_EQ(found(2)->replay.received, 14000u);
    EXPECT_EQ(found(2)->current.use_time, 7u);
    EXPECT_EQ(found(3)->replay.received, some_sa(3).replay.received);
    EXPECT_EQ(next_->back.sas, old_sas);
}

TEST_F(StateAhead, AnOutboundSequenceGoesOnAboveTheLastThatWasSent) {
    ipsec::sa out = some_sa(9);
    out.dir = ipsec::direction::out;
    ASSERT_TRUE(old_->control.add_sa(out.clone(), {}, now));
    ipsec::policy p = some_policy(1);
    p.dir = ipsec::policy_direction::out;
    p.action = ipsec::policy_action::allow;
    p.templates = {{.id = {out.id.destination, {}, 50, {}}, .source = out.source}};
    ASSERT_TRUE(old_->control.add_policy(p, {}, now));
    prepare();
    packets(9, 6000);
    take_over();
    EXPECT_EQ(found(9)->replay.sent, 6000u);
    EXPECT_EQ(found(9)->current.packets, 6000u);
}

TEST_F(StateAhead, WhatIsProgrammedMeanwhileIsThere) {
    prepare();
    ASSERT_TRUE(old_->control.add_sa(some_sa(11), {}, now));
    ASSERT_TRUE(old_->control.delete_sa(some_sa(2).id, {}));
    ASSERT_TRUE(old_->control.delete_sa(some_sa(3).id, {})); // a rekey by the same SPI
    ipsec::sa other = some_sa(3);
    other.reqid = 33;
    ASSERT_TRUE(old_->control.add_sa(other.clone(), {}, now));
    ipsec::sa changed = some_sa(1);
    changed.limits.hard_packets = 77;
    ASSERT_TRUE(old_->control.update_sa(changed.clone(), {}, now));
    ipsec::sa bare = some_sa(12); // as clients mostly give one: without a replay state
    bare.replay = {};
    ASSERT_TRUE(old_->control.add_sa(bare.clone(), {}, now));
    ASSERT_TRUE(old_->control.add_policy(some_policy(1), {}, now));
    packets(12, 4000);
    packets(11, 4000);
    packets(1, 3000);
    take_over();
    EXPECT_EQ(next_->back.sas, old_sas + 1);
    EXPECT_EQ(next_->back.policies, 1u);
    EXPECT_EQ(next_->back.lost, 0u);
    EXPECT_EQ(found(2), nullptr);
    ASSERT_NE(found(11), nullptr);
    EXPECT_EQ(found(11)->replay.received, 8000u);
    ASSERT_NE(found(12), nullptr);
    EXPECT_EQ(found(12)->replay.received, 8000u);
    EXPECT_EQ(found(12)->replay.bitmap, (std::vector<std::uint32_t>{~0u, ~0u}))
        << "nothing comes again";
    ASSERT_NE(found(3), nullptr);
    EXPECT_EQ(found(3)->reqid, 33u);
    ASSERT_NE(found(1), nullptr);
    EXPECT_EQ(found(1)->limits.hard_packets, 77u);
    EXPECT_EQ(found(1)->replay.received, 6000u);
    control::cursor c;
    std::vector<std::uint32_t> order;
    while (const ipsec::sa* s = next_->control.next_sa(c))
        order.push_back(s->id.spi.host());
    EXPECT_EQ(order, (std::vector<std::uint32_t>{12, 3, 11, 4, 1})) << "newest first";
}

TEST_F(StateAhead, AFlushMeanwhileLeavesNothing) {
    ASSERT_TRUE(old_->control.add_policy(some_policy(1), {}, now));
    prepare();
    old_->control.flush_sas(0, {});
    old_->control.flush_policies(ipsec::policy_type::main, {});
    take_over();
    EXPECT_EQ(next_->back.sas, 0u);
    EXPECT_EQ(next_->back.policies, 0u);
    EXPECT_EQ(next_->control.sa_count(), 0u);
    EXPECT_TRUE(policies_of(*next_).empty());
}

TEST_F(StateAhead, PoliciesAreThereEarlyAndFollowTheOldDaemons) {
    change_much();
    for (std::uint8_t n = 1; n <= 4; ++n)
        ASSERT_TRUE(old_->control.add_policy(some_policy(n), {}, now));
    prepare();
    EXPECT_EQ(policies_of(*next_), policies_of(*old_));
    ASSERT_TRUE(old_->control.delete_policy({.sel = some_policy(2).sel}, {}));
    ASSERT_TRUE(old_->control.delete_policy({.sel = some_policy(3).sel}, {}));
    ASSERT_TRUE(old_->control.add_policy(some_policy(5), {}, now));
    ASSERT_TRUE(old_->control.add_policy(some_policy(3), {}, now));
    ipsec::policy changed = some_policy(1); // it is the newest then
    changed.priority = 77;
    ASSERT_TRUE(old_->control.update_policy(changed, {}, now));
    ASSERT_TRUE(old_->control.add_policy(some_policy(6), {}, now));
    ASSERT_TRUE(old_->control.delete_policy({.sel = some_policy(6).sel}, {}));
    take_over();
    EXPECT_EQ(policies_of(*next_), policies_of(*old_));
    EXPECT_EQ(next_->back.policies, 4u);
    EXPECT_EQ(next_->control.get_policy({.sel = some_policy(1).sel})->priority, 77u);
    ASSERT_TRUE(next_->control.add_policy(some_policy(7), {}, now));
    ASSERT_TRUE(next_->control.expire_policy({.sel = some_policy(4).sel}, false, {}));
    const std::vector<std::uint32_t> order = policies_of(*next_);
    next_->state->leave();
    daemon_site third(directory_);
    EXPECT_EQ(third.back.policies, 5u) << "and they come back later";
    EXPECT_EQ(policies_of(third), order);
}

TEST_F(StateAhead, APolicyThatChangesWhereItIsEndsThePreparation) {
    ASSERT_TRUE(old_->control.add_policy(some_policy(1), {}, now));
    prepare();
    ASSERT_TRUE(old_->control.expire_policy({.sel = some_policy(1).sel}, false, {}));
    EXPECT_FALSE(catch_up());
}

TEST_F(StateAhead, OneThatIsTakenOutWhenTheOldDaemonEndsDoesNotComeBack) {
    prepare();
    old_->backend.delete_sa(some_sa(4).id); // and it ended before the log had it
    take_over();
    EXPECT_EQ(next_->back.sas, old_sas - 1);
    EXPECT_EQ(next_->back.lost, 1u) << "its client was told nothing";
    EXPECT_EQ(found(4), nullptr);
}

TEST_F(StateAhead, AnOutboundOneThatNoPolicyHasTakenIsThere) {
    ipsec::sa out = some_sa(9);
    out.dir = ipsec::direction::out;
    ASSERT_TRUE(old_->control.add_sa(out.clone(), {}, now));
    prepare();
    take_over();
    EXPECT_EQ(next_->back.sas, old_sas + 1);
    EXPECT_EQ(next_->back.lost, 0u);
    EXPECT_EQ(found(9)->replay.sent, 17u);
}

TEST_F(StateAhead, ALogThatWasWrittenAnewIsNotTakenForTheSame) {
    prepare();
    change_much();
    EXPECT_FALSE(catch_up());
}

TEST_F(StateAhead, ALogThatIsLentIsNotWrittenAnew) {
    old_->state->lend(now);
    prepare();
    change_much();
    EXPECT_TRUE(catch_up());
}

TEST_F(StateAhead, ADaemonThatCameBetweenEndsThePreparation) {
    prepare();
    old_->state->leave();
    daemon_site between(directory_);
    unique_fd live(::dup(between.state->live_descriptor()));
    EXPECT_FALSE(next_->state->catch_up(next_->control, between.state->log_descriptor(), live, now))
        << "its nonces begin where these do";
}

TEST_F(StateAhead, APreparationThatComesToNothingLeavesTheStateAsItIs) {
    prepare();
    next_.reset();
    packets(1, 5000);
    prepare();
    take_over();
    EXPECT_EQ(found(1)->replay.received, 10000u);
}

TEST_F(StateAhead, WhatWasTakenOverComesBackLater) {
    prepare();
    packets(1, 5000);
    take_over();
    old_->state->leave();
    ASSERT_TRUE(next_->control.add_sa(some_sa(12), {}, now));
    next_->state->leave();
    const daemon_site third(directory_);
    EXPECT_EQ(third.back.sas, old_sas + 1);
}

} // namespace
} // namespace esplane::tools

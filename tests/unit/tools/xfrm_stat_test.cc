// SPDX-License-Identifier: Apache-2.0
#include "tools/xfrm_stat.h"

#include <gtest/gtest.h>

namespace esplane::tools {
namespace {

using fastpath::drop_reason;
using xfrm::stat_line;

class XfrmStatOfWorkers : public ::testing::Test {
  protected:
    void drop(drop_reason why, std::uint64_t packets) {
        counted_.dropped[static_cast<std::size_t>(why)].add(packets);
    }
    std::uint64_t count(stat_line l) { return xfrm_stat_of(counted_)[l]; }

    fastpath::worker_counters counted_;
};

TEST_F(XfrmStatOfWorkers, CountsAReasonInItsLineAndInNoOther) {
    for (unsigned i = 1; i < fastpath::drop_reason_count; ++i) {
        const auto why = static_cast<drop_reason>(i);
        fastpath::worker_counters one;
        one.dropped[i].add(5);
        const auto sum = xfrm_stat_of(one);
        const auto line = stat_line_of(why);
        for (std::size_t l = 0; l < xfrm::stat_line_count; ++l)
            EXPECT_EQ(sum.lines[l], line == static_cast<stat_line>(l) ? 5u : 0u)
                << describe(why).name << " in " << name_of(static_cast<stat_line>(l));
    }
}

TEST_F(XfrmStatOfWorkers, AddsReasonsThatShareALine) {
    drop(drop_reason::replay_duplicate, 2);
    drop(drop_reason::replay_too_old, 3);
    EXPECT_EQ(count(stat_line::in_state_seq_error), 5u);
}

TEST_F(XfrmStatOfWorkers, TellsOutboundBlocksFromInboundOnes) {
    drop(drop_reason::policy_block, 10);
    counted_.blocked_out.add(4);
    EXPECT_EQ(count(stat_line::in_policy_block), 6u);
    EXPECT_EQ(count(stat_line::out_policy_block), 4u);
}

TEST_F(XfrmStatOfWorkers, TellsOutboundLimitsFromInboundOnes) {
    drop(drop_reason::sa_expired, 10);
    counted_.expired_out.add(10);
    EXPECT_EQ(count(stat_line::in_state_expired), 0u);
    EXPECT_EQ(count(stat_line::out_state_expired), 10u);
}

TEST_F(XfrmStatOfWorkers, LeavesOutWhatTheKernelCountsElsewhere) {
    for (const drop_reason why : {drop_reason::ttl_exceeded, drop_reason::route_missing,
                                  drop_reason::tx_full, drop_reason::filter_denied})
        EXPECT_EQ(stat_line_of(why), std::nullopt) << describe(why).name;
}

} // namespace
} // namespace esplane::tools

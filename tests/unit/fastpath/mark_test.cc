// SPDX-License-Identifier: Apache-2.0
//
// Marks in the path: which policies and SAs they lead a packet to, and which ESP carries.
#include <gtest/gtest.h>

#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;

using host_ports::machine;
using host_ports::network;

struct Mark : testing::Test {
    Mark()
        : near(1, 1024, 1, 0, lab_kind::host)
        , far(2, 1024, 1, 0, lab_kind::host) {}

    static ipsec::policy block(ipsec::policy_direction d, ipsec::mark_mask mark) {
        ipsec::policy p;
        p.dir = d;
        p.sel.fam = ipsec::family::ipv4;
        p.action = ipsec::policy_action::block;
        p.mark = mark;
        return p;
    }
    void send() { near.push(machine, {make_packet({.host = 1})}); }
    std::uint64_t blocked() const { return near.drops(drop_reason::policy_block); }
    /// Adds the SAs of a tunnel anew, what leaves with an output mark, what enters with the other.
    static void mark_sas(lab& l, const tunnel_options& o, ipsec::mark_mask out,
                         ipsec::mark_mask in) {
        for (const bool leaving : {true, false}) {
            ipsec::sa s = l.control.get_sa(l.sa_of(o, leaving))->clone();
            s.algs = make_algorithms(o.run, o.key_seed * 2 + (leaving ? l.site : 3 - l.site));
            s.output_mark = leaving ? out : in;
            ASSERT_TRUE(l.control.delete_sa(s.id, {}));
            ASSERT_TRUE(l.control.add_sa(std::move(s), {}, l.clock));
        }
    }

    lab near, far;
};

TEST_F(Mark, APolicyWithAMarkIsForPacketsWithItAlone) {
    near.add_policy(block(ipsec::policy_direction::out, {0x10, 0xff}));
    send();
    EXPECT_EQ(blocked(), 0u);
    near.ports[machine]->set_mark({0x11, 0xff});
    send();
    EXPECT_EQ(blocked(), 0u);
    near.ports[machine]->set_mark({0x310, 0xffff});
    send();
    EXPECT_EQ(blocked(), 1u) << "bits that its mask leaves out do not count";
}

TEST_F(Mark, TheBestPolicyOfAnyMarkWins) {
    near.ports[machine]->set_mark({0x10, 0xff});
    ipsec::policy pass = block(ipsec::policy_direction::out, {});
    pass.action = ipsec::policy_action::allow;
    pass.priority = 1;
    ipsec::policy worse = block(ipsec::policy_direction::out, {0x10, 0xff});
    worse.priority = 2;
    near.add_policy(pass);
    near.add_policy(worse);
    send();
    EXPECT_EQ(blocked(), 0u);
    ipsec::policy best = block(ipsec::policy_direction::out, {0, 0x100});
    best.priority = 0;
    near.add_policy(best);
    send();
    EXPECT_EQ(blocked(), 1u);
}

TEST_F(Mark, PoliciesOfOneSelectorAndDifferentMarksAreTwo) {
    near.add_policy(block(ipsec::policy_direction::out, {0x10, 0xff}));
    near.add_policy(block(ipsec::policy_direction::out, {0x11, 0xff}));
    EXPECT_EQ(near.control.policy_counts().out, 2u);
    ASSERT_TRUE(near.control.delete_policy({ipsec::policy_direction::out,
                                            block(ipsec::policy_direction::out, {}).sel,
                                            0,
                                            0,
                                            {0x10, 0xff}},
                                           {}));
    near.ports[machine]->set_mark({0x10, 0xff});
    send();
    EXPECT_EQ(blocked(), 0u) << "the one that went";
    near.ports[machine]->set_mark({0x11, 0xff});
    send();
    EXPECT_EQ(blocked(), 1u) << "the one that stayed";
}

TEST_F(Mark, AnSaIsFoundByThePolicysMark) {
    const tunnel_options o;
    near.add_sas(o);
    ipsec::policy p = block(ipsec::policy_direction::out, {0x10, 0xff});
    p.action = ipsec::policy_action::allow;
    ipsec::template_ t;
    t.id = near.sa_of(o, true);
    t.id.spi = {};
    t.reqid = o.reqid;
    p.templates = {t};
    near.add_policy(p);
    near.ports[machine]->set_mark({0x10, 0xff});
    send();
    EXPECT_EQ(near.sent(network).size(), 1u) << "an SA without a mark is every packet's";

    ipsec::sa s = near.control.get_sa(near.sa_of(o, true))->clone();
    s.algs = make_algorithms(o.run, 3);
    ASSERT_TRUE(near.control.delete_sa(s.id, {}));
    s.id.mark = {0x11, 0xff};
    ASSERT_TRUE(near.control.add_sa(s.clone(), {}, near.clock));
    send();
    EXPECT_TRUE(near.sent(network).empty()) << "one of another mark is not";
    s.id.mark = {0x10, 0xf0};
    ASSERT_TRUE(near.control.add_sa(std::move(s), {}, near.clock));
    send();
    EXPECT_EQ(near.sent(network).size(), 1u);
}

TEST_F(Mark, WhatComesOutOfAnSaHasTheMarkThatTheSaPutsOnIt) {
    const tunnel_options o;
    far.add_policy(block(ipsec::policy_direction::in, {0x10, 0xff}));
    near.add_tunnel(o);
    far.add_tunnel(o);
    mark_sas(far, o, {}, {0x11, 0xff});
    send();
    far.push(network, near.sent(network));
    EXPECT_EQ(far.punted(machine).size(), 1u);
    mark_sas(far, o, {}, {0x10, 0xff});
    send();
    far.push(network, near.sent(network));
    EXPECT_TRUE(far.punted(machine).empty());
    EXPECT_EQ(far.drops(drop_reason::policy_block), 1u);
}

TEST(PacketMark, IsWhatWasPutThereAndTellsNoneFromZero) {
    fastpath::packet p;
    EXPECT_EQ(p.flags & fastpath::packet_flag::marked, 0);
    p.put_mark(0x12345678);
    EXPECT_EQ(p.mark(), 0x12345678u);
    p.put_mark(0);
    EXPECT_EQ(p.mark(), 0u);
    EXPECT_NE(p.flags & fastpath::packet_flag::marked, 0);
}

} // namespace
} // namespace esplane::tests

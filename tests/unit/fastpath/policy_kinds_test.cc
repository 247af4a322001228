// SPDX-License-Identifier: Apache-2.0
//
// What becomes of packets that no policy covers, and of those that a sub-policy and a main one
// cover: default actions and policy types, under traffic.
#include <gtest/gtest.h>

#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using gateway_ports::plain;
using gateway_ports::secure;
using ipsec::policy_action;
using ipsec::policy_type;
using enum ipsec::policy_direction;

constexpr auto pass = policy_action::allow;
constexpr auto block = policy_action::block;

struct PolicyKinds : testing::TestWithParam<ipsec::family> {
    PolicyKinds() { one.add_sas({}); }

    ipsec::policy covering(ipsec::policy_direction dir, policy_type type, policy_action action,
                           bool protects) const {
        ipsec::policy p;
        p.dir = dir;
        p.type = type;
        p.action = action;
        p.sel.fam = p.sel.source.fam = p.sel.destination.fam = GetParam();
        if (!protects) return p;
        ipsec::template_ t;
        t.id.destination = *ipsec::address::parse("192.168.77.2");
        t.source = *ipsec::address::parse("192.168.77.1");
        t.fam = ipsec::family::ipv4;
        t.reqid = 1;
        p.templates = {t};
        return p;
    }
    void add(ipsec::policy_direction dir, policy_type type, policy_action action,
             bool protects = false) {
        one.add_policy(covering(dir, type, action, protects));
    }
    void set(policy_action in_, policy_action fwd_, policy_action out_) {
        ipsec::default_actions d{};
        d[static_cast<std::size_t>(in)] = in_;
        d[static_cast<std::size_t>(fwd)] = fwd_;
        d[static_cast<std::size_t>(out)] = out_;
        one.control.set_defaults(d);
    }
    enum class fate : std::uint8_t { lost, clear, tunnel };
    /// Of a packet that passes through.
    fate sends() {
        one.push(plain, {make_packet({.family = GetParam()})});
        const auto left = one.sent(secure);
        if (left.empty()) return fate::lost;
        return left.at(0).at(9) == 50 && left.at(0).at(0) >> 4 == 4 ? fate::tunnel : fate::clear;
    }
    bool machine_gets() {
        packet_spec to_machine{.family = GetParam(), .from = 2, .to = 1, .host = 1};
        one.push(secure, {make_packet(to_machine)});
        return !one.punted(secure).empty() || !one.punted(plain).empty();
    }

    lab one{1};
};

using enum PolicyKinds::fate;

TEST_P(PolicyKinds, WhatNoPolicyCoversPassesUnlessTheDefaultOfItsWayBlocks) {
    EXPECT_EQ(sends(), clear);
    EXPECT_TRUE(machine_gets());
    set(pass, block, pass);
    EXPECT_EQ(sends(), lost);
    EXPECT_TRUE(machine_gets());
    set(pass, pass, block);
    EXPECT_EQ(sends(), lost);
    set(block, pass, pass);
    EXPECT_EQ(sends(), clear);
    EXPECT_FALSE(machine_gets());
    EXPECT_EQ(one.drops(drop_reason::policy_default), 2u);
    EXPECT_EQ(one.drops(drop_reason::policy_default_out), 1u);
    set(pass, pass, pass);
    EXPECT_TRUE(machine_gets());
}

TEST_P(PolicyKinds, APolicyThatLetsPassOvercomesTheDefault) {
    set(block, block, block);
    add(fwd, policy_type::main, pass);
    EXPECT_EQ(sends(), lost) << "`out` is asked, too";
    add(out, policy_type::main, pass);
    EXPECT_EQ(sends(), clear);
    add(in, policy_type::main, pass);
    EXPECT_TRUE(machine_gets());
}

TEST_P(PolicyKinds, ASubPolicyAloneDecides) {
    add(out, policy_type::sub, pass);
    EXPECT_EQ(sends(), clear);
    set(pass, pass, block);
    EXPECT_EQ(sends(), clear);
    one.control.flush_policies(policy_type::sub, {});
    EXPECT_EQ(sends(), lost);
    EXPECT_EQ(one.drops(drop_reason::policy_default_out), 1u);
}

TEST_P(PolicyKinds, ASubPolicyThatBlocksIsAskedFirst) {
    add(out, policy_type::main, pass);
    add(out, policy_type::sub, block);
    EXPECT_EQ(sends(), lost);
    EXPECT_EQ(one.drops(drop_reason::policy_block), 1u);
}

TEST_P(PolicyKinds, ASubPolicyThatLetsPassLeavesTheRestToTheMainOne) {
    add(out, policy_type::sub, pass);
    add(out, policy_type::main, pass, true);
    EXPECT_EQ(sends(), tunnel);
    one.control.flush_policies(policy_type::main, {});
    add(out, policy_type::main, block);
    EXPECT_EQ(sends(), lost);
}

TEST_P(PolicyKinds, ASubPolicyProtectsWhatTheMainOneLetsPass) {
    add(out, policy_type::sub, pass, true);
    EXPECT_EQ(sends(), tunnel);
    add(out, policy_type::main, pass);
    EXPECT_EQ(sends(), tunnel);
}

TEST_P(PolicyKinds, BesideASubPolicyWhatPassesThroughIsHeldAgainstIn) {
    add(fwd, policy_type::sub, pass);
    add(fwd, policy_type::main, block);
    EXPECT_EQ(sends(), clear);
    add(in, policy_type::main, block);
    EXPECT_EQ(sends(), lost);
}

TEST_P(PolicyKinds, AMarkedSubPolicyIsForItsMarkAlone) {
    ipsec::policy p = covering(out, policy_type::sub, block, false);
    p.mark = {7, 0xff};
    one.add_policy(std::move(p));
    EXPECT_EQ(sends(), clear);
    p = covering(out, policy_type::sub, block, false);
    p.mark = {0, 0xff};
    one.add_policy(std::move(p));
    EXPECT_EQ(sends(), lost);
}

INSTANTIATE_TEST_SUITE_P(Of, PolicyKinds, testing::Values(ipsec::family::ipv4, ipsec::family::ipv6),
                         [](const auto& one) {
                             return one.param == ipsec::family::ipv4 ? "IPv4" : "IPv6";
                         });

} // namespace
} // namespace esplane::tests

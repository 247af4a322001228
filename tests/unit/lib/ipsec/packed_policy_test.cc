// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/packed_policy.h"

#include <gtest/gtest.h>

namespace esplane::ipsec::packed_policy_test {
namespace {

policy plain() {
    policy p;
    p.sel.fam = family::ipv4;
    p.sel.source = *address::parse("10.1.0.1");
    p.sel.destination = *address::parse("10.2.0.1");
    p.sel.source_prefix = p.sel.destination_prefix = 32;
    p.current.add_time = 1'700'000'000;
    template_ t;
    t.id.destination = *address::parse("192.0.2.2");
    t.source = *address::parse("192.0.2.1");
    t.fam = family::ipv4;
    t.reqid = 7;
    t.auth_algs = t.cipher_algs = t.comp_algs = ~std::uint32_t{0};
    p.templates = {t};
    return p;
}

/// Every field another one than in an empty description.
policy full() {
    policy p;
    p.sel = {*address::parse("fd00::2"),
             *address::parse("fd00::3"),
             64,
             65,
             wire::be16(1),
             wire::be16(2),
             wire::be16(3),
             wire::be16(4),
             17,
             family::ipv6,
             -5,
             6};
    p.if_id = 7;
    p.mark = {8, 9};
    p.security = {10, 11, {12, 13, 14}};
    p.priority = 15;
    p.action = policy_action::block;
    p.flags = 16;
    p.share = 17;
    template_ t;
    t.id = {*address::parse("fd00::4"), wire::be32(18), 51, {19, 20}};
    t.source = *address::parse("fd00::5");
    t.fam = family::ipv6;
    t.run_mode = mode::transport;
    t.reqid = 21;
    t.share = 22;
    t.optional = true;
    t.auth_algs = 23;
    t.cipher_algs = 24;
    t.comp_algs = 25;
    p.templates = {template_{}, t, plain().templates.front()};
    p.limits = {26, 27, 28, 29, 30, 31, 32, 33};
    p.current = {34, 35, 36, 37};
    p.dying = true;
    return p;
}

void expect_same(const policy& a, const policy& b) {
    EXPECT_EQ(a.dir, b.dir);
    EXPECT_EQ(a.type, b.type);
    EXPECT_EQ(a.sel, b.sel);
    EXPECT_EQ(a.if_id, b.if_id);
    EXPECT_EQ(a.mark, b.mark);
    EXPECT_EQ(a.security, b.security);
    EXPECT_EQ(a.priority, b.priority);
    EXPECT_EQ(a.index, b.index);
    EXPECT_EQ(a.action, b.action);
    EXPECT_EQ(a.flags, b.flags);
    EXPECT_EQ(a.share, b.share);
    EXPECT_EQ(a.templates, b.templates);
    EXPECT_EQ(a.limits, b.limits);
    EXPECT_EQ(a.current, b.current);
    EXPECT_EQ(a.position, b.position);
    EXPECT_EQ(a.dying, b.dying);
}

TEST(PackedPolicy, GivesBackWhatWasPacked) {
    expect_same(packed_policy(plain()).unpack(), plain());
    expect_same(packed_policy(full()).unpack(), full());
    expect_same(packed_policy(policy()).unpack(), policy());
    expect_same(packed_policy().unpack(), policy());
}

TEST(PackedPolicy, WhatNamesItIsLeftToTheDatabase) {
    policy p = plain();
    p.dir = policy_direction::fwd;
    p.type = policy_type::sub;
    p.index = 17;
    p.position = 18;
    expect_same(packed_policy(p).unpack(), plain());
}

TEST(PackedPolicy, ACopyOutlivesWhatItIsACopyOf) {
    packed_policy copy;
    {
        const packed_policy first(full());
        copy = first;
        copy = packed_policy(plain());
        copy = first;
    }
    expect_same(copy.unpack(), full());
}

TEST(PackedPolicy, AnOrdinaryPolicyTakesLittle) {
    EXPECT_LE(packed_policy(plain()).size(), 72u);
}

} // namespace
} // namespace esplane::ipsec::packed_policy_test

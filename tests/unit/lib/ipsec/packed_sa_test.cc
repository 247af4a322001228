// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/packed_sa.h"

#include <gtest/gtest.h>

namespace esplane::ipsec::packed_sa_test {
namespace {

sa plain() {
    sa s;
    s.id = {*address::parse("10.1.0.2"), wire::be32(0x1234), 50};
    s.source = *address::parse("10.1.0.1");
    s.sel.fam = family::ipv4;
    s.sel.source.fam = s.sel.destination.fam = family::ipv4;
    s.reqid = 7;
    s.replay_window = 32;
    s.replay.bitmap.resize(1);
    s.current.add_time = 1'700'000'000;
    const std::uint8_t key[20] = {1, 2, 3};
    s.algs.aead = {"rfc4106(gcm(aes))", secret(key), 128};
    return s;
}

/// Every field another one than in an empty description.
sa full() {
    sa s = plain();
    s.id.mark = {1, 2};
    s.id.protocol = 51;
    s.source = *address::parse("fd00::1");
    s.sel = {*address::parse("fd00::2"),
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
    s.run_mode = mode::transport;
    s.if_id = 8;
    s.seq = 9;
    s.output_mark = {10, 11};
    s.flags = 12;
    s.extra_flags = 13;
    s.dir = direction::out;
    s.state = sa_state::larval;
    s.dying = true;
    const std::uint8_t key[33] = {14};
    s.algs.cipher = {"cbc(aes)", secret(key), 0};
    s.algs.auth = {"hmac(sha256)", secret(key), 96};
    s.algs.run = suite::null_sha256_128;
    s.encap = {wire::be16(15), wire::be16(16), *address::parse("10.9.0.1")};
    s.mapping_threshold = 17;
    s.nat_keepalive = 18;
    address of_no_family;
    of_no_family.bytes.fill(19);
    s.care_of = of_no_family;
    s.security = {20, 21, {22, 23, 24}};
    s.pcpu = 0;
    s.tfc_pad = 25;
    s.replay_window = 64;
    s.replay_esn_form = true;
    s.replay = {26, 27, {28, 29}};
    s.replay_threshold = 30;
    s.replay_timer = 31;
    s.limits = {32, 33, 34, 35, 36, 37, 38, 39};
    s.current = {40, 41, 42, 43};
    s.last_used = 44;
    s.statistics = {45, 46, 47};
    return s;
}

void expect_same(const keyed_algorithm& a, const keyed_algorithm& b) {
    EXPECT_EQ(a.name, b.name);
    EXPECT_TRUE(a.key.equals(b.key));
    EXPECT_EQ(a.icv_bits, b.icv_bits);
}

void expect_same(const sa& a, const sa& b) {
    EXPECT_EQ(a.id, b.id);
    EXPECT_EQ(a.source, b.source);
    EXPECT_EQ(a.sel, b.sel);
    EXPECT_EQ(a.run_mode, b.run_mode);
    EXPECT_EQ(a.reqid, b.reqid);
    EXPECT_EQ(a.if_id, b.if_id);
    EXPECT_EQ(a.seq, b.seq);
    EXPECT_EQ(a.output_mark, b.output_mark);
    EXPECT_EQ(a.flags, b.flags);
    EXPECT_EQ(a.extra_flags, b.extra_flags);
    EXPECT_EQ(a.dir, b.dir);
    EXPECT_EQ(a.state, b.state);
    EXPECT_EQ(a.dying, b.dying);
    expect_same(a.algs.aead, b.algs.aead);
    expect_same(a.algs.cipher, b.algs.cipher);
    expect_same(a.algs.auth, b.algs.auth);
    EXPECT_EQ(a.algs.run, b.algs.run);
    EXPECT_EQ(a.encap, b.encap);
    EXPECT_EQ(a.mapping_threshold, b.mapping_threshold);
    EXPECT_EQ(a.nat_keepalive, b.nat_keepalive);
    EXPECT_EQ(a.care_of, b.care_of);
    EXPECT_EQ(a.security, b.security);
    EXPECT_EQ(a.pcpu, b.pcpu);
    EXPECT_EQ(a.tfc_pad, b.tfc_pad);
    EXPECT_EQ(a.replay_window, b.replay_window);
    EXPECT_EQ(a.replay_esn_form, b.replay_esn_form);
    EXPECT_EQ(a.replay, b.replay);
    EXPECT_EQ(a.replay_threshold, b.replay_threshold);
    EXPECT_EQ(a.replay_timer, b.replay_timer);
    EXPECT_EQ(a.limits, b.limits);
    EXPECT_EQ(a.current, b.current);
    EXPECT_EQ(a.last_used, b.last_used);
    EXPECT_EQ(a.statistics.replay_window, b.statistics.replay_window);
    EXPECT_EQ(a.statistics.replay, b.statistics.replay);
    EXPECT_EQ(a.statistics.integrity_failed, b.statistics.integrity_failed);
}

TEST(PackedSa, GivesBackWhatWasPacked) {
    expect_same(packed_sa(plain()).unpack(plain().id), plain());
    expect_same(packed_sa(full()).unpack(full().id), full());
    expect_same(packed_sa(sa()).unpack({}), sa());
    expect_same(packed_sa().unpack({}), sa());
}

TEST(PackedSa, KeepsNoKeyWhereNoneIsWanted) {
    sa expected = full();
    const suite run = expected.algs.run;
    expected.algs = {};
    expected.algs.run = run;
    expect_same(packed_sa::without_keys(full()).unpack(full().id), expected);
    expect_same(packed_sa(full()).unpack_without_keys(full().id), expected);
}

TEST(PackedSa, KeepsNamesThatNobodyKnows) {
    for (const std::size_t length : {1u, 63u, 200u}) {
        sa s = plain();
        s.algs.aead.name = std::string(length, 'x');
        expect_same(packed_sa(s).unpack(s.id), s);
    }
}

TEST(PackedSa, KeepsASecurityContextWithoutALabel) {
    sa s = plain();
    s.security = {20, 21, {}};
    expect_same(packed_sa(s).unpack(s.id), s);
}

TEST(PackedSa, ACopyOutlivesWhatItIsACopyOf) {
    packed_sa copy;
    {
        const packed_sa first(full());
        copy = first;
        copy = packed_sa(plain());
        copy = first;
    }
    expect_same(copy.unpack(full().id), full());
}

TEST(PackedSa, AnOrdinarySaTakesLittle) {
    EXPECT_LE(packed_sa(plain()).size(), 88u);
    EXPECT_LE(packed_sa::without_keys(plain()).size(), 64u);
}

} // namespace
} // namespace esplane::ipsec::packed_sa_test

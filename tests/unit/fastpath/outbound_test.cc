// SPDX-License-Identifier: Apache-2.0
//
// ESP out: numbers, limits and the outer header.
#include "fastpath/outbound.h"

#include <gtest/gtest.h>

#include <set>

#include "lib/wire/checksum.h"
#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using ipsec::family;
using ipsec::suite;

using gateway_ports::plain;
using gateway_ports::secure;

/// The SA of a tunnel's sender, as a client restores it.
ipsec::sa restored(const lab& l, const tunnel_options& o, std::uint64_t sent) {
    ipsec::sa s;
    s.id = l.sa_of(o, true);
    s.source = *ipsec::address::parse("192.168.77.1");
    s.reqid = o.reqid;
    s.algs = make_algorithms(o.run, o.key_seed * 2 + 1);
    s.flags = o.esn ? ipsec::sa_flag::esn : 0;
    s.replay_window = o.replay_window;
    s.replay.sent = sent;
    return s;
}

std::vector<frame> numbered(std::uint32_t count) {
    std::vector<frame> all;
    for (std::uint32_t i = 0; i < count; ++i)
        all.push_back(make_packet({.number = i}));
    return all;
}

TEST(Outbound, StopsAfterTheLastSequenceNumberAndBurnsNothing) {
    lab one{1};
    const tunnel_options o;
    one.add_policies(o);
    ASSERT_TRUE(one.control.add_sa(restored(one, o, 0xfffffffc), {}, one.clock));
    one.push(plain, numbered(10));
    const auto wire = one.sent(secure);
    ASSERT_EQ(wire.size(), 3u);
    EXPECT_EQ(wire::load<wire::be32>(&wire[2][24]).host(), 0xffffffffu);
    EXPECT_EQ(one.drops(drop_reason::sequence_exhausted), 7u);
    const ipsec::sa* s = one.control.get_sa(one.sa_of(o, true));
    EXPECT_EQ(s->replay.sent, 0xffffffffu);
    EXPECT_EQ(s->current.packets, 3u);
    EXPECT_TRUE(one.worker->counters().balanced());
}

TEST(Outbound, AnSaThatIsInUseStopsWithinABurstToo) {
    lab one{1};
    const tunnel_options o;
    one.add_policies(o);
    ASSERT_TRUE(one.control.add_sa(restored(one, o, 0xfffffff0), {}, one.clock));
    one.push(plain, numbered(1)); // after its first packet nothing else is asked of it
    one.push(plain, numbered(30));
    EXPECT_EQ(one.sent(secure).size(), 15u);
    EXPECT_EQ(one.drops(drop_reason::sequence_exhausted), 16u);
    EXPECT_EQ(one.control.get_sa(one.sa_of(o, true))->replay.sent, 0xffffffffu);
}

TEST(Outbound, WithEsnGoesOnAcrossTheBorderAndThePeerFollows) {
    for (const suite run :
         {suite::aes128_gcm16, suite::aes256_cbc_sha256_128, suite::null_sha256_128}) {
        lab one{1}, two{2};
        const tunnel_options o{.run = run, .esn = true, .replay_window = 64};
        one.add_policies(o);
        two.add_policies(o);
        constexpr std::uint64_t border = std::uint64_t{5} << 32;
        ASSERT_TRUE(one.control.add_sa(restored(one, o, border - 50), {}, one.clock));
        ipsec::sa in = restored(one, o, 0);
        in.replay.received = border - 50;
        in.replay.bitmap = {0xffffffff, 0xffffffff};
        ASSERT_TRUE(two.control.add_sa(std::move(in), {}, two.clock));
        one.push(plain, numbered(100));
        two.push(secure, one.sent(secure));
        EXPECT_EQ(two.sent(plain).size(), 100u) << ipsec::name_of(run);
        EXPECT_EQ(two.control.get_sa(one.sa_of(o, true))->replay.received, border + 50);
        EXPECT_EQ(one.control.get_sa(one.sa_of(o, true))->replay.sent, border + 50);
    }
}

TEST(Outbound, PassesTheHardLimitOfBytesByTheKernelsRule) {
    lab one{1};
    const tunnel_options o{.limits = {.hard_bytes = 200}}; // looked at before a packet is counted
    one.add_tunnel(o);
    one.push(plain, numbered(10)); // of 64 bytes: 0, 64, 128 and 192 are below
    EXPECT_EQ(one.sent(secure).size(), 4u);
    EXPECT_EQ(one.drops(drop_reason::sa_expired), 6u);
}

TEST(Outbound, CountsOnFromWhatAClientRestored) {
    lab one{1};
    const tunnel_options o{.limits = {.hard_packets = 105}};
    one.add_policies(o);
    ipsec::sa s = restored(one, o, 100);
    s.limits = o.limits;
    s.dir = ipsec::direction::out;
    s.current.packets = 100;
    s.current.bytes = 6400;
    ASSERT_TRUE(one.control.add_sa(std::move(s), {}, one.clock));
    one.push(plain, numbered(3));
    const ipsec::sa* now = one.control.get_sa(one.sa_of(o, true));
    ASSERT_NE(now, nullptr);
    EXPECT_EQ(now->current.packets, 103u);
    EXPECT_EQ(now->current.bytes, 6400u + 3 * 64);
    EXPECT_EQ(now->replay.sent, 103u);
    one.push(plain, numbered(5));
    EXPECT_EQ(one.sent(secure).size(), 5u);
}

TEST(Outbound, NeverSharesAnIvBetweenSasOfOneKeyAcrossBlocks) {
    lab one{1};
    const tunnel_options o;
    one.add_policies(o);
    ASSERT_TRUE(one.control.add_sa(restored(one, o, 0), {}, one.clock));
    std::set<std::uint64_t> ivs;
    std::size_t packets = 0;
    const auto send = [&] {
        one.push(plain, numbered(40));
        for (const frame& f : one.sent(secure)) {
            ivs.insert(wire::load<wire::be64>(&f[28]).host());
            ++packets;
        }
    };
    const auto running = [&] {
        fastpath::flow_key<fastpath::v4_words> flow{};
        const frame f = make_packet({});
        flow.words[0] = wire::load<std::uint64_t>(&f[12]);
        return one.tables.policies(ipsec::policy_direction::out).v4.find(flow)->group->best.load();
    };
    send();
    for (int again = 0; again < 5; ++again) {
        running()->nonce = running()->nonce_end - 20; // the border comes within the next burst
        send();
        one.control.flush_sas(0, {});
        ASSERT_TRUE(one.control.add_sa(restored(one, o, 0), {}, one.clock));
        send();
    }
    EXPECT_EQ(packets, 440u);
    EXPECT_EQ(ivs.size(), packets);
}

TEST(Outbound, WritesTrafficClassAndDfAsTheKernelDoes) {
    for (const family outer : {family::ipv4, family::ipv6})
        for (const family inner : {family::ipv4, family::ipv6})
            for (const bool no_ecn : {false, true})
                for (const bool no_dscp : {false, true})
                    for (const bool no_pmtu : {false, true}) {
                        lab one{1};
                        tunnel_options o{.outer = outer};
                        if (no_ecn) o.flags |= ipsec::sa_flag::no_ecn;
                        if (no_pmtu) o.flags |= ipsec::sa_flag::no_pmtu_discovery;
                        if (no_dscp) o.extra_flags = ipsec::sa_extra_flag::dont_encap_dscp;
                        one.add_tunnel(o);
                        for (std::uint8_t ecn = 0; ecn < 4; ++ecn)
                            for (const bool df : {false, true}) {
                                const auto tos = static_cast<std::uint8_t>(0xb8 | ecn);
                                one.push(plain, {make_packet({.family = inner,
                                                              .tos = tos,
                                                              .ttl = 9,
                                                              .dont_fragment = df})});
                                const auto wire = one.sent(secure);
                                ASSERT_EQ(wire.size(), 1u);
                                const std::uint8_t want = static_cast<std::uint8_t>(
                                    (no_dscp ? 0 : 0xb8) | (no_ecn     ? 0
                                                            : ecn == 3 ? 2
                                                                       : ecn));
                                const frame& f = wire[0];
                                if (outer == family::ipv6) {
                                    EXPECT_EQ(wire::load<wire::be32>(f.data()).host() >> 20,
                                              0x600u | want);
                                    EXPECT_EQ(f[7], 64);
                                    continue;
                                }
                                EXPECT_EQ(f[1], want);
                                EXPECT_EQ(f[8], 64); // the outer TTL is a new one
                                EXPECT_EQ(f[6] == 0x40, !no_pmtu && (df || inner == family::ipv6));
                                EXPECT_EQ(wire::checksum_fold(wire::checksum_add(0, f.data(), 20)),
                                          0xffff);
                            }
                    }
}

TEST(Outbound, FillsThePathMtuExactlyAndNotAByteMore) {
    for (const suite run :
         {suite::aes128_gcm16, suite::aes256_cbc_sha256_128, suite::null_sha256_128})
        for (const family outer : {family::ipv4, family::ipv6})
            for (const bool encap : {false, true}) {
                if (encap && outer == family::ipv6) continue;
                lab one{1};
                one.add_tunnel({.run = run, .outer = outer, .encapsulated = encap});
                std::uint32_t largest = 0;
                std::size_t longest = 0;
                for (std::uint32_t length = 1360; length <= 1500; ++length) {
                    one.push(plain, {make_packet({.length = length})});
                    for (const frame& f : one.sent(secure)) {
                        EXPECT_EQ(largest + 1, largest == 0 ? 1 : length);
                        largest = length;
                        longest = std::max(longest, f.size());
                    }
                    const auto errors = one.sent(plain);
                    for (const frame& e : errors) // what it names is what fits
                        EXPECT_EQ(wire::load<wire::be16>(&e[26]).host(), largest);
                    one.advance(10'000'000);
                }
                EXPECT_LE(longest, 1500u);
                EXPECT_GT(longest, 1500u - ipsec::layout_of(run).block_length);
            }
}

} // namespace
} // namespace esplane::tests

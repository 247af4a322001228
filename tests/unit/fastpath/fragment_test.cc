// SPDX-License-Identifier: Apache-2.0
//
// Fragments of ESP: what leaves in pieces, and what comes in pieces.
//
//   site 1 [plain] gateway 1 [secure] --- 1500 bytes --- [secure] gateway 2 [plain] site 2
#include "fastpath/fragment.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "fastpath/reassembly.h"
#include "lib/ipsec/overhead.h"
#include "tests/support/esp_peer.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using ipsec::family;

using gateway_ports::plain;
using gateway_ports::secure;

bool is_balanced(const lab& l) {
    return l.worker->counters().balanced();
}

/// Two gateways and a tunnel between them.
struct pair_of_gateways {
    explicit pair_of_gateways(const tunnel_options& o) {
        one.add_tunnel(o);
        two.add_tunnel(o);
    }
    /// Fragments of a packet that may be fragmented and does not fit.
    std::vector<frame> fragments(std::uint32_t number = 0, std::uint32_t length = 1500) {
        one.push(plain,
                 {make_packet({.length = length, .number = number, .dont_fragment = false})});
        return one.sent(secure);
    }
    lab one{1}, two{2};
};

TEST(Fragment, OfEspArePutTogetherByThePeerInWhateverOrder) {
    for (const family outer : {family::ipv4, family::ipv6})
        for (const bool encapsulated : {false, true}) {
            for (const bool backwards : {false, true}) {
                pair_of_gateways g({.outer = outer, .encapsulated = encapsulated});
                auto pieces = g.fragments(7);
                ASSERT_EQ(pieces.size(), 2u);
                EXPECT_LE(pieces[0].size(), 1500u);
                EXPECT_EQ(g.one.worker->counters().fragmented.get(), 1u);
                if (backwards) std::ranges::reverse(pieces);
                g.two.push(secure, pieces);
                const auto out = g.two.sent(plain);
                ASSERT_EQ(out.size(), 1u);
                EXPECT_EQ(out[0].size(), 1500u);
                EXPECT_EQ(number_of(out[0]), 7u);
                EXPECT_EQ(g.two.worker->counters().reassembled.get(), 1u);
                EXPECT_TRUE(is_balanced(g.one) && is_balanced(g.two));
            }
        }
}

TEST(Fragment, OfManyPacketsAtOnceAreNotMixedUp) {
    pair_of_gateways g({.outer = family::ipv6});
    std::vector<frame> packets, pieces;
    for (std::uint32_t i = 0; i < 8; ++i)
        packets.push_back(make_packet({.length = 1500, .number = i, .dont_fragment = false}));
    g.one.push(plain, packets);
    pieces = g.one.sent(secure);
    ASSERT_EQ(pieces.size(), 16u);
    std::stable_partition(pieces.begin(), pieces.end(),
                          [](const frame& f) { return f.size() < 1000; });
    g.two.push(secure, pieces);
    EXPECT_EQ(g.two.sent(plain).size(), 8u);
    EXPECT_TRUE(is_balanced(g.two));
}

/// What a burst may become at most: three pieces of half its packets, an error about each of the
/// others.
TEST(Fragment, AndErrorsOfAWholeBurstAreLostWhereThePortsAreFull) {
    const tunnel_options o;
    pair_of_gateways g(o);
    g.one.backend.set_path_mtu(g.one.sa_of(o, true), 700);
    const std::size_t free = g.one.pool->free_frames();
    std::vector<frame> packets;
    for (std::uint32_t i = 0; i < fastpath::max_burst; ++i)
        packets.push_back(i % 2 == 0 ? make_packet({.length = 1500, .dont_fragment = false})
                                     : make_packet({.length = 1500, .ttl = 1}));
    for (const auto& port : g.one.ports)
        port->limit_sends(0);
    g.one.push(plain, packets);
    EXPECT_EQ(g.one.worker->counters().fragmented.get(), 32u);
    EXPECT_EQ(g.one.drops(drop_reason::ttl_exceeded), 32u);
    EXPECT_EQ(g.one.drops(drop_reason::tx_full), 32u * 3 + 32);
    EXPECT_EQ(g.one.pool->free_frames(), free);
    EXPECT_TRUE(is_balanced(g.one));
}

TEST(Fragment, IsNotWhatTheSourceForbids) {
    pair_of_gateways g({});
    g.one.push(plain, {make_packet({.length = 1500})});
    EXPECT_TRUE(g.one.sent(secure).empty());
    EXPECT_EQ(g.one.drops(drop_reason::too_big), 1u);
    EXPECT_EQ(g.one.sent(plain).size(), 1u);
}

TEST(Fragment, LetsTheSmallestPacketOfIpv6ThroughAnyPath) {
    for (const family outer : {family::ipv4, family::ipv6}) {
        const tunnel_options o{.outer = outer};
        pair_of_gateways g(o);
        g.one.backend.set_path_mtu(g.one.sa_of(o, true), 1280);
        g.one.push(plain, {make_packet({.family = family::ipv6, .length = 1280})});
        const auto pieces = g.one.sent(secure);
        ASSERT_EQ(pieces.size(), 2u);
        for (const frame& f : pieces)
            EXPECT_LE(f.size(), 1280u);
        g.two.push(secure, pieces);
        EXPECT_EQ(g.two.sent(plain).size(), 1u);
        g.one.push(plain, {make_packet({.family = family::ipv6, .length = 1281})});
        EXPECT_TRUE(g.one.sent(secure).empty());
        const auto errors = g.one.sent(plain);
        ASSERT_EQ(errors.size(), 1u);
        EXPECT_EQ(wire::load<wire::be32>(&errors[0][44]).host(), 1280u);
    }
}

TEST(Fragment, AndIcmpFollowThePathLimitOfTheSa) {
    const tunnel_options o;
    pair_of_gateways g(o);
    constexpr std::uint32_t limit = 1300;
    g.one.backend.set_path_mtu(g.one.sa_of(o, true), limit);
    const std::uint32_t largest =
        ipsec::largest_inner(*g.one.control.get_sa(g.one.sa_of(o, true)), limit);
    g.one.push(plain, {make_packet({.length = largest})});
    EXPECT_EQ(g.one.sent(secure).size(), 1u);
    g.one.push(plain, {make_packet({.length = largest + 1})});
    EXPECT_TRUE(g.one.sent(secure).empty());
    const auto errors = g.one.sent(plain);
    ASSERT_EQ(errors.size(), 1u);
    EXPECT_EQ(wire::load<wire::be16>(&errors[0][26]).host(), largest);
    g.one.backend.set_path_mtu(g.one.sa_of(o, true), fastpath::no_path_limit);
    g.one.push(plain, {make_packet({.length = largest + 1})});
    EXPECT_EQ(g.one.sent(secure).size(), 1u);
}

/// Puts a first fragment's offset so that it lies over part of the second.
frame moved(frame f, std::uint16_t offset) {
    const auto field = wire::load<wire::be16>(&f[6]).host();
    wire::store(&f[6], wire::be16(static_cast<std::uint16_t>((field & 0xe000) | offset / 8)));
    fix_header_checksum(f);
    return f;
}

TEST(Reassembly, RefusesWhatOverlapsWithAllThatBelongsToIt) {
    pair_of_gateways g({});
    const auto pieces = g.fragments();
    g.two.push(secure, {pieces[0], moved(pieces[0], 8), pieces[1]});
    EXPECT_TRUE(g.two.sent(plain).empty());
    EXPECT_EQ(g.two.drops(drop_reason::fragment_overlap), 3u);
    EXPECT_TRUE(is_balanced(g.two));
}

TEST(Reassembly, LosesAnExactCopyAlone) {
    pair_of_gateways g({});
    const auto pieces = g.fragments();
    g.two.push(secure, {pieces[0], pieces[0], pieces[1]});
    EXPECT_EQ(g.two.sent(plain).size(), 1u);
    EXPECT_EQ(g.two.drops(drop_reason::fragment_overlap), 1u);
    EXPECT_TRUE(is_balanced(g.two));
}

TEST(Reassembly, GivesUpAfterItsTime) {
    pair_of_gateways g({});
    const auto pieces = g.fragments();
    const std::size_t free = g.two.pool->free_frames();
    g.two.push(secure, {pieces[0]});
    EXPECT_EQ(g.two.worker->counters().held.get(), 1u);
    g.two.advance(fastpath::reassembly::patience_ns);
    EXPECT_EQ(g.two.drops(drop_reason::fragment_timeout), 1u);
    EXPECT_EQ(g.two.worker->counters().held.get(), 0u);
    EXPECT_EQ(g.two.pool->free_frames(), free);
    g.two.push(secure, {pieces[1]});
    EXPECT_TRUE(g.two.sent(plain).empty());
    EXPECT_TRUE(is_balanced(g.two));
}

TEST(Reassembly, TakesNothingThatIsNotForTheMachineOrNotEsp) {
    pair_of_gateways g({});
    const auto pieces = g.fragments();
    frame other = pieces[0];
    other[9] = wire::proto_tcp;
    fix_header_checksum(other);
    frame transit = pieces[0];
    wire::store(&transit[16], ipsec::address::parse("10.2.0.10")->as_v4());
    fix_header_checksum(transit);
    g.two.push(secure, {other, transit});
    EXPECT_EQ(g.two.drops(drop_reason::fragment), 2u);
    EXPECT_EQ(g.two.worker->counters().held.get(), 0u);
}

TEST(Reassembly, UnderAFloodThatIsNeverCompleteStaysBoundedAndTakesWholePackets) {
    pair_of_gateways g({});
    frame never = g.fragments()[0];
    const std::size_t free = g.two.pool->free_frames();
    std::uint32_t source = 0x0a000000;
    std::size_t least = free;
    for (std::uint32_t round = 0; round < 200; ++round) {
        std::vector<frame> flood;
        for (int i = 0; i < 20; ++i) {
            wire::store(&never[12], wire::be32(++source * 2654435761u & 0x7fffffff));
            fix_header_checksum(never);
            flood.push_back(never);
        }
        g.two.push(secure, flood);
        least = std::min(least, g.two.pool->free_frames());
        g.two.push(secure, g.fragments(round));
        ASSERT_EQ(g.two.sent(plain).size(), 1u) << round;
    }
    EXPECT_LE(free - least, fastpath::reassembly::sets * fastpath::reassembly::ways);
    EXPECT_GT(g.two.drops(drop_reason::fragment_full), 3000u);
    EXPECT_TRUE(is_balanced(g.two));
}

} // namespace
} // namespace esplane::tests

// SPDX-License-Identifier: Apache-2.0
//
// ICMP errors that the path makes: to whom, about what, how often.
#include "fastpath/icmp.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/esp_peer.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using ipsec::family;

using gateway_ports::plain;
using gateway_ports::secure;

/// The Internet checksum, byte by byte; 0xffff where it is right.
std::uint32_t plain_sum(const frame& bytes) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i)
        sum += i % 2 == 0 ? bytes[i] * 256u : bytes[i];
    while (sum > 0xffff)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/// Checksums and lengths of an ICMP error; returns what it quotes.
frame checked_quote(const frame& e) {
    const bool v4 = (e.at(0) >> 4) == 4;
    const std::ptrdiff_t header = v4 ? 20 : 40;
    frame summed(e.begin() + header, e.end());
    if (v4) {
        EXPECT_EQ(plain_sum({e.begin(), e.begin() + header}), 0xffffu);
        EXPECT_EQ(wire::load<wire::be16>(&e[2]).host(), e.size());
    } else {
        EXPECT_EQ(wire::load<wire::be16>(&e[4]).host(), e.size() - 40);
        const auto length = static_cast<std::uint16_t>(summed.size());
        frame pseudo(e.begin() + 8, e.begin() + 40);
        for (const int byte : {length >> 8, length & 0xff, 0, int(wire::proto_icmpv6)})
            pseudo.push_back(static_cast<std::uint8_t>(byte));
        summed.insert(summed.begin(), pseudo.begin(), pseudo.end());
    }
    EXPECT_EQ(plain_sum(summed), 0xffffu);
    return {e.begin() + header + 8, e.end()};
}

TEST(Icmp, QuotesWhatExpiredWithRightChecksums) {
    for (const family f : {family::ipv4, family::ipv6})
        for (const std::uint32_t length : {60u, 61u, 577u, 1400u, 1499u}) {
            lab one{1};
            const frame about = make_packet({.family = f, .length = length, .ttl = 1});
            one.push(plain, {about});
            const auto errors = one.sent(plain);
            ASSERT_EQ(errors.size(), 1u);
            const frame quote = checked_quote(errors[0]);
            ASSERT_LE(quote.size(), about.size());
            EXPECT_TRUE(std::equal(quote.begin(), quote.end(), about.begin()));
            EXPECT_EQ(errors[0].size(),
                      std::min<std::size_t>(length + (f == family::ipv4 ? 28 : 48),
                                            f == family::ipv4 ? 576 : 1280));
            EXPECT_EQ(errors[0][f == family::ipv4 ? 20 : 40], f == family::ipv4 ? 11 : 3);
            EXPECT_EQ(one.drops(drop_reason::ttl_exceeded), 1u);
        }
}

TEST(Icmp, KeepsToItsRateAndCountsWhatItDidNotSay) {
    lab one{1};
    const std::vector<frame> burst(200, make_packet({.ttl = 1}));
    one.push(plain, burst);
    EXPECT_EQ(one.sent(plain).size(), 64u); // what the bucket holds
    EXPECT_EQ(one.worker->counters().not_created.get(), 136u);
    one.advance(10'000'000); // ten more by now
    one.push(plain, burst);
    EXPECT_EQ(one.sent(plain).size(), 10u);
    EXPECT_EQ(one.drops(drop_reason::ttl_exceeded), 400u);
    EXPECT_TRUE(one.worker->counters().balanced());
}

/// A packet of ICMP with that type and no more life in it.
frame last_hop_icmp(family f, unsigned type) {
    frame p = make_packet({.family = f, .ttl = 1});
    p[f == family::ipv4 ? 9 : 6] = f == family::ipv4 ? wire::proto_icmp : wire::proto_icmpv6;
    p[f == family::ipv4 ? 20 : 40] = static_cast<std::uint8_t>(type);
    fix_header_checksum(p);
    return p;
}

TEST(Icmp, NeverAnswersAnError) {
    lab one{1};
    for (const unsigned type : {3u, 4u, 5u, 11u, 12u})
        one.push(plain, {last_hop_icmp(family::ipv4, type)});
    for (const unsigned type : {1u, 2u, 3u, 4u, 100u, 127u})
        one.push(plain, {last_hop_icmp(family::ipv6, type)});
    EXPECT_TRUE(one.sent(plain).empty());
    EXPECT_EQ(one.drops(drop_reason::ttl_exceeded), 11u);
    one.push(plain, {last_hop_icmp(family::ipv4, 8), last_hop_icmp(family::ipv6, 128)});
    EXPECT_EQ(one.sent(plain).size(), 2u);
}

TEST(Icmp, NeverAnswersNobodyOrAMulticast) {
    lab one{1};
    const std::uint8_t nobodies[][4] = {{0, 0, 0, 0}, {224, 0, 0, 1}, {255, 255, 255, 255}};
    for (const auto& source : nobodies) {
        frame p = make_packet({.ttl = 1});
        std::copy_n(source, 4, &p[12]);
        fix_header_checksum(p);
        one.push(plain, {p});
    }
    frame v6 = make_packet({.family = family::ipv6, .ttl = 1});
    std::fill_n(&v6[8], 16, std::uint8_t{0});
    one.push(plain, {v6});
    v6[8] = 0xff;
    one.push(plain, {v6});
    EXPECT_EQ(one.worker->counters().created.get(), 0u);
    EXPECT_EQ(one.drops(drop_reason::ip_scope), 5u);
}

TEST(Icmp, DoesNotSpeakInClearWhereAPolicyProtectsTheWayBack) {
    lab two{2};
    two.add_tunnel({});
    ipsec::policy p; // whatever the gateway itself says
    p.dir = ipsec::policy_direction::out;
    p.sel.fam = family::ipv4;
    p.action = ipsec::policy_action::block;
    p.priority = 9;
    two.add_policy(p);
    two.push(plain, {make_packet({.from = 2, .to = 1, .ttl = 1})});
    EXPECT_EQ(two.drops(drop_reason::icmp_protected), 1u);
    EXPECT_TRUE(two.sent(plain).empty());
    EXPECT_TRUE(two.worker->counters().balanced());
}

TEST(Icmp, NeverQuotesInClearWhatCameOutOfAnSa) {
    lab two{2};
    const tunnel_options o;
    two.add_sas(o);
    ipsec::policy p; // traffic may come in; nothing says how to answer
    p.dir = ipsec::policy_direction::fwd;
    p.sel.fam = family::ipv4;
    ipsec::template_ t;
    t.id.destination = *ipsec::address::parse("192.168.77.2");
    t.fam = family::ipv4;
    t.reqid = o.reqid;
    p.templates = {t};
    two.add_policy(p);
    esp_peer peer(o);
    two.push(secure, {peer.seal(peer.text_of(make_packet({.ttl = 1}), wire::proto_ipip), 1)});
    EXPECT_EQ(two.drops(drop_reason::ttl_exceeded), 1u);
    EXPECT_EQ(two.drops(drop_reason::icmp_protected), 1u);
    EXPECT_TRUE(two.sent(secure).empty());
    EXPECT_TRUE(two.worker->counters().balanced());
}

} // namespace
} // namespace esplane::tests

// SPDX-License-Identifier: Apache-2.0
#include "fastpath/mss.h"

#include <gtest/gtest.h>

#include "lib/ipsec/overhead.h"
#include "lib/wire/checksum.h"
#include "tests/support/esp_peer.h"

namespace esplane::tests {
namespace {

using ipsec::family;

using gateway_ports::plain;
using gateway_ports::secure;
constexpr std::uint8_t syn = 0x02, ack = 0x10;

bool sum_is_right(const frame& f) {
    const bool v4 = f[0] >> 4 == 4;
    const std::size_t ip = v4 ? 20 : 40, address = v4 ? 4 : 16, at = v4 ? 12 : 8;
    const auto length = static_cast<std::uint32_t>(f.size() - ip);
    const std::uint64_t pseudo =
        wire::checksum_pseudo(&f[at], &f[at + address], address, wire::proto_tcp, length);
    return wire::checksum_fold(wire::checksum_add(pseudo, &f[ip], length)) == 0xffff;
}

/// make_packet()'s addresses, TCP with these options instead of UDP.
frame tcp_packet(packet_spec spec, std::uint8_t flags, frame options) {
    while (options.size() % 4 != 0)
        options.push_back(0);
    const std::size_t ip = spec.family == family::ipv4 ? 20 : 40;
    spec.length = static_cast<std::uint32_t>(ip + 20 + options.size());
    frame f = make_packet(spec);
    f[spec.family == family::ipv4 ? 9 : 6] = wire::proto_tcp;
    wire::tcp_header tcp{};
    tcp.source.set(40000);
    tcp.destination.set(443);
    tcp.offset = static_cast<std::uint8_t>((20 + options.size()) / 4 << 4);
    tcp.flags = flags;
    wire::store(&f[ip], tcp);
    std::copy(options.begin(), options.end(), f.begin() + static_cast<std::ptrdiff_t>(ip + 20));
    const std::size_t address = ip == 20 ? 4 : 16, at = ip == 20 ? 12 : 8;
    const auto length = static_cast<std::uint32_t>(f.size() - ip);
    const std::uint64_t pseudo =
        wire::checksum_pseudo(&f[at], &f[at + address], address, wire::proto_tcp, length);
    wire::store(&f[ip + 16], wire::checksum_finish(wire::checksum_add(pseudo, &f[ip], length)));
    fix_header_checksum(f);
    return f;
}

frame mss_option(std::uint16_t mss) {
    return {2, 4, static_cast<std::uint8_t>(mss >> 8), static_cast<std::uint8_t>(mss)};
}

std::uint32_t mss_of(const frame& f) {
    const std::size_t at = (f[0] >> 4 == 4 ? 20 : 40) + 22;
    return wire::load<wire::be16>(&f[at]).host();
}

TEST(Mss, OfWhatLeavesAndOfTheAnswerFollowsThePath) {
    for (const family inner : {family::ipv4, family::ipv6}) {
        lab one{1}, two{2};
        const tunnel_options o;
        for (lab* l : {&one, &two})
            l->add_tunnel(o);
        one.tables.set_mss_clamp(fastpath::mss_by_path);
        const std::uint32_t headers = inner == family::ipv4 ? 40 : 60;
        const std::uint32_t largest =
            ipsec::largest_inner(*one.control.get_sa(one.sa_of(o, true)), 1500);
        one.push(plain, {tcp_packet({.family = inner}, syn, mss_option(8960))});
        two.push(secure, one.sent(secure));
        const auto there = two.sent(plain);
        ASSERT_EQ(there.size(), 1u);
        EXPECT_EQ(mss_of(there[0]), largest - headers);
        EXPECT_TRUE(sum_is_right(there[0]));

        const packet_spec back{.family = inner, .from = 2, .to = 1};
        two.push(plain, {tcp_packet(back, syn | ack, mss_option(8960))});
        one.push(secure, two.sent(secure));
        const auto here = one.sent(plain);
        ASSERT_EQ(here.size(), 1u);
        EXPECT_EQ(mss_of(here[0]), largest - headers);
        EXPECT_TRUE(sum_is_right(here[0]));
        EXPECT_EQ(one.worker->counters().clamped.get(), 2u);
    }
}

TEST(Mss, IsLeftAloneUnlessAskedFor) {
    lab one{1}, two{2};
    one.add_tunnel({});
    two.add_tunnel({});
    one.push(plain, {tcp_packet({}, syn, mss_option(8960))});
    two.push(secure, one.sent(secure));
    EXPECT_EQ(mss_of(two.sent(plain).at(0)), 8960u);
}

/// A packet that clamp_mss() may work on, beside its frame.
fastpath::packet described(frame& f) {
    fastpath::packet p;
    p.data = f.data();
    p.length = static_cast<std::uint32_t>(f.size());
    p.family = family::ipv4;
    p.protocol = wire::proto_tcp;
    p.l4_offset = 20;
    return p;
}

bool clamped(frame& f, std::uint32_t mtu) {
    fastpath::packet p = described(f);
    return fastpath::clamp_mss(p, mtu);
}

TEST(Mss, IsNeverRaised) {
    for (const std::uint16_t mss : std::initializer_list<std::uint16_t>{536, 1359, 1360}) {
        frame f = tcp_packet({}, syn, mss_option(mss));
        EXPECT_FALSE(clamped(f, 1400));
        EXPECT_EQ(mss_of(f), mss);
    }
    frame f = tcp_packet({}, syn, mss_option(1361));
    EXPECT_TRUE(clamped(f, 1400));
    EXPECT_EQ(mss_of(f), 1360u);
}

TEST(Mss, IsFoundBehindOtherOptionsAtAnOddPlaceToo) {
    for (unsigned nothings = 0; nothings < 4; ++nothings) {
        frame options(nothings, 1);
        const frame scale{3, 3, 7};
        options.insert(options.end(), scale.begin(), scale.end());
        const frame mss = mss_option(9000);
        options.insert(options.end(), mss.begin(), mss.end());
        frame f = tcp_packet({}, syn, options);
        EXPECT_TRUE(clamped(f, 1400));
        EXPECT_EQ(wire::load<wire::be16>(&f[40 + nothings + 5]).host(), 1360u);
        EXPECT_TRUE(sum_is_right(f)) << nothings;
    }
}

TEST(Mss, IsNotLookedForBehindOptionsThatLie) {
    for (const frame& options :
         {frame{2, 3, 0xff}, frame{2, 0, 0xff, 0xff}, frame{8, 1, 2, 4, 0xff, 0xff, 0, 0},
          frame{1, 1, 1, 2}, frame{0, 2, 4, 0xff}, frame{8, 200, 2, 4}, frame{}}) {
        frame f = tcp_packet({}, syn, options);
        const frame before = f;
        EXPECT_FALSE(clamped(f, 1400));
        EXPECT_EQ(f, before);
    }
}

} // namespace
} // namespace esplane::tests

// SPDX-License-Identifier: Apache-2.0
//
// From frames to flows: what parse_ip() believes and what it names.
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>

#include "fastpath/parse.h"
#include "tests/support/esp_peer.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using fastpath::packet;
using ipsec::family;
namespace packet_flag = fastpath::packet_flag;

constexpr std::size_t v4_length = sizeof(wire::ipv4_header);
constexpr std::size_t v6_length = sizeof(wire::ipv6_header);

/// A packet in memory of exactly its size, so that a sanitizer sees any byte read beyond it.
struct parsed {
    frame bytes;
    packet p;
    drop_reason why;

    explicit parsed(frame f, bool checksums = true, std::span<const ipsec::address> locals = {},
                    std::uint16_t flags = 0)
        : bytes(std::move(f)) {
        bytes.shrink_to_fit();
        static const auto without_locals = fastpath::fib::everywhere(0, 1500, {});
        const auto own = locals.empty() ? nullptr : fastpath::fib::everywhere(0, 1500, locals);
        p.data = bytes.data();
        p.length = static_cast<std::uint32_t>(bytes.size());
        p.flags = flags;
        why = fastpath::parse_ip(p, own ? *own : *without_locals, checksums);
        p.next = nullptr; // `own` ends here
    }
};

/// An IP header around upper-layer bytes.
frame ip_packet(family f, std::uint8_t protocol, const frame& upper) {
    const std::size_t header = f == family::ipv4 ? v4_length : v6_length;
    const frame any = make_packet({.family = f});
    frame whole(any.begin(), any.begin() + static_cast<std::ptrdiff_t>(header));
    whole[f == family::ipv4 ? 9 : 6] = protocol;
    const auto length = static_cast<std::uint16_t>(upper.size() + (f == family::ipv4 ? header : 0));
    wire::store(&whole[f == family::ipv4 ? 2 : 4], wire::be16(length));
    std::copy(upper.begin(), upper.end(), std::back_inserter(whole));
    fix_header_checksum(whole);
    return whole;
}

frame upper_layer(std::size_t length) {
    frame f;
    while (f.size() < length)
        f.push_back(static_cast<std::uint8_t>(f.size() + 1));
    return f;
}

/// The Internet checksum, byte by byte.
std::uint16_t plain_sum(const frame& bytes) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i)
        sum += i % 2 == 0 ? bytes[i] * 256u : bytes[i];
    while (sum > 0xffff)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(sum);
}

frame pseudo_header(const frame& ip, std::uint8_t protocol) {
    const bool v4 = (ip[0] >> 4) == 4;
    const std::size_t upper = ip.size() - (v4 ? v4_length : v6_length);
    frame f(ip.begin() + (v4 ? 12 : 8), ip.begin() + (v4 ? 20 : 40));
    const std::uint8_t rest[] = {static_cast<std::uint8_t>(upper >> 8),
                                 static_cast<std::uint8_t>(upper), 0, protocol};
    f.insert(f.end(), std::begin(rest), std::end(rest));
    return f;
}

struct layer4 {
    std::uint8_t protocol;
    std::size_t minimum; ///< bytes that must be there
};
constexpr layer4 layers[] = {
    {wire::proto_tcp, 8},     {wire::proto_udp, 8},  {wire::proto_sctp, 8},
    {wire::proto_dccp, 8},    {wire::proto_icmp, 4}, {wire::proto_icmpv6, 4},
    {wire::proto_udplite, 8}, {wire::proto_esp, 0},  {200, 0}};

TEST(Parse, NamesEveryTruncationOfWhatItWouldTake) {
    for (const family f : {family::ipv4, family::ipv6})
        for (const layer4& l : layers) {
            const frame whole = ip_packet(f, l.protocol, upper_layer(24));
            EXPECT_EQ(parsed(whole).why, drop_reason::none);
            for (std::size_t n = 0; n < whole.size(); ++n)
                EXPECT_EQ(parsed(frame(whole.begin(), whole.begin() + n)).why,
                          drop_reason::ip_malformed)
                    << int(l.protocol) << " cut to " << n;
        }
}

TEST(Parse, WantsThePortsOfAnUpperLayerThatHasThem) {
    for (const family f : {family::ipv4, family::ipv6})
        for (const layer4& l : layers)
            for (std::size_t n = 0; n < 12; ++n)
                EXPECT_EQ(parsed(ip_packet(f, l.protocol, upper_layer(n))).why,
                          n < l.minimum ? drop_reason::ip_malformed : drop_reason::none)
                    << int(l.protocol) << " with " << n;
}

TEST(Parse, ShowsPortsOrTypeAndCodeOrNothing) {
    for (const family f : {family::ipv4, family::ipv6})
        for (const layer4& l : layers) {
            const parsed r(ip_packet(f, l.protocol, upper_layer(24)));
            const bool icmp = l.minimum == 4, ports = l.minimum == 8;
            EXPECT_EQ(r.p.source_port.host(), ports ? 0x0102 : icmp ? 1 : 0) << int(l.protocol);
            EXPECT_EQ(r.p.destination_port.host(), ports ? 0x0304 : icmp ? 2 : 0);
            EXPECT_EQ(r.p.protocol, l.protocol);
            EXPECT_EQ(r.p.family, f);
        }
}

TEST(Parse, ShowsTheTypeOfAMobilityHeader) {
    for (const frame& upper : {upper_layer(8), upper_layer(24)}) {
        const parsed r(ip_packet(family::ipv6, wire::proto_mobility, upper));
        EXPECT_EQ(r.why, drop_reason::none);
        EXPECT_EQ(r.p.protocol, wire::proto_mobility);
        EXPECT_EQ(r.p.l4_offset, v6_length);
        EXPECT_EQ(r.p.source_port.host(), 3);
        EXPECT_EQ(r.p.destination_port.host(), 0);
    }
    EXPECT_EQ(parsed(ip_packet(family::ipv6, wire::proto_mobility, upper_layer(7))).why,
              drop_reason::ip_malformed);
}

TEST(Parse, ShowsTheHalvesOfAGreKey) {
    struct {
        std::uint8_t flags;
        std::size_t minimum;
        std::uint16_t upper, lower;
    } constexpr kinds[] = {
        {0x00, 4, 0, 0}, {0x80, 4, 0, 0}, {0x20, 8, 0x0506, 0x0708}, {0xa0, 12, 0x090a, 0x0b0c}};
    for (const family f : {family::ipv4, family::ipv6})
        for (const auto& kind : kinds)
            for (std::size_t n = 0; n < 24; ++n) {
                frame upper = upper_layer(n);
                if (n > 0) upper[0] = kind.flags;
                const parsed r(ip_packet(f, wire::proto_gre, upper));
                if (n < kind.minimum) {
                    EXPECT_EQ(r.why, drop_reason::ip_malformed) << int(kind.flags) << ' ' << n;
                    continue;
                }
                EXPECT_EQ(r.why, drop_reason::none) << int(kind.flags) << ' ' << n;
                EXPECT_EQ(r.p.source_port.host(), kind.upper);
                EXPECT_EQ(r.p.destination_port.host(), kind.lower);
            }
}

TEST(Parse, TrimsWhatFollowsThePacket) {
    for (const family f : {family::ipv4, family::ipv6}) {
        frame padded = make_packet({.family = f});
        const auto length = static_cast<std::uint32_t>(padded.size());
        padded.resize(length + 30);
        const parsed r(padded);
        EXPECT_EQ(r.why, drop_reason::none);
        EXPECT_EQ(r.p.length, length);
        EXPECT_EQ(r.p.tailroom, 30);
    }
}

TEST(Parse, NamesFragmentsOfBothFamilies) {
    frame v4 = make_packet({});
    for (const unsigned bits : {0x2000u, 0x0001u, 0x1fffu, 0x6000u}) {
        wire::store(&v4[6], wire::be16(static_cast<std::uint16_t>(bits)));
        fix_header_checksum(v4);
        EXPECT_EQ(parsed(v4).why, drop_reason::fragment) << bits;
    }
    EXPECT_EQ(parsed(ip_packet(family::ipv6, wire::proto_fragment, upper_layer(24))).why,
              drop_reason::fragment);
}

TEST(Parse, TakesNoHeaderWithAWrongChecksum) {
    const frame good = make_packet({});
    for (std::size_t i = 1; i < v4_length; ++i) // byte 0 is the version
        for (unsigned bit = 0; bit < 8; ++bit) {
            frame bad = good;
            bad[i] = static_cast<std::uint8_t>(bad[i] ^ (1u << bit));
            EXPECT_NE(parsed(bad).why, drop_reason::none) << i << '.' << bit;
        }
}

TEST(Parse, SumsNoHeaderThatTheDeviceFoundRight) {
    frame f = make_packet({});
    f[10] ^= 1;
    EXPECT_EQ(parsed(f).why, drop_reason::ip_checksum);
    const parsed r(f, true, {}, packet_flag::ip_sum_good);
    EXPECT_EQ(r.why, drop_reason::none);
    EXPECT_EQ(r.p.flags & packet_flag::ip_sum_good, 0)
        << "it would be taken for the inner header's";
}

TEST(Parse, SkipsIpv4Options) {
    for (std::size_t words = 0; words <= 10; ++words) {
        frame f = make_packet({});
        f.insert(f.begin() + v4_length, words * 4, 1); // no-operation
        f[0] = static_cast<std::uint8_t>(0x45 + words);
        wire::store(&f[2], wire::be16(static_cast<std::uint16_t>(f.size())));
        fix_header_checksum(f);
        const parsed r(f);
        EXPECT_EQ(r.why, drop_reason::none);
        EXPECT_EQ(r.p.l4_offset, v4_length + words * 4);
        EXPECT_EQ(r.p.source_port.host(), 1000);
    }
    for (std::uint8_t ihl = 0; ihl < 5; ++ihl) {
        frame f = make_packet({});
        f[0] = static_cast<std::uint8_t>(0x40 | ihl);
        EXPECT_EQ(parsed(f).why, drop_reason::ip_malformed);
    }
}

TEST(Parse, WalksExtensionHeadersToTheUpperLayer) {
    constexpr std::uint8_t kinds[] = {wire::proto_hopopts, wire::proto_routing,
                                      wire::proto_dstopts};
    for (unsigned headers = 1; headers <= 9; ++headers) {
        frame chain;
        for (unsigned i = 0; i < headers; ++i) {
            const auto units = static_cast<std::uint8_t>(i % 3);
            const std::uint8_t next = i + 1 < headers ? kinds[(i + 1) % 3] : wire::proto_udp;
            chain.push_back(next);
            chain.push_back(units);
            chain.resize(chain.size() + 6 + units * 8u);
        }
        const std::size_t at = v6_length + chain.size();
        frame upper = upper_layer(16);
        chain.insert(chain.end(), upper.begin(), upper.end());
        const frame whole = ip_packet(family::ipv6, kinds[0], chain);
        const parsed r(whole);
        if (headers >= 8) { // a chain without end
            EXPECT_EQ(r.why, drop_reason::ip_malformed) << headers;
            continue;
        }
        EXPECT_EQ(r.why, drop_reason::none) << headers;
        EXPECT_EQ(r.p.protocol, wire::proto_udp);
        EXPECT_EQ(r.p.l4_offset, at);
        for (std::size_t n = 0; n < chain.size() - 8; ++n) // payload length says so too
            EXPECT_EQ(
                parsed(ip_packet(family::ipv6, kinds[0], frame(chain.begin(), chain.begin() + n)))
                    .why,
                drop_reason::ip_malformed)
                << headers << " cut to " << n;
    }
}

TEST(Parse, CompletesAnUnfinishedChecksumAndLeavesAFinishedOne) {
    for (const family f : {family::ipv4, family::ipv6})
        for (const std::uint8_t protocol : {wire::proto_tcp, wire::proto_udp})
            for (std::size_t length = 20; length < 64; ++length) {
                const std::size_t field = (f == family::ipv4 ? v4_length : v6_length) +
                                          (protocol == wire::proto_tcp ? 16u : 6u);
                frame whole = ip_packet(f, protocol, upper_layer(length));
                const frame pseudo = pseudo_header(whole, protocol);
                wire::store(&whole[field], wire::be16(plain_sum(pseudo)));
                const parsed r(whole);
                ASSERT_EQ(r.why, drop_reason::none);
                frame summed = pseudo;
                summed.insert(summed.end(), r.bytes.end() - static_cast<std::ptrdiff_t>(length),
                              r.bytes.end());
                EXPECT_EQ(plain_sum(summed), 0xffff) << int(protocol) << ' ' << length;
                EXPECT_EQ(parsed(r.bytes).bytes, r.bytes) << "finished, and changed again";
                EXPECT_EQ(parsed(whole, false).bytes, whole) << "changed where nobody asked";
                EXPECT_EQ(parsed(whole, true, {}, packet_flag::l4_sum_done).bytes, whole)
                    << "changed what the device called finished";
                frame not_parsed = whole;
                packet p;
                p.data = not_parsed.data();
                p.length = static_cast<std::uint32_t>(not_parsed.size());
                fastpath::complete_checksum(p);
                EXPECT_EQ(not_parsed, r.bytes) << "completed otherwise where it is not parsed";
            }
}

TEST(Parse, AnUnfinishedUdpChecksumNeverBecomesNone) {
    frame whole = ip_packet(family::ipv4, wire::proto_udp, upper_layer(20));
    const std::uint16_t pseudo = plain_sum(pseudo_header(whole, wire::proto_udp));
    wire::store(&whole[26], wire::be16(pseudo));
    wire::store(&whole[28], wire::be16()); // chosen so that the sum comes out as 0xffff
    frame summed(whole.begin() + v4_length, whole.end());
    wire::store(&whole[28], wire::be16(static_cast<std::uint16_t>(0xffff - plain_sum(summed))));
    const parsed r(whole);
    EXPECT_EQ(wire::load<wire::be16>(&r.bytes[26]).host(), 0xffff);
}

TEST(Parse, KeepsWhatRoutersMayNotFragment) {
    EXPECT_NE(parsed(make_packet({})).p.flags & packet_flag::dont_fragment, 0);
    EXPECT_EQ(parsed(make_packet({.dont_fragment = false})).p.flags & packet_flag::dont_fragment,
              0);
    EXPECT_NE(parsed(make_packet({.family = family::ipv6})).p.flags & packet_flag::dont_fragment,
              0);
    EXPECT_EQ(parsed(make_packet({.tos = 0xb9})).p.tos, 0xb9);
    EXPECT_EQ(parsed(make_packet({.family = family::ipv6, .tos = 0xb9})).p.tos, 0xb9);
}

/// A UDP packet between these addresses.
frame between(const std::string& source, const std::string& destination) {
    const ipsec::address from = ipsec::address::parse(source).value();
    const ipsec::address to = ipsec::address::parse(destination).value();
    const std::uint8_t length = ipsec::address_length(from.fam);
    frame f = ip_packet(from.fam, wire::proto_udp, upper_layer(16));
    const auto at = f.begin() + (from.fam == family::ipv4 ? 12 : 8);
    std::copy_n(to.bytes.begin(), length, std::copy_n(from.bytes.begin(), length, at));
    fix_header_checksum(f);
    return f;
}

TEST(Parse, NothingPassesThroughThatNoRouterForwards) {
    for (const char* confined : {"0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.0.9", "224.0.0.1",
                                 "239.255.255.255", "255.255.255.255"}) {
        EXPECT_EQ(parsed(between(confined, "10.2.0.1")).why, drop_reason::ip_scope) << confined;
        EXPECT_EQ(parsed(between("10.1.0.1", confined)).why, drop_reason::ip_scope) << confined;
    }
    for (const char* confined : {"::", "::1", "fe80::1", "febf::9", "ff02::1", "ff0e::1"}) {
        EXPECT_EQ(parsed(between(confined, "fd02::1")).why, drop_reason::ip_scope) << confined;
        EXPECT_EQ(parsed(between("fd01::1", confined)).why, drop_reason::ip_scope) << confined;
    }
}

TEST(Parse, WhatRoutersForwardPassesThrough) {
    for (const char* forwarded : {"1.0.0.0", "126.255.255.255", "128.0.0.0", "169.254.1.1",
                                  "223.255.255.255", "240.0.0.1", "255.255.255.254"}) {
        EXPECT_EQ(parsed(between(forwarded, "10.2.0.1")).why, drop_reason::none) << forwarded;
        EXPECT_EQ(parsed(between("10.1.0.1", forwarded)).why, drop_reason::none) << forwarded;
    }
    for (const char* forwarded :
         {"::2", "64:ff9b::a01:1", "2001:db8::1", "fd01::2", "fe00::1", "fe7f::1", "fec0::1"}) {
        EXPECT_EQ(parsed(between(forwarded, "fd02::1")).why, drop_reason::none) << forwarded;
        EXPECT_EQ(parsed(between("fd01::1", forwarded)).why, drop_reason::none) << forwarded;
    }
}

TEST(Parse, NothingComesOutOfATunnelThatNoRouterForwards) {
    lab two{2};
    const tunnel_options o;
    two.add_tunnel(o);
    esp_peer peer(o);
    const frame inner = between("127.0.0.1", "10.2.0.10");
    two.push(lab::secure, {peer.seal(peer.text_of(inner, wire::proto_ipip), 1)});
    EXPECT_EQ(two.drops(drop_reason::ip_scope), 1u);
    EXPECT_TRUE(two.sent(lab::plain).empty());
}

TEST(Parse, TheMachineItselfIsReachedFromItsLink) {
    const std::array locals{ipsec::address::parse("fe80::1").value(),
                            ipsec::address::parse("10.1.0.1").value()};
    for (const frame& f : {between("fe80::2", "fe80::1"), between("0.0.0.0", "10.1.0.1")}) {
        const parsed r(f, true, locals);
        EXPECT_EQ(r.why, drop_reason::none);
        EXPECT_NE(r.p.flags & packet_flag::for_machine, 0);
    }
}

TEST(Parse, NamesFramesThatAreNoIp) {
    lab one{1};
    const frame good = with_ethernet(make_packet({}));
    for (const std::size_t length : {1u, 13u, 14u}) {
        (void)one.ports[0]->inject({good.data(), length});
        one.worker->run_once(one.clock);
    }
    EXPECT_EQ(one.drops(drop_reason::frame_malformed), 3u);
    frame arp = good;
    wire::store(&arp[12], wire::be16(wire::ethertype_arp));
    (void)one.ports[0]->inject(arp);
    one.worker->run_once(one.clock);
    EXPECT_EQ(one.drops(drop_reason::frame_not_ip), 1u);
    for (unsigned version = 0; version < 16; ++version) {
        if (version == 4 || version == 6) continue;
        EXPECT_EQ(parsed(frame(60, static_cast<std::uint8_t>(version << 4 | 5))).why,
                  drop_reason::ip_malformed);
    }
}

} // namespace
} // namespace esplane::tests

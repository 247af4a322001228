// SPDX-License-Identifier: Apache-2.0
//
// Plain packets, parsed in place: whatever a packet is, the shortcut says what parse_ip() says.
#include <gtest/gtest.h>

#include <random>

#include "fastpath/plain.h"
#include "tests/support/esp_peer.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using fastpath::packet;
namespace packet_flag = fastpath::packet_flag;

/// A packet in memory of exactly its size, so that a sanitizer sees any byte read beyond it.
struct laid_out {
    frame bytes;
    packet p;

    laid_out(const frame& f, std::uint16_t flags, std::uint16_t interface)
        : bytes(f) {
        bytes.shrink_to_fit();
        p.data = bytes.data();
        p.length = static_cast<std::uint32_t>(bytes.size());
        p.headroom = 100;
        p.tailroom = 200;
        p.flags = flags;
        p.interface = interface;
        p.tos = 0xa5;
        p.source_port = p.destination_port = wire::be16(0xa5a5);
    }
};

/// A network with addresses of its own, and a route by two gateways.
class plain_packet : public ::testing::Test {
  protected:
    plain_packet() {
        control::route two_ways;
        two_ways.destination = *ipsec::address::parse("20.0.0.0");
        two_ways.prefix = 8;
        two_ways.ifindex = lab_.network.links.at(0).ifindex;
        two_ways.gateway = *ipsec::address::parse("10.1.0.2");
        two_ways.more.push_back(
            {.ifindex = two_ways.ifindex, .gateway = *ipsec::address::parse("10.1.0.3")});
        lab_.network.routes.push_back(two_ways);
        lab_.publish_network();
    }

    /// Holds the shortcut against parse_ip(); says whether it took the packet.
    bool agrees(const frame& f, bool from_wire, std::uint16_t flags) {
        laid_out here(f, flags, 0);
        const laid_out before(f, flags, 0);
        if (!fastpath::open_plain(here.p, 0, from_wire)) {
            EXPECT_EQ(here.bytes, before.bytes);
            expect_same(here, before);
            return false;
        }
        const fastpath::fib& routes = lab_.tables.routes();
        const fastpath::fib::reader_v4 reader(routes);
        fastpath::route_plain(
            here.p,
            reader.find(here.p.interface, here.p.data + offsetof(wire::ipv4_header, destination)));
        laid_out alone(f, flags, 0);
        EXPECT_EQ(fastpath::parse_ip(alone.p, routes, from_wire), drop_reason::none);
        EXPECT_EQ(here.bytes, alone.bytes);
        expect_same(here, alone);
        return true;
    }

    static void expect_same(const laid_out& a, const laid_out& b) {
        EXPECT_EQ(a.p.data - a.bytes.data(), b.p.data - b.bytes.data());
        EXPECT_EQ(a.p.length, b.p.length);
        EXPECT_EQ(a.p.headroom, b.p.headroom);
        EXPECT_EQ(a.p.tailroom, b.p.tailroom);
        EXPECT_EQ(a.p.flags, b.p.flags);
        EXPECT_EQ(a.p.family, b.p.family);
        EXPECT_EQ(a.p.protocol, b.p.protocol);
        EXPECT_EQ(a.p.tos, b.p.tos);
        EXPECT_EQ(a.p.l4_offset, b.p.l4_offset);
        EXPECT_EQ(a.p.source_port, b.p.source_port);
        EXPECT_EQ(a.p.destination_port, b.p.destination_port);
        EXPECT_EQ(a.p.next, b.p.next);
    }

    lab lab_{1, 16};
};

constexpr std::uint8_t telling[] = {0,    1,    4,    6,    17,   20,   38,   39,   47,
                                    50,   51,   0x3f, 0x40, 0x45, 0x46, 0x55, 0x60, 0x7f,
                                    0x80, 0xc0, 223,  224,  239,  240,  0xfe, 0xff};

/// One change of a header, as a careless or a hostile sender makes it.
void change_header(frame& f, std::mt19937& random) {
    const auto any = [&](std::size_t below) { return random() % below; };
    switch (any(6)) {
    case 0:
        f[any(std::min<std::size_t>(f.size(), 44))] = telling[any(std::size(telling))];
        break;
    case 1:
        f[any(std::min<std::size_t>(f.size(), 44))] ^= static_cast<std::uint8_t>(1 << any(8));
        break;
    case 2:
        f.resize(1 + any(f.size()));
        break;
    case 3:
        f.resize(f.size() + any(30));
        break;
    case 4: { // a length near what is there
        if (f.size() < 4) break;
        const auto length = static_cast<std::uint16_t>(f.size() - 3 + any(6));
        wire::store(&f[2], wire::be16(length));
        break;
    }
    default: { // an upper-layer checksum that is the pseudo-header's sum alone
        if (f.size() < 40) break;
        const std::size_t at = f[9] == wire::proto_tcp ? 36 : 26;
        const auto length = static_cast<std::uint32_t>(f.size() - 20);
        const std::uint64_t sum = wire::checksum_pseudo(&f[12], &f[16], 4, f[9], length);
        wire::store(&f[at], wire::checksum_fold(sum));
    }
    }
}

frame random_packet(std::mt19937& random) {
    const auto any = [&](auto... of) {
        const std::common_type_t<decltype(of)...> all[] = {of...};
        return all[random() % sizeof...(of)];
    };
    frame f = make_packet({.length = static_cast<std::uint32_t>(40 + random() % 60),
                           .number = static_cast<std::uint32_t>(random())});
    f[1] = static_cast<std::uint8_t>(random());
    f[6] = any(std::uint8_t{0}, std::uint8_t{0x40}, std::uint8_t{0x80});
    f[9] = any(wire::proto_tcp, wire::proto_udp, wire::proto_udp, wire::proto_esp);
    wire::store(&f[16], any(ipsec::address::parse("10.1.0.1")->as_v4(),
                            ipsec::address::parse("20.1.2.3")->as_v4(),
                            ipsec::address::parse("10.2.0.9")->as_v4(),
                            ipsec::address::parse("99.0.0.1")->as_v4()));
    for (auto changes = random() % 3; changes != 0; --changes)
        change_header(f, random);
    if (random() % 8 != 0 && f.size() >= 20 && (f[0] & 15) * 4u <= f.size()) fix_header_checksum(f);
    return f;
}

TEST_F(plain_packet, TheShortcutSaysWhatParseIpSays) {
    constexpr std::uint16_t flags[] = {0,
                                       0,
                                       packet_flag::created,
                                       packet_flag::from_stack,
                                       packet_flag::ip_sum_good,
                                       packet_flag::l4_sum_done,
                                       packet_flag::for_machine | packet_flag::fragment};
    std::mt19937 random(7);
    unsigned taken = 0, all = 0;
    for (; all < 100'000 && !HasFailure(); ++all) {
        const frame f = random_packet(random);
        taken += agrees(f, random() % 2 == 0, flags[random() % std::size(flags)]);
    }
    EXPECT_GT(taken, all / 4); // else this says nothing of the shortcut
    EXPECT_LT(taken, all * 3 / 4);
}

TEST_F(plain_packet, TakesWhatNearlyAllPacketsAre) {
    for (const std::uint8_t protocol : {wire::proto_tcp, wire::proto_udp, wire::proto_esp}) {
        frame f = make_packet({.length = 64});
        f[9] = protocol;
        fix_header_checksum(f);
        EXPECT_TRUE(agrees(f, true, 0)) << int{protocol};
    }
}

} // namespace
} // namespace esplane::tests

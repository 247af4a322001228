// SPDX-License-Identifier: Apache-2.0
//
// What goes up to the machine's own stack, and how much of it.
#include "fastpath/punt.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using fastpath::limit_of;
using fastpath::punt_class;
using fastpath::punt_limiter;
using fastpath::punt_rates;
using ipsec::family;

constexpr std::uint64_t ms = 1'000'000;
constexpr std::uint64_t second = 1000 * ms;

punt_class class_of(family f, std::uint8_t protocol, std::uint16_t source,
                    std::uint16_t destination) {
    fastpath::packet p;
    p.family = f;
    p.protocol = protocol;
    p.source_port = wire::be16(source);
    p.destination_port = wire::be16(destination);
    return fastpath::class_of(p);
}

/// How many of one class, offered one a millisecond, are let up in `ns`.
std::uint64_t admitted(punt_limiter& limiter, punt_class c, std::uint64_t from, std::uint64_t ns,
                       std::uint64_t step = ms / 10) {
    std::uint64_t n = 0;
    for (std::uint64_t at = from; at < from + ns; at += step)
        n += limiter.admit(c, at) ? 1 : 0;
    return n;
}

TEST(Punt, IkeIsUdp500Or4500AtEitherEndInBothFamilies) {
    for (const family f : {family::ipv4, family::ipv6})
        for (const std::uint16_t port : {std::uint16_t{500}, std::uint16_t{4500}}) {
            EXPECT_EQ(class_of(f, wire::proto_udp, port, 7), punt_class::ike);
            EXPECT_EQ(class_of(f, wire::proto_udp, 7, port), punt_class::ike);
            EXPECT_EQ(class_of(f, wire::proto_tcp, port, port), punt_class::other);
            EXPECT_EQ(class_of(f, wire::proto_udp, port - 1, port + 1), punt_class::other);
        }
}

TEST(Punt, NeighbourDiscoveryIsIcmpv6133To137) {
    for (std::uint16_t type = 0; type < 256; ++type) {
        const bool nd = type >= 133 && type <= 137;
        EXPECT_EQ(class_of(family::ipv6, wire::proto_icmpv6, type, 0),
                  nd ? punt_class::arp_nd : punt_class::icmp);
        EXPECT_EQ(class_of(family::ipv4, wire::proto_icmp, type, 0), punt_class::icmp);
    }
}

TEST(Punt, AFrameThatIsNotIpIsArpOrTheRest) {
    frame arp = with_ethernet({1, 2, 3});
    wire::store(&arp[12], wire::be16(wire::ethertype_arp));
    frame lldp = arp;
    wire::store(&lldp[12], wire::be16(0x88cc));
    for (const auto& [bytes, expected] :
         {std::pair{&arp, punt_class::arp_nd}, std::pair{&lldp, punt_class::other}}) {
        fastpath::packet p;
        p.data = bytes->data();
        p.length = static_cast<std::uint32_t>(bytes->size());
        EXPECT_EQ(fastpath::class_of(p), expected);
        p.length = 13;
        EXPECT_EQ(fastpath::class_of(p), punt_class::other) << "and nothing is read past its end";
    }
}

TEST(Punt, ALimiterLetsItsRateThroughAndOneBurstMore) {
    for (const std::uint32_t rate : {10u, 100u, 1000u, 9999u}) {
        punt_limiter limiter(punt_rates{{rate, rate, rate, rate}});
        const std::uint64_t burst = std::max<std::uint64_t>(rate / 10, 8);
        const std::uint64_t n = admitted(limiter, punt_class::icmp, 5 * second, 10 * second);
        EXPECT_GE(n, rate * 10u);
        EXPECT_LE(n, rate * 10u + burst + 1);
    }
}

TEST(Punt, AQuietHourEarnsNoMoreThanOneBurst) {
    punt_limiter limiter(punt_rates{{100, 100, 100, 100}});
    EXPECT_EQ(admitted(limiter, punt_class::other, 3600 * second, ms, 1000), 10u);
}

TEST(Punt, NoClassSpendsWhatIsAnothers) {
    punt_limiter limiter(punt_rates{{100, 100, 100, 100}});
    for (const punt_class greedy : {punt_class::other, punt_class::icmp, punt_class::arp_nd})
        (void)admitted(limiter, greedy, second, ms, 1000);
    EXPECT_EQ(admitted(limiter, punt_class::ike, second, ms, 1000), 10u);
}

TEST(Punt, WithoutRatesEverythingGoesUp) {
    punt_limiter limiter;
    EXPECT_EQ(admitted(limiter, punt_class::other, 0, ms, 1), ms);
}

TEST(Punt, WorkersShareARateAndNoneGetsNothing) {
    const punt_rates rates{{1000, 0, 3, 10}};
    EXPECT_EQ(rates.shared_by(4), (punt_rates{{250, 0, 1, 2}}));
    EXPECT_EQ(rates.shared_by(1), rates);
}

/// A gateway that is itself spoken to.
struct punting_lab : lab {
    explicit punting_lab(const punt_rates& rates)
        : lab(1) {
        fastpath::port* const both[] = {ports[0].get(), ports[1].get()};
        workers[0] = *fastpath::worker::make(tables, *pool, both, {.punts = rates}, &mesh);
        worker = workers[0].get();
    }
    static frame for_machine(std::uint16_t port, std::uint32_t number, family f = family::ipv4) {
        return make_packet({.family = f,
                            .from = 2,
                            .to = 1,
                            .host = 1,
                            .destination_port = port,
                            .number = number});
    }
    std::uint64_t lost(punt_class c) const { return drops(limit_of(c)); }
};

TEST(Punt, AFloodOfTheRestLeavesIkeWhole) {
    punting_lab gateway(punt_rates{{1000, 1000, 1000, 1000}});
    std::vector<std::uint32_t> ike;
    std::uint64_t rest = 0;
    std::uint32_t sent_ike = 0;
    for (unsigned i = 0; i < 1000; ++i) {
        std::vector<frame> burst;
        for (unsigned j = 0; j < 40; ++j)
            burst.push_back(gateway.for_machine(179, j, j % 2 ? family::ipv4 : family::ipv6));
        if (i % 2 == 0) burst.insert(burst.begin() + 20, gateway.for_machine(500, sent_ike++));
        gateway.push(lab::secure, burst);
        for (const frame& f : gateway.punted(lab::secure)) {
            const bool v4 = (f.at(0) >> 4) == 4;
            if (wire::load<wire::be16>(&f[v4 ? 22 : 42]).host() == 500)
                ike.push_back(number_of(f));
            else
                ++rest;
        }
        gateway.advance(ms);
    }
    ASSERT_EQ(ike.size(), 500u);
    for (std::uint32_t i = 0; i < ike.size(); ++i)
        EXPECT_EQ(ike[i], i);
    EXPECT_GE(rest, 1000u);
    EXPECT_LE(rest, 1101u);
    EXPECT_EQ(gateway.lost(punt_class::ike), 0u);
    EXPECT_EQ(gateway.lost(punt_class::other), 40000 - rest);
    EXPECT_EQ(gateway.worker->counters().punted.get(), 500 + rest);
    EXPECT_TRUE(gateway.worker->counters().balanced());
    EXPECT_EQ(gateway.pool->free_frames(), gateway.pool->count());
}

TEST(Punt, IkeGoesUpFirstAndEachClassKeepsItsOrder) {
    punting_lab gateway({});
    std::vector<frame> burst;
    for (std::uint32_t i = 0; i < 60; ++i)
        burst.push_back(gateway.for_machine(i % 3 == 2 ? 4500 : 22, i));
    gateway.push(lab::secure, burst);
    std::vector<std::uint32_t> order, expected;
    for (const frame& f : gateway.punted(lab::secure))
        order.push_back(number_of(f));
    for (const bool ike : {true, false})
        for (std::uint32_t i = 0; i < 60; ++i)
            if ((i % 3 == 2) == ike) expected.push_back(i);
    EXPECT_EQ(order, expected);
}

TEST(Punt, EachClassIsCountedUnderItsOwnName) {
    punting_lab gateway(punt_rates{{1, 1, 1, 1}});
    std::vector<frame> burst;
    for (std::uint32_t i = 0; i < 20; ++i) {
        burst.push_back(gateway.for_machine(500, i));
        burst.push_back(gateway.for_machine(501, i));
        burst.push_back(gateway.for_machine(0, i));
        burst.back()[9] = wire::proto_icmp; // in the place of UDP: the sums need not be right
        burst.back()[11] = static_cast<std::uint8_t>(burst.back()[11] + 16);
    }
    gateway.push(lab::secure, burst);
    EXPECT_EQ(gateway.punted(lab::secure).size(), 24u);
    EXPECT_EQ(gateway.drops(drop_reason::punt_limited_ike), 12u);
    EXPECT_EQ(gateway.drops(drop_reason::punt_limited_icmp), 12u);
    EXPECT_EQ(gateway.drops(drop_reason::punt_limited_other), 12u);
    EXPECT_EQ(gateway.drops(drop_reason::punt_limited_arp_nd), 0u);
    EXPECT_TRUE(gateway.worker->counters().balanced());
}

} // namespace
} // namespace esplane::tests

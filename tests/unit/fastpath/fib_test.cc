// SPDX-License-Identifier: Apache-2.0
//
// The forwarding table against a list of routes that is searched from the front.
#include "fastpath/fib.h"

#include <gtest/gtest.h>

#include <random>

namespace esplane::fastpath::fib_test {
namespace {

using control::route_kind;
using ipsec::address;
using ipsec::family;

constexpr int lan = 11, wan = 12, elsewhere = 13;
constexpr port_binding ports[] = {{lan, 0}, {wan, 1}};

address parse(const char* text) {
    return *address::parse(text);
}

control::route route_to(const char* destination, std::uint8_t prefix, int ifindex,
                        route_kind kind = route_kind::unicast) {
    control::route r;
    r.destination = parse(destination);
    r.prefix = prefix;
    r.ifindex = ifindex;
    r.kind = kind;
    return r;
}

control::network with_links() {
    control::network n;
    n.links = {{lan, "lan", {2, 0, 0, 0, 0, 1}, 1500, true},
               {wan, "wan", {2, 0, 0, 0, 0, 2}, 1400, true},
               {elsewhere, "eth9", {2, 0, 0, 0, 0, 3}, 1500, true}};
    return n;
}

adjacency_kind kind_of(const fib& f, const char* to) {
    return f.lookup(parse(to)).kind;
}

/// The best route by reading all of them; nullptr where there is none.
const control::route* search(const control::network& n, const address& to) {
    const control::route* best = nullptr;
    for (const control::route& r : n.routes)
        if (r.destination.fam == to.fam &&
            ipsec::prefix_equal(r.destination.bytes.data(), to.bytes.data(), r.prefix) &&
            (best == nullptr || r.prefix > best->prefix))
            best = &r;
    return best;
}

/// Addresses that agree with each other in many bits.
address near_address(std::mt19937& random, family f) {
    address a;
    a.fam = f;
    for (std::size_t i = 0; i < ipsec::address_length(f); ++i)
        a.bytes[i] = random() % 8 == 0 ? static_cast<std::uint8_t>(1u << (random() % 8)) : 0;
    return a;
}

TEST(Fib, FindsWhatASearchOfAllRoutesFinds) {
    for (const family f : {family::ipv4, family::ipv6})
        for (unsigned seed = 0; seed < 20; ++seed) {
            std::mt19937 random(seed);
            control::network n = with_links();
            for (int i = 0; i < 150; ++i) {
                control::route r;
                r.prefix = static_cast<std::uint8_t>(random() % (ipsec::address_bits(f) + 1u));
                r.destination = masked(near_address(random, f), r.prefix);
                r.ifindex = static_cast<int>(lan + random() % 3);
                r.gateway = near_address(random, f);
                r.gateway.bytes[0] = static_cast<std::uint8_t>(i + 1); // which route it was
                n.routes.push_back(r);
            }
            const auto table = fib::build(n, ports);
            for (int i = 0; i < 3000; ++i) {
                const address to = near_address(random, f);
                const adjacency& have = table->lookup(to);
                const control::route* want = search(n, to);
                if (want == nullptr) {
                    ASSERT_EQ(have.kind, adjacency_kind::missing) << to.to_string();
                    continue;
                }
                ASSERT_EQ(have.gateway, want->gateway) << to.to_string() << " seed " << seed;
                ASSERT_EQ(have.kind, want->ifindex == elsewhere ? adjacency_kind::foreign
                                                                : adjacency_kind::unresolved);
            }
        }
}

TEST(Fib, OfTwoRoutesToOnePrefixTheFirstWins) {
    control::network n = with_links();
    n.routes = {route_to("10.0.0.0", 8, wan), route_to("10.0.0.0", 8, lan),
                route_to("fd01::", 32, lan), route_to("fd01::", 32, wan)};
    const auto f = fib::build(n, ports);
    EXPECT_EQ(f->lookup(parse("10.1.1.1")).port, 1);
    EXPECT_EQ(f->lookup(parse("fd01::1")).port, 0);
}

TEST(Fib, ResolvesByTheGatewayOrByTheDestinationItself) {
    control::network n = with_links();
    n.routes = {route_to("192.168.0.0", 24, wan), route_to("10.0.0.0", 8, wan),
                route_to("10.9.9.9", 32, wan)};
    n.routes[1].gateway = parse("192.168.0.1");
    n.neighbours = {{wan, parse("192.168.0.1"), {4, 1}, true},
                    {wan, parse("192.168.0.2"), {4, 2}, true},
                    {wan, parse("192.168.0.3"), {4, 3}, false},
                    {lan, parse("192.168.0.4"), {4, 4}, true}, // seen on another link
                    {wan, parse("10.5.5.5"), {4, 5}, true}};   // behind a gateway all the same
    const auto f = fib::build(n, ports);
    EXPECT_EQ(f->lookup(parse("10.1.1.1")).destination[1], 1);
    EXPECT_EQ(f->lookup(parse("192.168.0.2")).destination[1], 2);
    EXPECT_EQ(kind_of(*f, "192.168.0.3"), adjacency_kind::unresolved);
    EXPECT_EQ(kind_of(*f, "192.168.0.4"), adjacency_kind::unresolved);
    EXPECT_EQ(f->lookup(parse("10.5.5.5")).destination[1], 1);
    EXPECT_EQ(kind_of(*f, "10.9.9.9"), adjacency_kind::unresolved); // a host route without gateway
}

TEST(Fib, ARouteToAHostBeatsTheNeighbourOfThatAddress) {
    control::network n = with_links();
    n.routes = {route_to("192.168.0.0", 24, wan),
                route_to("192.168.0.7", 32, 0, route_kind::blackhole),
                route_to("192.168.0.8", 32, wan, route_kind::local)};
    for (const char* ip : {"192.168.0.7", "192.168.0.8"})
        n.neighbours.push_back({wan, parse(ip), {4, 7}, true});
    const auto f = fib::build(n, ports);
    EXPECT_EQ(kind_of(*f, "192.168.0.7"), adjacency_kind::denied);
    EXPECT_EQ(kind_of(*f, "192.168.0.8"), adjacency_kind::local);
}

TEST(Fib, NamesWhereNothingLeaves) {
    control::network n = with_links();
    n.routes = {route_to("10.1.0.0", 16, 0, route_kind::blackhole),
                route_to("10.2.0.0", 16, 0, route_kind::unreachable),
                route_to("10.3.0.0", 16, 0, route_kind::prohibit),
                route_to("10.4.255.255", 32, lan, route_kind::broadcast),
                route_to("10.5.0.1", 32, lan, route_kind::local),
                route_to("10.6.0.0", 16, elsewhere),
                route_to("10.7.0.0", 16, 99)};
    const auto f = fib::build(n, ports);
    for (const char* denied : {"10.1.0.1", "10.2.0.1", "10.3.0.1", "10.4.255.255"})
        EXPECT_EQ(kind_of(*f, denied), adjacency_kind::denied) << denied;
    EXPECT_EQ(kind_of(*f, "10.5.0.1"), adjacency_kind::local);
    EXPECT_EQ(kind_of(*f, "10.6.0.1"), adjacency_kind::foreign);
    EXPECT_EQ(kind_of(*f, "10.7.0.1"), adjacency_kind::foreign);
    EXPECT_EQ(kind_of(*f, "10.8.0.1"), adjacency_kind::missing);
    EXPECT_EQ(kind_of(*f, "fd01::1"), adjacency_kind::missing);
}

TEST(Fib, TakesTheSmallerOfTheLinksAndTheRoutesMtu) {
    control::network n = with_links();
    n.routes = {route_to("10.1.0.0", 16, wan), route_to("10.2.0.0", 16, wan),
                route_to("10.3.0.0", 16, wan)};
    n.routes[1].mtu = 1300;
    n.routes[2].mtu = 9000;
    const auto f = fib::build(n, ports);
    EXPECT_EQ(f->lookup(parse("10.1.0.1")).mtu, 1400u);
    EXPECT_EQ(f->lookup(parse("10.2.0.1")).mtu, 1300u);
    EXPECT_EQ(f->lookup(parse("10.3.0.1")).mtu, 1400u);
}

TEST(Fib, SpeaksFromTheAddressNearestToThePeer) {
    control::network n = with_links();
    n.addresses = {{lan, parse("10.1.0.1"), 16},
                   {lan, parse("10.2.0.1"), 16},
                   {lan, parse("fe80::1"), 64},
                   {wan, parse("fd77::1"), 64}};
    const auto f = fib::build(n, ports);
    EXPECT_EQ(*f->source_for(0, parse("10.2.3.4")), parse("10.2.0.1"));
    EXPECT_EQ(*f->source_for(0, parse("172.16.0.1")), parse("10.1.0.1"));
    EXPECT_EQ(*f->source_for(1, parse("10.2.3.4")), parse("10.1.0.1")); // of another port
    EXPECT_EQ(*f->source_for(0, parse("fd01::1")), parse("fd77::1"));   // never a link-local one
    n.addresses.pop_back();
    EXPECT_EQ(fib::build(n, ports)->source_for(0, parse("fd01::1")), nullptr);
}

TEST(Fib, EverywhereLeavesByOnePortButForTheMachinesOwn) {
    const address own[] = {parse("192.168.77.1"), parse("fd77::1")};
    const auto f = fib::everywhere(3, 9000, own);
    EXPECT_EQ(kind_of(*f, "192.168.77.1"), adjacency_kind::local);
    EXPECT_EQ(kind_of(*f, "fd77::1"), adjacency_kind::local);
    for (const char* other : {"192.168.77.2", "0.0.0.0", "255.255.255.255", "fd77::2", "::"})
        EXPECT_EQ(kind_of(*f, other), adjacency_kind::bare) << other;
    EXPECT_EQ(f->lookup(parse("1.2.3.4")).port, 3);
}

} // namespace
} // namespace esplane::fastpath::fib_test

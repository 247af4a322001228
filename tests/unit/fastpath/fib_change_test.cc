// SPDX-License-Identifier: Apache-2.0
//
// A forwarding table that is changed route by route and neighbour by neighbour, against a search of
// everything that is there at that moment; and by readers meanwhile.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "fastpath/fib.h"
#include "fastpath/quiescence.h"

namespace esplane::fastpath::fib_change_test {
namespace {

using control::network_change;
using control::route_kind;
using ipsec::address;
using ipsec::family;

constexpr int lan = 11, wan = 12, blue_lan = 14, elsewhere = 13;
constexpr std::uint32_t blue = 100; ///< table of a VRF

const device_bindings bindings{{{lan, 0}, {wan, 1}, {blue_lan, 2}}, {}};

address parse(const char* text) {
    return *address::parse(text);
}

wire::mac_address mac_of(const address& a) {
    wire::mac_address m{2};
    for (std::size_t i = 0; i < a.bytes.size(); ++i)
        m[1 + i % 5] = static_cast<std::uint8_t>(m[1 + i % 5] * 31 + a.bytes[i]);
    return m;
}

control::network with_links() {
    control::network n;
    n.links = {{lan, "lan", {2, 0, 0, 0, 0, 1}, 1500, true},
               {wan, "wan", {2, 0, 0, 0, 0, 2}, 1400, true},
               {blue_lan, "blue", {2, 0, 0, 0, 0, 3}, 1500, true},
               {elsewhere, "eth9", {2, 0, 0, 0, 0, 4}, 1500, true}};
    n.links[2].vrf = blue;
    return n;
}

control::route route_to(const char* destination, std::uint8_t prefix, int ifindex,
                        const char* gateway = nullptr, std::uint32_t vrf = 0) {
    control::route r;
    r.destination = parse(destination);
    r.prefix = prefix;
    r.ifindex = ifindex;
    r.vrf = vrf;
    if (gateway != nullptr) r.gateway = parse(gateway);
    return r;
}

/// A table and what made it.
struct changing {
    control::network network = with_links();
    fib table;
    retired graveyard;

    changing() {
        network_change c;
        c.interfaces = true;
        apply(c);
    }
    void apply(const network_change& c) {
        table.apply(c, network, bindings, graveyard);
        graveyard.reclaim();
    }
    void set(const control::route& r, bool gone = false) {
        network_change c;
        c.routes.push_back({r, gone});
        apply(c);
    }
    void set(const control::neighbour& n, bool gone = false) {
        network_change c;
        c.neighbours.push_back({n, gone});
        apply(c);
    }
    [[nodiscard]] const adjacency& lookup(const char* to, std::uint32_t vrf = 0,
                                          std::uint32_t hash = 0) const {
        return table.lookup(parse(to), table.vrf_of(vrf), hash);
    }
};

/// Everything there is, searched from the front.
struct model {
    std::map<std::tuple<std::uint32_t, unsigned, address>, control::route> routes;
    std::map<std::pair<int, address>, wire::mac_address> neighbours;

    [[nodiscard]] const control::route* find(std::uint32_t vrf, const address& to) const {
        for (unsigned length = ipsec::address_bits(to.fam) + 1; length-- > 0;) {
            const auto found = routes.find({vrf, length, ipsec::masked(to, length)});
            if (found != routes.end()) return &found->second;
        }
        return vrf == 0 ? nullptr : find(0, to);
    }
    /// Says what is wrong with an adjacency; empty where it is right.
    [[nodiscard]] std::string judge(const adjacency& a, std::uint32_t vrf,
                                    const address& to) const {
        const control::route* r = find(vrf, to);
        const auto expect = [&](adjacency_kind k) -> std::string {
            return a.kind == k
                       ? ""
                       : "kind " + std::to_string(int(a.kind)) + " for " + std::to_string(int(k));
        };
        if (r == nullptr) return expect(adjacency_kind::missing);
        if (r->kind == route_kind::local) return expect(adjacency_kind::local);
        if (r->kind != route_kind::unicast) return expect(adjacency_kind::denied);
        if (r->ifindex == elsewhere) return expect(adjacency_kind::foreign);
        if (a.ifindex != r->ifindex) return "another link";
        const address& hop = r->gateway.is_any() ? to : r->gateway;
        const auto known = neighbours.find({r->ifindex, hop});
        if (known == neighbours.end()) {
            if (!r->gateway.is_any() && a.gateway != r->gateway) return "another gateway";
            return expect(adjacency_kind::unresolved);
        }
        if (a.destination != known->second) return "another MAC address";
        return expect(adjacency_kind::forward);
    }
};

address near_address(std::mt19937& random, family f) {
    address a;
    a.fam = f;
    a.bytes[0] = f == family::ipv4 ? 10 : 0xfd;
    for (std::size_t i = 1; i < ipsec::address_length(f); ++i)
        if (random() % 6 == 0) a.bytes[i] = static_cast<std::uint8_t>(1u << (random() % 8));
    return a;
}

control::route random_route(std::mt19937& random, family f) {
    control::route r;
    const unsigned bits = ipsec::address_bits(f);
    r.prefix = static_cast<std::uint8_t>(random() % 4 == 0 ? bits : random() % (bits + 1));
    r.destination = ipsec::masked(near_address(random, f), r.prefix);
    r.vrf = random() % 3 == 0 ? blue : 0;
    r.ifindex = random() % 8 == 0 ? elsewhere
                : r.vrf == blue   ? blue_lan
                                  : static_cast<int>(lan + random() % 2);
    if (random() % 8 == 0) r.kind = random() % 2 == 0 ? route_kind::local : route_kind::blackhole;
    if (random() % 2 == 0) r.gateway = near_address(random, f);
    return r;
}

TEST(FibChange, LeadsWhereASearchOfEverythingLeads) {
    for (unsigned seed = 0; seed < 4; ++seed) {
        std::mt19937 random(seed);
        changing c;
        model want;
        for (int round = 0; round < 120; ++round) {
            network_change change;
            for (int i = 0; i < 5; ++i) {
                const family f = random() % 2 == 0 ? family::ipv4 : family::ipv6;
                if (random() % 3 != 0) {
                    control::route r = random_route(random, f);
                    const bool gone = random() % 3 == 0 && !want.routes.empty();
                    if (gone) { // one that is there, if it is found
                        auto at = want.routes.begin();
                        std::advance(at, random() % want.routes.size());
                        r = at->second;
                        want.routes.erase(at);
                    } else
                        want.routes[{r.vrf, r.prefix, r.destination}] = r;
                    change.routes.push_back({r, gone});
                    // Neighbours come first in a change: what follows is one of its own.
                    c.apply(std::exchange(change, {}));
                    continue;
                }
                control::neighbour n{
                    static_cast<int>(lan + random() % 4), near_address(random, f), {}, true};
                n.mac = mac_of(n.ip);
                n.mac[0] = static_cast<std::uint8_t>(random() % 2 * 4 + 2);
                const bool gone = random() % 3 == 0;
                if (gone)
                    want.neighbours.erase({n.ifindex, n.ip});
                else
                    want.neighbours[{n.ifindex, n.ip}] = n.mac;
                change.neighbours.push_back({n, gone});
                c.apply(std::exchange(change, {}));
            }
            std::vector<address> to;
            for (const auto& [key, r] : want.routes)
                to.push_back(r.destination);
            for (const auto& [key, mac] : want.neighbours)
                to.push_back(key.second);
            for (int i = 0; i < 40; ++i)
                to.push_back(near_address(random, i % 2 == 0 ? family::ipv4 : family::ipv6));
            for (const address& one : to)
                for (const std::uint32_t vrf : {0u, blue})
                    ASSERT_EQ(want.judge(c.table.lookup(one, c.table.vrf_of(vrf)), vrf, one), "")
                        << one.to_string() << " vrf " << vrf << " seed " << seed << " round "
                        << round;
        }
        EXPECT_EQ(c.table.usage().refused, 0u);
        for (const auto& [key, r] : want.routes)
            c.set(r, true);
        EXPECT_EQ(c.table.usage().routes_v4 + c.table.usage().routes_v6, 0u);
        EXPECT_EQ(c.table.usage().next_hops, 1u) << "paths without routes"; // "missing" alone
    }
}

TEST(FibChange, ABurstFindsWhatSingleLookupsFind) {
    changing c;
    std::mt19937 random(1);
    network_change all;
    for (int i = 0; i < 4000; ++i)
        for (const family f : {family::ipv4, family::ipv6})
            all.routes.push_back({random_route(random, f), false});
    c.apply(all);
    EXPECT_FALSE(c.table.is_near());
    for (const std::uint16_t vrf : {std::uint16_t{0}, c.table.vrf_of(blue)})
        for (int round = 0; round < 10; ++round) {
            std::array<address, 64> v4, v6;
            std::array<const std::uint8_t*, 64> at_v4, at_v6;
            std::array<route_target, 64> found_v4, found_v6;
            for (std::size_t i = 0; i < v4.size(); ++i) {
                v4[i] = near_address(random, family::ipv4);
                v6[i] = near_address(random, family::ipv6);
                at_v4[i] = v4[i].bytes.data();
                at_v6[i] = v6[i].bytes.data();
            }
            c.table.find_v4(vrf, at_v4, found_v4.data());
            c.table.find_v6(vrf, at_v6, found_v6.data());
            for (std::size_t i = 0; i < v4.size(); ++i) {
                ASSERT_EQ(&found_v4[i].only(), &c.table.lookup(v4[i], vrf));
                ASSERT_EQ(&found_v6[i].only(), &c.table.lookup(v6[i], vrf));
            }
        }
}

TEST(FibChange, AVrfWithoutARouteGoesOnToTheMainTable) {
    changing c;
    c.set(route_to("0.0.0.0", 0, wan, "192.168.0.1"));
    c.set(route_to("10.0.0.0", 8, blue_lan, "10.0.0.1", blue));
    EXPECT_EQ(c.lookup("10.1.1.1", blue).port, 2);
    EXPECT_EQ(c.lookup("10.1.1.1").port, 1);
    EXPECT_EQ(c.lookup("11.1.1.1", blue).port, 1);
    control::route keep_in = route_to("0.0.0.0", 0, 0, nullptr, blue);
    keep_in.kind = route_kind::unreachable;
    c.set(keep_in);
    EXPECT_EQ(c.lookup("11.1.1.1", blue).kind, adjacency_kind::denied);
    c.set(keep_in, true);
    EXPECT_EQ(c.lookup("11.1.1.1", blue).port, 1);
}

TEST(FibChange, KnowsTheVrfOfAnInterface) {
    changing c;
    EXPECT_EQ(c.table.vrf_at(0), 0);
    EXPECT_EQ(c.table.vrf_at(2), c.table.vrf_of(blue));
    EXPECT_NE(c.table.vrf_at(2), 0);
    c.network.links[2].vrf = 0;
    network_change moved;
    moved.interfaces = true;
    c.apply(moved);
    EXPECT_EQ(c.table.vrf_at(2), 0);
    EXPECT_EQ(c.table.usage().vrfs, 0u);
}

TEST(FibChange, ANeighbourTouchesNoRoutes) {
    changing c;
    network_change all;
    for (unsigned i = 0; i < 1000; ++i) {
        control::route r = route_to("10.0.0.0", 24, wan, "192.168.0.1");
        wire::store(r.destination.bytes.data() + 1, wire::be16(static_cast<std::uint16_t>(i)));
        all.routes.push_back({r, false});
    }
    c.apply(all);
    EXPECT_EQ(c.table.usage().next_hops, 2u);
    const std::size_t bytes = c.table.usage().bytes;
    const auto generation = c.table.generation();
    control::neighbour n{wan, parse("192.168.0.1"), {4, 1}, true};
    c.set(n);
    EXPECT_EQ(c.lookup("10.1.2.3").kind, adjacency_kind::forward);
    EXPECT_GT(c.table.generation(), generation);
    n.mac[5] = 9;
    c.set(n);
    EXPECT_EQ(c.lookup("10.1.2.3").destination, n.mac);
    c.set(n, true);
    EXPECT_EQ(c.lookup("10.1.2.3").kind, adjacency_kind::unresolved);
    EXPECT_EQ(c.table.usage().bytes, bytes);
}

TEST(FibChange, NothingNewLeavesResultsAsTheyAre) {
    changing c;
    const auto generation = c.table.generation();
    c.apply({});
    EXPECT_EQ(c.table.generation(), generation);
}

TEST(FibChange, RoutesAfreshCountWhenTheLastPieceIsThere) {
    changing c;
    c.set(route_to("10.0.0.0", 8, lan, "10.0.0.1"));
    c.set(control::neighbour{wan, parse("192.168.0.7"), {4, 7}, true});
    network_change first;
    first.routes_afresh = first.continues = true;
    first.routes = {{route_to("11.0.0.0", 8, wan, "192.168.0.1"), false}};
    c.apply(first);
    EXPECT_EQ(c.lookup("10.1.1.1").kind, adjacency_kind::unresolved);
    EXPECT_EQ(c.lookup("11.1.1.1").kind, adjacency_kind::missing);
    network_change last;
    last.routes = {{route_to("192.168.0.0", 24, wan), false}};
    c.apply(last);
    EXPECT_EQ(c.lookup("10.1.1.1").kind, adjacency_kind::missing);
    EXPECT_EQ(c.lookup("11.1.1.1").kind, adjacency_kind::unresolved);
    EXPECT_EQ(c.lookup("192.168.0.7").kind, adjacency_kind::forward);
}

/// How many of many flows take each gateway, by the last byte of its address.
std::map<int, int> spread(const changing& c, const char* to) {
    std::map<int, int> taken;
    for (std::uint32_t flow = 0; flow < 30'000; ++flow) {
        const adjacency& a = c.lookup(to, 0, spread_hash(flow));
        EXPECT_EQ(&a, &c.lookup(to, 0, spread_hash(flow))) << "a flow must stay where it is";
        ++taken[a.gateway.bytes[3]];
    }
    return taken;
}

TEST(FibChange, SpreadsFlowsByWeightOverTheHopsThatAreAlive) {
    changing c;
    control::route r = route_to("10.0.0.0", 8, lan, "10.0.0.1");
    r.weight = 1;
    r.more = {{wan, parse("192.168.0.2"), 2}, {elsewhere, parse("172.16.0.3"), 5}};
    c.set(r);
    auto taken = spread(c, "10.1.1.1");
    EXPECT_NEAR(taken[1], 10'000, 500);
    EXPECT_NEAR(taken[2], 20'000, 500);
    EXPECT_EQ(taken[3], 0) << "no port of ours while others are";

    c.network.links[1].up = false;
    network_change down;
    down.interfaces = true;
    c.apply(down);
    taken = spread(c, "10.1.1.1");
    EXPECT_EQ(taken[1], 30'000);

    c.network.links[0].up = false;
    c.apply(down);
    taken = spread(c, "10.1.1.1");
    EXPECT_EQ(taken[1], 30'000) << "the first where all are down";
}

TEST(FibChange, FlowsOfAHopThatStaysStayWithIt) {
    changing c;
    control::route r = route_to("10.0.0.0", 8, lan, "10.0.0.1");
    r.more = {{wan, parse("192.168.0.2"), 1}};
    c.set(r);
    std::vector<std::uint8_t> before;
    for (std::uint32_t flow = 0; flow < 1000; ++flow)
        before.push_back(c.lookup("10.1.1.1", 0, spread_hash(flow)).gateway.bytes[3]);
    c.set(control::neighbour{wan, parse("192.168.0.2"), {4, 2}, true});
    for (std::uint32_t flow = 0; flow < 1000; ++flow) {
        const adjacency& a = c.lookup("10.1.1.1", 0, spread_hash(flow));
        ASSERT_EQ(a.gateway.bytes[3], before[flow]);
        ASSERT_EQ(a.kind,
                  a.gateway.bytes[3] == 2 ? adjacency_kind::forward : adjacency_kind::unresolved);
    }
}

TEST(FibChange, AnIndexStaysWithItsLink) {
    changing c;
    const auto add_vlan = [&](int ifindex, std::uint16_t id) {
        control::link l{ifindex, "v" + std::to_string(id), {2, 0, 0, 0, 1, 1}, 1500, true};
        l.kind = control::link_kind::vlan;
        l.parent = lan;
        l.vlan_id = id;
        l.vlan_protocol = wire::ethertype_8021q;
        c.network.links.push_back(l);
    };
    network_change changed;
    changed.interfaces = true;
    add_vlan(21, 5);
    add_vlan(22, 6);
    c.apply(changed);
    const std::uint16_t six = c.table.interfaces().find(22);
    EXPECT_EQ(c.table.interface(six).tags.length, 4);
    std::erase_if(c.network.links, [](const auto& l) { return l.ifindex == 21; });
    add_vlan(23, 7);
    c.apply(changed);
    EXPECT_EQ(c.table.interfaces().find(22), six);
    EXPECT_EQ(c.table.interfaces().find(21), interface_table::none);
    EXPECT_NE(c.table.interfaces().find(23), interface_table::none);
}

/// Readers follow every pointer they find while routes, neighbours and links change: what is behind
/// it must be whole.  A gateway's MAC address follows from its IP address.
TEST(FibChange, AReaderNeverFindsAHalf) {
    changing c;
    std::vector<address> targets;
    std::mt19937 random(4);
    for (int i = 0; i < 32; ++i)
        targets.push_back(near_address(random, i % 2 == 0 ? family::ipv4 : family::ipv6));

    std::atomic<bool> stop{false};
    std::atomic<int> rounds{0}, wrong{0};
    std::thread worker([&] {
        reader here;
        while (!stop.load(std::memory_order_relaxed)) {
            for (const std::uint16_t vrf : {std::uint16_t{0}, std::uint16_t{1}})
                for (std::size_t i = 0; i < targets.size(); ++i) {
                    const adjacency& a =
                        c.table.lookup(targets[i], vrf, spread_hash(static_cast<std::uint32_t>(i)));
                    if (a.kind == adjacency_kind::forward)
                        wrong += a.destination != mac_of(a.gateway);
                    wrong += c.table.interface(a.interface).mtu > 1500;
                }
            here.quiescent();
            rounds.fetch_add(1, std::memory_order_relaxed);
        }
    });
    for (int i = 0; i < 1500 || rounds.load() < 20; ++i) {
        network_change change;
        for (const family f : {family::ipv4, family::ipv6}) {
            control::route r = random_route(random, f);
            if (random() % 2 == 0)
                r.more = {{lan, near_address(random, f), 1}, {wan, near_address(random, f), 3}};
            change.routes.push_back({r, random() % 3 == 0});
            control::neighbour n{
                static_cast<int>(lan + random() % 2), near_address(random, f), {}, true};
            n.mac = mac_of(n.ip);
            change.neighbours.push_back({n, random() % 3 == 0});
        }
        change.interfaces = i % 10 == 0;
        change.routes_afresh = i % 100 == 0;
        c.apply(change);
    }
    stop = true;
    worker.join();
    EXPECT_EQ(wrong.load(), 0);
}

} // namespace
} // namespace esplane::fastpath::fib_change_test

// SPDX-License-Identifier: Apache-2.0
//
// route_monitor against the kernel, told by `ip` what to do, each test in a network namespace of
// its own.  Needs root; skips (77) without it.
//
//   a0 10.1.0.1/24, fd01::1/64 ------ b0, in the same namespace, without addresses
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <net/if.h>
#include <optional>
#include <poll.h>
#include <sched.h>
#include <set>
#include <string>
#include <unistd.h>

#include <gtest/gtest.h>

#include "xfrm/link_watch.h"
#include "xfrm/route.h"

namespace esplane::xfrm {
namespace {

ipsec::address ip(const std::string& text) {
    return ipsec::address::parse(text).value();
}

void run(const std::string& arguments) {
    ASSERT_EQ(std::system(("ip " + arguments).c_str()), 0) << arguments;
}

// What is busy with links is not to be woken by a storm of routes.
TEST(LinkWatch, HearsOfLinksAndOfNothingElse) {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    auto links = link_watch::open();
    ASSERT_TRUE(links) << links.error().text;
    EXPECT_FALSE(links->changed());
    run("link add a0 type veth peer name b0");
    EXPECT_TRUE(links->changed());
    EXPECT_FALSE(links->changed()) << "once";
    run("link set a0 up");
    run("link set b0 up");
    EXPECT_TRUE(links->changed());
    ::usleep(300'000); // the kernel says late that there is a carrier
    (void)links->changed();
    run("address add 10.1.0.1/24 dev a0");
    run("route add 10.2.0.0/16 via 10.1.0.2");
    run("neighbour add 10.1.0.2 lladdr 02:00:00:00:00:02 dev a0");
    EXPECT_FALSE(links->changed());
    run("link del a0");
    EXPECT_TRUE(links->changed());
}

class RouteMonitor : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
        run("link set lo up");
        // Or link-local addresses would come a second later, whatever the test is at then.
        ASSERT_EQ(std::system("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad"), 0);
        run("link add a0 address 02:00:00:00:00:01 type veth peer name b0");
        run("link set a0 up");
        run("link set b0 up");
        run("address add 10.1.0.1/24 dev a0");
        run("address add fd01::1/64 dev a0 nodad");
        auto opened = route_monitor::open();
        ASSERT_TRUE(opened) << opened.error().text;
        monitor_ = std::move(*opened);
        settle();
    }

    /// Until nothing more has happened for a while; true if something that matters did.
    bool settle() {
        bool changed = false;
        for (;;) {
            const auto r = monitor_->poll();
            EXPECT_TRUE(r);
            changed |= r && !r->empty();
            if (monitor_->unfinished()) continue;
            pollfd p{monitor_->descriptor(), POLLIN, 0};
            if (::poll(&p, 1, 150) == 0) return changed;
        }
    }

    control::network now() {
        settle();
        return monitor_->snapshot();
    }

    std::optional<control::route> find(const std::string& destination, std::uint8_t prefix) {
        const auto all = now().routes;
        const auto at = std::find_if(all.begin(), all.end(), [&](const control::route& r) {
            return r.destination == ip(destination) && r.prefix == prefix;
        });
        return at == all.end() ? std::nullopt : std::optional(*at);
    }

    /// `ip -batch` of what write(FILE*, i) writes for i below `n`; goes on after what fails.
    template <typename Write>
    void batch(int n, Write write) {
        FILE* to = ::popen("ip -force -batch - 2>/dev/null", "w");
        for (int i = 0; i < n; ++i)
            write(to, i);
        ::pclose(to);
    }

    /// "GATEWAY*WEIGHT ..." of the route that wins.
    std::string hops(const std::string& destination, std::uint8_t prefix) {
        const auto r = find(destination, prefix);
        if (!r) return "none";
        std::string text = r->gateway.to_string() + "*" + std::to_string(r->weight);
        for (const control::hop& h : r->more)
            text += " " + h.gateway.to_string() + "*" + std::to_string(h.weight);
        return text;
    }

    /// What was followed is what a dump shows.
    void expect_the_same_as_read_afresh() {
        const auto lines = [](const std::vector<control::route>& all) {
            std::set<std::string> text;
            for (const control::route& r : all)
                text.insert(r.destination.to_string() + "/" + std::to_string(r.prefix) + " via " +
                            r.gateway.to_string() + " dev " + std::to_string(r.ifindex) + " +" +
                            std::to_string(r.more.size()));
            return text;
        };
        const auto followed = lines(now().routes);
        monitor_ = std::move(*route_monitor::open());
        const auto afresh = lines(now().routes);
        std::vector<std::string> wrong;
        std::set_symmetric_difference(followed.begin(), followed.end(), afresh.begin(),
                                      afresh.end(), std::back_inserter(wrong));
        EXPECT_TRUE(wrong.empty()) << wrong.size() << ", like " << wrong.front();
    }

    std::optional<control::neighbour> neighbour(const std::string& address) {
        const auto all = now().neighbours;
        const auto at = std::find_if(all.begin(), all.end(), [&](const control::neighbour& n) {
            return n.ip == ip(address);
        });
        return at == all.end() ? std::nullopt : std::optional(*at);
    }

    static int index(const char* device) { return static_cast<int>(::if_nametoindex(device)); }

    std::unique_ptr<route_monitor> monitor_;
};

TEST_F(RouteMonitor, LinksAreSeenAsTheyAreAndAsTheyChange) {
    const auto a0 = [&]() -> control::link {
        const auto links = now().links;
        return *std::find_if(links.begin(), links.end(), [](auto& l) { return l.name == "a0"; });
    };
    EXPECT_EQ(a0().mac, (wire::mac_address{2, 0, 0, 0, 0, 1}));
    EXPECT_EQ(a0().mtu, 1500U);
    EXPECT_TRUE(a0().up);
    run("link set a0 mtu 1400");
    EXPECT_TRUE(settle());
    EXPECT_EQ(a0().mtu, 1400U);
    run("link set b0 down"); // no carrier
    EXPECT_FALSE(a0().up);
}

TEST_F(RouteMonitor, AddressesComeAndGo) {
    const auto has = [&](const char* text, std::uint8_t prefix) {
        const auto all = now().addresses;
        return std::count(all.begin(), all.end(),
                          control::interface_address{index("a0"), ip(text), prefix}) == 1;
    };
    EXPECT_TRUE(has("10.1.0.1", 24));
    EXPECT_TRUE(has("fd01::1", 64));
    run("address add 10.7.0.1 peer 10.7.0.2/32 dev a0");
    EXPECT_TRUE(has("10.7.0.1", 32));
    run("address del 10.1.0.1/24 dev a0");
    EXPECT_FALSE(has("10.1.0.1", 24));
    EXPECT_FALSE(find("10.1.0.1", 32)); // its local route went with it
}

TEST_F(RouteMonitor, RoutesCarryWhatForwardingNeeds) {
    run("route add 10.2.0.0/16 via 10.1.0.2 mtu 1300 metric 7 src 10.1.0.1");
    run("route add unreachable 10.3.0.0/16");
    run("-6 route add fd02::/64 via fd01::2");
    const auto r = find("10.2.0.0", 16);
    ASSERT_TRUE(r);
    EXPECT_EQ(r->gateway, ip("10.1.0.2"));
    EXPECT_EQ(r->ifindex, index("a0"));
    EXPECT_EQ(r->mtu, 1300U);
    EXPECT_EQ(r->metric, 7U);
    EXPECT_EQ(r->table, 254U);
    EXPECT_EQ(r->preferred_source, ip("10.1.0.1"));
    EXPECT_EQ(find("10.3.0.0", 16)->kind, control::route_kind::unreachable);
    EXPECT_EQ(find("fd02::", 64)->gateway, ip("fd01::2"));
    EXPECT_EQ(find("10.1.0.1", 32)->kind, control::route_kind::local);
    EXPECT_EQ(find("10.1.0.255", 32)->kind, control::route_kind::broadcast);
    EXPECT_EQ(find("10.1.0.0", 24)->gateway.fam, ipsec::family::unspecified);
    run("route del 10.2.0.0/16");
    EXPECT_FALSE(find("10.2.0.0", 16));
}

TEST_F(RouteMonitor, AReplacedRouteLeavesNoTrace) {
    run("route add 10.2.0.0/16 via 10.1.0.2");
    run("route replace 10.2.0.0/16 via 10.1.0.3");
    const auto& all = now().routes;
    EXPECT_EQ(std::count_if(all.begin(), all.end(),
                            [](auto& r) { return r.destination == ip("10.2.0.0"); }),
              1);
    EXPECT_EQ(find("10.2.0.0", 16)->gateway, ip("10.1.0.3"));
}

TEST_F(RouteMonitor, RoutesOfALinkThatGoesDownAreGone) {
    // IPv6 would announce its own routes.
    ASSERT_EQ(std::system("echo 1 > /proc/sys/net/ipv6/conf/a0/disable_ipv6"), 0);
    run("route add 10.2.0.0/16 via 10.1.0.2");
    EXPECT_TRUE(find("10.2.0.0", 16));
    run("link set a0 down"); // announced for the link alone
    EXPECT_FALSE(find("10.2.0.0", 16));
}

TEST_F(RouteMonitor, TheLowestMetricComesFirst) {
    run("route add 10.2.0.0/16 via 10.1.0.3 metric 20");
    run("route add 10.2.0.0/16 via 10.1.0.2 metric 10");
    EXPECT_EQ(find("10.2.0.0", 16)->gateway, ip("10.1.0.2"));
}

TEST_F(RouteMonitor, SeveralNextHopsComeWithTheirWeights) {
    run("route add 10.2.0.0/16 nexthop via 10.1.0.2 weight 3 nexthop via 10.1.0.3 weight 200");
    run("-6 route add fd02::/64 nexthop via fd01::2 weight 7 nexthop via fd01::3");
    EXPECT_EQ(hops("10.2.0.0", 16), "10.1.0.2*3 10.1.0.3*200");
    EXPECT_EQ(hops("fd02::", 64), "fd01::2*7 fd01::3*1");
}

TEST_F(RouteMonitor, IPv6HopsComeAndGoOneByOne) {
    run("-6 route add fd02::/64 via fd01::2");
    run("-6 route append fd02::/64 via fd01::3");
    run("-6 route append fd02::/64 nexthop via fd01::4 nexthop via fd01::5");
    EXPECT_EQ(hops("fd02::", 64), "fd01::2*1 fd01::3*1 fd01::4*1 fd01::5*1");
    run("-6 route del fd02::/64 via fd01::2");
    EXPECT_EQ(hops("fd02::", 64), "fd01::3*1 fd01::4*1 fd01::5*1");
    run("-6 route replace fd02::/64 nexthop via fd01::6 nexthop via fd01::7");
    EXPECT_EQ(hops("fd02::", 64), "fd01::6*1 fd01::7*1");
    run("-6 route del fd02::/64");
    EXPECT_FALSE(find("fd02::", 64));
    expect_the_same_as_read_afresh();
}

TEST_F(RouteMonitor, AnIPv4RouteMayHaveAnIPv6Gateway) {
    run("route add 10.2.0.0/16 via inet6 fe80::2 dev a0");
    EXPECT_EQ(find("10.2.0.0", 16)->gateway, ip("fe80::2"));
}

TEST_F(RouteMonitor, RoutesFollowNextHopObjects) {
    run("nexthop add id 1 via 10.1.0.2 dev a0");
    run("nexthop add id 2 via 10.1.0.3 dev a0");
    run("nexthop add id 9 group 1,3/2,20");
    run("route add 10.2.0.0/16 nhid 1");
    run("route add 10.3.0.0/16 nhid 9");
    EXPECT_EQ(hops("10.2.0.0", 16), "10.1.0.2*1");
    EXPECT_EQ(hops("10.3.0.0", 16), "10.1.0.2*3 10.1.0.3*20");
    run("nexthop replace id 1 via 10.1.0.7 dev a0");
    EXPECT_EQ(hops("10.2.0.0", 16), "10.1.0.7*1");
    EXPECT_EQ(hops("10.3.0.0", 16), "10.1.0.7*3 10.1.0.3*20");
    run("nexthop del id 1"); // its routes go in silence, the group shrinks
    EXPECT_FALSE(find("10.2.0.0", 16));
    EXPECT_EQ(hops("10.3.0.0", 16), "10.1.0.3*20");
    run("nexthop replace id 2 blackhole");
    EXPECT_EQ(find("10.3.0.0", 16)->kind, control::route_kind::blackhole);
    run("nexthop del id 2");
    EXPECT_FALSE(find("10.3.0.0", 16));
    expect_the_same_as_read_afresh();
}

TEST_F(RouteMonitor, NextHopObjectsOfALinkThatGoesDownAreGone) {
    run("nexthop add id 1 via 10.1.0.2 dev a0");
    run("route add 10.2.0.0/16 nhid 1");
    EXPECT_TRUE(find("10.2.0.0", 16));
    run("link set a0 down"); // neither the object nor the route is announced
    EXPECT_FALSE(find("10.2.0.0", 16));
    run("link set a0 up");
    run("nexthop add id 1 via 10.1.0.3 dev a0");
    run("route add 10.2.0.0/16 nhid 1");
    EXPECT_EQ(hops("10.2.0.0", 16), "10.1.0.3*1");
    expect_the_same_as_read_afresh();
}

TEST_F(RouteMonitor, AHopOfALinkThatGoesDownIsLeftOutUntilItIsUp) {
    run("address add 10.8.0.1/24 dev b0");
    run("route add 10.2.0.0/16 nexthop via 10.1.0.2 nexthop via 10.8.0.2");
    EXPECT_EQ(hops("10.2.0.0", 16), "10.1.0.2*1 10.8.0.2*1");
    run("link set b0 down");
    EXPECT_EQ(hops("10.2.0.0", 16), "10.1.0.2*1");
    run("link set b0 up");
    EXPECT_EQ(hops("10.2.0.0", 16), "10.1.0.2*1 10.8.0.2*1");
    ASSERT_EQ(std::system("echo 1 > /proc/sys/net/ipv4/conf/all/ignore_routes_with_linkdown"), 0);
    run("link set a0 down"); // b0 loses its carrier
    EXPECT_FALSE(find("10.2.0.0", 16)) << "one hop is dead, the other ignored";
}

TEST_F(RouteMonitor, RoutesGoWithTheSourceTheyPrefer) {
    run("address add 10.9.0.1/32 dev b0");
    run("route add 10.2.0.0/16 via 10.1.0.2 src 10.9.0.1");
    EXPECT_TRUE(find("10.2.0.0", 16));
    run("address del 10.9.0.1/32 dev b0");
    EXPECT_FALSE(find("10.2.0.0", 16));
}

TEST_F(RouteMonitor, RoutesGoWithTheLastAddressOfTheirLink) {
    run("route add 10.2.0.0/16 via 10.1.0.2");
    run("route add 10.3.0.0/16 dev a0");
    run("address add 10.1.1.1/24 dev a0");
    run("address del 10.1.1.1/24 dev a0");
    EXPECT_TRUE(find("10.3.0.0", 16));
    run("address del 10.1.0.1/24 dev a0");
    EXPECT_FALSE(find("10.2.0.0", 16));
    EXPECT_FALSE(find("10.3.0.0", 16));
}

TEST_F(RouteMonitor, RoutesOfOneMetricKeepTheKernelsOrder) {
    run("route add 10.2.0.0/16 via 10.1.0.2");
    run("route append 10.2.0.0/16 via 10.1.0.3");
    EXPECT_EQ(hops("10.2.0.0", 16), "10.1.0.2*1");
    run("route prepend 10.2.0.0/16 via 10.1.0.4");
    EXPECT_EQ(hops("10.2.0.0", 16), "10.1.0.4*1");
    run("route replace 10.2.0.0/16 via 10.1.0.5");
    EXPECT_EQ(hops("10.2.0.0", 16), "10.1.0.5*1");
    run("route del 10.2.0.0/16 via 10.1.0.5");
    EXPECT_EQ(hops("10.2.0.0", 16), "10.1.0.2*1");
    run("route del 10.2.0.0/16 via 10.1.0.2");
    EXPECT_EQ(hops("10.2.0.0", 16), "10.1.0.3*1");
}

TEST_F(RouteMonitor, NeitherARouteNorANeighbourMakesItReadTheTableAgain) {
    settle();
    const auto before = monitor_->routes_read();
    run("route add 10.2.0.0/16 via 10.1.0.2");
    run("route replace 10.2.0.0/16 via 10.1.0.3");
    run("-6 route add fd02::/64 via fd01::2");
    run("route del 10.2.0.0/16");
    run("neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev a0");
    run("address add 10.6.0.1/24 dev b0");
    run("rule add prio 220 lookup 220");
    run("rule del prio 220");
    run("link set b0 mtu 1400");
    EXPECT_TRUE(settle());
    EXPECT_EQ(monitor_->routes_read(), before);
}

TEST_F(RouteMonitor, ALinkMakesItReadTheLinksOwnRoutesAlone) {
    run("address add 10.8.0.1/24 dev b0");
    run("route add 10.2.0.0/16 via 10.8.0.2");
    batch(5000, [](FILE* to, int i) {
        std::fprintf(to, "route add 172.16.%d.%d/32 via 10.1.0.2\n", i / 256, i % 256);
    });
    settle();
    const auto before = monitor_->routes_read();
    run("link set b0 down"); // a0 loses its carrier, its routes are looked at too
    run("link set b0 up");
    settle();
    EXPECT_FALSE(find("10.2.0.0", 16));
    EXPECT_LT(monitor_->routes_read() - before, 3 * 5100U);
    run("link add c0 type veth peer name d0");
    run("link set c0 up");
    run("address add 10.9.0.1/24 dev c0");
    settle();
    const auto unrelated = monitor_->routes_read();
    run("link set c0 down");
    run("link del c0");
    settle();
    EXPECT_LT(monitor_->routes_read() - unrelated, 100U);
}

TEST_F(RouteMonitor, TablesAreReachedByRulesAndInTheirOrder) {
    run("route add 10.2.0.0/16 via 10.1.0.2");
    run("route add 10.2.9.0/24 via 10.1.0.2");
    run("route add 10.2.0.0/16 via 10.1.0.9 table 220");
    EXPECT_EQ(find("10.2.0.0", 16)->table, 254U) << "no rule leads to 220";
    run("rule add prio 220 lookup 220");
    EXPECT_EQ(find("10.2.0.0", 16)->table, 220U);
    EXPECT_FALSE(find("10.2.9.0", 24)) << "220 covers it";
    run("rule del prio 220");
    EXPECT_TRUE(find("10.2.9.0", 24));
}

TEST_F(RouteMonitor, ARuleWithAConditionIsSkippedAndCounted) {
    run("route add 10.2.0.0/16 via 10.1.0.9 table 77");
    run("rule add prio 100 from 10.0.0.1 lookup 77");
    run("rule add prio 101 fwmark 1 lookup 77");
    run("rule add prio 102 lookup main suppress_prefixlength 0");
    EXPECT_FALSE(find("10.2.0.0", 16));
    EXPECT_EQ(monitor_->skipped_rules(), 3U);
}

TEST_F(RouteMonitor, ANeighbourChangesOnlyWithItsMacOrValidity) {
    run("neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev a0 nud reachable");
    EXPECT_TRUE(settle());
    const auto n = neighbour("10.1.0.2");
    ASSERT_TRUE(n);
    EXPECT_TRUE(n->resolved);
    EXPECT_EQ(n->mac, (wire::mac_address{2, 0, 0, 0, 0, 2}));
    run("neigh change 10.1.0.2 lladdr 02:00:00:00:00:02 dev a0 nud stale");
    EXPECT_FALSE(settle()) << "stale is as good";
    run("neigh change 10.1.0.2 lladdr 02:00:00:00:00:03 dev a0 nud reachable");
    EXPECT_TRUE(settle());
    EXPECT_EQ(neighbour("10.1.0.2")->mac[5], 3);
    run("neigh change 10.1.0.2 dev a0 nud failed");
    EXPECT_TRUE(settle());
    const auto failed = neighbour("10.1.0.2");
    EXPECT_FALSE(failed && failed->resolved);
}

TEST_F(RouteMonitor, ResolveMakesTheKernelAsk) {
    ASSERT_TRUE(monitor_->resolve(index("a0"), ip("10.1.0.7")));
    EXPECT_EQ(std::system("ip neigh show 10.1.0.7 dev a0 | grep -q INCOMPLETE"), 0);
    ASSERT_TRUE(monitor_->resolve(index("a0"), ip("fd01::7")));
    EXPECT_EQ(std::system("ip neigh show fd01::7 dev a0 | grep -q INCOMPLETE"), 0);
    EXPECT_FALSE(settle()) << "unresolved is as good as unknown";
    EXPECT_FALSE(monitor_->resolve(99999, ip("10.1.0.7")));
}

TEST_F(RouteMonitor, AFloodThatOverflowsTheSocketLeavesNothingBehind) {
    monitor_ = std::move(*route_monitor::open(64 << 10));
    settle();
    batch(20000, [](FILE* to, int i) {
        std::fprintf(to, "route add 172.%d.%d.%d/32 via 10.1.0.2\n", 16 + i / 65536, i / 256 % 256,
                     i % 256);
    });
    run("neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev a0"); // nobody will hear of it
    EXPECT_TRUE(neighbour("10.1.0.2"));
    EXPECT_TRUE(find("172.16.78.31", 32)); // the last
    EXPECT_GT(now().routes.size(), 20000U);
    batch(10000, [](FILE* to, int i) {
        std::fprintf(to, "route del 172.%d.%d.%d/32\n", 16 + i / 65536, i / 256 % 256, i % 256);
    });
    EXPECT_LT(now().routes.size(), 11000U);
    expect_the_same_as_read_afresh();
    run("link set a0 down");
    EXPECT_LT(now().routes.size(), 1000U);
}

TEST_F(RouteMonitor, WhatChangesWhileRoutesAreReadIsNotLost) {
    constexpr int many = 30000; // more than a poll reads
    batch(many, [](FILE* to, int i) {
        std::fprintf(to, "route add 172.16.%d.%d/32 via 10.1.0.2\n", i / 256, i % 256);
    });
    batch(many,
          [](FILE* to, int i) { std::fprintf(to, "route add fd02::%x/128 via fd01::2\n", i + 1); });
    monitor_ = std::move(*route_monitor::open());
    for (int polls = 0; monitor_->unfinished(); ++polls) {
        EXPECT_TRUE(monitor_->poll());
        // Here and there, read already or not: gone, another, new.
        batch(300, [&](FILE* to, int i) {
            const int at = i * 99 + polls;
            std::fprintf(to, "route del 172.16.%d.%d/32\n", at / 256, at % 256);
            std::fprintf(to, "route replace 172.16.%d.%d/32 via 10.1.0.3\n", (at + 50) / 256,
                         (at + 50) % 256);
            std::fprintf(to, "route add 172.%d.0.%d/32 via 10.1.0.2\n", 17 + polls, i % 256);
            std::fprintf(to, "route del fd02::%x/128\n", at + 1);
            std::fprintf(to, "route replace fd02::%x/128 via fd01::3\n", at + 51);
            std::fprintf(to, "route add fd03:%x::%x/128 via fd01::3\n", polls, i);
        });
    }
    EXPECT_GT(now().routes.size(), 50000U);
    expect_the_same_as_read_afresh();
}

} // namespace
} // namespace esplane::xfrm

// SPDX-License-Identifier: Apache-2.0
//
// route_monitor against the kernel, told by `ip` what to do, in a network namespace of the test's
// own.  Needs root; skips (77) without it.
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
#include <string>
#include <unistd.h>

#include <gtest/gtest.h>

#include "xfrm/route.h"

namespace esplane::xfrm {
namespace {

ipsec::address ip(const std::string& text) {
    return ipsec::address::parse(text).value();
}

void run(const std::string& arguments) {
    ASSERT_EQ(std::system(("ip " + arguments).c_str()), 0) << arguments;
}

class RouteMonitor : public testing::Test {
  protected:
    void SetUp() override {
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
    void TearDown() override {
        monitor_.reset();
        run("link del a0");
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

TEST_F(RouteMonitor, OfSeveralNextHopsTheFirstIsTaken) {
    run("route add 10.2.0.0/16 nexthop via 10.1.0.2 nexthop via 10.1.0.3");
    run("-6 route add fd02::/64 nexthop via fd01::2 nexthop via fd01::3");
    EXPECT_EQ(find("10.2.0.0", 16)->gateway, ip("10.1.0.2"));
    EXPECT_EQ(find("fd02::", 64)->gateway, ip("fd01::2"));
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
    run("rule del prio 100");
    run("rule del prio 101");
    run("rule del prio 102");
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
    FILE* batch = ::popen("ip -batch -", "w");
    for (int i = 0; i < 60000; ++i)
        std::fprintf(batch, "route add 172.%d.%d.%d/32 via 10.1.0.2\n", 16 + i / 65536,
                     i / 256 % 256, i % 256);
    ASSERT_EQ(::pclose(batch), 0);
    run("neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev a0"); // nobody will hear of it
    EXPECT_TRUE(neighbour("10.1.0.2"));
    EXPECT_TRUE(find("172.16.234.95", 32)); // the last
    EXPECT_GT(now().routes.size(), 60000U);
    run("link set a0 down");
    EXPECT_LT(now().routes.size(), 1000U);
}

} // namespace
} // namespace esplane::xfrm

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    if (::geteuid() != 0 || ::unshare(CLONE_NEWNET) != 0) {
        std::puts("skipped: needs root (network namespaces): run it with sudo");
        return 77;
    }
    return RUN_ALL_TESTS();
}

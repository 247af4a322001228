// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "xfrm/route_rib.h"

namespace esplane::xfrm {
namespace {

using ipsec::address;
using ipsec::family;

address ip(const std::string& text) {
    return address::parse(text).value();
}

next_hop via(const std::string& gateway, int ifindex = 1) {
    return {ifindex, gateway.empty() ? address{} : ip(gateway), 1, false};
}

route_message route_to(const std::string& destination, unsigned prefix, std::vector<next_hop> hops,
                       std::uint32_t table = 254, std::uint32_t metric = 0) {
    route_message m;
    m.destination = ip(destination);
    m.prefix = static_cast<std::uint8_t>(prefix);
    m.table = table;
    m.metric = metric;
    m.path.hops = std::move(hops);
    return m;
}

route_message gone(route_message m) {
    m.gone = true;
    return m;
}

route_message placed(route_place place, route_message m) {
    m.place = place;
    return m;
}

/// What those who follow the changes know.
class follower {
  public:
    void take(const route_changes& changes) {
        for (const auto& c : changes) {
            const key k{c.what.vrf, c.what.prefix, c.what.destination};
            if (c.gone)
                EXPECT_EQ(known_.erase(k), 1U) << "lost twice";
            else
                known_[k] = c.what;
        }
    }
    [[nodiscard]] const control::route* find(const std::string& destination, unsigned prefix,
                                             std::uint32_t vrf = 0) const {
        const auto at = known_.find({vrf, static_cast<std::uint8_t>(prefix), ip(destination)});
        return at == known_.end() ? nullptr : &at->second;
    }
    /// Longest match.
    [[nodiscard]] const control::route* look_up(std::uint32_t vrf, const address& a) const {
        for (int length = ipsec::address_bits(a.fam); length >= 0; --length) {
            const auto bits = static_cast<std::uint8_t>(length);
            const auto at = known_.find({vrf, bits, ipsec::masked(a, bits)});
            if (at != known_.end()) return &at->second;
        }
        return nullptr;
    }
    [[nodiscard]] std::size_t size() const { return known_.size(); }

  private:
    using key = std::tuple<std::uint32_t, std::uint8_t, address>;
    std::map<key, control::route> known_;
};

class Rib : public testing::Test {
  protected:
    Rib() { order({{0, {255, 254, 253}}}); }
    void order(std::vector<lookup_order> orders) {
        for (const family f : {family::ipv4, family::ipv6})
            told([&](route_changes& out) { rib_.set_orders(f, orders, out); });
    }
    /// How many changes were told.
    std::size_t told(const std::function<void(route_changes&)>& act) {
        route_changes out;
        act(out);
        follower_.take(out);
        return out.size();
    }
    std::size_t event(const route_message& m) {
        return told([&](route_changes& out) { rib_.take_event(m, out); });
    }
    std::size_t nexthop(const nexthop_message& m) {
        return told([&](route_changes& out) { rib_.take_nexthop(m, out); });
    }
    std::size_t read(family f, int ifindex, const std::vector<route_message>& all) {
        return told([&](route_changes& out) {
            rib_.begin_reading(f, ifindex);
            for (const route_message& m : all)
                rib_.take_read(m, out);
            EXPECT_TRUE(rib_.sweep(f, 1000, out));
        });
    }
    [[nodiscard]] std::string gateway(const std::string& destination, unsigned prefix,
                                      std::uint32_t vrf = 0) const {
        const control::route* r = follower_.find(destination, prefix, vrf);
        return r == nullptr ? "none" : r->gateway.to_string();
    }

    rib rib_;
    follower follower_;
};

TEST_F(Rib, ARouteIsToldOnceHoweverOftenItIsAnnounced) {
    EXPECT_EQ(event(route_to("10.2.0.0", 16, {via("10.1.0.2")})), 1U);
    EXPECT_EQ(event(route_to("10.2.0.0", 16, {via("10.1.0.2")})), 0U);
    EXPECT_EQ(rib_.routes(), 1U);
    EXPECT_EQ(event(gone(route_to("10.2.0.0", 16, {via("10.1.0.2")}))), 1U);
    EXPECT_EQ(event(gone(route_to("10.2.0.0", 16, {via("10.1.0.2")}))), 0U);
    EXPECT_EQ(follower_.size(), 0U);
    EXPECT_EQ(rib_.paths().size(), 0U);
}

TEST_F(Rib, AWorseMetricIsNoChangeUntilTheBetterOneIsGone) {
    event(route_to("10.2.0.0", 16, {via("10.1.0.2")}, 254, 10));
    EXPECT_EQ(event(route_to("10.2.0.0", 16, {via("10.1.0.3")}, 254, 20)), 0U);
    EXPECT_EQ(event(gone(route_to("10.2.0.0", 16, {via("10.1.0.2")}, 254, 10))), 1U);
    EXPECT_EQ(gateway("10.2.0.0", 16), "10.1.0.3");
}

TEST_F(Rib, OfOneMetricTheLastOneAddedWinsAndAppendedOnesWait) {
    event(route_to("10.2.0.0", 16, {via("10.1.0.2")}));
    EXPECT_EQ(event(placed(route_place::last, route_to("10.2.0.0", 16, {via("10.1.0.3")}))), 0U);
    EXPECT_EQ(event(placed(route_place::first, route_to("10.2.0.0", 16, {via("10.1.0.4")}))), 1U);
    EXPECT_EQ(gateway("10.2.0.0", 16), "10.1.0.4");
    EXPECT_EQ(event(placed(route_place::instead, route_to("10.2.0.0", 16, {via("10.1.0.3")}))), 1U);
    EXPECT_EQ(gateway("10.2.0.0", 16), "10.1.0.3");
    EXPECT_EQ(rib_.routes(), 2U) << "the replacing one was there already, further down";
}

TEST_F(Rib, AnEarlierTableHidesWhatItCovers) {
    order({{0, {220, 254}}});
    event(route_to("10.2.9.0", 24, {via("10.1.0.2")}));
    event(route_to("10.0.0.0", 8, {via("10.1.0.3")}));
    EXPECT_EQ(event(route_to("10.2.0.0", 16, {via("10.1.0.9")}, 220)), 2U);
    EXPECT_EQ(gateway("10.2.9.0", 24), "none");
    EXPECT_EQ(gateway("10.0.0.0", 8), "10.1.0.3");
    EXPECT_EQ(event(route_to("10.2.8.0", 24, {via("10.1.0.2")})), 0U) << "nobody can reach it";
    EXPECT_EQ(event(gone(route_to("10.2.0.0", 16, {via("10.1.0.9")}, 220))), 3U);
    EXPECT_EQ(gateway("10.2.9.0", 24), "10.1.0.2");
    EXPECT_EQ(gateway("10.2.8.0", 24), "10.1.0.2");
}

TEST_F(Rib, VrfsHaveTheSamePrefixesForThemselves) {
    order({{0, {255, 254}}, {10, {255, 10}}, {20, {255, 20}}});
    event(route_to("10.2.0.0", 16, {via("10.1.0.2")}));
    event(route_to("10.2.0.0", 16, {via("10.1.0.3")}, 10));
    event(route_to("10.2.0.0", 16, {via("10.1.0.4")}, 20));
    EXPECT_EQ(gateway("10.2.0.0", 16, 0), "10.1.0.2");
    EXPECT_EQ(gateway("10.2.0.0", 16, 10), "10.1.0.3");
    EXPECT_EQ(gateway("10.2.0.0", 16, 20), "10.1.0.4");
    order({{0, {255, 254}}, {20, {255, 20}}});
    EXPECT_EQ(gateway("10.2.0.0", 16, 10), "none");
    EXPECT_EQ(follower_.size(), 2U);
}

TEST_F(Rib, DeadHopsAreLeftOutAndARouteOfThemAloneDoesNotCount) {
    next_hop dead = via("10.1.0.3", 2);
    dead.dead = true;
    event(route_to("10.2.0.0", 16, {via("10.1.0.2"), dead, via("10.1.0.4")}));
    const control::route* r = follower_.find("10.2.0.0", 16);
    ASSERT_TRUE(r);
    ASSERT_EQ(r->more.size(), 1U);
    EXPECT_EQ(r->more[0].gateway, ip("10.1.0.4"));
    EXPECT_EQ(event(placed(route_place::instead, route_to("10.2.0.0", 16, {dead}))), 1U);
    EXPECT_EQ(gateway("10.2.0.0", 16), "none");
    EXPECT_EQ(event(gone(route_to("10.2.0.0", 16, {via("10.1.0.3", 2)}))), 0U);
    EXPECT_EQ(rib_.routes(), 0U) << "alive or dead, it is the same route";
}

TEST_F(Rib, AReadingTellsDifferencesAlone) {
    event(route_to("10.2.0.0", 16, {via("10.1.0.2")}));
    event(route_to("10.3.0.0", 16, {via("10.1.0.2")}));
    event(route_to("10.4.0.0", 16, {via("10.1.0.2", 7)}));
    const auto kept = route_to("10.2.0.0", 16, {via("10.1.0.2")});
    EXPECT_EQ(read(family::ipv4, 1, {kept}), 1U) << "link 7's was not asked for";
    EXPECT_EQ(gateway("10.3.0.0", 16), "none");
    EXPECT_EQ(read(family::ipv4, 0, {kept, route_to("10.5.0.0", 16, {via("10.1.0.2")})}), 2U);
    EXPECT_EQ(gateway("10.4.0.0", 16), "none");
    EXPECT_EQ(gateway("10.5.0.0", 16), "10.1.0.2");
    EXPECT_EQ(read(family::ipv6, 0, {}), 0U) << "the other family's routes stay";
}

TEST_F(Rib, AReadingBringsRoutesOfOneMetricIntoTheKernelsOrder) {
    const auto a = route_to("10.2.0.0", 16, {via("10.1.0.2")});
    const auto b = route_to("10.2.0.0", 16, {via("10.1.0.3")});
    event(a);
    event(placed(route_place::last, b));
    EXPECT_EQ(read(family::ipv4, 0, {a, b}), 0U);
    EXPECT_EQ(read(family::ipv4, 0, {b, a}), 1U);
    EXPECT_EQ(gateway("10.2.0.0", 16), "10.1.0.3");
}

TEST_F(Rib, IPv6TellsAMultipathRouteWholeAndTakesItAwayHopByHop) {
    event(route_to("fd02::", 64, {via("fd01::2")}));
    event(route_to("fd02::", 64, {via("fd01::2"), via("fd01::3")}));
    EXPECT_EQ(rib_.routes(), 1U);
    EXPECT_EQ(follower_.find("fd02::", 64)->more.size(), 1U);
    event(gone(route_to("fd02::", 64, {via("fd01::2")})));
    EXPECT_EQ(gateway("fd02::", 64), "fd01::3");
    event(gone(route_to("fd02::", 64, {via("fd01::3")})));
    EXPECT_EQ(follower_.size(), 0U);
}

TEST_F(Rib, RoutesOfTwoAdvertisingRoutersStandSideBySide) {
    auto first = route_to("::", 0, {via("fe80::1")}, 254, 1024);
    auto second = route_to("::", 0, {via("fe80::2")}, 254, 1024);
    first.path.advertised = second.path.advertised = true;
    event(first);
    event(second);
    EXPECT_EQ(rib_.routes(), 2U);
    event(gone(first));
    EXPECT_EQ(gateway("::", 0), "fe80::2");
}

nexthop_message object(std::uint32_t id, const std::string& gateway) {
    nexthop_message n;
    n.id = id;
    n.hop = via(gateway);
    return n;
}

nexthop_message group(std::uint32_t id, std::vector<nexthop_message::member> members) {
    nexthop_message n;
    n.id = id;
    n.group = std::move(members);
    return n;
}

route_message by_object(const std::string& destination, unsigned prefix, std::uint32_t id) {
    route_message m = route_to(destination, prefix, {});
    m.path.nexthop_id = id;
    return m;
}

TEST_F(Rib, RoutesFollowTheirNextHopObject) {
    EXPECT_EQ(event(by_object("10.2.0.0", 16, 5)), 0U) << "the object is not known yet";
    event(route_to("10.2.0.0", 16, {via("10.1.0.7")}, 254, 9));
    EXPECT_EQ(gateway("10.2.0.0", 16), "10.1.0.7");
    nexthop(object(5, "10.1.0.2"));
    EXPECT_EQ(gateway("10.2.0.0", 16), "10.1.0.2");
    EXPECT_EQ(nexthop(object(5, "10.1.0.3")), 1U);
    EXPECT_EQ(gateway("10.2.0.0", 16), "10.1.0.3");
    EXPECT_EQ(nexthop(object(5, "10.1.0.3")), 0U);
    nexthop_message lost = object(5, "10.1.0.3");
    lost.gone = true;
    nexthop(lost);
    EXPECT_EQ(gateway("10.2.0.0", 16), "10.1.0.7") << "the route went with its object";
    EXPECT_EQ(rib_.routes(), 1U);
}

TEST_F(Rib, AGroupSpreadsOverItsMembersByWeight) {
    nexthop(object(1, "10.1.0.2"));
    nexthop(object(2, "10.1.0.3"));
    nexthop(group(9, {{1, 1}, {2, 200}}));
    event(by_object("10.2.0.0", 16, 9));
    const control::route* r = follower_.find("10.2.0.0", 16);
    ASSERT_TRUE(r);
    EXPECT_EQ(r->weight, 1);
    ASSERT_EQ(r->more.size(), 1U);
    EXPECT_EQ(r->more[0], (control::hop{1, ip("10.1.0.3"), 200}));
    EXPECT_EQ(nexthop(object(2, "10.1.0.4")), 1U) << "a member became another";
    EXPECT_EQ(follower_.find("10.2.0.0", 16)->more[0].gateway, ip("10.1.0.4"));
    EXPECT_EQ(nexthop(group(9, {{1, 1}})), 1U);
    EXPECT_TRUE(follower_.find("10.2.0.0", 16)->more.empty());
}

TEST_F(Rib, ObjectsThatAReadingDoesNotShowAreGone) {
    nexthop(object(1, "10.1.0.2"));
    event(by_object("10.2.0.0", 16, 1));
    EXPECT_EQ(told([&](route_changes& out) { rib_.set_nexthops({object(1, "10.1.0.2")}, out); }),
              0U);
    EXPECT_EQ(told([&](route_changes& out) { rib_.set_nexthops({}, out); }), 1U);
    EXPECT_EQ(rib_.routes(), 0U);
}

// --- against the dumbest model
// -------------------------------------------------------------------

/// Every route in one list, in the kernel's order for its table, prefix and
/// metric; lookups walk tables as the kernel does.
class naive_kernel {
  public:
    void take(const route_message& m) {
        const auto rival = [&](const route_message& r) {
            return r.table == m.table && r.prefix == m.prefix && r.metric == m.metric &&
                   r.destination == m.destination;
        };
        const auto same = [&](const route_message& r) {
            return rival(r) && r.path.hops[0].ifindex == m.path.hops[0].ifindex;
        };
        const auto replaced = m.place == route_place::instead
                                  ? std::find_if(all_.begin(), all_.end(), rival)
                                  : std::find_if(all_.begin(), all_.end(), same);
        if (m.gone) {
            std::erase_if(all_, same);
        } else if (replaced != all_.end()) {
            *replaced = m;
            const auto again = std::find_if(replaced + 1, all_.end(), same);
            if (again != all_.end()) all_.erase(again);
        } else {
            all_.insert(m.place == route_place::last ? all_.end() : all_.begin(), m);
        }
    }
    [[nodiscard]] const route_message* look_up(const std::vector<std::uint32_t>& tables,
                                               const address& a) const {
        for (const std::uint32_t table : tables) {
            const route_message* found = nullptr;
            for (const route_message& r : all_)
                if (r.table == table && r.destination.fam == a.fam && !r.path.hops[0].dead &&
                    (found == nullptr || better(r, *found)) &&
                    ipsec::prefix_equal(r.destination.bytes.data(), a.bytes.data(), r.prefix))
                    found = &r;
            if (found != nullptr) return found;
        }
        return nullptr;
    }
    [[nodiscard]] const std::vector<route_message>& all() const { return all_; }
    void lose(std::size_t i) { all_.erase(all_.begin() + static_cast<std::ptrdiff_t>(i)); }

  private:
    static bool better(const route_message& a, const route_message& b) {
        return a.prefix != b.prefix ? a.prefix > b.prefix : a.metric < b.metric;
    }
    std::vector<route_message> all_;
};

/// Few addresses, so that prefixes nest and collide.
class RibAgainstModel : public testing::TestWithParam<family> {
  protected:
    unsigned upto(std::size_t n) { return static_cast<unsigned>(random_() % n); }

    address random_address() {
        address a;
        a.fam = GetParam();
        const unsigned used = ipsec::address_length(a.fam);
        for (const unsigned i : {0U, 1U, used / 2, used - 1})
            a.bytes[i] = static_cast<std::uint8_t>(upto(4) * 0x55);
        return a;
    }
    route_message random_route() {
        route_message m;
        const unsigned bits = ipsec::address_bits(GetParam());
        const std::array lengths{0U, 4U, 8U, 9U, 15U, 16U, bits / 2 + 8, bits - 7, bits - 1, bits};
        m.prefix = static_cast<std::uint8_t>(lengths[upto(lengths.size())]);
        m.destination = ipsec::masked(random_address(), m.prefix);
        m.table = 10 * (1 + upto(4));
        m.metric = upto(3);
        // On the link: an IPv6 route with a gateway would join others.
        m.path.hops.push_back({static_cast<int>(1 + upto(5)), {}, 1, upto(8) == 0});
        m.place = GetParam() == family::ipv6 ? route_place::last : route_place(upto(3));
        return m;
    }

    /// A few at a time.
    void sweep(rib& tested, route_changes& out) {
        while (!tested.sweep(GetParam(), 2, out)) {
        }
    }

    std::mt19937 random_{20261121};
};

TEST_P(RibAgainstModel, EveryLookupEndsWhereTheKernelsWalkDoes) {
    rib tested;
    naive_kernel model;
    follower known;
    std::vector<lookup_order> orders{{0, {10, 20, 30}}, {7, {20, 40}}};
    route_changes out;
    tested.set_orders(GetParam(), orders, out);

    for (int step = 0; step < 6000; ++step) {
        const unsigned what = upto(100);
        if (what < 55 || model.all().empty()) {
            const route_message m = random_route();
            model.take(m);
            tested.take_event(m, out);
        } else if (what < 96) {
            const route_message m = gone(model.all()[upto(model.all().size())]);
            model.take(m);
            tested.take_event(m, out);
        } else if (what < 98) { // a link took some away in silence; its routes are
                                // read again
            const int ifindex = static_cast<int>(1 + upto(5));
            for (std::size_t i = model.all().size(); i-- > 0;)
                if (model.all()[i].path.hops[0].ifindex == ifindex && upto(2) == 0) model.lose(i);
            tested.begin_reading(GetParam(), ifindex);
            for (const route_message& m : model.all())
                if (m.path.hops[0].ifindex == ifindex) tested.take_read(m, out);
            sweep(tested, out);
        } else if (what < 99) { // a gap
            for (int i = 0; i < 5 && !model.all().empty(); ++i)
                model.lose(upto(model.all().size()));
            tested.begin_reading(GetParam(), 0);
            for (const route_message& m : model.all())
                tested.take_read(m, out);
            sweep(tested, out);
        } else {
            std::shuffle(orders[0].tables.begin(), orders[0].tables.end(), random_);
            tested.set_orders(GetParam(), orders, out);
        }
        known.take(std::exchange(out, {}));
        ASSERT_EQ(tested.routes(), model.all().size()) << "step " << step;
        for (int i = 0; i < 8; ++i) {
            const address a = random_address();
            for (const lookup_order& order : orders) {
                const route_message* right = model.look_up(order.tables, a);
                const control::route* got = known.look_up(order.vrf, a);
                ASSERT_EQ(right == nullptr, got == nullptr)
                    << "step " << step << ", " << a.to_string() << ", VRF " << order.vrf;
                if (right == nullptr) continue;
                ASSERT_EQ(right->path.hops[0].ifindex, got->ifindex)
                    << "step " << step << ", " << a.to_string() << ", VRF " << order.vrf;
                ASSERT_EQ(right->prefix, got->prefix) << "step " << step;
            }
        }
    }
    std::size_t winners = 0;
    tested.for_each([&](const control::route& r) {
        ++winners;
        const control::route* told = known.find(r.destination.to_string(), r.prefix, r.vrf);
        ASSERT_TRUE(told);
        EXPECT_EQ(told->ifindex, r.ifindex);
    });
    EXPECT_EQ(winners, known.size());
}

INSTANTIATE_TEST_SUITE_P(Families, RibAgainstModel, testing::Values(family::ipv4, family::ipv6),
                         [](const auto& f) { return f.param == family::ipv4 ? "IPv4" : "IPv6"; });

TEST_F(Rib, RoutesByALinkThatIsPassedOverLeaveThePlaceToThoseBehindThem) {
    order({{0, {255, 220, 254, 253}}});
    const auto pass_over = [&](std::vector<int> links) {
        return told([&](route_changes& out) { rib_.pass_over(links, out); });
    };
    event(route_to("192.0.2.2", 32, {via("198.51.100.1")}));
    event(route_to("192.0.2.2", 32, {via("", 7)}, 220));
    event(route_to("192.0.2.3", 32, {via("", 7)}, 220));
    ASSERT_EQ(follower_.find("192.0.2.2", 32)->ifindex, 7);
    EXPECT_EQ(pass_over({7}), 2u);
    EXPECT_EQ(gateway("192.0.2.2", 32), "198.51.100.1");
    EXPECT_EQ(follower_.find("192.0.2.3", 32), nullptr);
    EXPECT_EQ(pass_over({7}), 0u) << "nothing is new";
    event(route_to("192.0.2.4", 32, {via("", 7)}, 220));
    EXPECT_EQ(follower_.find("192.0.2.4", 32), nullptr) << "one that comes later";
    EXPECT_EQ(pass_over({}), 3u);
    EXPECT_EQ(follower_.find("192.0.2.2", 32)->ifindex, 7);
    EXPECT_NE(follower_.find("192.0.2.4", 32), nullptr);
}

} // namespace
} // namespace esplane::xfrm

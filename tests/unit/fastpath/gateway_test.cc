// SPDX-License-Identifier: Apache-2.0
//
// Two gateways in memory, packet in, packet out.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "lib/wire/checksum.h"
#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using ipsec::family;
using ipsec::suite;

using gateway_ports::plain;
using gateway_ports::secure;

struct pair_of_sites : testing::Test {
    lab one{1};
    lab two{2};

    void tunnel(const tunnel_options& o) {
        one.add_tunnel(o);
        two.add_tunnel(o);
    }
    /// From a host of site 1 to one of site 2; what its gateway sends to the host.
    std::vector<frame> cross(const std::vector<frame>& packets) {
        one.push(plain, packets);
        two.push(secure, one.sent(secure));
        return two.sent(plain);
    }
    void expect_balance() {
        for (lab* l : {&one, &two}) {
            EXPECT_TRUE(l->worker->counters().balanced());
            EXPECT_EQ(l->pool->free_frames() + l->worker->counters().held.get(), l->pool->count());
        }
    }
};

using Gateway = pair_of_sites;

TEST_F(Gateway, ForwardsInClearWhereNoPolicySaysOtherwise) {
    const auto out = cross({make_packet({.number = 7})});
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(out[0], make_packet({.number = 7, .ttl = 62})); // two hops, checksum right
    expect_balance();
}

TEST_F(Gateway, DeliversWhatItProtectsUnchangedButForTwoHops) {
    for (unsigned number = 0; number < ipsec::suite_count; ++number)
        for (const family outer : {family::ipv4, family::ipv6})
            for (const family inner : {family::ipv4, family::ipv6})
                for (const bool esn : {false, true})
                    for (const bool encap : {false, true}) {
                        if (encap && outer == family::ipv6) continue;
                        lab a{1}, b{2};
                        tunnel_options o;
                        o.run = static_cast<suite>(number);
                        o.outer = outer;
                        o.esn = esn;
                        o.encapsulated = encap;
                        o.replay_window = 64;
                        a.add_tunnel(o);
                        b.add_tunnel(o);
                        std::vector<frame> in, want;
                        for (std::uint32_t i = 0; i < 200; ++i) {
                            in.push_back(
                                make_packet({.family = inner, .length = 60 + i, .number = i}));
                            want.push_back(make_packet(
                                {.family = inner, .length = 60 + i, .number = i, .ttl = 62}));
                        }
                        a.push(plain, in);
                        const auto wire = a.sent(secure);
                        ASSERT_EQ(wire.size(), in.size());
                        b.push(secure, wire);
                        EXPECT_EQ(b.sent(plain), want) << ipsec::name_of(o.run);
                        EXPECT_TRUE(a.worker->counters().balanced());
                        EXPECT_TRUE(b.worker->counters().balanced());
                    }
}

TEST_F(Gateway, LeavesNothingOfTheInnerPacketInClear) {
    tunnel({});
    one.push(plain, {make_packet({.length = 200, .number = 0xcafe})});
    const auto wire = one.sent(secure);
    ASSERT_EQ(wire.size(), 1u);
    const frame inner = make_packet({.length = 200, .number = 0xcafe});
    for (std::size_t at = 0; at + 8 <= inner.size(); at += 8)
        EXPECT_EQ(
            std::search(wire[0].begin(), wire[0].end(), inner.begin() + at, inner.begin() + at + 8),
            wire[0].end());
}

TEST_F(Gateway, DropsWhatAPolicyProtectsWhileNoSaCarriesIt) {
    one.add_policies({});
    EXPECT_TRUE(cross({make_packet({})}).empty());
    EXPECT_EQ(one.drops(drop_reason::sa_missing), 1u);
    expect_balance();
}

TEST_F(Gateway, DropsInClearWhatAPolicyWantsProtected) {
    two.add_tunnel({});
    EXPECT_TRUE(cross({make_packet({})}).empty()); // site 1 has no policy: sends in clear
    EXPECT_EQ(two.drops(drop_reason::policy_template), 1u);
}

TEST_F(Gateway, DropsDecryptedPacketsThatNoPolicyAdmits) {
    one.add_tunnel({});
    two.add_sas({});
    EXPECT_TRUE(cross({make_packet({})}).empty());
    EXPECT_EQ(two.drops(drop_reason::policy_missing), 1u);
}

TEST_F(Gateway, DropsWhatCameByAnotherSaThanTheTemplateNames) {
    one.add_tunnel({});
    two.add_sas({});
    two.add_policies({.reqid = 2});
    EXPECT_TRUE(cross({make_packet({})}).empty());
    EXPECT_EQ(two.drops(drop_reason::policy_template), 1u);
}

TEST_F(Gateway, CountsReplayedForgedAndTruncatedPacketsAndMovesNothing) {
    tunnel({});
    one.push(plain, {make_packet({.number = 1}), make_packet({.number = 2})});
    const auto wire = one.sent(secure);
    frame forged = wire[1];
    forged.back() ^= 1;
    frame cut(wire[1].begin(), wire[1].begin() + 30);
    cut[3] = 30; // total length: and the checksum that goes with it
    wire::ipv4_header ip = wire::load<wire::ipv4_header>(cut.data());
    ip.checksum = {};
    ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
    wire::store(cut.data(), ip);
    two.push(secure, {wire[0], wire[0], forged, cut});
    EXPECT_EQ(two.drops(drop_reason::replay_duplicate), 1u);
    EXPECT_EQ(two.drops(drop_reason::icv_mismatch), 1u);
    EXPECT_EQ(two.drops(drop_reason::esp_malformed), 1u);
    EXPECT_EQ(two.sent(plain).size(), 1u);
    two.push(secure, {wire[1]}); // the forgery has not taken its number
    EXPECT_EQ(two.sent(plain).size(), 1u);
    const ipsec::sa* s = two.control.get_sa(two.sa_of({}, false));
    EXPECT_EQ(s->statistics.integrity_failed, 1u);
    EXPECT_EQ(s->statistics.replay, 1u);
    EXPECT_EQ(s->current.packets, 2u);
    expect_balance();
}

TEST_F(Gateway, NamesAnUnknownSpi) {
    one.add_tunnel({});
    EXPECT_TRUE(cross({make_packet({})}).empty());
    EXPECT_EQ(two.drops(drop_reason::sa_unknown), 1u);
}

TEST_F(Gateway, TellsTheHostWhenAFullSizeFrameDoesNotFit) {
    tunnel({});
    for (const family f : {family::ipv4, family::ipv6}) {
        one.push(plain, {make_packet({.family = f, .length = 1500})});
        EXPECT_TRUE(one.sent(secure).empty());
        const auto back = one.sent(plain);
        ASSERT_EQ(back.size(), 1u);
        const bool v4 = f == family::ipv4;
        const std::size_t at = v4 ? 20 : 40;
        EXPECT_EQ(back[0][at], v4 ? 3 : 2);
        EXPECT_EQ(back[0][at + 1], v4 ? 4 : 0);
        const auto mtu = wire::load<wire::be32>(back[0].data() + at + 4).host();
        EXPECT_EQ(mtu, 1446u); // as the kernel: ((1500 - 20 - 8 - 8 - 16) & ~3) - 2
        one.push(plain, {make_packet({.family = f, .length = mtu})});
        const auto wire = one.sent(secure);
        ASSERT_EQ(wire.size(), 1u);
        EXPECT_LE(wire[0].size(), 1500u);
    }
    EXPECT_EQ(one.drops(drop_reason::too_big), 2u);
    expect_balance();
}

TEST_F(Gateway, NeverRepeatsAnIvWhenAnSaComesBackUnderTraffic) {
    std::set<std::uint64_t> ivs;
    std::size_t packets = 0;
    one.add_policies({});
    for (int round = 0; round < 50; ++round) {
        one.add_sas({});
        std::vector<frame> burst;
        for (std::uint32_t i = 0; i < 20; ++i)
            burst.push_back(make_packet({.number = i}));
        one.push(plain, burst);
        for (const frame& f : one.sent(secure)) {
            ivs.insert(wire::load<wire::be64>(f.data() + 28).host());
            ++packets;
        }
        ASSERT_TRUE(one.control.delete_sa(one.sa_of({}, true), {}));
        ASSERT_TRUE(one.control.delete_sa(one.sa_of({}, false), {}));
    }
    EXPECT_EQ(packets, 1000u);
    EXPECT_EQ(ivs.size(), packets);
}

TEST_F(Gateway, PassesExactlyTheHardLimitOfPackets) {
    tunnel_options o;
    o.limits.soft_packets = 3;
    o.limits.hard_packets = 5;
    tunnel(o);
    struct : ipsec::listener {
        int soft = 0, hard = 0;
        void on_event(const ipsec::event& e) override {
            if (const auto* x = std::get_if<ipsec::sa_expired>(&e)) ++(x->hard ? hard : soft);
        }
    } seen;
    one.control.subscribe(&seen);
    for (std::uint32_t i = 0; i < 10; ++i)
        one.push(plain, {make_packet({.number = i})});
    EXPECT_EQ(one.sent(secure).size(), 5u);
    EXPECT_EQ(seen.soft, 1);
    EXPECT_EQ(seen.hard, 1);
    EXPECT_EQ(one.control.get_sa(one.sa_of(o, true)), nullptr); // expired hard: gone
    one.control.unsubscribe(&seen);
    expect_balance();
}

TEST_F(Gateway, HoldsAFewPacketsForANextHopAndLetsThemGo) {
    for (auto& n : one.network.neighbours)
        if (n.ifindex == 12) n.resolved = false;
    one.publish_network();
    tunnel({});
    EXPECT_TRUE(cross({make_packet({.number = 5})}).empty());
    EXPECT_EQ(one.worker->counters().held.get(), 1u);
    expect_balance();
    for (auto& n : one.network.neighbours)
        n.resolved = true;
    one.publish_network();
    one.advance(1'000'000);
    two.push(secure, one.sent(secure));
    EXPECT_EQ(two.sent(plain).size(), 1u);
    expect_balance();
}

TEST_F(Gateway, LetsWhatWaitedLeaveBeforeWhatComesNow) {
    for (auto& n : one.network.neighbours)
        if (n.ifindex == 12) n.resolved = false;
    one.publish_network();
    tunnel({.replay_window = 32});
    std::vector<frame> early, late;
    for (std::uint32_t i = 0; i < 16; ++i)
        early.push_back(make_packet({.number = i}));
    for (std::uint32_t i = 16; i < 80; ++i)
        late.push_back(make_packet({.number = i}));
    EXPECT_TRUE(cross(early).empty());
    for (auto& n : one.network.neighbours)
        n.resolved = true;
    one.publish_network();
    EXPECT_EQ(cross(late).size(), 80u);
    expect_balance();
}

TEST_F(Gateway, HoldsAFewPacketsForEachNextHopAndAsksOnce) {
    one.network.neighbours.clear();
    one.publish_network();
    std::vector<frame> many;
    for (std::uint32_t i = 0; i < 40; ++i)
        many.push_back(make_packet({.number = i}));
    for (const frame& f : many)
        (void)one.ports[plain]->inject(with_ethernet(f));
    one.worker->run_once(one.clock);
    fastpath::worker_event e;
    int asked = 0;
    while (one.worker->events().pop(e))
        asked += e.kind == fastpath::worker_event_kind::neighbour_wanted;
    EXPECT_EQ(asked, 1);
    one.clock.monotonic_ns += fastpath::hold_queue::ask_ns;
    one.worker->run_once(one.clock);
    while (one.worker->events().pop(e))
        asked += e.kind == fastpath::worker_event_kind::neighbour_wanted;
    EXPECT_EQ(asked, 2);
    EXPECT_EQ(one.worker->counters().held.get(), 16u);
    EXPECT_EQ(one.drops(drop_reason::hold_full), 24u);
    expect_balance();
}

TEST_F(Gateway, SendsNoErrorAboutClearTextOutOfAnotherPort) {
    tunnel({});
    ipsec::policy p; // whatever goes to site 2 is protected, from wherever it claims to come
    p.dir = ipsec::policy_direction::out;
    p.sel.fam = family::ipv4;
    p.sel.destination = *ipsec::address::parse("10.2.0.0");
    p.sel.destination_prefix = 16;
    p.priority = 1;
    ipsec::template_ t;
    t.id.destination = *ipsec::address::parse("192.168.77.2");
    t.source = *ipsec::address::parse("192.168.77.1");
    t.fam = family::ipv4;
    t.reqid = 1;
    p.templates = {t};
    one.add_policy(p);
    frame f = make_packet({.length = 1500});
    auto ip = wire::load<wire::ipv4_header>(f.data());
    ip.source = ipsec::address::parse("192.168.77.2")->as_v4(); // the secure side's neighbour
    ip.checksum = {};
    ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
    wire::store(f.data(), ip);
    one.push(plain, {f});
    EXPECT_TRUE(one.sent(secure).empty());
    EXPECT_EQ(one.drops(drop_reason::icmp_protected), 1u);
    expect_balance();
}

TEST_F(Gateway, NamesWhatHasNoWayOut) {
    one.network.routes.clear();
    control::route denied;
    denied.destination = *ipsec::address::parse("10.2.0.0");
    denied.prefix = 24;
    denied.kind = control::route_kind::blackhole;
    control::route foreign = denied;
    foreign.destination = *ipsec::address::parse("10.2.1.0");
    foreign.kind = control::route_kind::unicast;
    foreign.ifindex = 99;
    one.network.routes = {denied, foreign};
    one.publish_network();
    one.push(plain, {make_packet({.host = 10}), make_packet({.host = 0x010a}),
                     make_packet({.host = 0x020a})});
    EXPECT_EQ(one.drops(drop_reason::route_denied), 1u);
    EXPECT_EQ(one.drops(drop_reason::port_missing), 1u);
    EXPECT_EQ(one.drops(drop_reason::route_missing), 1u);
    expect_balance();
}

TEST_F(Gateway, NamesWhatTheDeviceDidNotTake) {
    one.ports[secure]->limit_sends(3);
    std::vector<frame> burst(10, make_packet({}));
    one.push(plain, burst);
    EXPECT_EQ(one.sent(secure).size(), 3u);
    EXPECT_EQ(one.drops(drop_reason::tx_full), 7u);
    expect_balance();
}

TEST_F(Gateway, ADeviceThatTakesNothingHoldsUpNoOtherDirection) {
    tunnel({});
    std::vector<frame> there, back, want;
    for (std::uint32_t i = 0; i < 2 * one.pool->count(); ++i) {
        there.push_back(make_packet({.number = i}));
        back.push_back(make_packet({.from = 2, .to = 1, .number = i}));
        want.push_back(make_packet({.from = 2, .to = 1, .number = i, .ttl = 62}));
    }
    two.push(plain, back);
    one.ports[secure]->limit_sends(0);
    for (const frame& f : two.sent(secure))
        ASSERT_TRUE(one.ports[secure]->inject(with_ethernet(f)));
    one.push(plain, there); // beside what waits from site 2
    EXPECT_EQ(one.sent(plain), want);
    EXPECT_EQ(one.drops(drop_reason::tx_full), there.size());
    expect_balance();

    one.ports[secure]->limit_sends(~std::size_t{0});
    EXPECT_EQ(cross({make_packet({.number = 7})}).size(), 1u) << "it goes on when the device does";
}

TEST_F(Gateway, HoldsClearPacketsAgainstPoliciesThatCameMeanwhile) {
    for (auto& n : one.network.neighbours)
        n.resolved = false;
    one.publish_network();
    one.push(plain, {make_packet({})});
    EXPECT_EQ(one.worker->counters().held.get(), 1u);
    one.add_policies({});
    for (auto& n : one.network.neighbours)
        n.resolved = true;
    one.publish_network();
    one.advance(1'000'000);
    EXPECT_TRUE(one.sent(secure).empty());
    EXPECT_EQ(one.drops(drop_reason::policy_block), 1u);
    expect_balance();
}

TEST_F(Gateway, LetsNothingPassWhileClosed) {
    tunnel({});
    one.tables.close(true);
    EXPECT_TRUE(cross({make_packet({})}).empty());
    EXPECT_EQ(one.drops(drop_reason::closed), 1u);
    expect_balance();
    one.tables.close(false);
    EXPECT_EQ(cross({make_packet({})}).size(), 1u);
}

TEST_F(Gateway, WhatIsHeldDoesNotLeaveOnceAllIsClosed) {
    for (auto& n : one.network.neighbours)
        n.resolved = false;
    one.publish_network();
    one.push(plain, {make_packet({})});
    EXPECT_EQ(one.worker->counters().held.get(), 1u);
    one.tables.close(true);
    for (auto& n : one.network.neighbours)
        n.resolved = true;
    one.publish_network();
    one.advance(1'000'000);
    EXPECT_TRUE(one.sent(secure).empty());
    EXPECT_EQ(one.drops(drop_reason::closed), 1u);
    expect_balance();
}

TEST_F(Gateway, DropsHeldPacketsAfterASecond) {
    for (auto& n : one.network.neighbours)
        n.resolved = false;
    one.publish_network();
    one.push(plain, {make_packet({})});
    one.advance(1'500'000'000);
    EXPECT_EQ(one.drops(drop_reason::neighbour_timeout), 1u);
    expect_balance();
}

TEST_F(Gateway, HandsUpDecryptedPacketsForItself) {
    tunnel({});
    one.push(plain, {make_packet({.host = 1})}); // 10.2.0.1 is gateway 2
    two.push(secure, one.sent(secure));
    EXPECT_EQ(two.punted(secure).size(), 1u);
    EXPECT_TRUE(two.sent(plain).empty());
    expect_balance();
}

TEST_F(Gateway, KeepsTheMachinesStackFromClearTrafficThatAPolicyProtects) {
    tunnel({});
    two.push(secure, {make_packet({.host = 1})});
    EXPECT_TRUE(two.punted(secure).empty());
    EXPECT_EQ(two.drops(drop_reason::policy_template), 1u);
}

TEST_F(Gateway, BlocksWhereTheBetterPolicyBlocks) {
    tunnel({});
    ipsec::policy p;
    p.dir = ipsec::policy_direction::out;
    p.sel.fam = family::ipv4;
    p.sel.protocol = wire::proto_udp;
    p.sel.destination_port.set(53);
    p.sel.destination_port_mask.set(0xffff);
    p.action = ipsec::policy_action::block;
    p.priority = 10; // the tunnel's policy has 0: better
    one.add_policy(p);
    EXPECT_EQ(cross({make_packet({.destination_port = 53})}).size(), 1u);
    ASSERT_TRUE(one.control.delete_policy({p.dir, p.sel, 0}, {}));
    p.priority = 0;
    p.sel.destination_port.set(54);
    one.add_policy(p); // equal priority: the older wins
    EXPECT_EQ(cross({make_packet({.destination_port = 54})}).size(), 1u);
    p.sel = {};
    p.sel.fam =
        family::ipv6; // no tunnel's policy is better than 0: this one is older in its family
    p.sel.destination_port.set(55);
    p.sel.destination_port_mask.set(0xffff);
    p.dir = ipsec::policy_direction::fwd;
    p.priority = 0;
    lab three{1};
    three.add_policy(p);
    three.push(plain, {make_packet({.family = family::ipv6, .destination_port = 55}),
                       make_packet({.family = family::ipv6, .destination_port = 56})});
    EXPECT_EQ(three.sent(secure).size(), 1u);
    EXPECT_EQ(three.drops(drop_reason::policy_block), 1u);
}

TEST_F(Gateway, BalancesItsAccountsOverRandomBursts) {
    tunnel({.replay_window = 64});
    std::mt19937 random(7);
    std::vector<frame> seen;
    for (int round = 0; round < 300; ++round) {
        std::vector<frame> burst;
        const auto n = static_cast<unsigned>(random() % 80);
        for (unsigned i = 0; i < n; ++i) {
            frame f;
            switch (random() % 8) {
            case 0: // noise
                f.resize(random() % 120);
                for (auto& b : f)
                    b = static_cast<std::uint8_t>(random());
                break;
            case 1: // something that was on the wire before, perhaps damaged
                if (seen.empty()) continue;
                f = seen[random() % seen.size()];
                if (random() % 2) f[random() % f.size()] ^= 4;
                break;
            case 2: // cut
                f = make_packet({.length = 100});
                f.resize(random() % 100);
                break;
            default:
                f = make_packet({.family = random() % 2 ? family::ipv4 : family::ipv6,
                                 .host = static_cast<std::uint16_t>(1 + random() % 20),
                                 .length = 60 + static_cast<std::uint32_t>(random() % 1440),
                                 .number = static_cast<std::uint32_t>(random()),
                                 .ttl = static_cast<std::uint8_t>(random() % 5),
                                 .dont_fragment = random() % 2 == 0});
            }
            burst.push_back(std::move(f));
        }
        one.push(random() % 4 ? plain : secure, burst);
        const auto wire = one.sent(secure);
        (void)one.sent(plain);
        two.push(secure, wire);
        for (const frame& f : wire)
            if (seen.size() < 500) seen.push_back(f);
        (void)two.sent(plain);
        (void)two.sent(secure);
        ASSERT_TRUE(one.worker->counters().balanced()) << round;
        ASSERT_TRUE(two.worker->counters().balanced()) << round;
        expect_balance();
    }
    EXPECT_GT(two.worker->counters().decrypted.get(), 1000u);
}

} // namespace
} // namespace esplane::tests

// SPDX-License-Identifier: Apache-2.0
//
// Two workers of a gateway in one thread, loop by loop: what one gives the other, and who owns an
// SA.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "fastpath/succession.h"
#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using fastpath::handover_ring;
using fastpath::packet;
using fastpath::sa_owner;

using gateway_ports::plain;
using gateway_ports::secure;

TEST(HandoverRing, GivesWhatWasPublishedInItsOrder) {
    handover_ring ring;
    std::array<packet*, 4> seen;
    packet p;
    for (p.length = 1; p.length <= 6; ++p.length)
        ASSERT_TRUE(ring.push(p));
    EXPECT_EQ(ring.peek(seen), 0u) << "before publish()";
    EXPECT_TRUE(ring.empty());
    ring.publish();
    EXPECT_FALSE(ring.empty());
    ASSERT_EQ(ring.peek(seen), 4u);
    for (unsigned i = 0; i < 4; ++i)
        EXPECT_EQ(seen[i]->length, i + 1);
    ring.release(3);
    ASSERT_EQ(ring.peek(seen), 3u);
    EXPECT_EQ(seen[0]->length, 4u);
    ring.release(3);
    EXPECT_TRUE(ring.empty());
}

TEST(HandoverRing, TakesNoMoreThanItsSizeUntilSomeAreReleased) {
    handover_ring ring;
    const packet p{};
    for (unsigned i = 0; i < handover_ring::size; ++i)
        ASSERT_TRUE(ring.push(p));
    EXPECT_FALSE(ring.push(p));
    ring.publish();
    std::array<packet*, 1> seen;
    ASSERT_EQ(ring.peek(seen), 1u);
    EXPECT_FALSE(ring.push(p)) << "what is looked at is still in the ring";
    ring.release(1);
    EXPECT_TRUE(ring.push(p));
    EXPECT_FALSE(ring.push(p));
}

TEST(SaOwner, IsTheFirstWhoClaims) {
    sa_owner o;
    EXPECT_FALSE(o.is(0));
    EXPECT_EQ(o.who(), sa_owner::nobody);
    EXPECT_EQ(o.claim(3), 3u);
    EXPECT_EQ(o.claim(5), 3u);
    EXPECT_TRUE(o.is(3));
    EXPECT_FALSE(o.is(5));
}

TEST(SaOwner, PassesOnOnlyWhatControlWishedFor) {
    sa_owner o;
    o.wish(1);
    EXPECT_EQ(o.who(), sa_owner::nobody) << "nobody is there to pass it on";
    (void)o.claim(0);
    o.pass_on();
    EXPECT_TRUE(o.is(0));
    o.wish(1);
    EXPECT_FALSE(o.is(0)) << "the owner must look";
    EXPECT_EQ(o.claim(0), 0u) << "and owns it until its burst is over";
    EXPECT_EQ(o.claim(1), 0u);
    o.pass_on();
    EXPECT_TRUE(o.is(1));
    o.wish(0);
    o.wish(1);
    EXPECT_TRUE(o.is(1)) << "a wish for the owner takes back an earlier one";
    o.wish(0);
    o.take_back_wish(2);
    EXPECT_FALSE(o.is(1)) << "another was wished for";
    o.take_back_wish(0);
    EXPECT_TRUE(o.is(1));
}

TEST(SaOwner, IsKeptByWhoeverHasIt) {
    sa_owner o;
    EXPECT_EQ(o.keep(), sa_owner::nobody);
    (void)o.claim(0);
    o.wish(1);
    EXPECT_EQ(o.keep(), 0u);
    o.pass_on();
    EXPECT_TRUE(o.is(0));
}

TEST(SaOwner, IsNobodyElsesOnceAbandoned) {
    sa_owner o;
    (void)o.claim(0);
    o.wish(1);
    o.abandon();
    o.pass_on();
    EXPECT_EQ(o.who(), sa_owner::moved);
    EXPECT_EQ(o.claim(0), sa_owner::moved);
    o.wish(1);
    EXPECT_EQ(o.who(), sa_owner::moved);
}

struct Workers : testing::Test {
    lab one{1, 4096, 2};
    lab two{2, 4096, 2};
    tunnel_options tunnel{.replay_window = 32};

    void SetUp() override {
        one.add_tunnel(tunnel);
        two.add_tunnel(tunnel);
    }
    static std::vector<frame> packets(std::uint32_t first, std::uint32_t count) {
        std::vector<frame> all;
        for (std::uint32_t i = 0; i < count; ++i)
            all.push_back(make_packet({.number = first + i}));
        return all;
    }
    static void expect_numbers(const std::vector<frame>& got, std::uint32_t count) {
        std::vector<std::uint32_t> numbers, wanted(count);
        for (const frame& f : got)
            numbers.push_back(number_of(f));
        std::iota(wanted.begin(), wanted.end(), 0);
        EXPECT_EQ(numbers, wanted);
    }
    static std::uint32_t sequence_of(const frame& esp) {
        return wire::load<wire::be32>(esp.data() + 24).host();
    }
    static std::uint64_t iv_of(const frame& esp) {
        return wire::load<std::uint64_t>(esp.data() + 28);
    }
    /// Descriptors in the rings between the workers.
    static std::uint64_t under_way(const lab& l) {
        std::uint64_t n = 0;
        for (const auto& w : l.workers)
            n += w->counters().handed_out.get() - w->counters().handed_in.get();
        return n;
    }
    static void expect_balance(const lab& l) {
        for (const auto& w : l.workers)
            EXPECT_TRUE(w->counters().balanced());
        EXPECT_EQ(l.pool->free_frames() + under_way(l), l.pool->count());
    }
    void TearDown() override {
        expect_balance(one);
        expect_balance(two);
    }
    static std::uint64_t handed(const lab& l, unsigned worker) {
        return l.workers[worker]->counters().handed_out.get();
    }
    control::sa_usage usage(lab& l, bool leaving) {
        control::sa_usage u;
        EXPECT_TRUE(l.backend.query_sa(l.sa_of(tunnel, leaving), u));
        return u;
    }
    fastpath::sa_in* inbound_sa(lab& l) {
        const ipsec::sa_id id = l.sa_of(tunnel, false);
        return l.tables.inbound().find(
            fastpath::hash_of_spi(id.spi, id.destination.bytes.data(), id.destination.fam),
            [&](const fastpath::sa_in& sa) { return sa.spi == id.spi; });
    }
};

TEST_F(Workers, AFlowOnTheOwnersLaneIsNotHandedOver) {
    one.push(plain, packets(0, 10), 1);
    EXPECT_EQ(one.ports[secure]->take_sent(1).size(), 10u);
    EXPECT_EQ(handed(one, 0) + handed(one, 1), 0u);
}

TEST_F(Workers, AllPacketsOfAnSaLeaveByItsOwnerUnderOneSequence) {
    one.push(plain, packets(0, 1), 0);
    for (unsigned i = 1; i < 200; ++i)
        one.push(plain, packets(i, 1), i % 2);
    std::vector<frame> esp = one.sent(secure);
    ASSERT_EQ(esp.size(), 200u);
    for (unsigned i = 0; i < 200; ++i)
        EXPECT_EQ(sequence_of(esp[i]), i + 1);
    EXPECT_EQ(handed(one, 1), 100u);
    EXPECT_EQ(handed(one, 0), 0u);
    two.push(secure, esp);
    expect_numbers(two.sent(plain), 200);
    EXPECT_EQ(usage(one, true).current.packets, 200u);
}

TEST_F(Workers, EspThatArrivesOnAnyLaneIsDecryptedByTheOwner) {
    one.push(plain, packets(0, 200));
    const std::vector<frame> esp = one.sent(secure);
    ASSERT_EQ(esp.size(), 200u);
    for (unsigned i = 0; i < 200; ++i)
        two.push(secure, {esp[i]}, i % 2);
    expect_numbers(two.sent(plain), 200);
    EXPECT_EQ(handed(two, 1), 100u);
    EXPECT_EQ(usage(two, false).current.packets, 200u);
    two.push(secure, esp, 1);
    EXPECT_EQ(two.drops(drop_reason::replay_duplicate) + two.drops(drop_reason::replay_too_old),
              200u);
}

TEST_F(Workers, OrderWithinABurstIsKeptOnTheWay) {
    one.push(plain, packets(0, 1), 0);
    one.push(plain, packets(1, 299), 1);
    two.push(secure, one.sent(secure));
    expect_numbers(two.sent(plain), 300);
}

TEST_F(Workers, WhatAnOwnerHasNoRoomForIsDroppedAndCounted) {
    one.push(plain, packets(0, 1), 0);
    for (const frame& f : packets(1, handover_ring::size + 10))
        ASSERT_TRUE(one.ports[plain]->inject(with_ethernet(f), 1));
    while (one.workers[1]->run_once(one.clock) != 0) { // and the owner is away
    }
    EXPECT_EQ(one.drops(drop_reason::handover_full), 10u);
    EXPECT_EQ(under_way(one), handover_ring::size);
    expect_balance(one);
    one.run();
    EXPECT_EQ(under_way(one), 0u);
    two.push(secure, one.sent(secure));
    EXPECT_EQ(two.sent(plain).size(), handover_ring::size + 1);
}

TEST_F(Workers, APacketWhoseSaWentMeanwhileIsNotSent) {
    one.push(plain, packets(0, 1), 0);
    ASSERT_EQ(one.sent(secure).size(), 1u);
    for (const frame& f : packets(1, 5))
        ASSERT_TRUE(one.ports[plain]->inject(with_ethernet(f), 1));
    (void)one.workers[1]->run_once(one.clock);
    one.backend.delete_sa(one.sa_of(tunnel, true));
    tunnel_options other = tunnel;
    other.spi += 0x1000;
    one.add_sas(other); // its sa_out takes the same slot
    one.run();
    EXPECT_EQ(one.drops(drop_reason::sa_missing), 5u);
    EXPECT_TRUE(one.sent(secure).empty());
}

TEST_F(Workers, AnSaThatControlWantsElsewhereGoesWithItsNextPacketAndLosesNothing) {
    one.push(plain, packets(0, 10), 0);
    one.push(plain, packets(10, 1), 1);
    ASSERT_TRUE(one.backend.ask_to_move(one.sa_of(tunnel, true), 1));
    one.push(plain, packets(11, 10), 0); // the last burst of worker 0
    one.push(plain, packets(21, 10), 0);
    EXPECT_EQ(handed(one, 0), 10u);
    const std::vector<frame> esp = one.sent(secure);
    ASSERT_EQ(esp.size(), 31u);
    std::set<std::uint32_t> sequences;
    for (const frame& f : esp)
        sequences.insert(sequence_of(f));
    EXPECT_EQ(sequences.size(), 31u);
    EXPECT_EQ(*sequences.rbegin(), 31u);
    EXPECT_EQ(usage(one, true).current.packets, 31u);
}

TEST_F(Workers, AnInboundSaMovesWithItsWindow) {
    one.push(plain, packets(0, 20));
    const std::vector<frame> esp = one.sent(secure);
    two.push(secure, esp, 0);
    ASSERT_TRUE(two.backend.ask_to_move(two.sa_of(tunnel, false), 1));
    two.push(secure, {esp[19]}, 0);
    two.push(secure, esp, 1);
    EXPECT_EQ(two.sent(plain).size(), 20u);
    EXPECT_EQ(two.drops(drop_reason::replay_duplicate), 21u);
    EXPECT_EQ(inbound_sa(two)->owner.who(), 1u);
}

TEST_F(Workers, WhatIsTakenFromAStuckWorkerRepeatsNoNumberAndNoNonce) {
    one.push(plain, packets(0, 50), 0);
    EXPECT_EQ(one.backend.take_from(1), 0u);
    EXPECT_EQ(one.backend.take_from(0), 1u);
    one.push(plain, packets(50, 50), 1);
    const std::vector<frame> esp = one.sent(secure);
    ASSERT_EQ(esp.size(), 100u);
    std::set<std::uint32_t> sequences;
    std::set<std::uint64_t> ivs;
    for (const frame& f : esp) {
        sequences.insert(sequence_of(f));
        ivs.insert(iv_of(f));
    }
    EXPECT_EQ(sequences.size(), 100u);
    EXPECT_EQ(ivs.size(), 100u);
    EXPECT_EQ(sequence_of(esp[50]), 50 + fastpath::sequence_margin + 1);
    EXPECT_EQ(usage(one, true).current.packets, 100u);
    two.push(secure, esp);
    expect_numbers(two.sent(plain), 100);
}

TEST_F(Workers, NothingIsPassedOnToAWorkerThatHasBecomeStuck) {
    one.push(plain, packets(0, 1), 0);
    ASSERT_TRUE(one.backend.ask_to_move(one.sa_of(tunnel, true), 1));
    EXPECT_EQ(one.backend.take_from(1), 0u);
    one.push(plain, packets(1, 10), 0);
    one.push(plain, packets(11, 10), 0);
    EXPECT_EQ(handed(one, 0), 0u);
    EXPECT_EQ(one.sent(secure).size(), 21u);
}

TEST_F(Workers, AWindowTakenFromAStuckWorkerKnowsWhatItSaw) {
    one.push(plain, packets(0, 40));
    const std::vector<frame> esp = one.sent(secure);
    two.push(secure, {esp.begin(), esp.begin() + 20}, 0);
    EXPECT_EQ(two.backend.take_from(0), 1u);
    two.push(secure, esp, 1);
    expect_numbers(two.sent(plain), 40);
    EXPECT_EQ(two.drops(drop_reason::replay_duplicate), 20u);
    const control::sa_usage u = usage(two, false);
    EXPECT_EQ(u.current.packets, 40u);
    EXPECT_EQ(u.statistics.replay, 20u);
}

TEST_F(Workers, ABurstThatBeganBeforeTheSaWasTakenDropsWhatItDecrypts) {
    one.push(plain, packets(0, 2));
    const std::vector<frame> esp = one.sent(secure);
    two.push(secure, {esp[0]}, 0);
    fastpath::sa_in* const before = inbound_sa(two);
    before->owner.abandon(); // its owner finds it dead when it looks for the packet's SA
    two.push(secure, {esp[1]}, 0);
    EXPECT_EQ(two.drops(drop_reason::sa_moved), 1u);
    EXPECT_EQ(two.sent(plain).size(), 1u);
}

TEST_F(Workers, LimitsCountOnInTheNewOwnersHands) {
    lab three(1, 1024, 2);
    tunnel_options limited;
    limited.limits.hard_packets = 30;
    three.add_tunnel(limited);
    three.push(plain, packets(0, 20), 0);
    ASSERT_EQ(three.backend.take_from(0), 1u);
    three.push(plain, packets(20, 20), 1);
    EXPECT_EQ(three.sent(secure).size(), 30u);
    expect_balance(three);
}

/// Site 1 sends by one lane only, as to a device with a single queue.
TEST(WorkersWithoutALane, GiveFramesToTheWorkerThatHasOne) {
    lab l(1, 1024, 2, 1);
    l.push(plain, {make_packet({.number = 1})}, 1);
    l.push(plain, {make_packet({.number = 2})}, 0);
    const std::vector<frame> out = l.sent(secure);
    ASSERT_EQ(out.size(), 2u);
    EXPECT_EQ(number_of(out[0]), 1u);
    EXPECT_EQ(l.workers[1]->counters().handed_out.get(), 1u);
    EXPECT_EQ(l.workers[0]->counters().sent.get(), 2u);
    for (const auto& w : l.workers)
        EXPECT_TRUE(w->counters().balanced());
    EXPECT_EQ(l.pool->free_frames(), l.pool->count());
}

/// ESP for the machine comes in by a device with a single queue; its SA is the other worker's.
TEST(WorkersWithoutALane, GivePuntsToTheWorkerThatHasOne) {
    lab one(1);
    lab two(2, 1024, 2, 1);
    const tunnel_options tunnel;
    one.add_tunnel(tunnel);
    two.add_tunnel(tunnel);
    one.push(plain, {make_packet({.host = 10}), make_packet({.host = 1})}); // host 1: the machine
    const std::vector<frame> esp = one.sent(secure);
    ASSERT_EQ(esp.size(), 2u);
    two.push(secure, {esp[0]});
    ASSERT_TRUE(two.backend.ask_to_move(two.sa_of(tunnel, false), 1));
    two.push(secure, {esp[0]}); // a duplicate: with it the SA goes
    two.push(secure, {esp[1]});
    EXPECT_EQ(two.punted(secure).size(), 1u);
    EXPECT_EQ(two.workers[1]->counters().handed_out.get(), 1u);
    EXPECT_EQ(two.workers[0]->counters().punted.get(), 1u);
    for (const auto& w : two.workers)
        EXPECT_TRUE(w->counters().balanced());
    EXPECT_EQ(two.pool->free_frames(), two.pool->count());
}

} // namespace
} // namespace esplane::tests

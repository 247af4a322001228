// SPDX-License-Identifier: Apache-2.0
//
// Replay states that clients give to SAs in use, events about those that move, and lifetimes in
// bytes and packets, exact to the packet whatever an SA went through.
//
//   site 1 --> plain port [one] secure port --> ESP --> secure port [two] plain port --> site 2
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "tests/support/esp_peer.h"
#include "tests/unit/lib/event_log.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;

using gateway_ports::plain;
using gateway_ports::secure;
constexpr std::uint64_t tenth = 100'000'000; // ns
constexpr std::uint32_t frames = 2048;

using lines = std::vector<std::string>;

std::vector<frame> packets(std::uint32_t count, std::uint32_t length = 64) {
    std::vector<frame> all;
    for (std::uint32_t i = 0; i < count; ++i)
        all.push_back(make_packet({.length = length, .number = i}));
    return all;
}

std::uint32_t esp_number(const frame& ip) {
    return wire::load<wire::be32>(ip.data() + sizeof(wire::ipv4_header) + 4).host();
}

std::uint64_t nonce_of(const frame& ip) {
    return wire::load<std::uint64_t>(ip.data() + sizeof(wire::ipv4_header) + 8);
}

/// Two sites with a tunnel between them; `change` has its say on the SA from one to two.
class ReplayEvents : public ::testing::Test {
  protected:
    void SetUp() override { begin({}); }
    void begin(
        const tunnel_options& o, std::function<void(ipsec::sa&)> change = [](ipsec::sa&) {},
        unsigned workers = 1) {
        if (one_) one_->control.unsubscribe(&log);
        tunnel = o;
        one_ = std::make_unique<lab>(1, frames, workers);
        two_ = std::make_unique<lab>(2, frames, workers);
        for (lab* l : {one_.get(), two_.get()}) {
            l->add_tunnel(o);
            const ipsec::sa_id id = one_->sa_of(o, true);
            ipsec::sa s = l->control.get_sa(id)->clone();
            change(s);
            EXPECT_TRUE(l->control.delete_sa(id, {}));
            EXPECT_TRUE(l->control.add_sa(std::move(s), {}, l->clock));
        }
        one_->control.subscribe(&log);
    }
    void TearDown() override {
        one_->control.unsubscribe(&log);
        for (lab* l : {one_.get(), two_.get()}) {
            fastpath::worker_counters sum;
            for (const auto& w : l->workers)
                sum.add(w->counters());
            EXPECT_TRUE(sum.balanced());
            EXPECT_EQ(l->pool->free_frames(), frames);
        }
    }

    lab& one() { return *one_; }
    lab& two() { return *two_; }
    ipsec::sa_id id() { return one_->sa_of(tunnel, true); }
    /// The SA as the site shows it; it is there.
    const ipsec::sa& at(lab& l) { return *l.control.get_sa(id()); }

    /// What leaves of so many packets.
    std::vector<frame> send(std::uint32_t count, std::uint32_t length = 64) {
        one_->push(plain, packets(count, length));
        return one_->sent(secure);
    }
    std::size_t receive(const std::vector<frame>& esp) {
        two_->push(secure, esp);
        return two_->sent(plain).size();
    }
    void give(lab& l, const control::replay_gift& g) {
        ASSERT_TRUE(l.control.give_replay(id(), g, {}, l.clock));
    }
    static control::replay_gift counters(std::uint64_t packets, std::uint64_t bytes) {
        control::replay_gift g;
        g.current.emplace();
        g.current->packets = packets;
        g.current->bytes = bytes;
        return g;
    }
    static control::replay_gift state(std::uint64_t sent, std::uint64_t received,
                                      std::vector<std::uint32_t> bitmap = {}) {
        control::replay_gift g;
        g.replay = {sent, received, std::move(bitmap)};
        return g;
    }
    void limit(lab& l, const ipsec::lifetime_limits& limits) {
        ipsec::sa s = at(l).clone();
        s.limits = limits;
        ASSERT_TRUE(l.control.update_sa(std::move(s), {}, l.clock));
    }

    tunnel_options tunnel;
    control::event_log log;

  private:
    std::unique_ptr<lab> one_, two_;
};

// Given states

TEST_F(ReplayEvents, NumbersGoOnFromWhatIsGivenAndNoNonceComesTwice) {
    std::set<std::uint64_t> nonces;
    const auto numbers_of = [&](const std::vector<frame>& esp) {
        std::vector<std::uint32_t> all;
        for (const frame& f : esp) {
            all.push_back(esp_number(f));
            EXPECT_TRUE(nonces.insert(nonce_of(f)).second);
        }
        return all;
    };
    using list = std::vector<std::uint32_t>;
    EXPECT_EQ(numbers_of(send(3)), (list{1, 2, 3}));
    give(one(), state(1000, 0));
    EXPECT_EQ(at(one()).replay.sent, 1000u) << "shown before a packet has come";
    EXPECT_EQ(numbers_of(send(2)), (list{1001, 1002}));
    give(one(), state(1, 0));
    EXPECT_EQ(numbers_of(send(2)), (list{2, 3})) << "as the client wants";
    EXPECT_EQ(at(one()).replay.sent, 3u);
    EXPECT_EQ(at(one()).current.packets, 7u) << "counters were not given";
}

TEST_F(ReplayEvents, AWindowThatIsGivenSaysWhatIsNewAndWhatIsOld) {
    const auto esp = send(30);
    EXPECT_EQ(receive({esp.begin(), esp.begin() + 10}), 10u);
    give(two(), state(0, 25, {0b101})); // 25 and 23 were seen
    EXPECT_EQ(at(two()).replay.received, 25u);
    EXPECT_EQ(at(two()).replay.bitmap.at(0), 0b101u);
    EXPECT_EQ(receive({esp[24], esp[22]}), 0u);
    EXPECT_EQ(receive({esp[23], esp[0], esp[25]}), 3u);
    give(two(), state(0, 0));
    EXPECT_EQ(receive(esp), 30u) << "all over again";
}

TEST_F(ReplayEvents, AWindowMayBecomeAnotherSize) {
    begin({.esn = true}, [](ipsec::sa& s) {
        s.replay_esn_form = true;
        s.replay.bitmap.resize(4);
        s.replay_window = 32;
    });
    const auto esp = send(100);
    EXPECT_EQ(receive({esp[99]}), 1u);
    EXPECT_EQ(receive({esp[20]}), 0u);
    control::replay_gift g = state(0, 100, {1, 0, 0, 0});
    g.replay_window = 128;
    give(two(), g);
    EXPECT_EQ(receive({esp[20], esp[99]}), 1u);
    EXPECT_EQ(at(two()).replay_window, 128u);
}

TEST_F(ReplayEvents, WithEsnTheHigherHalfIsGivenToo) {
    begin({.esn = true, .replay_window = 64});
    constexpr std::uint64_t high = std::uint64_t{7} << 32;
    give(one(), state(high, 0));
    const auto esp = send(20);
    EXPECT_EQ(at(one()).replay.sent, high + 20);
    EXPECT_EQ(receive({esp[0]}), 0u) << "taken for one of the first subspace";
    give(two(), state(0, high));
    (void)receive({esp[1]}); // is taken for what the window said before
    EXPECT_EQ(receive({esp.begin() + 2, esp.end()}), 18u);
    EXPECT_EQ(at(two()).replay.received, high + 20);
}

TEST_F(ReplayEvents, WhatIsGivenTwiceBeforeAPacketIsAllThere) {
    give(one(), state(50, 0));
    give(one(), counters(7, 700));
    EXPECT_EQ(at(one()).replay.sent, 50u);
    EXPECT_EQ(at(one()).current.packets, 7u);
    EXPECT_EQ(esp_number(send(1).at(0)), 51u);
    EXPECT_EQ(at(one()).current.packets, 8u);
    EXPECT_EQ(at(one()).current.bytes, 764u);
}

// Lifetimes

TEST_F(ReplayEvents, AnSaOfNoDirectionIsLimitedFromWhatAClientRestored) {
    for (const bool bytes : {false, true}) {
        begin({}, [&](ipsec::sa& s) {
            s.current.packets = 100;
            s.current.bytes = 6400;
            (bytes ? s.limits.hard_bytes : s.limits.hard_packets) = bytes ? 6400 + 5 * 64 : 105;
        });
        EXPECT_EQ(send(20).size(), 5u) << bytes;
        EXPECT_EQ(one().control.get_sa(id()), nullptr) << "gone, as in the kernel";
        const lines told = log.taken();
        ASSERT_FALSE(told.empty());
        EXPECT_EQ(told.back(), "sa expired 4096 packets 105 hard");
    }
}

TEST_F(ReplayEvents, LimitsThatAreLoweredInUseAreExact) {
    const auto esp = send(40);
    EXPECT_EQ(receive({esp.begin(), esp.begin() + 20}), 20u);
    limit(one(), {.hard_packets = 47});
    limit(two(), {.hard_packets = 27});
    EXPECT_EQ(send(20).size(), 7u);
    EXPECT_EQ(receive({esp.begin() + 20, esp.end()}), 7u);
    EXPECT_EQ(one().control.get_sa(id()), nullptr);
    EXPECT_EQ(two().control.get_sa(id()), nullptr);
}

TEST_F(ReplayEvents, ASoftLimitIsToldOfOnceAndAgainAfterAnUpdate) {
    limit(one(), {.soft_packets = 5, .hard_packets = 100});
    (void)log.taken();
    (void)send(5);
    EXPECT_EQ(log.taken(), lines{});
    (void)send(3);
    EXPECT_EQ(log.taken().size(), 1u);
    limit(one(), {.soft_packets = 10, .hard_packets = 100});
    (void)log.taken();
    (void)send(20);
    EXPECT_EQ(log.taken().size(), 1u);
}

TEST_F(ReplayEvents, CountersThatAreGivenMoveTheLimits) {
    limit(one(), {.hard_packets = 10});
    limit(two(), {.hard_bytes = 640});
    const auto esp = send(4);
    EXPECT_EQ(receive(esp), 4u);
    give(one(), counters(8, 0));
    give(two(), counters(0, 640 - 3 * 64));
    const auto more = send(10);
    EXPECT_EQ(more.size(), 2u);
    EXPECT_EQ(receive(more), 2u);
    EXPECT_EQ(at(two()).current.packets, 2u);
    EXPECT_EQ(at(two()).current.bytes, 640u - 64);
}

TEST_F(ReplayEvents, CountersThatAreGivenBackLetMorePass) {
    limit(one(), {.hard_packets = 10});
    EXPECT_EQ(send(9).size(), 9u);
    give(one(), counters(0, 0));
    EXPECT_EQ(send(20).size(), 10u);
}

TEST_F(ReplayEvents, AnSaThatAllWorkersCarriedIsLimitedByWhatTheyCounted) {
    begin(
        {.replay_window = 32}, [](ipsec::sa&) {}, 2);
    (void)send(1);
    ASSERT_TRUE(one().backend.spread_sa(id(), 2));
    (void)send(1); // its owner lets go
    std::size_t sent = 2;
    for (int i = 0; i < 4; ++i) {
        for (const frame& f : packets(30))
            ASSERT_TRUE(one().ports[plain]->inject(with_ethernet(f), i % 2));
        one().run();
        sent += one().sent(secure).size();
    }
    EXPECT_EQ(sent, 122u);
    EXPECT_EQ(at(one()).current.packets, sent);
    limit(one(), {.hard_packets = sent + 6});
    one().backend.tend_spread();
    EXPECT_EQ(send(20).size(), 6u);
    EXPECT_EQ(one().control.get_sa(id()), nullptr);
}

TEST_F(ReplayEvents, AStateIsGivenToAnSaThatAllWorkersCarry) {
    begin(
        {.replay_window = 32}, [](ipsec::sa&) {}, 2);
    (void)send(1);
    ASSERT_TRUE(one().backend.spread_sa(id(), 2));
    (void)send(5);
    control::replay_gift g = counters(1000, 5000);
    g.replay = ipsec::replay_state{500, 0, {}};
    give(one(), g);
    EXPECT_EQ(at(one()).current.packets, 1000u);
    EXPECT_EQ(esp_number(send(1).at(0)), 501u);
    EXPECT_EQ(at(one()).current.packets, 1001u);
    EXPECT_EQ(at(one()).current.bytes, 5064u);
}

// Events

void hear_of(ipsec::sa& s) {
    s.replay_threshold = 3;
    s.replay_timer = 10;
}

TEST_F(ReplayEvents, AThresholdIsToldOfWhenItIsReached) {
    begin({}, hear_of);
    one().control.hear_replays(&log, true);
    (void)log.taken();
    (void)send(2);
    EXPECT_EQ(log.taken(), lines{});
    (void)send(1);
    EXPECT_EQ(log.taken(), lines{"sa moved 4096 threshold"});
    (void)send(2);
    EXPECT_EQ(log.taken(), lines{});
    (void)send(30);
    EXPECT_EQ(log.taken(), lines{"sa moved 4096 threshold"}) << "one for a burst";
    one().control.hear_replays(&log, false);
    (void)send(30);
    EXPECT_EQ(log.taken(), lines{});
}

TEST_F(ReplayEvents, ReceivedNumbersAreToldOfByWhatWasSeenHighest) {
    begin({}, hear_of);
    const auto esp = send(60);
    two().control.subscribe(&log);
    two().control.hear_replays(&log, true);
    two().advance(0);
    (void)log.taken();
    (void)receive({esp[0]});
    (void)receive({esp[1]});
    EXPECT_EQ(log.taken(), lines{});
    (void)receive({esp[9]}); // of seven that are missing
    EXPECT_EQ(log.taken(), lines{"sa moved 4096 threshold"});
    (void)receive({esp[4], esp[5], esp[6], esp[7], esp[8]}); // inside the window
    EXPECT_EQ(log.taken(), lines{});
    two().control.unsubscribe(&log);
}

TEST_F(ReplayEvents, ATimerTellsOfAMovementThatIsSmallOrComesLater) {
    begin({}, hear_of);
    one().control.hear_replays(&log, true);
    (void)log.taken();
    (void)send(1);
    one().advance(9 * tenth);
    EXPECT_EQ(log.taken(), lines{});
    one().advance(2 * tenth);
    EXPECT_EQ(log.taken(), lines{"sa moved 4096 timer"});
    one().advance(50 * tenth);
    EXPECT_EQ(log.taken(), lines{}) << "it has not moved";
    (void)send(1);
    EXPECT_EQ(log.taken(), lines{"sa moved 4096 timer"}) << "the timer was over";
    (void)send(1);
    EXPECT_EQ(log.taken(), lines{}) << "and runs again";
}

TEST_F(ReplayEvents, AnSaThatRanBeforeSomebodyListensIsToldOfWithItsNextPacket) {
    begin({}, hear_of);
    (void)send(10);
    one().advance(20 * tenth);
    one().control.hear_replays(&log, true);
    one().advance(tenth);
    EXPECT_EQ(log.taken(), lines{});
    (void)send(1);
    EXPECT_EQ(log.taken(), lines{"sa moved 4096 threshold"});
}

TEST_F(ReplayEvents, AThresholdThatIsGivenCountsFromTheStateThatIsGiven) {
    begin({}, hear_of);
    one().control.hear_replays(&log, true);
    (void)send(2);
    control::replay_gift g = state(100, 0);
    g.replay_threshold = 5;
    give(one(), g);
    (void)log.taken();
    (void)send(4);
    EXPECT_EQ(log.taken(), lines{});
    (void)send(1);
    EXPECT_EQ(log.taken(), lines{"sa moved 4096 threshold"});
}

TEST_F(ReplayEvents, AnSaThatAllWorkersCarryIsToldOfWithinATenthOfASecond) {
    begin({.replay_window = 32}, hear_of, 2);
    (void)send(1);
    ASSERT_TRUE(one().backend.spread_sa(id(), 2));
    (void)send(1);
    one().control.hear_replays(&log, true);
    one().advance(0);
    (void)log.taken();
    (void)send(10);
    one().backend.tend_spread();
    EXPECT_EQ(log.taken(), lines{"sa moved 4096 threshold"});
}

// Labels

TEST_F(ReplayEvents, APolicyTakesSasOfItsLabelAlone) {
    const auto label_policy = [this](std::optional<ipsec::security_context> label) {
        ipsec::policy p;
        p.dir = ipsec::policy_direction::out;
        p.sel.fam = ipsec::family::ipv4;
        p.priority = label ? 1 : 2;
        p.sel.source_prefix = label ? 8 : 0;
        p.sel.source = *ipsec::address::parse("10.0.0.0");
        p.sel.destination.fam = ipsec::family::ipv4;
        ipsec::template_ t;
        t.id.destination = id().destination;
        t.source = *ipsec::address::parse("192.168.77.1");
        t.fam = ipsec::family::ipv4;
        t.reqid = tunnel.reqid;
        p.templates = {t};
        p.security = std::move(label);
        one().control.flush_policies(ipsec::policy_type::main, {});
        one().add_policy(std::move(p));
    };
    const ipsec::security_context red{1, 1, {'r', 'e', 'd'}}, blue{1, 1, {'b', 'l', 'u', 'e'}};
    begin({}, [&](ipsec::sa& s) { s.security = red; });
    label_policy(std::nullopt);
    EXPECT_EQ(send(1).size(), 0u);
    label_policy(blue);
    EXPECT_EQ(send(1).size(), 0u);
    label_policy(red);
    EXPECT_EQ(send(1).size(), 1u);
}

// Traffic flow confidentiality

TEST_F(ReplayEvents, ShortPacketsLookAsLongAsTheirSaSays) {
    begin({}, [](ipsec::sa& s) { s.tfc_pad = 700; });
    std::set<std::size_t> lengths;
    for (const std::uint32_t length : {64u, 200u, 699u, 700u}) {
        const auto esp = send(1, length);
        ASSERT_EQ(esp.size(), 1u);
        lengths.insert(esp[0].size());
        two().push(secure, esp);
        auto want = make_packet({.length = length, .ttl = 62});
        EXPECT_EQ(two().sent(plain), std::vector<frame>{want});
    }
    EXPECT_EQ(lengths.size(), 1u);
    EXPECT_GT(send(1, 1000).at(0).size(), *lengths.begin());
    EXPECT_EQ(at(one()).current.bytes, 64u + 200 + 699 + 700 + 1000) << "of what was inside";
}

TEST_F(ReplayEvents, NoPacketIsMadeLongerThanItsPathTakes) {
    begin({}, [](ipsec::sa& s) { s.tfc_pad = 9000; });
    const auto esp = send(1, 64);
    ASSERT_EQ(esp.size(), 1u);
    EXPECT_LE(esp[0].size(), 1500u);
    EXPECT_GT(esp[0].size(), 1480u);
    EXPECT_EQ(receive(esp), 1u);
}

} // namespace
} // namespace esplane::tests

// SPDX-License-Identifier: Apache-2.0
//
// One SA on two workers, in one thread loop by loop, and with threads.
//
//   site 1, lanes 0 and 1 --> [workers 0 and 1, one SA] --> lane of its owner --> site 2, window 32
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <malloc.h>
#include <set>
#include <sys/eventfd.h>
#include <thread>
#include <unistd.h>

#include "lib/base/unique_fd.h"
#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;

using gateway_ports::plain;
using gateway_ports::secure;
constexpr std::uint32_t frames = 8192;

std::vector<frame> numbered(std::uint32_t first, std::uint32_t count, std::uint16_t flow = 1000) {
    std::vector<frame> all;
    for (std::uint32_t n = first; n < first + count; ++n)
        all.push_back(make_packet({.source_port = flow, .length = 200, .number = n}));
    return all;
}

std::uint32_t esp_number(const frame& ip) {
    return wire::load<wire::be32>(ip.data() + sizeof(wire::ipv4_header) + 4).host();
}

std::uint64_t nonce_of(const frame& ip) {
    return wire::load<std::uint64_t>(ip.data() + sizeof(wire::ipv4_header) + 8);
}

class SpreadSa : public ::testing::Test {
  protected:
    explicit SpreadSa(const tunnel_options& t = {.replay_window = 32})
        : tunnel(t)
        , one(1, frames, 2)
        , two(2, frames, 2) {
        one.add_tunnel(tunnel);
        two.add_tunnel(tunnel);
        one.push(plain, numbered(0, 1)); // the SAs' owners: worker 0
        two.push(secure, one.sent(secure));
        EXPECT_EQ(two.sent(plain).size(), 1u);
    }
    void TearDown() override {
        EXPECT_TRUE(balanced(one));
        EXPECT_TRUE(balanced(two));
        EXPECT_EQ(one.pool->free_frames(), frames);
        EXPECT_EQ(two.pool->free_frames(), frames);
    }
    static bool balanced(const lab& l) {
        fastpath::worker_counters sum;
        for (const auto& w : l.workers)
            sum.add(w->counters());
        return sum.balanced() && sum.handed_out.get() == sum.handed_in.get();
    }
    void spread_out() {
        ASSERT_TRUE(one.backend.spread_sa(one.sa_of(tunnel, true), 2));
        one.push(plain, numbered(1, 1)); // its owner lets go
        (void)one.sent(secure);
    }
    void spread_in() { ASSERT_TRUE(two.backend.spread_sa(two.sa_of(tunnel, false), 2)); }
    std::uint64_t encrypted_by(unsigned worker) const {
        return one.workers[worker]->counters().encrypted.get();
    }

    tunnel_options tunnel;
    lab one, two;
};

class SpreadEsnSa : public SpreadSa {
  protected:
    SpreadEsnSa()
        : SpreadSa({.esn = true, .replay_window = 32}) {}
};

TEST_F(SpreadSa, NumbersPacketsOfAllLanesInTheOrderTheyLeave) {
    spread_out();
    for (const frame& f : numbered(100, 200, 1000))
        ASSERT_TRUE(one.ports[plain]->inject(with_ethernet(f), 0));
    for (const frame& f : numbered(1000, 200, 2000))
        ASSERT_TRUE(one.ports[plain]->inject(with_ethernet(f), 1));
    one.run();
    EXPECT_TRUE(one.ports[secure]->take_sent(1).empty()) << "one worker sends them all";
    const auto esp = one.sent(secure);
    ASSERT_EQ(esp.size(), 400u);
    std::set<std::uint64_t> nonces;
    for (std::size_t i = 0; i < esp.size(); ++i) {
        EXPECT_EQ(esp_number(esp[i]), 3 + i);
        nonces.insert(nonce_of(esp[i]));
    }
    EXPECT_EQ(nonces.size(), esp.size());
    EXPECT_GT(encrypted_by(1), 100u);

    two.push(secure, esp);
    EXPECT_EQ(two.sent(plain).size(), 400u) << "a window of 32 takes them all";
}

TEST_F(SpreadSa, GivesAnIdleWorkerPartOfWhatAnotherReceives) {
    spread_out();
    one.push(plain, numbered(100, 500));
    EXPECT_GT(encrypted_by(1), 100u) << "all came in on lane 0";
    const auto esp = one.sent(secure);
    two.push(secure, esp);
    const auto clear = two.sent(plain);
    ASSERT_EQ(clear.size(), 500u);
    for (std::size_t i = 0; i < clear.size(); ++i)
        EXPECT_EQ(number_of(clear[i]), 100 + i) << "in the order in which they came";
}

TEST_F(SpreadSa, InboundIsDecryptedByBothAndGoesOnInOrder) {
    spread_in();
    one.push(plain, numbered(100, 500));
    auto esp = one.sent(secure);
    esp[77].back() ^= 1; // a forgery among them
    two.push(secure, esp);
    const auto clear = two.sent(plain);
    ASSERT_EQ(clear.size(), 499u);
    for (std::size_t i = 0; i < clear.size(); ++i)
        EXPECT_EQ(number_of(clear[i]), 100 + i + (i >= 77));
    fastpath::worker_counters sum;
    for (const auto& w : two.workers)
        sum.add(w->counters());
    EXPECT_EQ(sum.dropped[static_cast<std::size_t>(drop_reason::icv_mismatch)].get(), 1u);
    EXPECT_GT(two.workers[1]->counters().handed_in.get(), 100u);

    two.push(secure, esp);
    EXPECT_TRUE(two.sent(plain).empty()) << "a replay of them all";
}

TEST_F(SpreadEsnSa, TakesTheNumberThatWasAuthenticatedWhereTheWindowHasMovedOn) {
    spread_in();
    one.push(plain, numbered(100, 60));
    auto esp = one.sent(secure);
    ASSERT_EQ(esp.size(), 60u);
    std::rotate(esp.begin(), esp.begin() + 1, esp.begin() + 51); // the first comes 50 too late
    two.push(secure, esp);
    EXPECT_EQ(two.sent(plain).size(), 59u);
    EXPECT_EQ(two.drops(drop_reason::replay_too_old), 1u);

    one.push(plain, numbered(200, 60));
    two.push(secure, one.sent(secure));
    EXPECT_EQ(two.sent(plain).size(), 60u) << "the window is where it was";
}

TEST_F(SpreadSa, KeepsItsOwnerWhoWasToPassItOn) {
    const ipsec::sa_id id = two.sa_of(tunnel, false);
    ASSERT_TRUE(two.backend.ask_to_move(id, 1));
    spread_in();
    one.push(plain, numbered(100, 100));
    two.push(secure, one.sent(secure));
    EXPECT_EQ(two.sent(plain).size(), 100u);
    EXPECT_TRUE(two.backend.loads_of(1).empty()) << "one worker checks, takes tickets and releases";
    EXPECT_EQ(two.backend.loads_of(0).size(), 1u);
}

TEST_F(SpreadSa, CountsAsOne) {
    spread_out();
    one.push(plain, numbered(100, 300));
    one.push(plain, numbered(400, 300), 1);
    const ipsec::sa* sa = one.control.get_sa(one.sa_of(tunnel, true));
    ASSERT_NE(sa, nullptr);
    EXPECT_EQ(sa->current.packets, 602u);
    EXPECT_EQ(sa->current.bytes, 602u * 200);
    EXPECT_EQ(sa->replay.sent, 602u);
}

/// Bytes from malloc; 0 where a sanitizer has its own.
std::size_t allocated() {
    const struct mallinfo2 m = ::mallinfo2();
    return m.uordblks + m.hblkhd;
}

TEST_F(SpreadSa, LeavesNothingBehindHoweverOftenItIsGathered) {
    constexpr unsigned rounds = 60;
    std::size_t early = 0;
    for (unsigned i = 0; i < rounds; ++i) {
        spread_out();
        one.push(plain, numbered(100, 20));
        ASSERT_EQ(one.backend.take_from(0), 1u);
        one.backend.tend_spread();
        one.push(plain, numbered(200, 1)); // it has an owner again
        EXPECT_EQ(one.sent(secure).size(), 21u);
        if (i == rounds / 2) early = allocated();
    }
    EXPECT_LT(allocated(), early + (1u << 20)) << "a spread takes more than 128 KiB";
    EXPECT_EQ(one.control.get_sa(one.sa_of(tunnel, true))->current.packets, 1 + rounds * 22);
}

TEST_F(SpreadSa, ThatIsGatheredWasLastUsedWhenAnyWorkerDid) {
    spread_out();
    one.clock.realtime_s += 100;
    one.push(plain, numbered(100, 20), 1);
    const auto last_used = [&] {
        control::sa_usage u;
        EXPECT_TRUE(one.backend.query_sa(one.sa_of(tunnel, true), u));
        return u.last_used;
    };
    EXPECT_EQ(last_used(), one.clock.realtime_s);
    (void)one.backend.take_from(0);
    EXPECT_EQ(last_used(), one.clock.realtime_s);
    one.push(plain, numbered(200, 1)); // it has an owner again
    (void)one.sent(secure);
}

TEST_F(SpreadSa, IsNotSpreadNearALimit) {
    tunnel_options limited{.spi = 0x2000, .reqid = 2};
    limited.limits.hard_packets = 1000;
    one.add_sas(limited);
    EXPECT_EQ(one.backend.spread_sa(one.sa_of(limited, true), 2).error().code, EBUSY);
}

TEST_F(SpreadSa, ThatIsTakenFromAStuckWorkerRepeatsNoNumber) {
    spread_out();
    one.push(plain, numbered(100, 100));
    const std::uint32_t last = esp_number(one.sent(secure).back());
    EXPECT_EQ(one.backend.take_from(1), 1u);
    one.push(plain, numbered(200, 100), 1);
    const auto esp = one.sent(secure);
    ASSERT_EQ(esp.size(), 100u);
    EXPECT_GT(esp_number(esp.front()), last);
    two.push(secure, esp);
    EXPECT_EQ(two.sent(plain).size(), 100u);
    one.backend.tend_spread();
    EXPECT_EQ(one.control.get_sa(one.sa_of(tunnel, true))->current.packets, 202u);
}

TEST_F(SpreadSa, WhatWasEncryptedDoesNotLeaveOnceAllIsClosed) {
    spread_out();
    for (const frame& f : numbered(100, 3)) // too few for an idle worker to be given some
        ASSERT_TRUE(one.ports[plain]->inject(with_ethernet(f), 1));
    (void)one.workers[1]->run_once(one.clock);
    EXPECT_EQ(encrypted_by(1), 3u);
    one.tables.close(true);
    one.run();
    EXPECT_TRUE(one.sent(secure).empty());
    EXPECT_EQ(one.drops(drop_reason::closed), 3u);
}

TEST_F(SpreadSa, WhatWasDecryptedGoesNoFurtherOnceAllIsClosed) {
    spread_in();
    one.push(plain, numbered(100, 10));
    for (const frame& f : one.sent(secure))
        ASSERT_TRUE(two.ports[secure]->inject(with_ethernet(f), 0));
    (void)two.workers[0]->run_once(two.clock);
    (void)two.workers[1]->run_once(two.clock);
    EXPECT_EQ(two.workers[1]->counters().handed_out.get(), 10u) << "on their way back";
    two.tables.close(true);
    two.run();
    EXPECT_TRUE(two.sent(plain).empty());
    EXPECT_EQ(two.drops(drop_reason::closed), 10u);
}

// What lies in a fat SA's ring is seen in a loop only; who sleeps would let it lie for 100 ms.
TEST_F(SpreadSa, WakesItsOwnerWhereNothingIsDecryptedAnyMore) {
    const auto is_woken = [this](auto change) {
        for (const frame& f : one.sent(secure))
            EXPECT_TRUE(two.ports[secure]->inject(with_ethernet(f), 0));
        (void)two.workers[0]->run_once(two.clock); // gives all to worker 1
        change();
        const unique_fd bell(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        two.mesh.join(0, bell.get());
        EXPECT_TRUE(two.mesh.lie_down(0));
        (void)two.workers[1]->run_once(two.clock);
        std::uint64_t rung = 0;
        return ::read(bell.get(), &rung, sizeof rung) > 0;
    };
    spread_in();
    one.push(plain, numbered(100, 10));
    EXPECT_TRUE(is_woken([&] { two.tables.close(true); }));
    two.run();
    two.tables.close(false);
    one.push(plain, numbered(200, 10));
    EXPECT_TRUE(
        is_woken([&] { EXPECT_TRUE(two.control.delete_sa(two.sa_of(tunnel, false), {})); }));
    two.run();
    two.backend.tend_spread();
    EXPECT_TRUE(two.sent(plain).empty());
}

// Traffic on both lanes while control spreads, deletes and adds the SA again.
TEST_F(SpreadSa, ComesAndGoesUnderTraffic) {
    for (auto& w : one.workers)
        ASSERT_TRUE(w->start());
    const auto inject = [&](std::uint32_t n) {
        (void)one.ports[plain]->inject(
            with_ethernet(make_packet({.source_port = 1, .length = 200, .number = n})), n % 2);
    };
    for (std::uint32_t round = 0; round < 20; ++round) {
        for (std::uint32_t n = 0; n < 100; ++n)
            inject(n);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        (void)one.backend.spread_sa(one.sa_of(tunnel, true), 2);
        for (std::uint32_t n = 0; n < 100; ++n)
            inject(n);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        ASSERT_TRUE(one.control.delete_sa(one.sa_of(tunnel, true), {}));
        ASSERT_TRUE(one.control.delete_sa(one.sa_of(tunnel, false), {}));
        one.backend.tend_spread();
        tunnel.key_seed = round + 2;
        one.add_sas(tunnel);
        (void)one.ports[secure]->take_sent();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    for (auto& w : one.workers)
        w->stop();
    one.run();
    one.backend.tend_spread();
    EXPECT_GT(encrypted_by(1), 0u);
}

} // namespace
} // namespace esplane::tests

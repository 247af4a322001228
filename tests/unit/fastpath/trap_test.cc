// SPDX-License-Identifier: Apache-2.0
//
// What a policy protects and no SA carries yet: packets in, an ACQUIRE out, and when the SA comes
// ESP out.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "fastpath/trap.h"
#include "tests/support/lab.h"

namespace esplane::tests::trap_test {
namespace {

using fastpath::drop_reason;
using fastpath::trap;

using gateway_ports::plain;
using gateway_ports::secure;
constexpr std::uint64_t second_ns = 1'000'000'000;

/// Counts ACQUIREs.
struct asked final : ipsec::listener {
    void on_event(const ipsec::event& e) override {
        if (const auto* a = std::get_if<ipsec::acquire>(&e)) {
            ++count;
            selector = a->larval.sel;
        }
    }
    unsigned count = 0;
    ipsec::selector selector;
};

struct site_with_a_trap : testing::Test {
    explicit site_with_a_trap(unsigned workers = 1)
        : one(1, 4096, workers) {
        one.control.subscribe(&client);
        one.control.answer_acquires(&client, true);
        one.control.set_acquire_expires(10);
        two.add_tunnel({});
    }
    ~site_with_a_trap() override { one.control.unsubscribe(&client); }

    static std::vector<frame> packets(std::uint32_t first, std::uint32_t count) {
        std::vector<frame> all;
        for (std::uint32_t i = 0; i < count; ++i)
            all.push_back(make_packet({.number = first + i}));
        return all;
    }
    /// Of another reqid than the tunnel.
    static ipsec::policy trap_of_host(const char* address) {
        ipsec::policy p;
        p.sel.fam = ipsec::family::ipv4;
        p.sel.destination = *ipsec::address::parse(address);
        p.sel.destination_prefix = 32;
        ipsec::template_ t;
        t.fam = ipsec::family::ipv4;
        t.id.destination = *ipsec::address::parse("192.168.77.2");
        t.source = *ipsec::address::parse("192.168.77.1");
        t.reqid = 77;
        p.templates.push_back(t);
        return p;
    }
    std::uint64_t held() {
        std::uint64_t sum = 0;
        for (const auto& w : one.workers)
            sum += w->counters().held.get();
        return sum;
    }
    /// Numbers of the packets that site 2 got, in order.
    std::vector<std::uint32_t> arrived() {
        two.push(secure, one.sent(secure));
        std::vector<std::uint32_t> numbers;
        for (const frame& f : two.sent(plain))
            numbers.push_back(number_of(f));
        return numbers;
    }
    void expect_balance() {
        fastpath::worker_counters sum;
        for (const auto& w : one.workers)
            sum.add(w->counters());
        EXPECT_TRUE(sum.balanced());
        EXPECT_EQ(one.pool->free_frames() + sum.held.get(), one.pool->count());
    }

    asked client;
    lab one;
    lab two{2};
};

using Trap = site_with_a_trap;

TEST_F(Trap, HoldsWhatAPolicyProtectsAndAsksOnce) {
    one.add_policies({});
    one.push(plain, packets(0, 5));
    one.push(plain, packets(5, 5));
    EXPECT_EQ(client.count, 1u);
    EXPECT_EQ(client.selector.source_port, wire::be16(1000));
    EXPECT_EQ(held(), 10u);
    EXPECT_TRUE(one.sent(secure).empty());
    expect_balance();
}

TEST_F(Trap, WhatIsHeldLeavesInOrderBeforeWhatComesLater) {
    one.add_policies({});
    one.push(plain, packets(0, 80)); // more than a burst
    one.add_sas({});
    one.push(plain, packets(80, 10));
    std::vector<std::uint32_t> all(90);
    std::iota(all.begin(), all.end(), 0u);
    EXPECT_EQ(arrived(), all);
    EXPECT_EQ(held(), 0u);
    expect_balance();
}

TEST_F(Trap, WhatIsHeldHasItsHopCountedOnce) {
    one.add_policies({});
    one.push(plain, packets(0, 1));
    one.advance(second_ns);
    one.add_sas({});
    one.run();
    two.push(secure, one.sent(secure));
    EXPECT_EQ(two.sent(plain), (std::vector<frame>{make_packet({.ttl = 62})}));
}

TEST_F(Trap, HoldsTheFirstHundredPacketsOfAPolicyAndLosesTheNext) {
    one.add_policies({});
    one.push(plain, packets(0, 100));
    EXPECT_EQ(held(), 100u);
    EXPECT_EQ(one.drops(drop_reason::sa_wait_full), 0u);
    one.push(plain, packets(100, 7));
    EXPECT_EQ(held(), 100u);
    EXPECT_EQ(one.drops(drop_reason::sa_wait_full), 7u);
    one.add_sas({});
    one.run();
    std::vector<std::uint32_t> all(100);
    std::iota(all.begin(), all.end(), 0u);
    EXPECT_EQ(arrived(), all);
    expect_balance();
}

TEST_F(Trap, WithLarvalDropAsksAndHoldsNothing) {
    control::sysctls s = one.control.current_sysctls();
    s.larval_drop = 1;
    one.control.set_sysctls(s);
    one.add_policies({});
    one.push(plain, packets(0, 5));
    EXPECT_EQ(client.count, 1u);
    EXPECT_EQ(held(), 0u);
    EXPECT_EQ(one.drops(drop_reason::sa_larval), 5u);
    one.add_sas({});
    one.push(plain, packets(5, 2));
    EXPECT_EQ(arrived(), (std::vector<std::uint32_t>{5, 6}));
    expect_balance();
}

TEST_F(Trap, WithLarvalDropAsksAgainAfterTheLarvalSaHasExpired) {
    control::sysctls s = one.control.current_sysctls();
    s.larval_drop = 1;
    one.control.set_sysctls(s);
    one.add_policies({});
    one.push(plain, packets(0, 1));
    one.advance(12 * second_ns);
    one.push(plain, packets(1, 1));
    EXPECT_EQ(client.count, 2u);
}

TEST_F(Trap, DropsAtOnceWhereNobodyAnswers) {
    one.control.answer_acquires(&client, false);
    one.add_policies({});
    one.push(plain, packets(0, 3));
    EXPECT_EQ(client.count, 0u);
    EXPECT_EQ(held(), 0u);
    EXPECT_EQ(one.drops(drop_reason::sa_missing), 3u);
    expect_balance();
}

TEST_F(Trap, DropsWhatWaitsWhenTheLastWhoAnswersLeaves) {
    one.add_policies({});
    one.push(plain, packets(0, 3));
    one.control.answer_acquires(&client, false);
    one.run();
    EXPECT_EQ(one.drops(drop_reason::sa_missing), 3u);
    expect_balance();
}

TEST_F(Trap, DropsWhatNoSaCameForWhenTheAcquireExpires) {
    one.add_policies({});
    one.push(plain, packets(0, 1));
    one.advance(9 * second_ns);
    one.push(plain, packets(1, 1)); // of the same ACQUIRE: it waits no longer than the first
    EXPECT_EQ(held(), 2u);
    one.advance(2 * second_ns);
    EXPECT_EQ(one.drops(drop_reason::sa_wait_timeout), 2u);
    EXPECT_EQ(client.count, 1u);
    one.push(plain, packets(2, 1));
    EXPECT_EQ(client.count, 2u) << "the next packet asks again";
    expect_balance();
}

TEST_F(Trap, AsksAgainWhereControlHasForgotten) {
    one.add_policies({});
    one.push(plain, packets(0, 2));
    one.control.flush_sas(0, {});
    one.advance(second_ns + second_ns / 10);
    EXPECT_EQ(client.count, 2u);
    EXPECT_EQ(held(), 2u);
}

TEST_F(Trap, DoesNotAskForAnSaThatCameMeanwhile) {
    one.add_policies({});
    for (const frame& f : packets(0, 1))
        (void)one.ports[plain]->inject(with_ethernet(f), 0);
    one.run(); // the worker has said so, control has not heard
    one.add_sas({});
    one.poll_events();
    EXPECT_EQ(client.count, 0u);
}

TEST_F(Trap, APolicyHoldsSoManyPacketsAndSoManyBytes) {
    one.add_policies({});
    one.push(plain, packets(0, trap::packets_per_policy + 7));
    EXPECT_EQ(held(), trap::packets_per_policy);
    EXPECT_EQ(one.drops(drop_reason::sa_wait_full), 7u);
    one.add_sas({});
    one.run();
    const auto numbers = arrived();
    ASSERT_EQ(numbers.size(), trap::packets_per_policy);
    EXPECT_EQ(numbers.back(), trap::packets_per_policy - 1) << "the newest are lost";

    lab long_ones{1};
    long_ones.control.subscribe(&client);
    long_ones.control.answer_acquires(&client, true);
    long_ones.add_policies({});
    for (int i = 0; i < 99; ++i)
        long_ones.push(plain, {make_packet({.length = 1400})});
    EXPECT_EQ(long_ones.worker->counters().held.get(), trap::bytes_per_policy / 1400);
    long_ones.control.unsubscribe(&client);
    expect_balance();
}

TEST_F(Trap, AFloodLeavesOtherPoliciesTheirShare) {
    one.add_policy(trap_of_host("10.2.0.77")); // the older of equal priority
    one.add_policies({});                      // to all of site 2
    for (std::uint32_t i = 0; i < 300; ++i)
        one.push(plain, {make_packet({.host = static_cast<std::uint16_t>(1000 + i)})});
    EXPECT_EQ(held(), trap::packets_per_policy);
    EXPECT_EQ(client.count, 1u);
    one.push(plain, {make_packet({.host = 77})});
    EXPECT_EQ(held(), trap::packets_per_policy + 1);
    EXPECT_EQ(client.count, 2u);
    expect_balance();
}

TEST_F(Trap, NothingThatWaitedLeavesInClearWhenItsPolicyGoes) {
    one.add_policies({});
    one.push(plain, packets(0, 4));
    one.control.flush_policies(ipsec::policy_type::main, {});
    one.run();
    EXPECT_TRUE(one.sent(secure).empty());
    EXPECT_EQ(one.drops(drop_reason::sa_wait_timeout), 4u);
    expect_balance();
}

TEST_F(Trap, WhatWaitedIsBlockedByAPolicyThatCame) {
    ipsec::policy trapped = trap_of_host("10.2.0.10");
    trapped.priority = 10;
    one.add_policy(trapped);
    one.push(plain, packets(0, 4));
    EXPECT_EQ(held(), 4u);
    ipsec::policy block = trapped;
    block.sel.destination_prefix = 24;
    block.sel.destination = *ipsec::address::parse("10.2.0.0");
    block.action = ipsec::policy_action::block;
    block.templates.clear();
    block.priority = 1;
    one.add_policy(block);
    one.run();
    EXPECT_EQ(one.drops(drop_reason::policy_block), 4u);
    expect_balance();
}

TEST_F(Trap, EstablishedTrafficPassesWhileOthersWait) {
    one.add_policy(trap_of_host("10.2.0.77"));
    one.add_tunnel({});
    std::vector<std::uint32_t> passing;
    for (std::uint32_t i = 0; i < 200; ++i) {
        const bool waits = i % 2 == 0;
        one.push(plain,
                 {make_packet({.host = static_cast<std::uint16_t>(waits ? 77 : 10), .number = i})});
        if (!waits) passing.push_back(i);
    }
    EXPECT_EQ(arrived(), passing);
    EXPECT_EQ(held(), 100u);
    expect_balance();
}

struct TrapOnWorkers : site_with_a_trap {
    TrapOnWorkers()
        : site_with_a_trap(2) {}
};

TEST_F(TrapOnWorkers, EachHoldsItsOwnAndOneAcquireServesBoth) {
    one.add_policies({});
    one.push(plain, packets(0, 10), 0);
    one.push(plain, packets(100, 10), 1);
    EXPECT_EQ(client.count, 1u);
    EXPECT_EQ(held(), 20u);
    one.add_sas({});
    one.run();
    one.run(); // what the second worker has handed to the SA's owner
    const auto numbers = arrived();
    ASSERT_EQ(numbers.size(), 20u);
    for (const std::uint32_t first : {0u, 100u}) {
        std::vector<std::uint32_t> of_worker;
        std::ranges::copy_if(numbers, std::back_inserter(of_worker),
                             [&](std::uint32_t n) { return n / 100 == first / 100; });
        EXPECT_TRUE(std::ranges::is_sorted(of_worker));
        EXPECT_EQ(of_worker.size(), 10u);
    }
    expect_balance();
}

} // namespace
} // namespace esplane::tests::trap_test

// SPDX-License-Identifier: Apache-2.0
//
// SAs for the traffic of one CPU each (RFC 9611): packets on two workers in, ESP out; by its SPI we
// see which SA each took.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;

using gateway_ports::plain;
using gateway_ports::secure;
constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr std::uint32_t fallback = 0x1000; ///< the lab's

/// The CPUs for which ACQUIREs ask; -1: for none.
struct asked final : ipsec::listener {
    void on_event(const ipsec::event& e) override {
        if (const auto* a = std::get_if<ipsec::acquire>(&e))
            cpus.push_back(a->larval.pcpu ? static_cast<int>(*a->larval.pcpu) : -1);
    }
    std::vector<int> cpus;
};

struct PerCpu : testing::Test {
    PerCpu() {
        one.control.subscribe(&client);
        one.control.answer_acquires(&client, true);
    }
    ~PerCpu() override { one.control.unsubscribe(&client); }

    /// The lab's outbound SA again, with another SPI and for a CPU.
    void add_sa(std::uint32_t spi, std::optional<std::uint32_t> cpu, std::uint32_t seed = 0) {
        ipsec::sa s;
        s.id = one.sa_of({}, true);
        s.id.spi = wire::be32(spi);
        s.source = *ipsec::address::parse("192.168.77.1");
        s.algs = make_algorithms(ipsec::suite::aes128_gcm16, seed + spi);
        s.reqid = 1;
        s.dir = ipsec::direction::out;
        s.pcpu = cpu;
        const auto added = one.control.add_sa(std::move(s), {}, one.clock);
        ASSERT_TRUE(added) << added.error().text;
    }
    void ask_for_each_cpu() {
        control::cursor at;
        std::vector<ipsec::policy> changed;
        while (const ipsec::policy* p = one.control.next_policy(at))
            if (p->dir == ipsec::policy_direction::out) changed.push_back(*p);
        for (ipsec::policy& p : changed) {
            p.flags |= ipsec::policy_flag::cpu_acquire;
            ASSERT_TRUE(one.control.update_policy(std::move(p), {}, one.clock));
        }
    }
    /// The SPIs of the ESP that `count` packets on a worker's lane became.
    std::vector<std::uint32_t> spis(unsigned worker, std::uint16_t count = 1) {
        std::vector<frame> packets;
        for (std::uint16_t i = 0; i < count; ++i)
            packets.push_back(make_packet({.host = 10, .number = i}));
        one.push(plain, packets, worker);
        std::vector<std::uint32_t> found;
        for (const frame& f : one.sent(secure))
            found.push_back(wire::load<wire::be32>(f.data() + 20).host());
        return found;
    }
    std::uint64_t handed_over() {
        std::uint64_t sum = 0;
        for (const auto& w : one.workers)
            sum += w->counters().handed_out.get();
        return sum;
    }

    using list = std::vector<std::uint32_t>;
    asked client;
    lab one{1, 1024, 2};
};

TEST_F(PerCpu, EachWorkerTakesTheSaOfItsCpu) {
    one.add_policies({});
    add_sa(0x2000, 0);
    add_sa(0x2001, 1);
    EXPECT_EQ(spis(0, 2), (list{0x2000, 0x2000}));
    EXPECT_EQ(spis(1, 2), (list{0x2001, 0x2001}));
    EXPECT_EQ(handed_over(), 0u);
    EXPECT_TRUE(client.cpus.empty());
}

TEST_F(PerCpu, WhoHasNoneTakesTheOneForAll) {
    one.add_policies({});
    one.add_sas({});
    add_sa(0x2001, 1);
    EXPECT_EQ(spis(0), list{fallback});
    EXPECT_EQ(spis(1), list{0x2001}) << "whichever is newer";
    EXPECT_TRUE(client.cpus.empty()) << "the policy does not ask for more";
}

TEST_F(PerCpu, TheOneForAllMayBeNewer) {
    one.add_policies({});
    add_sa(0x2001, 1);
    one.clock.realtime_s += 10;
    add_sa(0x3000, std::nullopt);
    EXPECT_EQ(spis(0), list{0x3000});
    EXPECT_EQ(spis(1), list{0x2001});
}

TEST_F(PerCpu, ThoseOfOthersCarryNothing) {
    one.add_policies({});
    add_sa(0x2001, 1);
    EXPECT_TRUE(spis(0).empty());
    EXPECT_EQ(client.cpus, std::vector<int>{-1}) << "there is none to fall back to: for all CPUs";
    EXPECT_EQ(one.workers[0]->counters().held.get(), 1u);
    one.add_sas({});
    one.advance(second_ns);
    EXPECT_EQ(one.sent(secure).size(), 1u);
}

TEST_F(PerCpu, AWorkerWithoutItsOwnAsksForItOnceAndGoesOn) {
    one.add_policies({});
    one.add_sas({});
    ask_for_each_cpu();
    EXPECT_EQ(spis(1, 3), (list{fallback, fallback, fallback}));
    EXPECT_EQ(client.cpus, std::vector<int>{1});
    one.clock.monotonic_ns += 2 * second_ns;
    EXPECT_EQ(spis(1), list{fallback});
    EXPECT_EQ(client.cpus, std::vector<int>{1}) << "the larval SA stands for it";
    EXPECT_EQ(spis(0), list{fallback});
    EXPECT_EQ(client.cpus, (std::vector<int>{1, 0}));
    add_sa(0x2001, 1);
    one.clock.monotonic_ns += 2 * second_ns;
    EXPECT_EQ(spis(1), list{0x2001});
    EXPECT_EQ(client.cpus.size(), 2u);
}

TEST_F(PerCpu, AsksAgainWhenTheLarvalSaHasExpired) {
    one.control.set_acquire_expires(5);
    one.add_policies({});
    one.add_sas({});
    ask_for_each_cpu();
    (void)spis(1);
    one.advance(7 * second_ns);
    (void)spis(1);
    EXPECT_EQ(client.cpus, (std::vector<int>{1, 1}));
}

TEST_F(PerCpu, WithoutAnyTheFirstAcquireIsForAllCpus) {
    one.add_policies({});
    ask_for_each_cpu();
    EXPECT_TRUE(spis(1).empty());
    EXPECT_EQ(client.cpus, std::vector<int>{-1});
}

TEST_F(PerCpu, AsksNobodyWhereNobodyAnswers) {
    one.control.answer_acquires(&client, false);
    one.add_policies({});
    one.add_sas({});
    ask_for_each_cpu();
    EXPECT_EQ(spis(1), list{fallback});
    EXPECT_TRUE(client.cpus.empty());
    EXPECT_EQ(one.control.sa_count(), 2u);
}

TEST_F(PerCpu, WorkersStandForTheCpusThatTheyArePinnedTo) {
    one.backend.set_cpus({5, 3});
    one.add_policies({});
    one.add_sas({});
    ask_for_each_cpu();
    add_sa(0x2003, 3);
    add_sa(0x2000, 0); // no worker stands for it
    EXPECT_EQ(spis(1), list{0x2003});
    EXPECT_EQ(spis(0), list{fallback});
    EXPECT_EQ(client.cpus, std::vector<int>{5});
}

TEST_F(PerCpu, ADeletedOneGivesWayToTheOneForAll) {
    one.add_policies({});
    one.add_sas({});
    add_sa(0x2001, 1);
    EXPECT_EQ(spis(1), list{0x2001});
    ipsec::sa_id id = one.sa_of({}, true);
    id.spi = wire::be32(0x2001);
    ASSERT_TRUE(one.control.delete_sa(id, {}));
    EXPECT_EQ(spis(1), list{fallback});
    EXPECT_EQ(spis(0), list{fallback});
}

TEST_F(PerCpu, IsNeitherMovedNorSpread) {
    one.add_policies({});
    add_sa(0x2001, 1);
    EXPECT_EQ(spis(1).size(), 1u);
    ipsec::sa_id id = one.sa_of({}, true);
    id.spi = wire::be32(0x2001);
    EXPECT_FALSE(one.backend.ask_to_move(id, 0));
    EXPECT_EQ(one.backend.spread_sa(id, 2).error().code, EBUSY);
    EXPECT_TRUE(one.backend.loads_of(1).empty());
}

} // namespace
} // namespace esplane::tests

// SPDX-License-Identifier: Apache-2.0
//
// Workers with threads: they sleep, wake, get stuck and come back, and work while control changes
// what they read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <sys/eventfd.h>
#include <thread>
#include <unistd.h>

#include "fastpath/pacing.h"
#include "fastpath/worker_watch.h"
#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using namespace std::chrono_literals;
using fastpath::drop_reason;
using fastpath::grace_period;
using fastpath::pacing;
using fastpath::worker_watch;

using gateway_ports::plain;
using gateway_ports::secure;

template <typename Condition>
bool within(std::chrono::milliseconds longest, Condition holds) {
    const auto deadline = std::chrono::steady_clock::now() + longest;
    while (!holds()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(100us);
    }
    return true;
}

std::chrono::nanoseconds process_cpu_time() {
    timespec t;
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

TEST(Pacing, SleepsOnlyAfterManyLoopsWithoutPackets) {
    pacing p(3);
    for (int i = 0; i < 3; ++i)
        EXPECT_EQ(p.after(false, true).longest.count(), 0);
    EXPECT_EQ(p.after(false, true).longest, pacing::longest_wait);
    EXPECT_TRUE(p.after(false, true).listen);
    EXPECT_EQ(p.after(true, true).longest.count(), 0);
    EXPECT_EQ(p.after(false, true).longest.count(), 0);
}

TEST(Pacing, NapsGrowWhereAPortCannotWake) {
    pacing p(0);
    EXPECT_EQ(p.after(false, false).longest, pacing::first_nap);
    EXPECT_EQ(p.after(false, false).longest, 2 * pacing::first_nap);
    for (int i = 0; i < 10; ++i)
        (void)p.after(false, false);
    EXPECT_EQ(p.after(false, false).longest, pacing::longest_nap);
    EXPECT_FALSE(p.after(false, false).listen);
    (void)p.after(true, false);
    EXPECT_EQ(p.after(false, false).longest, pacing::first_nap);
}

TEST(Pacing, ADescriptorThatWakesForNothingIsNotListenedTo) {
    pacing p(0);
    for (unsigned i = 0; i < pacing::false_alarms; ++i) {
        EXPECT_TRUE(p.after(false, true).listen);
        p.woken_by_port();
    }
    EXPECT_FALSE(p.after(false, true).listen);
    (void)p.after(true, true);
    EXPECT_TRUE(p.after(false, true).listen);
}

TEST(Pacing, AlwaysBusyNeverSleeps) {
    pacing p(~0u);
    for (int i = 0; i < 1000; ++i)
        ASSERT_EQ(p.after(false, false).longest.count(), 0);
}

TEST(GracePeriod, IsOverOnceEachReaderWasQuiescent) {
    std::atomic<int> step{0};
    std::thread other([&] {
        fastpath::reader self;
        step = 1;
        (void)within(10s, [&] { return step == 2; });
        self.quiescent();
        step = 3;
        (void)within(10s, [&] { return step == 4; });
    });
    ASSERT_TRUE(within(10s, [&] { return step == 1; }));
    const auto first = grace_period::begin();
    EXPECT_FALSE(first.over());
    EXPECT_FALSE(first.wait(5ms));
    step = 2;
    ASSERT_TRUE(within(10s, [&] { return step == 3; }));
    EXPECT_TRUE(first.over());
    const auto second = grace_period::begin();
    EXPECT_FALSE(second.over());
    step = 4;
    other.join();
    EXPECT_TRUE(second.over()) << "a reader that is gone sees nothing";
}

TEST(GracePeriod, DoesNotWaitForAReaderThatIsOffline) {
    fastpath::reader self;
    self.offline();
    const auto period = grace_period::begin();
    EXPECT_TRUE(period.over());
    self.online();
    EXPECT_TRUE(period.over());
    EXPECT_FALSE(grace_period::begin().over());
}

TEST(Retired, FreesInOrderAndNothingWhileAReaderMaySeeIt) {
    fastpath::retired graveyard;
    std::vector<int> freed;
    fastpath::reader self;
    graveyard.add([&] { freed.push_back(1); });
    EXPECT_FALSE(graveyard.reclaim());
    graveyard.add([&] { freed.push_back(2); });
    const auto before = std::chrono::steady_clock::now();
    EXPECT_FALSE(graveyard.reclaim());
    EXPECT_LT(std::chrono::steady_clock::now() - before, fastpath::retired::patience / 2)
        << "it had its time";
    EXPECT_EQ(graveyard.held(), 2u);
    EXPECT_TRUE(freed.empty());
    self.quiescent();
    EXPECT_TRUE(graveyard.reclaim());
    EXPECT_EQ(graveyard.held(), 0u);
    EXPECT_THAT(freed, testing::ElementsAre(1, 2));
}

TEST(Backend, AddsNothingWhileTooMuchWaitsForAStuckWorker) {
    lab l(1);
    fastpath::reader stuck;
    for (std::size_t i = 0; i < fastpath::retired::limit; ++i)
        l.tables.graveyard().add([] {});
    EXPECT_FALSE(l.tables.graveyard().reclaim());
    ipsec::sa s;
    s.id = l.sa_of({}, true);
    s.algs = make_algorithms(ipsec::suite::aes128_gcm16, 1);
    s.run_mode = ipsec::mode::tunnel;
    const auto refused = l.backend.add_sa(s, ipsec::packed_sa(s));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ENOBUFS);
    stuck.quiescent();
    EXPECT_TRUE(l.tables.graveyard().reclaim());
    EXPECT_TRUE(l.backend.add_sa(s, ipsec::packed_sa(s)));
}

TEST(WorkerWatch, NamesAWorkerWhoseLoopRestsWhileItIsAwake) {
    worker_watch watch(1);
    fastpath::worker_vitals v;
    std::uint64_t now = 1'000'000'000;
    const auto look = [&] { return watch.look(0, v, now += worker_watch::interval_ns); };
    for (int i = 0; i < 10; ++i)
        EXPECT_EQ(look(), worker_watch::change::none) << "asleep";
    v.running = true;
    v.loops.add(1);
    unsigned looks = 0;
    while (look() == worker_watch::change::none)
        ASSERT_LT(++looks, 20u);
    EXPECT_TRUE(watch.stuck(0));
    EXPECT_GE(looks * worker_watch::interval_ns, worker_watch::stuck_after_ns);
    EXPECT_EQ(look(), worker_watch::change::none) << "said once";
    v.loops.add(1);
    EXPECT_EQ(look(), worker_watch::change::recovered);
    EXPECT_EQ(watch.times_stuck(0), 1u);
}

TEST(WorkerWatch, ALateLookAloneAccusesNobody) {
    worker_watch watch(1);
    fastpath::worker_vitals v;
    v.running = true;
    EXPECT_EQ(watch.look(0, v, 1'000'000'000), worker_watch::change::none);
    EXPECT_EQ(watch.look(0, v, 9'000'000'000), worker_watch::change::none);
}

/// A memory port that can be slept on, and one that holds its worker fast.
class odd_port final : public fastpath::port {
  public:
    explicit odd_port(unsigned lanes)
        : lanes_(lanes)
        , quiet_(::eventfd(0, EFD_CLOEXEC)) {}
    ~odd_port() override { ::close(quiet_); }

    std::atomic<bool> holds{false}; ///< receive() of lane 0 does not return

    [[nodiscard]] unsigned lanes() const noexcept override { return lanes_; }
    [[nodiscard]] std::size_t receive(unsigned lane,
                                      std::span<fastpath::packet>) noexcept override {
        while (lane == 0 && holds)
            std::this_thread::sleep_for(100us);
        return 0;
    }
    [[nodiscard]] std::size_t send(unsigned, std::span<fastpath::packet* const>) noexcept override {
        return 0;
    }
    [[nodiscard]] std::size_t punt(unsigned, std::span<fastpath::packet* const>) noexcept override {
        return 0;
    }
    void flush(unsigned) noexcept override {}
    [[nodiscard]] std::span<const int> descriptors(unsigned) const noexcept override {
        return {&quiet_, 1};
    }
    [[nodiscard]] fastpath::port_counters counters() const noexcept override { return {}; }
    [[nodiscard]] const std::string& name() const noexcept override { return name_; }
    [[nodiscard]] const std::string& device() const noexcept override { return name_; }
    [[nodiscard]] const char* kind() const noexcept override { return "odd"; }
    [[nodiscard]] int ifindex() const noexcept override { return 0; }
    [[nodiscard]] fastpath::port_role role() const noexcept override {
        return fastpath::port_role::plain;
    }

  private:
    unsigned lanes_;
    int quiet_;
    std::string name_ = "odd";
};

/// A lab whose workers have threads, and the odd port beside the others.
struct threaded_lab : lab {
    odd_port odd;
    explicit threaded_lab(bool listens = false)
        : lab(1, 4096, 2)
        , odd(2) {
        workers.clear();
        std::vector<fastpath::port*> all{ports[0].get(), ports[1].get(), &odd};
        if (listens) all = {&odd};
        for (unsigned i = 0; i < 2; ++i) {
            fastpath::worker_options options;
            options.index = i;
            workers.push_back(*fastpath::worker::make(tables, *pool, all, options, &mesh));
        }
        worker = workers.front().get();
    }
    ~threaded_lab() {
        odd.holds = false;
        stop();
    }
    void start() {
        for (const auto& w : workers)
            ASSERT_TRUE(w->start());
    }
    void stop() {
        for (const auto& w : workers)
            w->stop();
    }
};

/// What a sanitizer makes of the path's time.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int slowed = 4;
#elif defined(__has_feature)
constexpr int slowed = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ? 4 : 1;
#else
constexpr int slowed = 1;
#endif

/// The least of three seconds: a busy machine makes every waking dearer.
TEST(Worker, UsesAtMostTwoPercentOfACoreWhenIdle) {
    for (const bool listens : {false, true}) {
        threaded_lab l(listens);
        l.start();
        std::this_thread::sleep_for(100ms);
        auto least = std::chrono::nanoseconds::max();
        for (int second = 0; second < 3; ++second) {
            const auto before = process_cpu_time();
            std::this_thread::sleep_for(1s);
            least = std::min(least, process_cpu_time() - before);
        }
        EXPECT_LE(least, 2 * 20ms * slowed)
            << "two workers, " << (listens ? "with" : "without") << " descriptors";
    }
}

/// What has to be quick has to be so more often than not: the machine may be busy.
constexpr unsigned rounds = 9;

TEST(Worker, TakesAPacketOfAPolledPortWithinMilliseconds) {
    threaded_lab l;
    l.start();
    unsigned in_time = 0;
    for (unsigned i = 0; i < rounds; ++i) {
        std::this_thread::sleep_for(50ms);
        ASSERT_TRUE(l.ports[plain]->inject(with_ethernet(make_packet({})), 1));
        bool has_passed = false;
        const auto passed = [&] {
            return has_passed = has_passed || !l.ports[secure]->take_sent(1).empty();
        };
        in_time += within(20ms, passed);
        ASSERT_TRUE(within(10s, passed));
    }
    EXPECT_GT(in_time, rounds / 2);
}

/// It sleeps on descriptors that never speak, so that only a bell can wake it in time.
TEST(Worker, IsWokenByWhatIsHandedOver) {
    threaded_lab l(true);
    fastpath::enter_lane(0);
    fastpath::outbox from_outside(l.mesh, 0);
    ASSERT_TRUE(l.workers[1]->start());
    const auto& counted = l.workers[1]->counters();
    unsigned in_time = 0;
    for (std::uint64_t i = 1; i <= rounds; ++i) {
        ASSERT_TRUE(within(10s, [&] { return !l.workers[1]->vitals().running; }));
        fastpath::packet p;
        ASSERT_TRUE(l.pool->allocate(p, 64));
        p.note = {0, static_cast<std::uint32_t>(fastpath::handover_phase::outbound), 77};
        l.tables.close(true); // it only counts
        ASSERT_TRUE(from_outside.push(1, p));
        from_outside.publish();
        const auto taken = [&] { return counted.handed_in.get() == i; };
        in_time += within(50ms, taken);
        ASSERT_TRUE(within(10s, taken));
    }
    l.stop();
    EXPECT_GT(in_time, rounds / 2) << "without the bell it sleeps for 100 ms";
    EXPECT_EQ(counted.dropped[static_cast<std::size_t>(drop_reason::closed)].get(), rounds);
}

TEST(Worker, ThatIsStuckIsNamedLosesItsSasAndHoldsUpNobody) {
    threaded_lab l;
    const tunnel_options tunnel;
    l.add_tunnel(tunnel);
    l.start();
    ASSERT_TRUE(l.ports[plain]->inject(with_ethernet(make_packet({})), 0));
    ASSERT_TRUE(within(10s, [&] { return !l.ports[secure]->take_sent(0).empty(); }));

    l.odd.holds = true;
    worker_watch watch(2);
    const auto look = [&](worker_watch::change wanted) {
        std::this_thread::sleep_for(10ms);
        return watch.look(0, l.workers[0]->vitals(), fastpath::now().monotonic_ns) == wanted;
    };
    ASSERT_TRUE(within(10s, [&] { return look(worker_watch::change::stuck); }));
    EXPECT_EQ(l.backend.take_from(0), 1u);
    EXPECT_NE(l.tables.graveyard().held(), 0u);

    ASSERT_TRUE(l.ports[plain]->inject(with_ethernet(make_packet({.number = 5})), 1));
    EXPECT_TRUE(within(10s, [&] { return !l.ports[secure]->take_sent(1).empty(); }));

    const auto before = std::chrono::steady_clock::now();
    for (unsigned i = 0; i < 20; ++i) {
        tunnel_options other;
        other.spi = 0x5000 + 2 * i;
        other.reqid = 100 + i;
        l.add_sas(other);
        l.backend.delete_sa(l.sa_of(other, true));
    }
    EXPECT_LT(std::chrono::steady_clock::now() - before, 1s) << "control goes on";

    l.odd.holds = false;
    ASSERT_TRUE(within(10s, [&] { return look(worker_watch::change::recovered); }));
    EXPECT_TRUE(within(10s, [&] { return l.tables.graveyard().reclaim(); }));
    EXPECT_EQ(l.tables.graveyard().held(), 0u);
    ASSERT_TRUE(l.ports[plain]->inject(with_ethernet(make_packet({.number = 6})), 0));
    EXPECT_TRUE(within(10s, [&] { return !l.ports[secure]->take_sent(1).empty(); }))
        << "the SA is the other worker's now";
    l.stop();
    for (const auto& w : l.workers)
        EXPECT_TRUE(w->counters().balanced());
    EXPECT_EQ(l.pool->free_frames(), l.pool->count());
}

/// Two gateways would be twice the time under a race detector: ESP is made by the first, which
/// gets it back in by the second's keys where a tunnel has both SAs.
TEST(Worker, LosesNoBufferWhileControlChangesEverythingItReads) {
    threaded_lab l;
    for (unsigned i = 0; i < 4; ++i) {
        tunnel_options t;
        t.spi = 0x1000 + 2 * i;
        t.reqid = i + 1;
        t.key_seed = i + 1;
        l.add_sas(t);
    }
    tunnel_options policies;
    policies.reqid = 1;
    l.add_policies(policies);
    l.start();
    std::atomic<bool> done{false};
    std::uint64_t injected = 0;
    std::thread traffic([&] {
        for (unsigned n = 0; !done; ++n) {
            for (unsigned i = 0; i < 16; ++i)
                injected += l.ports[plain]->inject(
                    with_ethernet(
                        make_packet({.host = static_cast<std::uint16_t>(10 + i), .number = n})),
                    (n + i) % 2);
            for (unsigned lane = 0; lane < 2; ++lane)
                for (const frame& f : l.ports[secure]->take_sent(lane))
                    injected += l.ports[secure]->inject(f, 1 - lane); // unknown SPIs, mostly
            (void)l.ports[plain]->take_sent();
            std::this_thread::sleep_for(200us);
        }
    });
    const auto end = std::chrono::steady_clock::now() + 1s;
    for (unsigned round = 0; std::chrono::steady_clock::now() < end; ++round) {
        tunnel_options t;
        t.spi = 0x9000 + 2 * (round % 50);
        t.reqid = 1 + round % 3;
        t.key_seed = 50 + round;
        l.add_sas(t);
        control::sa_usage u;
        (void)l.backend.query_sa(l.sa_of(t, true), u);
        (void)l.backend.ask_to_move(l.sa_of(t, true), round % 2);
        if (round % 8 == 3) l.backend.take_from(round % 2);
        if (round % 4 == 1) l.publish_network();
        for (const bool leaving : {true, false})
            EXPECT_TRUE(l.control.delete_sa(l.sa_of(t, leaving), {}));
        l.poll_events();
    }
    done = true;
    traffic.join();
    EXPECT_TRUE(within(10s, [&] {
        std::uint64_t received = 0;
        bool balanced = true;
        for (const auto& w : l.workers) {
            received += w->counters().received.get();
            balanced = balanced && w->counters().balanced();
        }
        std::uint64_t under_way = 0;
        for (const auto& w : l.workers)
            under_way += w->counters().handed_out.get() - w->counters().handed_in.get();
        return received == injected && balanced && under_way == 0;
    }));
    l.stop();
    for (const auto& w : l.workers)
        EXPECT_TRUE(w->counters().balanced());
    EXPECT_EQ(l.pool->free_frames(), l.pool->count());
    EXPECT_NE(l.workers[0]->counters().handed_in.get() + l.workers[1]->counters().handed_in.get(),
              0u);
}

} // namespace
} // namespace esplane::tests

// SPDX-License-Identifier: Apache-2.0
//
// What a second worker brings: `tools/bench workers`; options as rows.h says.
//
//   memory [lane 0] --> worker 0 --.               many SAs: each by its owner
//   memory [lane 1] --> worker 1 --+--> memory     one fat SA: by both, one of them sends
//
// Ports without a device: each lane always has packets, as fast as it is asked for them.  One and
// two workers take turns, in runs of some 40 ms on pinned CPUs; medians count.  While two CPUs are
// two threads of one core, as hypervisors lend them for seconds now and then, a second worker can
// bring little: such times are sat out.  That a fat SA's packets keep their order is checked in a
// run of its own, by a window of 32.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <sched.h>
#include <thread>

#include "bench/endless_port.h"
#include "bench/rows.h"

namespace esplane::bench {
namespace {

constexpr std::uint32_t frames = 4096;
constexpr auto run_time = std::chrono::milliseconds(40);
constexpr int runs = 15;
constexpr auto patience = std::chrono::seconds(20); ///< for one comparison

/// Which lane a flow arrives on.
enum class arrival {
    by_sa, ///< all flows of an SA on one, as where the far ends are few
    mixed, ///< every flow on every lane, so that no SA has a lane of its own
    one,   ///< all on the first
};

struct scene {
    unsigned workers;
    shape path;
    arrival by;
    bool spread = false;
};

/// A gateway with so many workers, and its traffic.
class gateway {
  public:
    explicit gateway(const scene& s)
        : scene_(s)
        , site_(1, 64)
        , pool_(*fastpath::buffer_pool::make(frames, s.workers))
        , mesh_(s.workers)
        , plain_("plain", *pool_, s.workers)
        , secure_("secure", *pool_, s.workers) {
        program(site_, s.path);
        feed();
        for (unsigned i = 0; i < s.workers; ++i)
            workers_.push_back(
                fastpath::worker::make(site_.tables, *pool_, ports_,
                                       {.index = i, .cpu = static_cast<int>(i), .idle_loops = ~0u},
                                       &mesh_)
                    .value());
        if (s.spread) spread();
    }
    ~gateway() { stop(); }

    void check_order() { secure_.check_order(); }
    [[nodiscard]] std::uint64_t refused() const noexcept { return secure_.refused(); }

    /// Packets a second, in millions.
    [[nodiscard]] double run() {
        start();
        std::this_thread::sleep_for(run_time / 8); // until all threads run
        const auto begun = std::chrono::steady_clock::now();
        const std::uint64_t before = secure_.sent();
        std::this_thread::sleep_for(run_time);
        const std::uint64_t sent = secure_.sent() - before;
        const std::chrono::duration<double, std::micro> time =
            std::chrono::steady_clock::now() - begun;
        stop();
        return static_cast<double>(sent) / time.count();
    }

  private:
    void start() {
        for (const auto& w : workers_)
            if (!w->start()) std::abort();
    }
    void stop() {
        for (const auto& w : workers_)
            w->stop();
    }
    void feed() {
        std::vector<std::vector<frame>> by_lane(scene_.workers);
        for (unsigned f = 0; f < flows; ++f) {
            const unsigned sa = f % scene_.path.sites() % scene_.path.sas;
            const frame packet = tests::with_ethernet(flow_packet(scene_.path, f, 64));
            for (unsigned lane = 0; lane < scene_.workers; ++lane)
                if (scene_.by == arrival::mixed ||
                    lane == (scene_.by == arrival::by_sa ? sa % scene_.workers : 0))
                    by_lane[lane].push_back(packet);
        }
        for (unsigned i = 0; i < scene_.workers; ++i)
            plain_.feed(i, std::move(by_lane[i]));
    }
    /// The SA has an owner from its first packet on.
    void spread() {
        start();
        std::this_thread::sleep_for(run_time);
        const auto done = site_.backend.spread_sa(site_.sa_of(tunnel(0), true), scene_.workers);
        std::this_thread::sleep_for(run_time);
        stop();
        if (!done) std::abort();
    }

    scene scene_;
    lab site_; ///< its tables and control layer
    std::unique_ptr<fastpath::buffer_pool> pool_;
    fastpath::handover_mesh mesh_;
    endless_port plain_, secure_;
    std::array<fastpath::port*, 2> ports_{&plain_, &secure_};
    std::vector<std::unique_ptr<fastpath::worker>> workers_;
};

/// Keeps other work of the machine from being measured.
void prefer_us() {
    std::ofstream("/proc/self/autogroup") << "-15";
}

/// How much the first `cpus` copy inside their first-level caches, all at once, in 3 ms.
std::uint64_t copied(unsigned cpus) {
    std::atomic<std::uint64_t> sum{0};
    const auto copy = [&sum](unsigned cpu) {
        cpu_set_t own;
        CPU_ZERO(&own);
        CPU_SET(cpu, &own);
        ::sched_setaffinity(0, sizeof own, &own);
        alignas(64) std::array<std::uint8_t, 8192> from{}, to;
        std::uint64_t n = 0;
        for (const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(3);
             std::chrono::steady_clock::now() < end; ++n) {
            to = from;
            benchmark::DoNotOptimize(to.data());
            benchmark::ClobberMemory();
        }
        sum += n;
    };
    std::vector<std::thread> threads;
    for (unsigned cpu = 0; cpu < cpus; ++cpu)
        threads.emplace_back(copy, cpu);
    for (std::thread& t : threads)
        t.join();
    return sum;
}

/// Whether so many CPUs are as many cores: 2.0 times the copies of one, threads of a core 1.7.
bool are_cores(unsigned cpus) {
    constexpr double enough = 0.93;
    return static_cast<double>(copied(cpus)) > enough * cpus * static_cast<double>(copied(1));
}

double median(std::vector<double> all) {
    std::nth_element(all.begin(), all.begin() + all.size() / 2, all.end());
    return all[all.size() / 2];
}

figure_row compare(std::string name, const scene& s, double limit) {
    if (std::thread::hardware_concurrency() < s.workers)
        return not_measured(std::move(name), "needs two CPUs");
    prefer_us();
    scene alone = s;
    alone.workers = 1;
    alone.spread = false;
    gateway one(alone), all(s);
    std::vector<double> single, together;
    const auto latest = std::chrono::steady_clock::now() + patience;
    while (single.size() < runs) {
        if (!are_cores(s.workers) && std::chrono::steady_clock::now() < latest) {
            std::this_thread::sleep_for(run_time);
            continue;
        }
        single.push_back(one.run());
        together.push_back(all.run());
    }
    std::array<char, 96> note;
    std::snprintf(note.data(), note.size(), "%.2f and %.2f million packets/s", median(single),
                  median(together));
    return {
        std::move(name), median(together) / median(single), "x", figure_row::bound::at_least, limit,
        note.data()};
}

figure_rows measure_many() {
    return {compare("many_sas_64", {2, {true, 1000, 64}, arrival::by_sa}, 1.8)};
}

/// Without a target: half of the packets arrive where their SA's owner is not.
figure_rows measure_mixed() {
    return {compare("many_sas_64_mixed", {2, {true, 1000, 64}, arrival::mixed}, 0)};
}

figure_rows measure_fat() {
    const scene s{2, {true, 1, 1420}, arrival::mixed, true};
    figure_rows rows{compare("fat_sa_1420", s, 1.6)};
    if (!rows[0].there) return rows;
    gateway checked(s);
    checked.check_order();
    for (int i = 0; i < 5; ++i)
        (void)checked.run();
    rows.push_back({"fat_sa_refused", static_cast<double>(checked.refused()), "",
                    figure_row::bound::at_most, 0, "packets that a window of 32 did not take"});
    return rows;
}

/// Without a target: one flow, or a few that one queue receives.
figure_rows measure_fat_on_one_lane() {
    return {compare("fat_sa_1420_one_lane", {2, {true, 1, 1420}, arrival::one, true}, 0)};
}

constexpr row_group groups[] = {
    {"many", measure_many},
    {"mixed", measure_mixed},
    {"fat", measure_fat},
    {"one-lane", measure_fat_on_one_lane},
};

} // namespace
} // namespace esplane::bench

int main(int argc, char** argv) {
    return esplane::bench::run_rows("workers", esplane::bench::groups, argc, argv);
}

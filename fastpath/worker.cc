// SPDX-License-Identifier: Apache-2.0
#include "fastpath/worker.h"

#include <algorithm>
#include <cassert>
#include <ctime>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fastpath/numa.h"
#include "fastpath/quiescence.h"

namespace esplane::fastpath {

namespace {

/// The longest sleep while packets wait for their next hop.
constexpr std::chrono::milliseconds with_held{1};
/// The same while they wait for an SA.
constexpr std::chrono::milliseconds with_waiting{5};
constexpr std::size_t descriptors_of_port = 16;
/// Taken over from each other worker in one loop, at most.
constexpr unsigned bursts_of_others = 4;

} // namespace

moment now() noexcept {
    timespec mono, real;
    ::clock_gettime(CLOCK_MONOTONIC, &mono);
    ::clock_gettime(CLOCK_REALTIME_COARSE, &real);
    return {static_cast<std::uint64_t>(mono.tv_sec) * 1'000'000'000u +
                static_cast<std::uint64_t>(mono.tv_nsec),
            static_cast<std::uint64_t>(real.tv_sec)};
}

result<std::unique_ptr<worker>> worker::make(tables& shared, buffer_pool& buffers,
                                             std::span<port* const> ports, worker_options options,
                                             handover_mesh* mesh) {
    const node_scope here(node_of_cpu(options.cpu));
    auto engine = crypto::engine::make(options.crypto);
    if (!engine) return tl::unexpected(engine.error());
    const int wake = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake < 0) return fail_errno("eventfd");
    return std::unique_ptr<worker>(
        new worker(shared, buffers, ports, options, mesh, std::move(*engine), wake));
}

worker::worker(tables& shared, buffer_pool& buffers, std::span<port* const> ports,
               worker_options options, handover_mesh* mesh, std::unique_ptr<crypto::engine> engine,
               int wake)
    : options_(options)
    , crypto_(std::move(engine))
    , ports_(ports.begin(), ports.end())
    , mesh_(mesh != nullptr && mesh->workers() > 1 ? mesh : nullptr)
    , outbox_(mesh_ != nullptr ? std::make_optional<outbox>(*mesh_, options.index) : std::nullopt)
    , pipeline_(shared, *crypto_, buffers, ports_, options.index, outbox_ ? &*outbox_ : nullptr)
    , wake_(wake) {
    if (mesh_ != nullptr) mesh_->join(options.index, wake_);
    pipeline_.limit_punts(options_.punts);
    waits_.reserve(1 + ports_.size() * descriptors_of_port);
}

worker::~worker() {
    stop();
    ::close(wake_);
}

result<void> worker::start() {
    assert(!thread_.joinable());
    stopping_ = false;
    at_work_ = true;
    thread_ = std::thread([this] {
        loop();
        at_work_ = false;
    });
    if (options_.cpu < 0) return {};
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(options_.cpu), &set);
    if (const int code = ::pthread_setaffinity_np(thread_.native_handle(), sizeof set, &set)) {
        stop();
        return fail(code, "CPU " + std::to_string(options_.cpu) +
                              " is not there for the worker: choose another (--cpus)");
    }
    return {};
}

void worker::stop() {
    if (!thread_.joinable()) return;
    ask_to_stop();
    thread_.join();
}

void worker::ask_to_stop() noexcept {
    stopping_ = true;
    const std::uint64_t one = 1;
    (void)!::write(wake_, &one, sizeof one);
}

std::size_t worker::run_once(moment when) noexcept {
    enter_lane(options_.index);
    pipeline_.tend(when); // first: what waited must not be overtaken by what comes now
    const std::size_t handed = mesh_ != nullptr ? take_over(when) : 0;
    std::size_t total = handed;
    for (std::size_t i = 0; i < ports_.size(); ++i) {
        if (!serves(*ports_[i])) continue;
        const std::size_t n = ports_[i]->receive(options_.index, burst_);
        if (n == 0) continue;
        pipeline_.process({burst_.data(), n}, static_cast<std::uint8_t>(i), when);
        total += n;
    }
    if (mesh_ != nullptr) {
        mesh_->note_arrivals(options_.index, total != handed);
        if (pipeline_.release_spread(when)) ++total;
    }
    for (port* p : ports_) {
        if (!serves(*p)) continue;
        if (p->twin_apart()) pipeline_.relay(*p, when);
        p->flush(options_.index);
    }
    if (outbox_) outbox_->publish(); // last: what was pushed in all bursts
    wake_control();
    return total;
}

/// What the others began, so much of each that the ports get their turn too.
std::size_t worker::take_over(moment when) noexcept {
    std::size_t total = 0;
    std::array<packet*, max_burst> handed;
    for (unsigned from = 0; from < mesh_->workers(); ++from) {
        if (from == options_.index) continue;
        handover_ring& ring = mesh_->ring(from, options_.index);
        for (unsigned burst = 0; burst < bursts_of_others; ++burst) {
            const std::size_t n = ring.peek(handed);
            if (n == 0) break;
            for (packet* p : std::span(handed).first(n))
                __builtin_prefetch(p->data);
            pipeline_.take_over(std::span(handed).first(n), when);
            ring.release(n);
            total += n;
        }
    }
    return total;
}

void worker::loop() noexcept {
    reader self;
    for (port* p : ports_)
        if (serves(*p)) p->enter(options_.index);
    listens_ = listen();
    vitals_.running.store(true, std::memory_order_relaxed);
    pacing pace(options_.idle_loops);
    bool worked = false;
    for (std::uint64_t last_ns = 0; !stopping_.load(std::memory_order_relaxed);) {
        const moment when = now();
        if (worked) vitals_.busy_ns.add(when.monotonic_ns - last_ns);
        last_ns = when.monotonic_ns;
        worked = run_once(when) != 0;
        self.quiescent();
        vitals_.loops.add(1);
        (worked ? pipeline_.counters().busy_loops : pipeline_.counters().idle_loops).add(1);
        const pacing::rest rest = pace.after(worked, listens_);
        if (rest.longest.count() != 0) sleep(self, pace, rest);
    }
    vitals_.running.store(false, std::memory_order_relaxed);
    for (port* p : ports_)
        if (serves(*p)) p->leave(options_.index);
}

/// Fills waits_: our own descriptor, then the ports'.  Anew for each sleep: a device that came back
/// has others.  False: a port has none.
bool worker::listen() noexcept {
    waits_.assign(1, {wake_, POLLIN, 0});
    bool all = true;
    for (const port* p : ports_) {
        if (!serves(*p)) continue;
        const std::span<const int> own = p->descriptors(options_.index);
        all = all && !own.empty();
        for (const int fd : own)
            if (waits_.size() < waits_.capacity()) waits_.push_back({fd, POLLIN, 0});
    }
    return all;
}

/// Offline until a port has frames, another worker hands some over, somebody stops us, held packets
/// are due, or the rest is over.
void worker::sleep(reader& self, pacing& pace, const pacing::rest& rest) noexcept {
    using std::chrono::microseconds;
    if (mesh_ != nullptr && !mesh_->lie_down(options_.index)) return;
    if (mesh_ != nullptr && pipeline_.awaits_release()) {
        mesh_->get_up(options_.index);
        return;
    }
    microseconds longest = rest.longest;
    if (pipeline_.awaits_sas()) longest = std::min<microseconds>(longest, with_waiting);
    if (pipeline_.holds_packets()) longest = std::min<microseconds>(longest, with_held);
    const timespec timeout{0, std::chrono::nanoseconds(longest).count()};
    listens_ = listen();
    const std::size_t waits = rest.listen ? waits_.size() : 1;
    vitals_.running.store(false, std::memory_order_relaxed);
    self.offline();
    const int woken = ::ppoll(waits_.data(), waits, &timeout, nullptr);
    self.online();
    vitals_.running.store(true, std::memory_order_relaxed);
    if (mesh_ != nullptr) mesh_->get_up(options_.index);
    std::uint64_t count = 0;
    const bool called = ::read(wake_, &count, sizeof count) > 0;
    if (woken > 0 && !called) pace.woken_by_port();
}

void worker::wake_control() noexcept {
    if (options_.wake_control < 0 || pipeline_.events().empty()) return;
    const std::uint64_t one = 1;
    (void)!::write(options_.wake_control, &one, sizeof one);
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "fastpath/worker.h"

#include <cassert>
#include <ctime>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fastpath/quiescence.h"

namespace esplane::fastpath {

namespace {

constexpr int sleep_ms = 100;
constexpr int sleep_with_held_ms = 1;
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
    auto engine = crypto::engine::make();
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
    if (mesh_ != nullptr) mesh_->set_bell(options.index, wake_);
    pipeline_.limit_punts(options_.punts);
    waits_.push_back({wake_, POLLIN, 0});
    for (const port* p : ports_)
        if (serves(*p))
            for (const int fd : p->descriptors(options_.index))
                waits_.push_back({fd, POLLIN, 0});
}

worker::~worker() {
    stop();
    ::close(wake_);
}

result<void> worker::start() {
    assert(!thread_.joinable());
    stopping_ = false;
    thread_ = std::thread([this] { loop(); });
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
    stopping_ = true;
    const std::uint64_t one = 1;
    (void)!::write(wake_, &one, sizeof one);
    thread_.join();
}

std::size_t worker::run_once(moment when) noexcept {
    enter_lane(options_.index);
    pipeline_.tend(when); // first: what waited must not be overtaken by what comes now
    std::size_t total = mesh_ != nullptr ? take_over(when) : 0;
    for (std::size_t i = 0; i < ports_.size(); ++i) {
        if (!serves(*ports_[i])) continue;
        const std::size_t n = ports_[i]->receive(options_.index, burst_);
        if (n == 0) continue;
        pipeline_.process({burst_.data(), n}, static_cast<std::uint8_t>(i), when);
        total += n;
    }
    for (port* p : ports_) {
        if (!serves(*p)) continue;
        if (p->twin_apart()) pipeline_.relay(*p, when);
        p->flush(options_.index);
    }
    if (outbox_) outbox_->publish(); // last: who owns an SA from here on sends after us
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
    std::uint32_t idle = 0;
    while (!stopping_.load(std::memory_order_relaxed)) {
        const std::size_t n = run_once(now());
        self.quiescent();
        if (n != 0) {
            idle = 0;
            pipeline_.counters().busy_loops.add(1);
        } else if (++idle >= options_.idle_loops) {
            sleep(self);
            idle = 0;
        } else
            pipeline_.counters().idle_loops.add(1);
    }
    for (port* p : ports_)
        if (serves(*p)) p->leave(options_.index);
}

/// Offline until a port has frames, another worker hands some over, somebody stops us, or held
/// packets are due.
void worker::sleep(reader& self) noexcept {
    if (mesh_ != nullptr && !mesh_->lie_down(options_.index)) return;
    self.offline();
    ::poll(waits_.data(), waits_.size(), pipeline_.holds_packets() ? sleep_with_held_ms : sleep_ms);
    self.online();
    if (mesh_ != nullptr) mesh_->get_up(options_.index);
    std::uint64_t count = 0;
    (void)!::read(wake_, &count, sizeof count);
}

void worker::wake_control() noexcept {
    if (options_.wake_control < 0 || pipeline_.events().empty()) return;
    const std::uint64_t one = 1;
    (void)!::write(options_.wake_control, &one, sizeof one);
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// The loop on a pinned CPU: take over what other workers began, receive from every port, run the
// pipeline, send, hand over, be quiescent.
//
// A worker without a thread (never started) is driven by run_once(): tests, benchmarks and the
// offline engine do that.  With a thread it polls while there is traffic and sleeps after a while
// without (pacing.h); asleep it is offline for the tables.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <poll.h>
#include <span>
#include <thread>
#include <vector>

#include "fastpath/handover.h"
#include "fastpath/pacing.h"
#include "fastpath/pipeline.h"
#include "fastpath/quiescence.h"

namespace esplane::fastpath {

/// idle_loops of a worker that serves the machine itself: it shares CPUs with the applications
/// whose packets it waits for, and each loop is a few system calls.
inline constexpr std::uint32_t idle_loops_on_host = 32;

struct worker_options {
    unsigned index = 0;             ///< its lane of all ports; below max_lanes
    int cpu = -1;                   ///< to pin to; -1 = leave it to the scheduler
    std::uint32_t idle_loops = 512; ///< without a packet before it sleeps; ~0u = it never does
    int wake_control = -1;          ///< eventfd to write to when events wait; -1 = none
    punt_rates punts;               ///< this worker's share; without limits where none are set
    crypto::engine_options crypto;
};

/// Whether a worker lives, and how much it works.  Written by the worker, read by control.
struct worker_vitals {
    counter loops;                    ///< moves while it runs
    counter busy_ns;                  ///< in loops that had packets
    std::atomic<bool> running{false}; ///< neither asleep nor ended: `loops` must move
};

class worker {
  public:
    /// All but the options outlive the worker.  Errors: ENOTSUP (crypto::engine), EMFILE.
    /// mesh   the way to the other workers; nullptr: there are none
    [[nodiscard]] static result<std::unique_ptr<worker>> make(tables& shared, buffer_pool& buffers,
                                                              std::span<port* const> ports,
                                                              worker_options options,
                                                              handover_mesh* mesh = nullptr);
    ~worker();
    worker(const worker&) = delete;
    worker& operator=(const worker&) = delete;

    /// Starts the thread.  Errors: EINVAL where the CPU is not there.
    [[nodiscard]] result<void> start();
    /// Ends it; returns when it is gone.
    void stop();
    /// Lets it end, and does not wait.
    void ask_to_stop() noexcept;
    /// Between start() and the end of its thread.
    [[nodiscard]] bool is_at_work() const noexcept { return at_work_.load(); }

    /// One loop by the caller's thread.  Returns how many packets came in.  Not while started.
    std::size_t run_once(moment now) noexcept;

    [[nodiscard]] const worker_counters& counters() const noexcept { return pipeline_.counters(); }
    [[nodiscard]] const worker_vitals& vitals() const noexcept { return vitals_; }
    [[nodiscard]] int cpu() const noexcept { return options_.cpu; } ///< -1: any
    /// Read by control: what the worker has to say.
    [[nodiscard]] event_ring& events() noexcept { return pipeline_.events(); }
    [[nodiscard]] const crypto::engine& engine() const noexcept { return *crypto_; }

  private:
    worker(tables& shared, buffer_pool& buffers, std::span<port* const> ports,
           worker_options options, handover_mesh* mesh, std::unique_ptr<crypto::engine> engine,
           int wake);
    /// Whether a port has a lane for this worker.
    [[nodiscard]] bool serves(const port& p) const noexcept { return options_.index < p.lanes(); }
    [[nodiscard]] std::size_t take_over(moment now) noexcept;
    void loop() noexcept;
    void sleep(reader& self, pacing& pace, const pacing::rest& rest) noexcept;
    [[nodiscard]] bool listen() noexcept;
    void wake_control() noexcept;

    worker_options options_;
    std::unique_ptr<crypto::engine> crypto_;
    std::vector<port*> ports_;
    handover_mesh* mesh_;          ///< nullptr where this is the only worker
    std::optional<outbox> outbox_; ///< where mesh_ is
    pipeline pipeline_;
    std::array<packet, max_burst> burst_;
    std::vector<pollfd> waits_; ///< what a sleep waits on: wake_, then the ports
    bool listens_ = true;       ///< every port has descriptors
    int wake_;                  ///< eventfd that ends a sleep
    worker_vitals vitals_;
    std::atomic<bool> stopping_{false};
    std::atomic<bool> at_work_{false};
    std::thread thread_;
};

/// The time as both clocks have it.
[[nodiscard]] moment now() noexcept;

} // namespace esplane::fastpath

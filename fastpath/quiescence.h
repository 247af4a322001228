// SPDX-License-Identifier: Apache-2.0
//
// When may memory that workers could still see be freed?  Once each of them was quiescent.
//
// Each thread that reads tables is a reader: it says once per loop that it holds no pointer into
// them, and goes offline while it sleeps.  Control begins a grace period after it has taken
// something out; when the period is over, no reader can see that thing any more.  (QSBR, as in
// liburcu; why not liburcu's own: doc/decisions.)
//
//   control   take out -- begin() ------------------------- over(): free
//   reader A  ....uses....quiescent()....uses....
//   reader B  ..uses......uses.........quiescent()....
//
// Nobody waits longer than it wants to: a period can be asked about, again and again, and a reader
// that is stuck delays what was taken out meanwhile, and nothing else.
// Threads: a reader belongs to its thread, a period to its caller; registering takes a lock.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace esplane::fastpath {

namespace detail {
/// How many grace periods have begun in this process; 0 is "offline" where a reader has seen it.
inline std::atomic<std::uint64_t> grace_periods{1};
} // namespace detail

/// A thread that reads tables.  Made and ended by that thread; online from the start.
class alignas(64) reader {
  public:
    reader();
    ~reader();
    reader(const reader&) = delete;
    reader& operator=(const reader&) = delete;

    /// Nothing that was read before is used from now on.
    void quiescent() noexcept {
        const std::uint64_t now = detail::grace_periods.load(std::memory_order_acquire);
        if (seen_.load(std::memory_order_relaxed) != now)
            seen_.store(now, std::memory_order_release);
    }
    /// Reads nothing until it is online again.
    void offline() noexcept { seen_.store(0, std::memory_order_release); }
    void online() noexcept;

  private:
    friend class grace_period;
    /// The number of the newest period that began before this reader was last quiescent.
    std::atomic<std::uint64_t> seen_{0};
};

/// From begin() until every reader that was online then has been quiescent.
class grace_period {
  public:
    [[nodiscard]] static grace_period begin() noexcept;
    [[nodiscard]] bool over() const noexcept;
    /// Waits for that; false where it takes longer than `longest`.
    [[nodiscard]] bool wait(std::chrono::nanoseconds longest) const noexcept;

  private:
    explicit grace_period(std::uint64_t number) noexcept
        : number_(number) {}
    std::uint64_t number_;
};

} // namespace esplane::fastpath

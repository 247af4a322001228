// SPDX-License-Identifier: Apache-2.0
//
// How long a worker sleeps: not at all under load; without packets until a descriptor says that
// there are some, or, where a port has none to sleep on, for a nap that grows.
//
//   naps      50 us, doubled up to 2 ms: the longest that a packet waits for a polled port, and
//             under 2 % of a core
//   waits     100 ms: then the worker looks by itself
//
// A descriptor that keeps waking a worker for nothing (a device that went down) is not listened to
// until packets come: naps instead.
// Threads: the worker's.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>

namespace esplane::fastpath {

class pacing {
  public:
    static constexpr std::chrono::microseconds first_nap{50};
    static constexpr std::chrono::microseconds longest_nap{2000};
    static constexpr std::chrono::microseconds longest_wait{100'000};
    /// Wakes by descriptors without a packet before they are ignored.
    static constexpr unsigned false_alarms = 8;

    struct rest {
        std::chrono::microseconds longest{0}; ///< 0: none, go on
        bool listen = false;                  ///< to the ports' descriptors
    };

    /// busy_loops    without a packet before the first sleep; ~0u: it never sleeps
    explicit pacing(std::uint32_t busy_loops) noexcept
        : busy_loops_(busy_loops) {}

    /// After a loop.  worked   it had packets.  can_listen   every port has descriptors
    [[nodiscard]] rest after(bool worked, bool can_listen) noexcept {
        if (worked) {
            idle_ = alarms_ = 0;
            nap_ = first_nap;
            return {};
        }
        if (idle_ < busy_loops_) {
            if (busy_loops_ != ~0u) ++idle_;
            return {};
        }
        if (can_listen && alarms_ < false_alarms) return {longest_wait, true};
        return {std::exchange(nap_, std::min(2 * nap_, longest_nap)), false};
    }
    /// After a sleep that a port's descriptor ended.
    void woken_by_port() noexcept {
        if (alarms_ < false_alarms) ++alarms_;
    }

  private:
    std::uint32_t busy_loops_;
    std::uint32_t idle_ = 0;
    unsigned alarms_ = 0; ///< wakes by descriptors since there was a packet
    std::chrono::microseconds nap_ = first_nap;
};

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// Lifetimes of SAs and policies: limits and current values, by XFRM's rules.
//
// Limits in time hang on the wall clock in seconds, as XFRM shows them; timers run on the
// monotonic clock.  Limits in bytes and packets are enforced where packets are counted.
#pragma once

#include <cstdint>
#include <optional>

#include "lib/base/clock.h"

namespace esplane::ipsec {

/// A limit that is not there (XFRM_INF).
inline constexpr std::uint64_t no_limit = ~std::uint64_t{0};

struct lifetime_limits {
    std::uint64_t soft_bytes = no_limit;
    std::uint64_t hard_bytes = no_limit;
    std::uint64_t soft_packets = no_limit;
    std::uint64_t hard_packets = no_limit;
    std::uint64_t soft_add_s = 0; ///< seconds since the SA was added; 0 = none
    std::uint64_t hard_add_s = 0;
    std::uint64_t soft_use_s = 0; ///< seconds since it was first used; 0 = none
    std::uint64_t hard_use_s = 0;

    friend bool operator==(const lifetime_limits&, const lifetime_limits&) = default;
};

struct lifetime_current {
    std::uint64_t bytes = 0; ///< inner IP bytes
    std::uint64_t packets = 0;
    std::uint64_t add_time = 0; ///< CLOCK_REALTIME seconds
    std::uint64_t use_time = 0; ///< CLOCK_REALTIME seconds of the first use; 0 = never

    friend bool operator==(const lifetime_current&, const lifetime_current&) = default;
};

/// Since when an object is there and since when it is used, on the monotonic clock: a step of the
/// wall clock expires nothing.  Negative for what is older than the machine's start.
struct lifetime_origin {
    std::int64_t added_ns = 0;
    std::optional<std::int64_t> used_ns; ///< nullopt = limits since use do not run
};

/// The monotonic moment of a time on the wall clock, as both stand `now`.  A time in the future is
/// taken for `now`.
[[nodiscard]] std::int64_t monotonic_of(std::uint64_t realtime_s, moment now) noexcept;

enum class lifetime_verdict : std::uint8_t { running, soft, hard };

struct lifetime_check {
    lifetime_verdict verdict = lifetime_verdict::running;
    /// When the next limit is due, CLOCK_MONOTONIC; nullopt = none is.
    std::optional<std::int64_t> next_ns;
};

/// Holds the limits in time against the clock: xfrm_timer_handler().
///
/// soft_done   the soft limit was announced: only the hard ones count
[[nodiscard]] lifetime_check check_time_limits(const lifetime_limits& limits,
                                               const lifetime_origin& origin, bool soft_done,
                                               std::int64_t now_ns) noexcept;

/// The earliest of all limits in time, passed or not; nullopt where there is none.
[[nodiscard]] std::optional<std::int64_t> first_time_limit(const lifetime_limits& limits,
                                                           const lifetime_origin& origin) noexcept;

/// Holds the limits in bytes and packets against what was counted: xfrm_state_check_expire().
[[nodiscard]] lifetime_verdict check_count_limits(const lifetime_limits& limits,
                                                  const lifetime_current& current,
                                                  bool soft_done) noexcept;

} // namespace esplane::ipsec

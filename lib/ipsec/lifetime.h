// SPDX-License-Identifier: Apache-2.0
//
// Lifetimes of SAs and policies: limits and current values, by XFRM's rules.
//
// Limits in time hang on the wall clock in seconds, as XFRM shows them; timers run on the
// monotonic clock.  Limits in bytes and packets are enforced where packets are counted.
#pragma once

#include <cstdint>

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
    std::uint64_t bytes = 0;   ///< inner IP bytes
    std::uint64_t packets = 0;
    std::uint64_t add_time = 0; ///< CLOCK_REALTIME seconds
    std::uint64_t use_time = 0; ///< CLOCK_REALTIME seconds of the first use; 0 = never

    friend bool operator==(const lifetime_current&, const lifetime_current&) = default;
};

} // namespace esplane::ipsec

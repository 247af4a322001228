// SPDX-License-Identifier: Apache-2.0
//
// Time is a parameter: nobody below tools/ asks the operating system what time it is.
#pragma once

#include <cstdint>

namespace esplane {

/// A moment, as both clocks saw it.  The caller reads them once per loop.
struct moment {
    std::uint64_t monotonic_ns = 0; ///< CLOCK_MONOTONIC, nanoseconds: intervals, timers
    std::uint64_t realtime_s = 0;   ///< CLOCK_REALTIME, seconds: what XFRM shows to clients
};

} // namespace esplane

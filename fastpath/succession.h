// SPDX-License-Identifier: Apache-2.0
//
// What passes from the object of an SA that was taken from a worker to the one in its place.
//
// The worker may be in the middle of a burst and come back to it at any time, so nothing of the old
// object is exact, and nothing may happen twice.  Outbound: the new one begins so far above the
// last sequence number seen that the rest of that burst cannot reach it, and takes nonces of its
// own. Inbound: the old owner looks whether it still is the owner after it has committed a number,
// and drops the packet where not; the window is copied after a barrier that makes one of the two
// see the other.  What is counted on the old object after the copy is added up by who asks.
#pragma once

#include <cstdint>

#include "fastpath/sa.h"

namespace esplane::fastpath {

/// What an SA has counted; sums over its objects are exact.
struct sa_counts {
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::uint64_t integrity_failed = 0;
    std::uint64_t replay = 0;
    std::uint64_t replay_too_old = 0;

    sa_counts& operator+=(const sa_counts& other) noexcept;
    sa_counts& operator-=(const sa_counts& other) noexcept;
};
[[nodiscard]] sa_counts counts_of(const sa_in& sa) noexcept;
[[nodiscard]] sa_counts counts_of(const sa_out& sa) noexcept;

/// What one burst can send, and the one number that may be taken and not yet shown.
inline constexpr std::uint64_t sequence_margin = max_burst + 1;

/// Returns what `next` begins to count from.  `old` was abandoned, and a barrier passed, before.
sa_counts continue_from(sa_in& next, const sa_in& old) noexcept;
/// margin   0 where no worker owned the old one
sa_counts continue_from(sa_out& next, const sa_out& old,
                        std::uint64_t margin = sequence_margin) noexcept;

} // namespace esplane::fastpath

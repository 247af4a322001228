// SPDX-License-Identifier: Apache-2.0
//
// Lanes: what is worker 0's alone, what is worker 1's, and so on.
//
// Ports have queues and the buffer pool has a stack of free frames for each lane, so that workers
// share none of them.  Which lane a call belongs to is a matter of the thread that makes it.
#pragma once

namespace esplane::fastpath {

/// Workers of one engine, and so lanes: 0 to max_lanes - 1.
inline constexpr unsigned max_lanes = 64;

namespace detail {
inline thread_local unsigned lane = 0;
} // namespace detail

/// The lane of this thread; 0 where nobody has said otherwise.
[[nodiscard]] inline unsigned this_lane() noexcept {
    return detail::lane;
}
/// From now on this thread works for a lane.
inline void enter_lane(unsigned lane) noexcept {
    detail::lane = lane;
}

} // namespace esplane::fastpath

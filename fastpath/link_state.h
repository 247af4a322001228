// SPDX-License-Identifier: Apache-2.0
//
// Whether frames can pass by a device of the kernel's.
//
// Threads: any; each call asks the kernel.
#pragma once

#include <cstdint>
#include <string>

namespace esplane::fastpath {

enum class link_state : std::uint8_t {
    gone,     ///< there is no such device
    disabled, ///< by who administers it
    no_link,  ///< no carrier, or not ready for traffic
    up,
};

[[nodiscard]] link_state link_of(const std::string& device);

/// Why nothing passes, and what to do where somebody has to; "" where it is up.
[[nodiscard]] std::string why_down(link_state s, const std::string& device);
/// Why a device that is there again is not taken up: a worker is in a call on the one before.
[[nodiscard]] std::string why_waiting(unsigned worker);

} // namespace esplane::fastpath

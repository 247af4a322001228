// SPDX-License-Identifier: Apache-2.0
//
// Frames on their way up to the machine's stack.
//
// A netdev takes nothing back from an AF_XDP socket; frames go up as "live frames" of
// BPF_PROG_TEST_RUN, through a program that passes them on as if they had arrived on the device.
// That is a system call of some 12 microseconds a frame.  It is made by the worker itself, after
// its sends, and for a bounded number a loop: a thread would need a ring across cores, and a core,
// to save a stall that the rx rings outlast; what goes this way is the machine's own traffic,
// little beside what passes through. Threads: the worker's.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "lib/wire/headers.h"

namespace esplane::fastpath {

class punt_queue {
  public:
    static constexpr std::size_t capacity = 256;
    static constexpr std::size_t frames_a_loop = 8;
    /// Places that only urgent frames (IKE) may take.
    static constexpr std::size_t urgent_share = 32;
    /// What a live frame has room for beside the kernel's own headers in a page.
    static constexpr std::size_t max_frame = 3328;

    /// program   a file descriptor that outlives the queue
    /// source    if not all zero, put into each frame as source MAC address
    punt_queue(int program, int ifindex, const wire::mac_address& source);

    /// Copies a frame; false where there is no room for it.
    [[nodiscard]] bool push(std::span<const std::uint8_t> frame, bool urgent) noexcept;
    /// Hands up to `frames_a_loop` frames to the kernel.  Returns how many it took and refused.
    struct outcome {
        std::size_t taken = 0;
        std::size_t refused = 0;
    };
    outcome hand_up() noexcept;
    /// The device is another now.  Loses what waits; returns how many frames.
    std::size_t restart(int ifindex, const wire::mac_address& source) noexcept;

  private:
    struct slot {
        std::uint32_t length = 0;
        std::array<std::uint8_t, max_frame> bytes;
    };
    [[nodiscard]] bool inject(slot& s) const noexcept;

    int program_;
    int ifindex_;
    wire::mac_address source_;
    std::unique_ptr<std::array<slot, capacity>> slots_;
    std::size_t head_ = 0; ///< oldest
    std::size_t used_ = 0;
};

} // namespace esplane::fastpath

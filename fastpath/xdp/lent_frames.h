// SPDX-License-Identifier: Apache-2.0
//
// Which frames of the pool the kernel has, and from which lane: a socket that is closed does not
// give them back.
//
// Threads: of each lane its own worker's.  A frame bears a lane's mark from that lane's lend()
// until the same lane's returned() or take_back(), so whoever looks for its own marks reads what it
// wrote itself, and of others' entries only that they are not its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "fastpath/buffer_pool.h"
#include "fastpath/lane.h"

namespace esplane::fastpath {

class lent_frames {
  public:
    explicit lent_frames(std::uint32_t frames)
        : marks_(std::make_unique<std::atomic<std::uint8_t>[]>(frames))
        , count_(frames) {}

    /// frame   any offset inside it, from the pool's base
    void lend(std::uint64_t frame, unsigned lane) noexcept { mark(frame, mark_of(lane)); }
    void returned(std::uint64_t frame) noexcept { mark(frame, 0); }

    /// Calls give(offset) for each frame that `lane` has lent.
    template <typename Give>
    void take_back(unsigned lane, Give give) noexcept {
        for (std::uint32_t i = 0; i < count_; ++i) {
            if (marks_[i].load(std::memory_order_relaxed) != mark_of(lane)) continue;
            marks_[i].store(0, std::memory_order_relaxed);
            give(std::uint64_t{i} * buffer_pool::frame_size);
        }
    }

  private:
    static_assert(max_lanes < 255, "a lane's number and one more fit a byte");
    [[nodiscard]] static std::uint8_t mark_of(unsigned lane) noexcept {
        return static_cast<std::uint8_t>(lane + 1);
    }
    void mark(std::uint64_t frame, std::uint8_t m) noexcept {
        marks_[frame / buffer_pool::frame_size].store(m, std::memory_order_relaxed);
    }

    std::unique_ptr<std::atomic<std::uint8_t>[]> marks_; ///< 1 + the lane; 0: not lent
    std::uint32_t count_;
};

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// Free frames on their way between lanes, in chunks: a bounded ring that any lane may put to and
// take from.  Each cell has a turn that says whether it is to be filled or emptied next
// (D. Vyukov's bounded MPMC queue); nobody waits for anybody.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <span>

namespace esplane::fastpath {

class frame_depot {
  public:
    static constexpr std::size_t chunk = 64;

    /// Room for at least `chunks` of them.
    explicit frame_depot(std::size_t chunks)
        : mask_(std::bit_ceil(chunks < 2 ? 2 : chunks) - 1)
        , cells_(std::make_unique<cell[]>(mask_ + 1)) {
        for (std::size_t i = 0; i <= mask_; ++i)
            cells_[i].turn.store(i, std::memory_order_relaxed);
    }

    /// False: full.
    [[nodiscard]] bool put(std::span<const std::uint64_t, chunk> frames) noexcept {
        std::size_t at = in_.load(std::memory_order_relaxed);
        cell* c = claim(in_, at, 0);
        if (c == nullptr) return false;
        std::copy(frames.begin(), frames.end(), c->frames.begin());
        c->turn.store(at + 1, std::memory_order_release);
        return true;
    }
    /// False: empty.
    [[nodiscard]] bool take(std::span<std::uint64_t, chunk> frames) noexcept {
        std::size_t at = out_.load(std::memory_order_relaxed);
        cell* c = claim(out_, at, 1);
        if (c == nullptr) return false;
        std::copy(c->frames.begin(), c->frames.end(), frames.begin());
        c->turn.store(at + mask_ + 1, std::memory_order_release);
        return true;
    }
    /// Chunks inside; while others put and take, about.
    [[nodiscard]] std::size_t size() const noexcept {
        const std::size_t out = out_.load(std::memory_order_acquire);
        const std::size_t in = in_.load(std::memory_order_acquire);
        return in > out ? in - out : 0;
    }

  private:
    struct alignas(64) cell {
        std::atomic<std::size_t> turn{0};
        std::array<std::uint64_t, chunk> frames;
    };

    /// The cell at an end of the ring, once it is `ahead` turns on; nullptr where it is not.
    cell* claim(std::atomic<std::size_t>& end, std::size_t& at, std::size_t ahead) noexcept {
        for (;;) {
            cell& c = cells_[at & mask_];
            const auto difference =
                static_cast<std::ptrdiff_t>(c.turn.load(std::memory_order_acquire) - (at + ahead));
            if (difference < 0) return nullptr;
            if (difference > 0)
                at = end.load(std::memory_order_relaxed);
            else if (end.compare_exchange_weak(at, at + 1, std::memory_order_relaxed))
                return &c;
        }
    }

    std::size_t mask_;
    std::unique_ptr<cell[]> cells_;
    alignas(64) std::atomic<std::size_t> in_{0};
    alignas(64) std::atomic<std::size_t> out_{0};
};

} // namespace esplane::fastpath

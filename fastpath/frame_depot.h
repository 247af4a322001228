// SPDX-License-Identifier: Apache-2.0
//
// Free frames on their way between lanes, in chunks: a bounded stack that any lane may put to and
// take from.  Last in, first out: what was in somebody's cache just now is taken first, and the
// rest stays where it is; in a ring all frames of a lane would pass through its caches by turns.
//
// Two lists of cells, the filled and the empty ones (R. Treiber's stack); a count of changes beside
// each head tells a cell that has come back from one that never went.  Nobody waits for anybody.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

namespace esplane::fastpath {

class frame_depot {
  public:
    static constexpr std::size_t chunk = 64;

    /// Room for so many of them, below 2^32 - 1.
    explicit frame_depot(std::size_t chunks)
        : cells_(std::make_unique<cell[]>(chunks)) {
        for (std::size_t i = 0; i < chunks; ++i)
            push(empty_, static_cast<std::uint32_t>(i));
    }

    /// False: full.
    [[nodiscard]] bool put(std::span<const std::uint64_t, chunk> frames) noexcept {
        const std::uint32_t at = pop(empty_);
        if (at == none) return false;
        std::copy(frames.begin(), frames.end(), cells_[at].frames.begin());
        push(filled_, at);
        size_.fetch_add(1, std::memory_order_relaxed);
        return true;
    }
    /// False: empty.
    [[nodiscard]] bool take(std::span<std::uint64_t, chunk> frames) noexcept {
        const std::uint32_t at = pop(filled_);
        if (at == none) return false;
        size_.fetch_sub(1, std::memory_order_relaxed);
        const auto& from = cells_[at].frames;
        std::copy(from.begin(), from.end(), frames.begin());
        push(empty_, at);
        return true;
    }
    /// Chunks inside; while others put and take, about.
    [[nodiscard]] std::size_t size() const noexcept {
        return static_cast<std::size_t>(
            std::max<std::int64_t>(size_.load(std::memory_order_relaxed), 0));
    }

  private:
    static constexpr std::uint32_t none = ~std::uint32_t{0};
    struct alignas(64) cell {
        std::atomic<std::uint32_t> below{none};
        std::array<std::uint64_t, chunk> frames;
    };
    /// The cell on top in the low half, how often that has changed in the high one.
    using head = std::atomic<std::uint64_t>;

    static std::uint64_t changed(std::uint64_t before, std::uint32_t top) noexcept {
        return ((before >> 32) + 1) << 32 | top;
    }
    void push(head& list, std::uint32_t at) noexcept {
        std::uint64_t before = list.load(std::memory_order_relaxed);
        do
            cells_[at].below.store(static_cast<std::uint32_t>(before), std::memory_order_relaxed);
        while (!list.compare_exchange_weak(before, changed(before, at), std::memory_order_release,
                                           std::memory_order_relaxed));
    }
    /// `none` where the list is empty.
    std::uint32_t pop(head& list) noexcept {
        std::uint64_t before = list.load(std::memory_order_acquire);
        for (;;) {
            const auto at = static_cast<std::uint32_t>(before);
            if (at == none) return none;
            // If another lane has this cell meanwhile the exchange fails, whatever was read.
            const std::uint32_t below = cells_[at].below.load(std::memory_order_relaxed);
            if (list.compare_exchange_weak(before, changed(before, below),
                                           std::memory_order_acquire))
                return at;
        }
    }

    std::unique_ptr<cell[]> cells_;
    alignas(64) head filled_{none};
    alignas(64) head empty_{none};
    alignas(64) std::atomic<std::int64_t> size_{0};
};

} // namespace esplane::fastpath

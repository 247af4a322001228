// SPDX-License-Identifier: Apache-2.0
//
// Packets that several workers finish, released in the order in which they were numbered.
//
//   tickets    ... 17 18 19 | 20 21 22 | 23 24 25 26 ...
//   worker 0        done    |          |   done              each puts its packets where their
//   worker 1                | not yet  |                     tickets say, run by run
//   the releaser   takes 17 to 19, then waits for 20
//
// Between two cores go: the line of a packet's descriptor, and one word for each run.
// Threads: take, place and finish: any worker, for tickets of its own; peek and release: one
// worker, the releaser.
// Does not: wait.  Tickets that were taken must be finished, or everything behind them stays.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "fastpath/packet.h"

namespace esplane::fastpath {

class in_order {
  public:
    /// Room for 16 bursts of each worker.
    explicit in_order(unsigned workers)
        : size_(std::bit_ceil(workers * 16u * max_burst))
        , slack_(std::uint64_t{workers} * max_burst)
        , packets_(std::make_unique<packet[]>(size_))
        , runs_(std::make_unique<std::atomic<std::uint64_t>[]>(size_)) {}

    /// `n` consecutive tickets, at most max_burst; returns the first.  nullopt: too many packets
    /// are on their way, the releaser is behind.
    [[nodiscard]] std::optional<std::uint64_t> take(unsigned n) noexcept {
        __builtin_prefetch(&next_, 1);
        // Every worker may pass this check once before the others' tickets count: the slack.
        const std::uint64_t on_their_way =
            next_.load(std::memory_order_relaxed) - released_.load(std::memory_order_acquire);
        if (on_their_way + slack_ > size_) return std::nullopt;
        const std::uint64_t first = next_.fetch_add(n, std::memory_order_relaxed);
        // Another core had these places last; they come while this one encrypts.
        __builtin_prefetch(&runs_[first & (size_ - 1)], 1);
        for (unsigned i = 0; i < n; ++i)
            __builtin_prefetch(&packets_[(first + i) & (size_ - 1)], 1);
        return first;
    }
    /// Copies a packet's descriptor to where its ticket says.  The releaser sees it after finish().
    void place(std::uint64_t ticket, const packet& p) noexcept {
        packets_[ticket & (size_ - 1)] = p;
    }
    /// The run of `n` tickets from `first` on, at most max_burst, is finished: the first `placed`
    /// of them have packets, no packet comes of the others.
    void finish(std::uint64_t first, unsigned placed, unsigned n) noexcept {
        if (n == 0) return;
        runs_[first & (size_ - 1)].store(run_word(first, placed, n), std::memory_order_release);
    }

    /// The next packets in order, as far as they are finished, at most `into.size()`.  They lie in
    /// the ring until release().
    [[nodiscard]] std::size_t peek(std::span<packet*> into) noexcept {
        std::size_t n = 0;
        while (n < into.size()) {
            if (seen_ == placed_end_) {
                seen_ = placed_end_ = run_end_;
                if (!begin_run()) break;
            }
            while (n < into.size() && seen_ != placed_end_)
                into[n++] = &packets_[seen_++ & (size_ - 1)];
        }
        return n;
    }
    /// Whether peek() would have anything to do.
    [[nodiscard]] bool ready() const noexcept {
        return seen_ != placed_end_ ||
               is_run_of(runs_[run_end_ & (size_ - 1)].load(std::memory_order_seq_cst), run_end_);
    }
    /// What peek() gave is done with.
    void release() noexcept { released_.store(seen_, std::memory_order_release); }

    /// Tickets taken so far.
    [[nodiscard]] std::uint64_t taken() const noexcept {
        return next_.load(std::memory_order_acquire);
    }
    /// Whether all tickets that were taken have been released.
    [[nodiscard]] bool settled() const noexcept {
        return released_.load(std::memory_order_acquire) == next_.load(std::memory_order_acquire);
    }

  private:
    // A run is one word: its ticket + 1, so that a ring of zeros has none, how many of its tickets
    // have packets, and how many there are.
    static constexpr unsigned count_bits = 7;
    static constexpr unsigned count_mask = (1u << count_bits) - 1;
    static_assert(max_burst <= count_mask);

    static std::uint64_t run_word(std::uint64_t first, unsigned placed, unsigned n) noexcept {
        return (first + 1) << 2 * count_bits | placed << count_bits | n;
    }
    static bool is_run_of(std::uint64_t word, std::uint64_t first) noexcept {
        return word >> 2 * count_bits == run_word(first, 0, 0) >> 2 * count_bits;
    }
    /// The releaser, at the end of a run: has the next one's descriptors fetched, from another core
    /// mostly.  False: it is not finished.
    bool begin_run() noexcept {
        const std::uint64_t word = runs_[seen_ & (size_ - 1)].load(std::memory_order_acquire);
        if (!is_run_of(word, seen_)) return false;
        placed_end_ = seen_ + (word >> count_bits & count_mask);
        run_end_ = seen_ + (word & count_mask);
        for (std::uint64_t i = seen_; i != placed_end_; ++i)
            __builtin_prefetch(&packets_[i & (size_ - 1)]);
        return true;
    }

    std::uint64_t size_;
    std::uint64_t slack_;
    std::unique_ptr<packet[]> packets_;
    std::unique_ptr<std::atomic<std::uint64_t>[]> runs_; ///< each where its first ticket says
    alignas(64) std::atomic<std::uint64_t> next_{0};
    alignas(64) std::atomic<std::uint64_t> released_{0};
    // The releaser's alone.
    alignas(64) std::uint64_t seen_ = 0; ///< up to here peek() has given everything
    std::uint64_t placed_end_ = 0;       ///< of the packets of the run that seen_ is in
    std::uint64_t run_end_ = 0;
};

} // namespace esplane::fastpath

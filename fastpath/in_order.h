// SPDX-License-Identifier: Apache-2.0
//
// Packets that several workers finish, released in the order in which they were numbered.
//
//   tickets    ... 17 18 19 | 20 21 22 | 23 24 25 26 ...
//   worker 0        done    |          |   done              each puts its packets where their
//   worker 1                | not yet  |                     tickets say
//   the releaser   takes 17 to 19, then waits for 20
//
// Threads: take, put and skip: any worker, for tickets of its own; peek and release: one worker,
// the releaser.
// Does not: wait.  A ticket that was taken must be put or skipped, or everything behind it stays.
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
        , done_(std::make_unique<std::atomic<std::uint64_t>[]>(size_)) {}

    /// `n` consecutive tickets, at most max_burst; returns the first.  nullopt: too many packets
    /// are on their way, the releaser is behind.
    [[nodiscard]] std::optional<std::uint64_t> take(unsigned n) noexcept {
        // Every worker may pass this check once before the others' tickets count: the slack.
        const std::uint64_t on_their_way =
            next_.load(std::memory_order_relaxed) - released_.load(std::memory_order_acquire);
        if (on_their_way + slack_ > size_) return std::nullopt;
        return next_.fetch_add(n, std::memory_order_relaxed);
    }
    /// The ticket's packet is finished.  The descriptor is copied.
    void put(std::uint64_t ticket, const packet& p) noexcept {
        packets_[ticket & (size_ - 1)] = p;
        finish(ticket, packet_there);
    }
    /// No packet comes of the ticket.
    void skip(std::uint64_t ticket) noexcept { finish(ticket, nothing_there); }

    /// The next packets in order, as far as they are finished, at most `into.size()`.  They lie in
    /// the ring until release().
    [[nodiscard]] std::size_t peek(std::span<packet*> into) noexcept {
        std::size_t n = 0;
        while (n < into.size()) {
            const std::size_t at = seen_ & (size_ - 1);
            const std::uint64_t state = done_[at].load(std::memory_order_acquire);
            if (state >> 1 != seen_ + 1) break;
            __builtin_prefetch(&packets_[(seen_ + ahead) & (size_ - 1)]); // another core's, mostly
            if ((state & 1) == packet_there) into[n++] = &packets_[at];
            ++seen_;
        }
        return n;
    }
    /// Whether peek() would have anything to do.
    [[nodiscard]] bool ready() const noexcept {
        return done_[seen_ & (size_ - 1)].load(std::memory_order_seq_cst) >> 1 == seen_ + 1;
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
    static constexpr std::uint64_t ahead = 32; ///< packets to fetch before they are looked at
    static constexpr std::uint64_t packet_there = 1;
    static constexpr std::uint64_t nothing_there = 0;

    /// Ticket + 1, so that a ring of zeros has nothing in it.
    void finish(std::uint64_t ticket, std::uint64_t what) noexcept {
        done_[ticket & (size_ - 1)].store((ticket + 1) << 1 | what, std::memory_order_release);
    }

    std::uint64_t size_;
    std::uint64_t slack_;
    std::unique_ptr<packet[]> packets_;
    std::unique_ptr<std::atomic<std::uint64_t>[]> done_;
    alignas(64) std::atomic<std::uint64_t> next_{0};
    alignas(64) std::atomic<std::uint64_t> released_{0};
    std::uint64_t seen_ = 0; ///< the releaser's
};

} // namespace esplane::fastpath

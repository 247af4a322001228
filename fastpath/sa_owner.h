// SPDX-License-Identifier: Apache-2.0
//
// Which worker an SA belongs to: sequence, nonce, window and counters are that worker's alone.
//
//            first packet              control: wish(w)                burst over
//   nobody ----------------> owner v ------------------> v, then w ------------------> owner w
//                               |                             |
//                               '--------> moved <------------'     control: abandon()
//
// The owner gives an SA up between two of its bursts, so nothing is lost and nothing done twice.
// From an owner that is stuck control takes it by force: abandon() is final, what belongs to the SA
// goes on in a new object.
// Threads: each call says whose it is.
#pragma once

#include <atomic>
#include <cstdint>

#include "fastpath/lane.h"

namespace esplane::fastpath {

class sa_owner {
  public:
    static constexpr unsigned nobody = 0xff;
    static constexpr unsigned moved = 0xfe;  ///< this object is dead
    static constexpr unsigned spread = 0xfd; ///< all workers together: see spread.h
    static_assert(max_lanes <= spread);

    /// Worker: whether `self` owns it and nobody wishes for it.  The usual case, one load.
    [[nodiscard]] bool is(unsigned self) const noexcept {
        return state_.load(std::memory_order_acquire) == settled(self);
    }
    /// Worker: claims it where nobody owns it.  Returns the owner, moved or spread.
    unsigned claim(unsigned self) noexcept {
        std::uint16_t before = settled(nobody);
        if (state_.compare_exchange_strong(before, settled(self), std::memory_order_acq_rel,
                                           std::memory_order_acquire))
            return self;
        return before & 0xff;
    }
    /// The owner, when it has finished a burst: passes it on to whom control wished for.
    void pass_on() noexcept {
        std::uint16_t before = state_.load(std::memory_order_relaxed);
        if (const unsigned to = before >> 8; to != nobody)
            (void)state_.compare_exchange_strong(before, settled(to), std::memory_order_acq_rel);
    }

    /// Control: the owner is to pass it on with its next packet.  Without an owner: nothing.
    void wish(unsigned to) noexcept {
        std::uint16_t before = state_.load(std::memory_order_relaxed);
        const unsigned owner = before & 0xff;
        if (owner == nobody || owner == moved || owner == spread) return;
        const auto after = static_cast<std::uint16_t>(owner | (owner == to ? nobody : to) << 8);
        (void)state_.compare_exchange_strong(before, after, std::memory_order_relaxed);
    }
    /// Control: if `to` was wished for, it is not any more.
    void take_back_wish(unsigned to) noexcept {
        std::uint16_t before = state_.load(std::memory_order_relaxed);
        if (before >> 8 == to && to != nobody)
            (void)state_.compare_exchange_strong(before, settled(before & 0xff),
                                                 std::memory_order_relaxed);
    }
    /// Control: whoever owns it is not to pass it on, whatever was wished for.  Returns who that
    /// is.
    unsigned keep() noexcept {
        std::uint16_t before = state_.load(std::memory_order_relaxed);
        // Where this fails it was just passed on, or claimed, and nobody wishes for it.
        (void)state_.compare_exchange_strong(before, settled(before & 0xff),
                                             std::memory_order_relaxed);
        return before & 0xff;
    }
    /// Control: it is to be everybody's, with the owner's next packet, or now where nobody owns it.
    void wish_spread() noexcept {
        std::uint16_t before = settled(nobody);
        if (!state_.compare_exchange_strong(before, settled(spread), std::memory_order_acq_rel))
            wish(spread);
    }
    /// Control: this object is dead.  Returns who owned it: nobody, where no packet has changed it.
    unsigned abandon() noexcept {
        return state_.exchange(settled(moved), std::memory_order_seq_cst) & 0xff;
    }
    /// Anybody: a worker, nobody, moved or spread.
    [[nodiscard]] unsigned who() const noexcept {
        return state_.load(std::memory_order_relaxed) & 0xff;
    }

  private:
    static constexpr std::uint16_t settled(unsigned owner) noexcept {
        return static_cast<std::uint16_t>(owner | nobody << 8);
    }
    /// The owner in the low byte, whom control wishes for in the high one.
    std::atomic<std::uint16_t> state_{settled(nobody)};
};

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// A fat SA: one SA on all workers, its packets in order.
//
//   out   any worker:  take tickets, number, encrypt, put --+
//                                                           +--> in_order --> the releaser: send
//         another one: number, encrypt, put ----------------+
//
//   in    the owner:   check, take tickets, decrypt, put ---+
//                                                           +--> in_order --> the owner: go on
//         another one: decrypt, put ------------------------+
//
// Out: the ticket is the sequence number, and who took it encrypts, each worker with its own share
// of the SA (own counters, own nonces), so that numbers and nonces are never used twice.  Where one
// worker receives everything and another nothing, it hands numbered packets to that one.
// In: the window, the counters and everything behind them stay the owner's; only the crypto leaves.
// Either way packets leave in the order of their tickets, so a peer's window of 32 is enough.
//
// Made and freed by the backend.  An SA that goes while packets are under way leaves this behind
// until the last of them has come through.
// Threads: as in_order says.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <vector>

#include "fastpath/in_order.h"
#include "fastpath/sa.h"

namespace esplane::fastpath {

struct spread_out {
    in_order order;
    /// The SA's last number before it was spread: ticket t is number base + t + 1.  The same value
    /// from every worker that has one of the first tickets.
    std::atomic<std::uint64_t> base{0};
    std::vector<std::unique_ptr<sa_out>> shares; ///< by worker
    unsigned releaser;
    std::uint8_t index = 0; ///< in the spread_table

    spread_out(unsigned workers, unsigned by)
        : order(workers)
        , releaser(by) {}
    /// The last number given.
    [[nodiscard]] std::uint64_t sequence() const noexcept {
        return base.load(std::memory_order_relaxed) + order.taken();
    }
};

struct spread_in {
    in_order order;
    std::atomic<sa_in*> sa; ///< nullptr once it is deleted
    unsigned owner;
    std::uint8_t index = 0; ///< in the spread_table

    spread_in(unsigned workers, sa_in* of, unsigned by)
        : order(workers)
        , sa(of)
        , owner(by) {}
};

/// All of one direction, by number: packets under way name theirs by it.
template <typename Spread>
class spread_table {
  public:
    static constexpr unsigned capacity = 64;

    /// Worker.  nullptr where there is none; never for a packet that has a ticket of it.
    [[nodiscard]] Spread* find(unsigned index) const noexcept {
        return slots_[index % capacity].load(std::memory_order_acquire);
    }
    /// Worker: calls `f` for each.
    template <typename F>
    void each(F f) const noexcept {
        for (std::uint64_t bits = used_.load(std::memory_order_acquire); bits != 0;
             bits &= bits - 1)
            if (Spread* one = find(static_cast<unsigned>(std::countr_zero(bits)))) f(*one);
    }

    /// Control: gives it its index.  False: there are `capacity` already.
    [[nodiscard]] bool add(Spread& one) noexcept {
        const std::uint64_t used = used_.load(std::memory_order_relaxed);
        if (used == ~std::uint64_t{0}) return false;
        one.index = static_cast<std::uint8_t>(std::countr_one(used));
        slots_[one.index].store(&one, std::memory_order_release);
        used_.store(used | std::uint64_t{1} << one.index, std::memory_order_release);
        return true;
    }
    /// Control.  Workers may still see it until they were quiescent.
    void remove(const Spread& one) noexcept {
        used_.store(used_.load(std::memory_order_relaxed) & ~(std::uint64_t{1} << one.index),
                    std::memory_order_release);
        slots_[one.index].store(nullptr, std::memory_order_release);
    }

  private:
    std::atomic<std::uint64_t> used_{0};
    std::array<std::atomic<Spread*>, capacity> slots_{};
};

struct stage;
class packet_list;
struct protect_item;
struct inbound_item;

/// Numbers packets of spread SAs and encrypts them, or has another worker encrypt them.  What has
/// no next hop yet is appended to `leaving`.
void spread_outbound(stage& s, std::span<protect_item> items, packet_list& leaving) noexcept;

/// Has packets decrypted that check() let pass, all of one SA, which this worker owns.
void spread_inbound(stage& s, spread_in& all, std::span<inbound_item> items) noexcept;

/// What another worker has numbered: consecutive tickets go together.
class ticket_run {
  public:
    explicit ticket_run(stage& s)
        : s_(s) {}
    /// Takes a packet over with its note.
    void add(packet& p, packet_list& leaving) noexcept;
    /// Takes a packet that must not go on: its ticket leads nowhere, the packet remains.
    void refuse(const packet& p) noexcept;
    /// Works on what was added.
    void finish(packet_list& leaving) noexcept;

  private:
    [[nodiscard]] bool goes_on(const packet& p) const noexcept;

    stage& s_;
    handover_note note_{};
    std::uint64_t first_ = 0;
    unsigned count_ = 0;
};

} // namespace esplane::fastpath

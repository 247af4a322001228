// SPDX-License-Identifier: Apache-2.0
//
// Counters of a worker.  Written by the worker alone, read by control at any time.
//
//   received + created + handed in = sent + punted + dropped + held + absorbed + handed out
//
// holds whenever the worker is between two bursts.  Of all workers together, handed out less handed
// in is what lies in the rings between them.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "fastpath/drop.h"

namespace esplane::fastpath {

/// A 64-bit number with one writer: no locked instruction, no torn read.
class counter {
  public:
    void add(std::uint64_t n) noexcept {
        value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
    void subtract(std::uint64_t n) noexcept { add(~n + 1); }
    void set(std::uint64_t n) noexcept { value_.store(n, std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t get() const noexcept {
        return value_.load(std::memory_order_relaxed);
    }

  private:
    std::atomic<std::uint64_t> value_{0};
};

/// A moment in seconds of CLOCK_REALTIME, until 2106.
class second_stamp {
  public:
    void set(std::uint64_t n) noexcept {
        value_.store(static_cast<std::uint32_t>(n), std::memory_order_relaxed);
    }
    [[nodiscard]] std::uint32_t get() const noexcept {
        return value_.load(std::memory_order_relaxed);
    }

  private:
    std::atomic<std::uint32_t> value_{0};
};

struct worker_counters {
    counter received;
    counter created;     ///< ICMP errors we made, and fragments beyond the first of a packet
    counter not_created; ///< those we did not make: rate limit, or no buffer
    counter sent;
    counter punted;
    counter held;        ///< that wait now: for a next hop, or fragments for the rest
    counter absorbed;    ///< fragments that became one packet, but for one of each
    counter fragmented;  ///< packets that left in fragments
    counter reassembled; ///< packets that came in fragments
    counter clamped;     ///< TCP connections whose MSS was lowered
    counter handed_out;  ///< to other workers
    counter handed_in;   ///< by other workers
    counter encrypted;
    counter decrypted;
    counter bypassed;
    counter blocked_out; ///< of those dropped for policy_block: by an `out` policy
    counter expired_out; ///< of those dropped for sa_expired: outbound
    counter busy_loops;
    counter idle_loops;
    std::array<counter, drop_reason_count> dropped;

    /// Adds what another worker counted.
    void add(const worker_counters& other) noexcept {
        for (counter worker_counters::*one :
             {&worker_counters::received, &worker_counters::created, &worker_counters::not_created,
              &worker_counters::sent, &worker_counters::punted, &worker_counters::held,
              &worker_counters::handed_out, &worker_counters::handed_in, &worker_counters::absorbed,
              &worker_counters::fragmented, &worker_counters::reassembled,
              &worker_counters::clamped, &worker_counters::encrypted, &worker_counters::decrypted,
              &worker_counters::bypassed, &worker_counters::blocked_out,
              &worker_counters::expired_out, &worker_counters::busy_loops,
              &worker_counters::idle_loops})
            (this->*one).add((other.*one).get());
        for (std::size_t i = 0; i < dropped.size(); ++i)
            dropped[i].add(other.dropped[i].get());
    }

    [[nodiscard]] std::uint64_t dropped_total() const noexcept {
        std::uint64_t total = 0;
        for (const counter& c : dropped)
            total += c.get();
        return total;
    }
    [[nodiscard]] bool balanced() const noexcept {
        return received.get() + created.get() + handed_in.get() ==
               sent.get() + punted.get() + dropped_total() + held.get() + absorbed.get() +
                   handed_out.get();
    }
};

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// What a worker tells control: a ring with one writer and one reader.
//
// Full: push says so and the worker tells it again with a later packet; nothing is lost for good,
// because every event stands for a condition that lasts.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "lib/ipsec/sa.h"

namespace esplane::fastpath {

enum class worker_event_kind : std::uint8_t {
    sa_first_use,
    sa_soft_limit,
    sa_hard_limit,
    sa_moved,         ///< its sequence number has come as far as control waits for
    neighbour_wanted, ///< a next hop without a MAC address
    sa_wanted,        ///< a packet waits for an SA
    path_limit,       ///< a router said that ESP of this SA was too long for it
    sa_mapping,       ///< the peer's packets come from elsewhere than the SA says
};

struct worker_event {
    worker_event_kind kind = worker_event_kind::sa_first_use;
    int ifindex = 0;          ///< neighbour_wanted
    ipsec::sa_id id;          ///< of the SA; neighbour_wanted: `destination` is the next hop
    ipsec::address source;    ///< path_limit: of the ESP that is quoted; sa_mapping: of the packet
    wire::be16 port;          ///< sa_mapping: the UDP source port
    std::uint32_t mtu = 0;    ///< path_limit: bytes from the outer IP header on
    std::uint32_t policy = 0; ///< sa_wanted: its index
    ipsec::flow flow;         ///< sa_wanted: the packet's
    unsigned worker = 0;      ///< sa_wanted: whose packet it is
    bool of_cpu = false;      ///< sa_wanted: one for its CPU alone; another carries the packet
};

class event_ring {
  public:
    [[nodiscard]] bool push(const worker_event& e) noexcept {
        const std::uint32_t w = written_.load(std::memory_order_relaxed);
        if (w - read_.load(std::memory_order_acquire) == size) return false;
        slots_[w % size] = e;
        written_.store(w + 1, std::memory_order_release);
        return true;
    }
    [[nodiscard]] bool pop(worker_event& into) noexcept {
        const std::uint32_t r = read_.load(std::memory_order_relaxed);
        if (r == written_.load(std::memory_order_acquire)) return false;
        into = slots_[r % size];
        read_.store(r + 1, std::memory_order_release);
        return true;
    }
    [[nodiscard]] bool empty() const noexcept {
        return read_.load(std::memory_order_relaxed) == written_.load(std::memory_order_acquire);
    }

  private:
    static constexpr std::uint32_t size = 1024;
    std::array<worker_event, size> slots_;
    alignas(64) std::atomic<std::uint32_t> written_{0};
    alignas(64) std::atomic<std::uint32_t> read_{0};
};

} // namespace esplane::fastpath

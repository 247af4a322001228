// SPDX-License-Identifier: Apache-2.0
//
// Packets that wait for the MAC address of their next hop: a few, for a short time.
//
// Finished packets wait (after ESP); they leave in the order they came, before what comes later.
// Threads: the worker's.
#pragma once

#include <array>
#include <cstdint>

#include "fastpath/stage.h"

namespace esplane::fastpath {

class hold_queue {
  public:
    static constexpr unsigned capacity = 64;
    static constexpr unsigned per_next_hop = 16;
    static constexpr std::uint64_t hold_ns = 1'000'000'000;
    static constexpr std::uint64_t ask_ns = 100'000'000; ///< between requests for one next hop

    /// Takes a copy of the descriptor (the buffer stays where it is) and asks control for the next
    /// hop, once for all that wait for it.  False: full, or full for this next hop; the caller
    /// drops.
    [[nodiscard]] bool add(stage& s, const packet& p) noexcept;

    /// Appends to `ready` what can leave now (addressed) and drops what has waited too long.
    /// Descriptors are valid until the next add().
    void retry(stage& s, packet_list& ready) noexcept;

    [[nodiscard]] bool empty() const noexcept { return count_ == 0; }

  private:
    struct held {
        packet p;
        ipsec::address next_hop;
        int ifindex = 0;
        std::uint16_t vrf = 0; ///< where its route was found
        std::uint64_t since_ns = 0;
        std::uint64_t asked_ns = 0;
    };
    static void ask(stage& s, held& h) noexcept;
    [[nodiscard]] static const adjacency& route_of(const stage& s, const held& h) noexcept;
    /// How many of the first `among` wait for the same next hop.
    [[nodiscard]] unsigned waiting_with(const held& h, unsigned among) const noexcept;

    std::array<held, capacity> items_;
    std::array<packet, capacity> leaving_; ///< what retry() handed out
    unsigned count_ = 0;
};

} // namespace esplane::fastpath

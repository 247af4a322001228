// SPDX-License-Identifier: Apache-2.0
//
// How much goes up to the machine's own stack: a rate for each class of traffic.
//
// What the machine's stack can take, and the way up to it, are scarcer than what the ports bring.
// Each class has a token bucket of its own, so that no flood of one uses up what another may
// have, and IKE goes first: without it no SA would come back.
// Threads: a limiter is one worker's.  Does not: see what never reaches the path, such as frames
// that the XDP program passes to the stack itself.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "fastpath/drop.h"
#include "fastpath/packet.h"

namespace esplane::fastpath {

enum class punt_class : std::uint8_t {
    ike,    ///< UDP from or to port 500 or 4500
    arp_nd, ///< ARP; ICMPv6 133 to 137
    icmp,   ///< the other ICMP and ICMPv6
    other,
    count_,
};
inline constexpr std::size_t punt_class_count = static_cast<std::size_t>(punt_class::count_);

/// Packets a second for each class; 0 = no limit.
struct punt_rates {
    std::array<std::uint32_t, punt_class_count> per_second{};

    [[nodiscard]] std::uint32_t& of(punt_class c) noexcept {
        return per_second[static_cast<std::size_t>(c)];
    }
    [[nodiscard]] std::uint32_t of(punt_class c) const noexcept {
        return per_second[static_cast<std::size_t>(c)];
    }
    /// What each of `workers` may have, so that all together have these rates; at least 1.
    [[nodiscard]] punt_rates shared_by(unsigned workers) const noexcept;

    friend bool operator==(const punt_rates&, const punt_rates&) = default;
};

/// What a gateway's own traffic needs, and its stack takes without noticing.
inline constexpr punt_rates default_punt_rates{{5000, 2000, 1000, 50000}};

/// Of a parsed packet; of one without a family the frame at `data` is looked at.
[[nodiscard]] punt_class class_of(const packet& p) noexcept;

[[nodiscard]] drop_reason limit_of(punt_class c) noexcept;

class punt_limiter {
  public:
    /// A bucket holds what its rate earns in this time, and at least `smallest_burst`.
    static constexpr std::uint64_t burst_ns = 100'000'000;
    static constexpr std::uint64_t smallest_burst = 8;

    punt_limiter() = default; ///< without limits
    explicit punt_limiter(const punt_rates& rates) noexcept;

    /// Takes a token of the class; false where there is none.
    [[nodiscard]] bool admit(punt_class c, std::uint64_t now_ns) noexcept;

  private:
    /// Time as tokens: one costs `cost_ns`, and payment may run ahead of the clock by `depth_ns`.
    struct bucket {
        std::uint64_t cost_ns = 0; ///< 0 = no limit
        std::uint64_t depth_ns = 0;
        std::uint64_t paid_until_ns = 0;
    };
    std::array<bucket, punt_class_count> buckets_{};
};

} // namespace esplane::fastpath

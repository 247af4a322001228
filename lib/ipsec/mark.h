// SPDX-License-Identifier: Apache-2.0
//
// Marks (fwmark): numbers that the machine puts on packets and policies and SAs ask for.
#pragma once

#include <compare>
#include <cstdint>

namespace esplane::ipsec {

/// struct xfrm_mark.  As given: a value with bits outside the mask is no packet's.
struct mark_mask {
    std::uint32_t value = 0;
    std::uint32_t mask = 0;

    /// Whether it was given at all; one that was not is every packet's.
    [[nodiscard]] constexpr bool given() const noexcept { return (value | mask) != 0; }
    [[nodiscard]] constexpr bool matches(std::uint32_t mark) const noexcept {
        return (mark & mask) == value;
    }
    /// Whether there are marks that both match.
    [[nodiscard]] constexpr bool overlaps(const mark_mask& other) const noexcept {
        return ((value ^ other.value) & mask & other.mask) == 0;
    }
    /// The mark of a packet that this one is put on: xfrm_smark_get().
    [[nodiscard]] constexpr std::uint32_t put_on(std::uint32_t mark) const noexcept {
        return (value & mask) | (mark & ~mask);
    }

    friend bool operator==(const mark_mask&, const mark_mask&) = default;
    friend auto operator<=>(const mark_mask&, const mark_mask&) = default;
};

} // namespace esplane::ipsec

// SPDX-License-Identifier: Apache-2.0
//
// What ESP costs on the wire: RFC 4303 section 2, RFC 3948 section 2.1.
//
//   tunnel      [ outer IP ][ UDP? ][ SPI, seq ][ IV ][ inner packet ][ pad, len, nh ][ ICV ]
//   transport   [ IP ][ UDP? ][ SPI, seq ][ IV ][ what was behind IP ][ pad, len, nh ][ ICV ]
#pragma once

#include <compare>
#include <cstdint>

#include "lib/ipsec/sa.h"

namespace esplane::ipsec {

/// What a packet must be made of to be measured: all that an SA adds has one of these lengths.
struct overhead {
    std::uint32_t around = 0; ///< bytes whatever the packet: headers, IV, ICV
    std::uint32_t block = 4;  ///< text is padded to a multiple of it: a power of 2
    /// Bytes at a packet's front that are not text: its own IP header in transport mode, else 0.
    std::uint32_t in_front = 0;

    friend auto operator<=>(const overhead&, const overhead&) = default;

    /// The largest packet that becomes one of at most `mtu` bytes; 0: none does.
    [[nodiscard]] constexpr std::uint32_t largest_inner(std::uint32_t mtu) const noexcept {
        constexpr std::uint32_t trailer = 2; // pad length, next header
        const std::uint32_t fixed = around + in_front;
        if (mtu < fixed + block) return 0;
        return in_front + ((mtu - fixed) & ~(block - 1)) - trailer;
    }
    /// The length of what a packet of `inner` bytes, at least `in_front`, becomes.
    [[nodiscard]] constexpr std::uint32_t outer_length(std::uint32_t inner) const noexcept {
        constexpr std::uint32_t trailer = 2;
        return around + in_front + ((inner - in_front + trailer + block - 1) & ~(block - 1));
    }
};

/// Of a packet in transport mode an IP header without options or extension headers is assumed.
[[nodiscard]] overhead overhead_of(const sa& s) noexcept;

/// The largest IP packet that fits a path of `path_mtu` bytes once this SA has protected it; 0: not
/// one does.  As the kernel's xfrm_state_mtu, without its floor of 1280 for IPv6.
[[nodiscard]] std::uint32_t largest_inner(const sa& s, std::uint32_t path_mtu) noexcept;

} // namespace esplane::ipsec

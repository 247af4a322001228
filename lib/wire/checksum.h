// SPDX-License-Identifier: Apache-2.0
//
// The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "lib/wire/endian.h"

namespace esplane::wire {

/// Adds the bytes, as 16-bit words in memory order, to an unfolded sum.  An odd last byte is
/// padded with zero, so only the last piece of a message may have odd length.
[[nodiscard]] inline std::uint64_t checksum_add(std::uint64_t sum, const void* data,
                                                std::size_t length) noexcept {
    const auto* p = static_cast<const std::uint8_t*>(data);
    for (; length >= 4; p += 4, length -= 4)
        sum += load<std::uint32_t>(p);
    if (length >= 2) {
        sum += load<std::uint16_t>(p);
        p += 2;
        length -= 2;
    }
    if (length == 1) sum += *p; // little-endian: the low byte is the first in memory
    return sum;
}

/// Copies the bytes and adds them like checksum_add(), reading them once.  They do not overlap.
[[nodiscard]] inline std::uint64_t checksum_copy(std::uint64_t sum, void* into, const void* data,
                                                 std::size_t length) noexcept {
    auto* out = static_cast<std::uint8_t*>(into);
    const auto* in = static_cast<const std::uint8_t*>(data);
    const std::size_t whole = length & ~std::size_t{7};
    for (std::size_t i = 0; i < whole; i += 8) { // a loop that compilers vectorise
        const auto word = load<std::uint64_t>(in + i);
        store(out + i, word);
        sum += (word & 0xffffffff) + (word >> 32);
    }
    std::memcpy(out + whole, in + whole, length - whole);
    return checksum_add(sum, in + whole, length - whole);
}

/// Folds a sum to 16 bits, not complemented, in memory order.
[[nodiscard]] constexpr std::uint16_t checksum_fold(std::uint64_t sum) noexcept {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(sum);
}

/// The same of a short one: turned by half, its halves meet with the carry of their sum.
[[nodiscard]] constexpr std::uint16_t checksum_fold(std::uint32_t sum) noexcept {
    return static_cast<std::uint16_t>((sum + std::rotr(sum, 16)) >> 16);
}

/// Whether a sum folds to 0xffff, as that of a message with a right checksum does.  `sum` is not 0.
[[nodiscard]] constexpr bool sums_to_ones(std::uint64_t sum) noexcept {
    return sum % 0xffff == 0; // folding is taking the remainder; a multiplication tells
}

/// The checksum field for a message whose checksum field was zero when summed.
[[nodiscard]] constexpr be16 checksum_finish(std::uint64_t sum) noexcept {
    return be16::from_network(static_cast<std::uint16_t>(~checksum_fold(sum)));
}
[[nodiscard]] constexpr be16 checksum_finish(std::uint32_t sum) noexcept {
    return be16::from_network(static_cast<std::uint16_t>(~checksum_fold(sum)));
}

/// The sum over the pseudo-header of IPv4 (addresses of 4 bytes) or IPv6 (16 bytes).
///
/// length   of the upper-layer packet, host order
[[nodiscard]] inline std::uint64_t checksum_pseudo(const void* source, const void* destination,
                                                   std::size_t address_length,
                                                   std::uint8_t protocol,
                                                   std::uint32_t length) noexcept {
    std::uint64_t sum = checksum_add(0, source, address_length);
    sum = checksum_add(sum, destination, address_length);
    return sum + be32(length + protocol).network();
}

/// Corrects `checksum` for a 16-bit word that changed from `before` to `after` (RFC 1624, eq. 3).
[[nodiscard]] constexpr be16 checksum_update(be16 checksum, be16 before, be16 after) noexcept {
    std::uint32_t sum = static_cast<std::uint16_t>(~checksum.network());
    sum += static_cast<std::uint16_t>(~before.network());
    sum += after.network();
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return be16::from_network(static_cast<std::uint16_t>(~sum));
}

} // namespace esplane::wire

// SPDX-License-Identifier: Apache-2.0
#include "lib/wire/checksum.h"

namespace esplane::wire {

std::uint64_t checksum_add(std::uint64_t sum, const void* data, std::size_t length) noexcept {
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

std::uint64_t checksum_pseudo(const void* source, const void* destination,
                              std::size_t address_length, std::uint8_t protocol,
                              std::uint32_t length) noexcept {
    std::uint64_t sum = checksum_add(0, source, address_length);
    sum = checksum_add(sum, destination, address_length);
    return sum + be32(length).network() + be32(protocol).network();
}

} // namespace esplane::wire

// SPDX-License-Identifier: Apache-2.0
#include "fastpath/offload.h"

#include <cstddef>

#include "lib/wire/checksum.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

void complete_checksum(std::span<std::uint8_t> packet, const offload_header& o) noexcept {
    const std::size_t field = std::size_t{o.checksum_start} + o.checksum_offset;
    if (field + 2 > packet.size()) return;
    if (o.checksum_offset != offsetof(wire::tcp_header, checksum) &&
        o.checksum_offset != offsetof(wire::udp_header, checksum))
        return;
    const std::uint64_t sum =
        wire::checksum_add(0, &packet[o.checksum_start], packet.size() - o.checksum_start);
    wire::be16 checksum = wire::checksum_finish(sum);
    if (checksum == wire::be16()) checksum = wire::be16(0xffff); // UDP's 0 means none
    wire::store(&packet[field], checksum);
}

} // namespace esplane::fastpath

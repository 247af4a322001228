// SPDX-License-Identifier: Apache-2.0
//
// What a sender leaves to its device, and a receiver may leave as it is: the header that TUN
// devices and AF_PACKET sockets put in front of a packet.
//
// It is the kernel's struct virtio_net_hdr, whose own header is not C++.  Byte order is the
// machine's.
#pragma once

#include <cstdint>
#include <span>

namespace esplane::fastpath {

struct offload_header {
    static constexpr std::uint8_t needs_checksum = 1; ///< of flags
    /// Of kind: what a super-packet is to be cut into.
    static constexpr std::uint8_t not_merged = 0, tcp4 = 1, tcp6 = 4, udp = 5;

    std::uint8_t flags;
    std::uint8_t kind;
    std::uint16_t headers; ///< bytes before the payload
    std::uint16_t segment_size;
    std::uint16_t checksum_start;  ///< of what is summed, up to the end
    std::uint16_t checksum_offset; ///< of the field, from there
};
static_assert(sizeof(offload_header) == 10);

/// Writes TCP's or UDP's checksum, which `o` says was left to the device: the field holds the sum
/// of the pseudo-header.  What does not fit into `packet` is left alone.
void complete_checksum(std::span<std::uint8_t> packet, const offload_header& o) noexcept;

} // namespace esplane::fastpath

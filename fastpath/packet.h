// SPDX-License-Identifier: Apache-2.0
//
// A packet is a small descriptor beside its buffer.  AF_XDP frames, DPDK mbufs, TUN reads and
// memory all become such descriptors without a copy.
//
//   buffer   [ headroom ][ data ... length ][ tailroom ]
//
// On rx `data` is the Ethernet frame; parse moves it to the IP header (`l2_length` says by how
// much), and everything up to tx sees IP packets.
//
// Ownership: a packet owns its buffer through `owner`.  It ends in exactly one of: sent (the port
// gives it back), punted, dropped, held, absorbed.
// Threads: one worker at a time; first the one that received it.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "lib/ipsec/address.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

class buffer_owner;
struct adjacency;
struct sa_in;

inline constexpr unsigned max_burst = 64;

/// What parse found, see parse.h; the last two are what the device found on receipt.
namespace packet_flag {
inline constexpr std::uint16_t fragment = 1;      ///< of a packet: its ports are not known
inline constexpr std::uint16_t dont_fragment = 2; ///< IPv4 DF; always set for IPv6
inline constexpr std::uint16_t for_machine = 4;   ///< destination is an address of ours
inline constexpr std::uint16_t created = 8;       ///< made by us (ICMP)
inline constexpr std::uint16_t encrypted = 16;    ///< what leaves is ESP of ours
inline constexpr std::uint16_t urgent = 32;       ///< punted ahead of others, into room kept for it
inline constexpr std::uint16_t own = 64;          ///< sent by the machine itself
inline constexpr std::uint16_t ip_sum_good = 128; ///< the IPv4 header's checksum is right
inline constexpr std::uint16_t l4_sum_done = 256; ///< the upper layer's checksum is not unfinished
inline constexpr std::uint16_t from_stack = 512; ///< came down from the machine: its hop is counted
inline constexpr std::uint16_t split = 1024;     ///< leaves in fragments of at most `split_at`
inline constexpr std::uint16_t marked = 2048;    ///< ESP with a mark of its own, see put_mark()
} // namespace packet_flag

/// An outbound SA by number; see sa_directory.h.
struct sa_name {
    std::uint32_t slot = 0; ///< below 2^24
    std::uint32_t serial = 0;
};

/// Goes with a packet from one worker to another; see handover.h.
struct handover_note {
    std::uint32_t slot : 24; ///< of an sa_name
    std::uint32_t phase : 8; ///< handover_phase
    std::uint32_t serial;
};

struct alignas(64) packet {
    // First line: what every stage touches.
    std::uint8_t* data = nullptr; ///< first byte of the current header
    std::uint32_t length = 0;     ///< bytes from data on
    std::uint16_t headroom = 0;   ///< bytes that may be written before data
    std::uint16_t tailroom = 0;   ///< bytes that may be written after data + length
    buffer_owner* owner = nullptr;
    std::uint64_t handle = 0; ///< the owner's: frame address, mbuf pointer
    std::uint16_t flags = 0;  ///< packet_flag
    std::uint8_t port = 0;    ///< index of the rx port; after next_hop of the tx port
    std::uint8_t drop = 0;    ///< drop_reason once it is lost
    ipsec::family family = ipsec::family::unspecified;
    std::uint8_t protocol = 0;  ///< last header: what selectors compare
    std::uint8_t l2_length = 0; ///< bytes of Ethernet before data, still in the headroom
    std::uint8_t tos = 0;       ///< DSCP and ECN
    union {
        std::uint16_t l4_offset = 0; ///< from data to the upper-layer header
        std::uint16_t split_at;      ///< once it is ready to leave; bytes from the IP header on
    };
    wire::be16 source_port; ///< as in ipsec::flow
    wire::be16 destination_port;
    std::uint16_t interface = 0; ///< fib::interface it came in on; after next_hop it leaves by
    union {
        const sa_in* inbound_sa = nullptr; ///< SA it came out of; nullptr = clear
        std::uint64_t ticket;              ///< between two workers, instead: see in_order.h
    };
    union {
        const adjacency* next = nullptr; ///< how it leaves; valid within one burst
        handover_note note;              ///< between two workers, instead
    };

    [[nodiscard]] const wire::ipv4_header& ipv4() const noexcept {
        return *reinterpret_cast<const wire::ipv4_header*>(data);
    }
    [[nodiscard]] const wire::ipv6_header& ipv6() const noexcept {
        return *reinterpret_cast<const wire::ipv6_header*>(data);
    }
    [[nodiscard]] wire::ipv4_header& ipv4() noexcept {
        return *reinterpret_cast<wire::ipv4_header*>(data);
    }
    [[nodiscard]] wire::ipv6_header& ipv6() noexcept {
        return *reinterpret_cast<wire::ipv6_header*>(data);
    }

    /// The mark that ESP of ours is to be sent with.  It lies where the ports of what is inside
    /// were, which nobody asks for any more.
    void put_mark(std::uint32_t mark) noexcept {
        source_port = wire::be16::from_network(static_cast<std::uint16_t>(mark >> 16));
        destination_port = wire::be16::from_network(static_cast<std::uint16_t>(mark));
        flags |= packet_flag::marked;
    }
    /// 0 where it is to have none of its own.
    [[nodiscard]] std::uint32_t mark() const noexcept {
        if ((flags & packet_flag::marked) == 0) return 0;
        return std::uint32_t{source_port.network()} << 16 | destination_port.network();
    }

    /// Moves the front by `bytes` towards the end (decap) or, negative, into the headroom (encap).
    /// The caller has checked the room.
    void pull(int bytes) noexcept {
        data += bytes;
        length = static_cast<std::uint32_t>(static_cast<int>(length) - bytes);
        headroom = static_cast<std::uint16_t>(headroom + bytes);
    }
    /// Moves both ends outwards.  The caller has checked the room.
    void grow(std::uint32_t front, std::uint32_t back) noexcept {
        data -= front;
        length += front + back;
        headroom = static_cast<std::uint16_t>(headroom - front);
        tailroom = static_cast<std::uint16_t>(tailroom - back);
    }
    /// Moves the end by `bytes`; negative shortens.
    void extend(int bytes) noexcept {
        length = static_cast<std::uint32_t>(static_cast<int>(length) + bytes);
        tailroom = static_cast<std::uint16_t>(tailroom - bytes);
    }
};
static_assert(sizeof(packet) == 64, "one cache line a packet");

/// Where buffers come from and go back to.
class buffer_owner {
  public:
    virtual ~buffer_owner() = default;
    /// Takes back the buffers of packets that are at their end.  Never fails.  Any worker may call
    /// it, whichever received them.
    virtual void release(std::span<packet* const> packets) noexcept = 0;
    /// A fresh buffer with at least 256 bytes of headroom and `room` bytes after data, length 0.
    /// False where none is left.
    [[nodiscard]] virtual bool allocate(packet& into, std::uint32_t room) noexcept = 0;
};

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// Packet headers as they lie on the wire.  All have alignment 1: a pointer into a packet may be
// cast to one after its length was checked, and only then.
#pragma once

#include <array>
#include <cstdint>

#include "lib/wire/endian.h"

namespace esplane::wire {

inline constexpr std::uint16_t ethertype_ipv4 = 0x0800;
inline constexpr std::uint16_t ethertype_ipv6 = 0x86dd;
inline constexpr std::uint16_t ethertype_arp = 0x0806;
inline constexpr std::uint16_t ethertype_8021q = 0x8100;
inline constexpr std::uint16_t ethertype_8021ad = 0x88a8;

inline constexpr std::uint8_t proto_hopopts = 0;
inline constexpr std::uint8_t proto_icmp = 1;
inline constexpr std::uint8_t proto_ipip = 4;
inline constexpr std::uint8_t proto_tcp = 6;
inline constexpr std::uint8_t proto_udp = 17;
inline constexpr std::uint8_t proto_ipv6 = 41;
inline constexpr std::uint8_t proto_routing = 43;
inline constexpr std::uint8_t proto_fragment = 44;
inline constexpr std::uint8_t proto_gre = 47;
inline constexpr std::uint8_t proto_esp = 50;
inline constexpr std::uint8_t proto_ah = 51;
inline constexpr std::uint8_t proto_icmpv6 = 58;
inline constexpr std::uint8_t proto_none = 59;
inline constexpr std::uint8_t proto_dstopts = 60;
inline constexpr std::uint8_t proto_comp = 108;
inline constexpr std::uint8_t proto_dccp = 33;
inline constexpr std::uint8_t proto_sctp = 132;
inline constexpr std::uint8_t proto_mobility = 135;
inline constexpr std::uint8_t proto_udplite = 136;

using mac_address = std::array<std::uint8_t, 6>;

struct ethernet_header {
    mac_address destination;
    mac_address source;
    be16 type;
};
static_assert(sizeof(ethernet_header) == 14);

/// RFC 791 section 3.1, without options.
struct ipv4_header {
    std::uint8_t version_ihl;
    std::uint8_t tos;
    be16 total_length;
    be16 id;
    be16 fragment; ///< flags and offset: ipv4_df, ipv4_mf, 13 bits of offset
    std::uint8_t ttl;
    std::uint8_t protocol;
    be16 checksum;
    be32 source;
    be32 destination;
};
static_assert(sizeof(ipv4_header) == 20 && alignof(ipv4_header) == 1);

inline constexpr std::uint16_t ipv4_df = 0x4000;
inline constexpr std::uint16_t ipv4_mf = 0x2000;
inline constexpr std::uint16_t ipv4_offset_mask = 0x1fff;

/// RFC 8200 section 3.
struct ipv6_header {
    be32 version_class_flow;
    be16 payload_length;
    std::uint8_t next_header;
    std::uint8_t hop_limit;
    std::array<std::uint8_t, 16> source;
    std::array<std::uint8_t, 16> destination;
};
static_assert(sizeof(ipv6_header) == 40 && alignof(ipv6_header) == 1);

/// RFC 9293 section 3.1, without options.
struct tcp_header {
    be16 source;
    be16 destination;
    be32 sequence;
    be32 acknowledgement;
    std::uint8_t offset; ///< high half: of the payload, in 4 bytes
    std::uint8_t flags;
    be16 window;
    be16 checksum;
    be16 urgent;
};
static_assert(sizeof(tcp_header) == 20);

inline constexpr std::uint8_t tcp_fin = 0x01, tcp_psh = 0x08, tcp_ack = 0x10, tcp_cwr = 0x80;

struct udp_header {
    be16 source;
    be16 destination;
    be16 length;
    be16 checksum;
};
static_assert(sizeof(udp_header) == 8);

/// RFC 4303 section 2: what stands before the IV.
struct esp_header {
    be32 spi;
    be32 sequence;
};
static_assert(sizeof(esp_header) == 8);

} // namespace esplane::wire

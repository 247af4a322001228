// SPDX-License-Identifier: Apache-2.0
#include "fastpath/parse.h"

#include <algorithm>

#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

constexpr unsigned max_extension_headers = 8;
constexpr std::size_t checksum_at_tcp = 16;
constexpr std::size_t checksum_at_udp = 6;

/// A virtual device hands over TCP and UDP whose checksum field holds only the sum of the
/// pseudo-header.  Such a field is completed; a finished one that happens to equal the sum comes
/// out as it was.
template <std::size_t AddressLength>
void complete_checksum(packet& p, const std::uint8_t* addresses, std::size_t at) noexcept {
    std::uint8_t* l4 = p.data + p.l4_offset;
    const std::uint32_t length = p.length - p.l4_offset;
    if (length < at + 2) return;
    const std::uint64_t pseudo = wire::checksum_pseudo(addresses, addresses + AddressLength,
                                                       AddressLength, p.protocol, length);
    if (wire::load<std::uint16_t>(l4 + at) != wire::checksum_fold(pseudo)) return;
    // The field itself stands for the pseudo-header in this sum.
    wire::be16 sum = wire::checksum_finish(wire::checksum_add(0, l4, length));
    if (p.protocol == wire::proto_udp && sum == wire::be16()) sum = wire::be16(0xffff);
    wire::store(l4 + at, sum);
}

/// The halves of a GRE key stand for ports, where there is one (RFC 2890).
drop_reason parse_gre(packet& p, const std::uint8_t* gre, std::uint32_t length) noexcept {
    constexpr std::uint16_t has_checksum = 0x8000, has_key = 0x2000;
    if (length < 4) return drop_reason::ip_malformed;
    const std::uint16_t flags = wire::load<wire::be16>(gre).host();
    if ((flags & has_key) == 0) return drop_reason::none;
    const std::uint32_t key = (flags & has_checksum) != 0 ? 8 : 4;
    if (length < key + 4) return drop_reason::ip_malformed;
    p.source_port = wire::load<wire::be16>(gre + key);
    p.destination_port = wire::load<wire::be16>(gre + key + 2);
    return drop_reason::none;
}

/// Ports, or what ipsec::flow has in their place.
template <std::size_t AddressLength>
drop_reason parse_l4(packet& p, const std::uint8_t* addresses, bool checksums) noexcept {
    const std::uint8_t* l4 = p.data + p.l4_offset;
    const std::uint32_t length = p.length - p.l4_offset;
    switch (p.protocol) {
    case wire::proto_tcp:
    case wire::proto_udp:
        if (length < 8) return drop_reason::ip_malformed;
        p.source_port = wire::load<wire::be16>(l4);
        p.destination_port = wire::load<wire::be16>(l4 + 2);
        if (checksums)
            complete_checksum<AddressLength>(
                p, addresses, p.protocol == wire::proto_tcp ? checksum_at_tcp : checksum_at_udp);
        return drop_reason::none;
    case wire::proto_sctp:
    case wire::proto_dccp:
    case wire::proto_udplite:
        if (length < 8) return drop_reason::ip_malformed;
        p.source_port = wire::load<wire::be16>(l4);
        p.destination_port = wire::load<wire::be16>(l4 + 2);
        return drop_reason::none;
    case wire::proto_icmp:
    case wire::proto_icmpv6:
        if (length < 4) return drop_reason::ip_malformed;
        p.source_port = wire::be16(l4[0]);
        p.destination_port = wire::be16(l4[1]);
        return drop_reason::none;
    case wire::proto_mobility:
        if (length < 8) return drop_reason::ip_malformed;
        p.source_port = wire::be16(l4[2]);
        return drop_reason::none;
    case wire::proto_gre:
        return parse_gre(p, l4, length);
    default:
        return drop_reason::none;
    }
}

/// The folded sum of an IPv4 header.  Nearly all have 20 bytes: five words, no loop.
std::uint16_t header_sum(const std::uint8_t* ip, unsigned length) noexcept {
    std::uint64_t sum = std::uint64_t{wire::load<std::uint32_t>(ip)} +
                        wire::load<std::uint32_t>(ip + 4) + wire::load<std::uint32_t>(ip + 8) +
                        wire::load<std::uint32_t>(ip + 12) + wire::load<std::uint32_t>(ip + 16);
    if (length > sizeof(wire::ipv4_header)) [[unlikely]]
        sum = wire::checksum_add(sum, ip + sizeof(wire::ipv4_header),
                                 length - sizeof(wire::ipv4_header));
    return wire::checksum_fold(sum);
}

/// Neither for the machine nor made by it.
bool passes_through(const packet& p) noexcept {
    return p.next->kind != adjacency_kind::local && (p.flags & packet_flag::created) == 0;
}

/// Whether an address lies in 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 or is the broadcast.
bool is_confined_v4(const std::uint8_t* address) noexcept {
    const std::uint8_t first = address[0];
    return first == 0 || first == 127 || (first >= 224 && first < 240) ||
           wire::load<std::uint32_t>(address) == 0xffffffff;
}

/// Whether an address is :: or ::1, or lies in fe80::/10 or ff00::/8.
bool is_confined_v6(const std::uint8_t* address) noexcept {
    if (address[0] == 0xff || (address[0] == 0xfe && (address[1] & 0xc0) == 0x80)) return true;
    return std::all_of(address, address + 15, [](std::uint8_t b) { return b == 0; }) &&
           address[15] <= 1;
}

/// Whether no router forwards the packet.  The first bytes of its addresses clear nearly all.
bool must_stay_v4(const packet& p, const std::uint8_t* source,
                  const std::uint8_t* destination) noexcept {
    const auto may_be = [](std::uint8_t first) {
        return static_cast<std::uint8_t>(first - 1) >= 223 || first == 127;
    };
    if (!may_be(source[0]) && !may_be(destination[0])) [[likely]]
        return false;
    return passes_through(p) && (is_confined_v4(source) || is_confined_v4(destination));
}

bool must_stay_v6(const packet& p, const std::uint8_t* source,
                  const std::uint8_t* destination) noexcept {
    // 0x00, 0xfe, 0xff
    const auto may_be = [](std::uint8_t first) {
        return static_cast<std::uint8_t>(first + 2) <= 2;
    };
    if (!may_be(source[0]) && !may_be(destination[0])) [[likely]]
        return false;
    return passes_through(p) && (is_confined_v6(source) || is_confined_v6(destination));
}

drop_reason parse_ipv4(packet& p, const fib& routes, bool checksums) noexcept {
    if (p.length < sizeof(wire::ipv4_header)) return drop_reason::ip_malformed;
    const wire::ipv4_header& ip = p.ipv4();
    const unsigned header = (ip.version_ihl & 0x0f) * 4u;
    const unsigned total = ip.total_length.host();
    if (header < sizeof ip || total < header || total > p.length) return drop_reason::ip_malformed;
    if (header_sum(p.data, header) != 0xffff) return drop_reason::ip_checksum;
    p.extend(static_cast<int>(total) - static_cast<int>(p.length)); // Ethernet padding
    p.family = family::ipv4;
    p.protocol = ip.protocol;
    p.tos = ip.tos;
    p.l4_offset = static_cast<std::uint16_t>(header);
    p.next = &routes.lookup_v4(ip.destination);
    const std::uint8_t* addresses = p.data + offsetof(wire::ipv4_header, source);
    if (must_stay_v4(p, addresses, addresses + 4)) return drop_reason::ip_scope;
    const std::uint16_t fragment = ip.fragment.host();
    if ((fragment & wire::ipv4_df) != 0) p.flags |= packet_flag::dont_fragment;
    if ((fragment & (wire::ipv4_mf | wire::ipv4_offset_mask)) != 0) return drop_reason::fragment;
    return parse_l4<4>(p, addresses, checksums);
}

/// Walks the extension headers to what selectors compare.
drop_reason find_upper_layer(packet& p) noexcept {
    std::uint8_t next = p.ipv6().next_header;
    std::uint32_t at = sizeof(wire::ipv6_header);
    for (unsigned i = 0; i < max_extension_headers; ++i) {
        switch (next) {
        case wire::proto_hopopts:
        case wire::proto_routing:
        case wire::proto_dstopts:
            if (p.length < at + 8) return drop_reason::ip_malformed;
            next = p.data[at];
            at += (p.data[at + 1] + 1u) * 8u;
            if (at > p.length) return drop_reason::ip_malformed;
            continue;
        case wire::proto_fragment:
            return drop_reason::fragment;
        default:
            p.protocol = next;
            p.l4_offset = static_cast<std::uint16_t>(at);
            return drop_reason::none;
        }
    }
    return drop_reason::ip_malformed;
}

drop_reason parse_ipv6(packet& p, const fib& routes, bool checksums) noexcept {
    if (p.length < sizeof(wire::ipv6_header)) return drop_reason::ip_malformed;
    const wire::ipv6_header& ip = p.ipv6();
    const unsigned total = sizeof ip + ip.payload_length.host();
    if (total > p.length) return drop_reason::ip_malformed;
    p.extend(static_cast<int>(total) - static_cast<int>(p.length));
    p.family = family::ipv6;
    p.tos = static_cast<std::uint8_t>(ip.version_class_flow.host() >> 20);
    p.flags |= packet_flag::dont_fragment;
    p.next = &routes.lookup_v6(ip.destination.data());
    if (must_stay_v6(p, ip.source.data(), ip.destination.data())) return drop_reason::ip_scope;
    if (const drop_reason why = find_upper_layer(p); why != drop_reason::none) return why;
    return parse_l4<16>(p, ip.source.data(), checksums);
}

/// The IP packet behind an Ethernet header.
drop_reason strip_ethernet(packet& p) noexcept {
    if (p.length < sizeof(wire::ethernet_header) + 1) return drop_reason::frame_malformed;
    const auto type = wire::load<wire::be16>(p.data + offsetof(wire::ethernet_header, type)).host();
    if (type != wire::ethertype_ipv4 && type != wire::ethertype_ipv6)
        return drop_reason::frame_not_ip;
    p.pull(sizeof(wire::ethernet_header));
    p.l2_length = sizeof(wire::ethernet_header);
    return drop_reason::none;
}

} // namespace

drop_reason parse_ip(packet& p, const fib& routes, bool checksums) noexcept {
    p.flags &= packet_flag::created;
    p.source_port = p.destination_port = {};
    if (p.length == 0) return drop_reason::ip_malformed;
    const unsigned version = p.data[0] >> 4;
    const drop_reason why = version == 4   ? parse_ipv4(p, routes, checksums)
                            : version == 6 ? parse_ipv6(p, routes, checksums)
                                           : drop_reason::ip_malformed;
    if (why == drop_reason::none && p.next->kind == adjacency_kind::local)
        p.flags |= packet_flag::for_machine;
    return why;
}

drop_reason read_ports(packet& p) noexcept {
    return p.family == family::ipv4 ? parse_l4<4>(p, nullptr, false)
                                    : parse_l4<16>(p, nullptr, false);
}

bool is_esp_in_udp(const packet& p, const tables& shared) noexcept {
    if (p.protocol != wire::proto_udp || !shared.is_encap_port(p.destination_port)) return false;
    if (p.length < p.l4_offset + sizeof(wire::udp_header) + sizeof(wire::esp_header)) return false;
    const auto spi = wire::load<wire::be32>(p.data + p.l4_offset + sizeof(wire::udp_header));
    return spi != wire::be32();
}

void parse(stage& s, std::span<packet> frames, bool ethernet, packet_list& esp,
           packet_list& clear) noexcept {
    for (packet& p : frames)
        __builtin_prefetch(p.data);
    for (packet& p : frames) {
        drop_reason why = ethernet ? strip_ethernet(p) : drop_reason::none;
        if (why == drop_reason::none) why = parse_ip(p, s.routes, true);
        if (why != drop_reason::none) {
            s.drop(p, why);
            continue;
        }
        const bool ours = (p.flags & packet_flag::for_machine) != 0;
        if (ours && (p.protocol == wire::proto_esp || is_esp_in_udp(p, s.shared)))
            esp.push(p);
        else
            clear.push(p);
    }
}

} // namespace esplane::fastpath

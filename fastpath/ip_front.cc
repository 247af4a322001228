// SPDX-License-Identifier: Apache-2.0
#include "fastpath/ip_front.h"

#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

/// Where the checksum is, from the upper-layer header; 0: it has none that covers addresses.
std::uint32_t checksum_offset(const packet& p) noexcept {
    switch (p.protocol) {
    case wire::proto_tcp:
        return offsetof(wire::tcp_header, checksum);
    case wire::proto_udp:
        return offsetof(wire::udp_header, checksum);
    case wire::proto_icmpv6:
        return p.family == family::ipv6 ? 2 : 0;
    default:
        return 0;
    }
}

/// Over everything from the upper-layer header on, with what stands in its checksum field.
wire::be16 checksum_over(const packet& p, std::uint8_t protocol) noexcept {
    const std::uint32_t length = p.length - p.l4_offset;
    const bool v4 = p.family == family::ipv4;
    const std::uint8_t* const source =
        p.data + (v4 ? offsetof(wire::ipv4_header, source) : offsetof(wire::ipv6_header, source));
    const std::size_t address = v4 ? 4 : 16;
    const std::uint64_t pseudo =
        wire::checksum_pseudo(source, source + address, address, protocol, length);
    return wire::checksum_finish(wire::checksum_add(pseudo, p.data + p.l4_offset, length));
}

/// at   of the field from the upper-layer header
void renew_at(packet& p, std::uint8_t protocol, std::uint32_t at) noexcept {
    std::uint8_t* const field = p.data + p.l4_offset + at;
    wire::store(field, wire::be16());
    wire::be16 sum = checksum_over(p, protocol);
    if (protocol == wire::proto_udp && sum == wire::be16()) sum = wire::be16(0xffff);
    wire::store(field, sum);
}

/// Walks the extension headers, whose lengths parse has checked.
///
/// esp   stops where ESP begins
ip_front walk_ipv6(const packet& p, bool esp) noexcept {
    ip_front f{sizeof(wire::ipv6_header), offsetof(wire::ipv6_header, next_header)};
    bool routed = false;
    while (f.length < p.l4_offset) {
        const std::uint8_t type = p.data[f.next_at];
        if (esp && routed && type == wire::proto_dstopts) break;
        routed = routed || type == wire::proto_routing;
        f.next_at = f.length;
        f.length += (p.data[f.length + 1] + 1u) * 8u;
    }
    return f;
}

ip_front ipv4_front(const packet& p) noexcept {
    return {p.l4_offset, offsetof(wire::ipv4_header, protocol)};
}

} // namespace

ip_front front_of(const packet& p) noexcept {
    return p.family == family::ipv4 ? ipv4_front(p) : walk_ipv6(p, false);
}

ip_front front_before_esp(const packet& p) noexcept {
    return p.family == family::ipv4 ? ipv4_front(p) : walk_ipv6(p, true);
}

void rewrite_front(packet& p, const ip_front& front, std::uint8_t protocol) noexcept {
    if (p.family == family::ipv6) {
        p.data[front.next_at] = protocol;
        p.ipv6().payload_length.set(
            static_cast<std::uint16_t>(p.length - sizeof(wire::ipv6_header)));
        return;
    }
    auto& ip = p.ipv4();
    const auto hop_word = [&] { return wire::load<wire::be16>(&ip.ttl); };
    const wire::be16 length_before = ip.total_length, hop_before = hop_word();
    ip.total_length.set(static_cast<std::uint16_t>(p.length));
    ip.protocol = protocol;
    ip.checksum = wire::checksum_update(ip.checksum, length_before, ip.total_length);
    ip.checksum = wire::checksum_update(ip.checksum, hop_before, hop_word());
}

void renew_checksum(packet& p) noexcept {
    const std::uint32_t at = checksum_offset(p);
    if (at == 0 || p.length < p.l4_offset + at + 2) return;
    const bool none = p.protocol == wire::proto_udp &&
                      wire::load<wire::be16>(p.data + p.l4_offset + at) == wire::be16();
    if (!none) renew_at(p, p.protocol, at);
}

void write_udp_checksum(packet& p) noexcept {
    renew_at(p, wire::proto_udp, offsetof(wire::udp_header, checksum));
}

} // namespace esplane::fastpath

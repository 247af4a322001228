// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/kernel_peer_wire.h"

#include <cstring>
#include <sstream>
#include <stdexcept>

#include "lib/wire/checksum.h"

namespace esplane::tests {

namespace {

constexpr std::size_t ip_at = sizeof(wire::ethernet_header);

/// Over IPv6 it covers the ciphertext, which no two gateways share.
void forget_checksum(outer_header& h, const frame& f, std::size_t udp_at) {
    const auto udp = wire::load<wire::udp_header>(&f[udp_at]);
    const std::uint8_t* const addresses = &f[ip_at + offsetof(wire::ipv6_header, source)];
    const std::uint64_t pseudo =
        wire::checksum_pseudo(addresses, addresses + 16, 16, wire::proto_udp, udp.length.host());
    const auto sum = wire::checksum_add(pseudo, &f[udp_at], udp.length.host());
    if (wire::checksum_fold(sum) != 0xffff)
        throw std::runtime_error("an outer UDP header with a bad checksum");
    h.udp[6] = h.udp[7] = 0;
}

} // namespace

std::string text_of(const outer_header& h) {
    std::ostringstream out;
    out << std::hex << "class/flow " << h.first_word << std::dec << " length " << h.length
        << " ttl " << unsigned{h.ttl} << " protocol " << unsigned{h.protocol} << " df "
        << h.dont_fragment << " udp" << std::hex;
    for (const std::uint8_t b : h.udp)
        out << ' ' << unsigned{b};
    return out.str();
}

bool is_packet(const frame& f, std::uint8_t protocol, std::uint16_t to_port) {
    if (f.size() < ip_at + sizeof(wire::ipv4_header)) return false;
    const std::uint16_t type = wire::load<wire::ethernet_header>(f.data()).type.host();
    std::size_t l4 = ip_at + sizeof(wire::ipv4_header);
    std::uint8_t found = f[ip_at + 9];
    if (type == wire::ethertype_ipv6) {
        l4 = ip_at + sizeof(wire::ipv6_header);
        found = f[ip_at + 6];
    } else if (type != wire::ethertype_ipv4)
        return false;
    if (found != protocol || f.size() < l4 + sizeof(wire::udp_header)) return false;
    return to_port == 0 || wire::load<wire::udp_header>(&f[l4]).destination.host() == to_port;
}

bool is_esp(const frame& f) {
    return is_packet(f, wire::proto_esp, 0) || is_packet(f, wire::proto_udp, 4500);
}

esp_view view_of(const frame& f) {
    esp_view v;
    std::size_t l4 = ip_at;
    if (f[ip_at] >> 4 == 4) {
        const auto ip = wire::load<wire::ipv4_header>(&f[ip_at]);
        v.outer.first_word = ip.tos;
        v.outer.length = ip.total_length.host();
        v.outer.ttl = ip.ttl;
        v.outer.protocol = ip.protocol;
        v.outer.dont_fragment = (ip.fragment.host() & wire::ipv4_df) != 0;
        if (wire::checksum_fold(wire::checksum_add(0, &ip, sizeof ip)) != 0xffff)
            throw std::runtime_error("an outer header with a bad checksum");
        l4 += sizeof ip;
    } else {
        const auto ip = wire::load<wire::ipv6_header>(&f[ip_at]);
        v.outer.first_word = ip.version_class_flow.host();
        v.outer.length = ip.payload_length.host();
        v.outer.ttl = ip.hop_limit;
        v.outer.protocol = ip.next_header;
        l4 += sizeof ip;
    }
    if (v.outer.protocol == wire::proto_udp) {
        std::memcpy(v.outer.udp.data(), f.data() + l4, v.outer.udp.size());
        if (f[ip_at] >> 4 == 6) forget_checksum(v.outer, f, l4);
        l4 += sizeof(wire::udp_header);
    }
    v.sequence = wire::load<wire::esp_header>(f.data() + l4).sequence.host();
    return v;
}

void mark_ce(frame& f) {
    if (f[ip_at] >> 4 == 4) {
        auto ip = wire::load<wire::ipv4_header>(&f[ip_at]);
        ip.tos |= ecn_ce;
        ip.checksum = {};
        ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
        wire::store(&f[ip_at], ip);
    } else
        f[ip_at + 1] |= ecn_ce << 4;
}

} // namespace esplane::tests

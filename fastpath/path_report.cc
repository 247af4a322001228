// SPDX-License-Identifier: Apache-2.0
#include "fastpath/path_report.h"

#include <algorithm>
#include <optional>

#include "fastpath/fragment.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;
using bytes = std::span<const std::uint8_t>;

constexpr std::uint32_t icmp_header_length = 8;
constexpr std::uint16_t unreachable_v4 = 3, fragmentation_needed = 4, too_big_v6 = 2;

/// As far as a router quoted it.
struct quoted {
    ipsec::address source, destination;
    std::uint8_t protocol = 0;
    bytes upper;
};

bool is_about_size(const packet& p) noexcept {
    const std::uint16_t type = p.source_port.host(), code = p.destination_port.host();
    return p.family == family::ipv4 ? type == unreachable_v4 && code == fragmentation_needed
                                    : type == too_big_v6;
}

bool is_intact(const packet& p) noexcept {
    const std::uint32_t length = p.length - p.l4_offset;
    std::uint64_t sum = 0;
    if (p.family == family::ipv6)
        sum = wire::checksum_pseudo(p.ipv6().source.data(), p.ipv6().destination.data(), 16,
                                    wire::proto_icmpv6, length);
    sum = wire::checksum_add(sum, p.data + p.l4_offset, length);
    return sum != 0 && wire::sums_to_ones(sum);
}

std::optional<quoted> read_v4(bytes quote) noexcept {
    if (quote.size() < sizeof(wire::ipv4_header)) return std::nullopt;
    const auto ip = wire::load<wire::ipv4_header>(quote.data());
    const std::size_t header = (ip.version_ihl & 0x0fu) * 4u;
    const bool first = (ip.fragment.host() & wire::ipv4_offset_mask) == 0;
    if (ip.version_ihl >> 4 != 4 || header < sizeof ip || header > quote.size() || !first)
        return std::nullopt;
    return quoted{ipsec::address::v4(ip.source), ipsec::address::v4(ip.destination), ip.protocol,
                  quote.subspan(header)};
}

std::optional<quoted> read_v6(bytes quote) noexcept {
    if (quote.size() < sizeof(wire::ipv6_header)) return std::nullopt;
    const auto ip = wire::load<wire::ipv6_header>(quote.data());
    quoted q{ipsec::address::v6(ip.source), ipsec::address::v6(ip.destination), ip.next_header,
             quote.subspan(sizeof ip)};
    if (q.protocol != wire::proto_fragment) return q;
    if (q.upper.size() < sizeof(ipv6_fragment_header)) return std::nullopt;
    const auto f = wire::load<ipv6_fragment_header>(q.upper.data());
    if ((f.offset.host() & ~std::uint16_t{7}) != 0) return std::nullopt;
    q.protocol = f.next_header;
    q.upper = q.upper.subspan(sizeof f);
    return q;
}

/// Of the ESP that is quoted.
std::optional<wire::be32> spi_of(const stage& s, quoted q) noexcept {
    if (q.protocol == wire::proto_udp) {
        if (q.upper.size() < sizeof(wire::udp_header)) return std::nullopt;
        if (!s.shared.is_encap_port(wire::load<wire::udp_header>(q.upper.data()).source))
            return std::nullopt;
        q.upper = q.upper.subspan(sizeof(wire::udp_header));
    } else if (q.protocol != wire::proto_esp) {
        return std::nullopt;
    }
    if (q.upper.size() < sizeof(wire::be32)) return std::nullopt;
    return wire::load<wire::be32>(q.upper.data());
}

ipsec::address destination_of(const packet& p) noexcept {
    return p.family == family::ipv4 ? ipsec::address::v4(p.ipv4().destination)
                                    : ipsec::address::v6(p.ipv6().destination);
}

std::optional<worker_event> read(const stage& s, const packet& p) noexcept {
    if (!is_about_size(p) || p.length < p.l4_offset + icmp_header_length) return std::nullopt;
    const bool v4 = p.family == family::ipv4;
    const std::uint8_t* icmp = p.data + p.l4_offset;
    const bytes quote(icmp + icmp_header_length, p.length - p.l4_offset - icmp_header_length);
    const auto about = v4 ? read_v4(quote) : read_v6(quote);
    if (!about || about->source != destination_of(p)) return std::nullopt;
    const auto spi = spi_of(s, *about);
    if (!spi || !is_intact(p)) return std::nullopt;
    worker_event e;
    e.kind = worker_event_kind::path_limit;
    e.id = {about->destination, *spi, wire::proto_esp};
    e.source = about->source;
    e.mtu = v4 ? wire::load<wire::be16>(icmp + 6).host() : wire::load<wire::be32>(icmp + 4).host();
    return e.mtu != 0 ? std::optional(e) : std::nullopt;
}

} // namespace

/// Where the ring is full, the next packet that is too long brings the next message.
void hear_path_report(stage& s, const packet& p) noexcept {
    const auto said = read(s, p);
    if (said && s.budget.hear()) (void)s.events.push(*said);
}

} // namespace esplane::fastpath

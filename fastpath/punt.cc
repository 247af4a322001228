// SPDX-License-Identifier: Apache-2.0
#include "fastpath/punt.h"

#include <algorithm>

namespace esplane::fastpath {

namespace {

constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr std::uint16_t ike_port = 500, ike_nat_port = 4500;
constexpr std::uint16_t first_nd_type = 133, last_nd_type = 137; // RFC 4861

bool is_ike_port(wire::be16 port) noexcept {
    return port.host() == ike_port || port.host() == ike_nat_port;
}

punt_class class_of_frame(const packet& p) noexcept {
    if (p.length < sizeof(wire::ethernet_header)) return punt_class::other;
    const auto& frame = *reinterpret_cast<const wire::ethernet_header*>(p.data);
    return frame.type.host() == wire::ethertype_arp ? punt_class::arp_nd : punt_class::other;
}

} // namespace

punt_rates punt_rates::shared_by(unsigned workers) const noexcept {
    punt_rates share;
    for (std::size_t i = 0; i < punt_class_count; ++i)
        if (per_second[i] != 0) share.per_second[i] = std::max(1u, per_second[i] / workers);
    return share;
}

punt_class class_of(const packet& p) noexcept {
    if (p.family == ipsec::family::unspecified) return class_of_frame(p);
    switch (p.protocol) {
    case wire::proto_udp:
        return is_ike_port(p.source_port) || is_ike_port(p.destination_port) ? punt_class::ike
                                                                             : punt_class::other;
    case wire::proto_icmp:
        return punt_class::icmp;
    case wire::proto_icmpv6: { // the type stands in the place of a source port
        const std::uint16_t type = p.source_port.host();
        return type >= first_nd_type && type <= last_nd_type ? punt_class::arp_nd
                                                             : punt_class::icmp;
    }
    default:
        return punt_class::other;
    }
}

drop_reason limit_of(punt_class c) noexcept {
    switch (c) {
    case punt_class::ike:
        return drop_reason::punt_limited_ike;
    case punt_class::arp_nd:
        return drop_reason::punt_limited_arp_nd;
    case punt_class::icmp:
        return drop_reason::punt_limited_icmp;
    default:
        return drop_reason::punt_limited_other;
    }
}

punt_limiter::punt_limiter(const punt_rates& rates) noexcept {
    for (std::size_t i = 0; i < punt_class_count; ++i) {
        if (rates.per_second[i] == 0) continue;
        bucket& b = buckets_[i];
        b.cost_ns = std::max<std::uint64_t>(1, second_ns / rates.per_second[i]);
        b.depth_ns = std::max(burst_ns, smallest_burst * b.cost_ns);
    }
}

bool punt_limiter::admit(punt_class c, std::uint64_t now_ns) noexcept {
    bucket& b = buckets_[static_cast<std::size_t>(c)];
    if (b.cost_ns == 0) return true;
    const std::uint64_t paid = std::max(b.paid_until_ns, now_ns);
    if (paid + b.cost_ns > now_ns + b.depth_ns) return false;
    b.paid_until_ns = paid + b.cost_ns;
    return true;
}

} // namespace esplane::fastpath

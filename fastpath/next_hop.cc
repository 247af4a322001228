// SPDX-License-Identifier: Apache-2.0
#include "fastpath/next_hop.h"

#include "fastpath/icmp.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

/// RFC 1812 section 5.3.1.  False: it was the last hop.
bool decrement_ttl(packet& p) noexcept {
    if (p.family == family::ipv6) {
        if (p.ipv6().hop_limit <= 1) return false;
        --p.ipv6().hop_limit;
        return true;
    }
    wire::ipv4_header& ip = p.ipv4();
    if (ip.ttl <= 1) return false;
    // RFC 1141: one less in the high byte of a word is 0x0100 more in the sum.
    const std::uint32_t sum = ip.checksum.network() + wire::be16(0x0100).network();
    ip.checksum = wire::be16::from_network(static_cast<std::uint16_t>(sum + (sum >= 0xffff)));
    --ip.ttl;
    return true;
}

/// The caller has checked the headroom.
void write_ethernet(packet& p, const wire::mac_address& to,
                    const wire::mac_address& from) noexcept {
    p.pull(-static_cast<int>(sizeof(wire::ethernet_header)));
    auto& frame = *reinterpret_cast<wire::ethernet_header*>(p.data);
    frame.destination = to;
    frame.source = from;
    frame.type.set(p.family == family::ipv4 ? wire::ethertype_ipv4 : wire::ethertype_ipv6);
}

} // namespace

drop_reason refusal(const adjacency& route) noexcept {
    switch (route.kind) {
    case adjacency_kind::missing:
        return drop_reason::route_missing;
    case adjacency_kind::foreign:
        return drop_reason::port_missing;
    case adjacency_kind::local: // a policy's tunnel end, or an ICMP error, that is the machine
    case adjacency_kind::denied:
        return drop_reason::route_denied;
    default:
        return drop_reason::none;
    }
}

bool age(stage& s, packet& p) noexcept {
    if (decrement_ttl(p)) return true;
    report_ttl_exceeded(s, p);
    s.drop(p, drop_reason::ttl_exceeded);
    return false;
}

bool check_route(stage& s, packet& p) noexcept {
    if (const drop_reason why = refusal(*p.next); why != drop_reason::none) {
        s.drop(p, why);
        return false;
    }
    if (p.length <= p.next->mtu) return true;
    if ((p.flags & packet_flag::dont_fragment) == 0) {
        s.drop(p, drop_reason::too_big_fragment);
        return false;
    }
    report_too_big(s, p, p.next->mtu);
    s.drop(p, drop_reason::too_big);
    return false;
}

bool address_frame(packet& p) noexcept {
    const adjacency& next = *p.next;
    if (next.kind == adjacency_kind::unresolved) return false;
    p.port = next.port;
    if (next.kind == adjacency_kind::bare) return true;
    write_ethernet(p, next.destination, next.source);
    return true;
}

void address_host_frame(packet& p, const fib& routes) noexcept {
    const wire::mac_address& own = routes.identity(p.port).mac;
    write_ethernet(p, own, own);
}

ipsec::address next_hop_of(const packet& p) noexcept {
    if (!p.next->gateway.is_any()) return p.next->gateway;
    return p.family == family::ipv4 ? ipsec::address::v4(p.ipv4().destination)
                                    : ipsec::address::v6(p.ipv6().destination);
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "fastpath/next_hop.h"

#include <algorithm>
#include <cstring>

#include "fastpath/icmp.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

drop_reason refusal_of(const adjacency& route) noexcept {
    switch (route.kind) {
    case adjacency_kind::missing:
        return drop_reason::route_missing;
    case adjacency_kind::foreign:
        return drop_reason::port_missing;
    case adjacency_kind::local: // a policy's tunnel end, or an ICMP error, that is the machine
    case adjacency_kind::denied:
        return drop_reason::route_denied;
    case adjacency_kind::tunnel: // what may enter one does not come here
        return drop_reason::route_tunnel;
    default:
        return drop_reason::none;
    }
}

void refuse_last_hop(stage& s, packet& p) noexcept {
    report_ttl_exceeded(s, p);
    s.drop(p, drop_reason::ttl_exceeded);
}

void write_tagged(packet& p, const wire::mac_address& to, const wire::mac_address& from,
                  const vlan_tags& tags) noexcept {
    const wire::be16 type = ethertype_of(p);
    p.pull(-static_cast<int>(sizeof(wire::ethernet_header) + tags.length));
    std::uint8_t* at = p.data;
    wire::store(at, to);
    wire::store(at += to.size(), from);
    std::memcpy(at += from.size(), tags.bytes.data(), tags.length);
    wire::store(at + tags.length, type);
}

bool check_route(stage& s, packet& p) noexcept {
    if (const drop_reason why = refusal(*p.next); why != drop_reason::none) {
        s.drop(p, why);
        return false;
    }
    if (p.headroom < ethernet_length(*p.next)) {
        s.drop(p, drop_reason::no_room);
        return false;
    }
    return check_size(s, p);
}

namespace {

/// Nothing looks at the upper layer any more of what is ready to leave.
bool mark_for_split(packet& p) noexcept {
    p.flags |= packet_flag::split;
    p.split_at = static_cast<std::uint16_t>(std::min(p.next->mtu, 0xffffu));
    return true;
}

} // namespace

bool check_size(stage& s, packet& p) noexcept {
    if (p.length <= p.next->mtu) return true;
    if ((p.flags & packet_flag::dont_fragment) == 0) {
        if (s.may_split) return p.next->kind == adjacency_kind::tunnel || mark_for_split(p);
        s.drop(p, drop_reason::too_big_fragment);
        return false;
    }
    report_too_big(s, p, p.next->mtu);
    s.drop(p, drop_reason::too_big);
    return false;
}

void address_host_frame(packet& p, const fib& routes) noexcept {
    const interface& own = routes.interface(p.interface);
    write_ethernet(p, own.mac, own.mac, own.tags);
}

ipsec::address next_hop_of(const packet& p) noexcept {
    if (!p.next->gateway.is_any()) return p.next->gateway;
    return p.family == ipsec::family::ipv4 ? ipsec::address::v4(p.ipv4().destination)
                                           : ipsec::address::v6(p.ipv6().destination);
}

} // namespace esplane::fastpath

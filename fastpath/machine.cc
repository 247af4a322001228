// SPDX-License-Identifier: Apache-2.0
#include "fastpath/machine.h"

#include <algorithm>
#include <cstring>

#include "fastpath/classify.h"
#include "fastpath/parse.h"
#include "fastpath/reassembly.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;
using ipsec::policy_direction;

constexpr unsigned max_vlan_tags = 2;
constexpr std::uint32_t vlan_tag_length = 4;
constexpr unsigned max_extension_headers = 6;
constexpr std::uint16_t vlan_8021q = 0x8100, vlan_8021ad = 0x88a8;

/// A frame as far as it could be read.
struct reading {
    packet ip;              ///< from the IP header on; family unspecified: not IP
    bool readable = false;  ///< protocol, ports and addresses of `ip` are known
    bool tags_hide = false; ///< more VLAN tags than are looked behind
    bool fragment = false;
    bool later_fragment = false; ///< not the first: no ports
    std::uint8_t hop_limit = 0;
    std::uint32_t fragment_id = 0;
};

bool is_vlan_tag(std::uint16_t type) noexcept {
    return type == vlan_8021q || type == vlan_8021ad;
}

bool is_ike_port(wire::be16 port) noexcept {
    return port == wire::be16(500) || port == wire::be16(4500);
}

/// Router and neighbour solicitation and advertisement, redirect (RFC 4861).
bool is_neighbour_discovery(std::uint16_t type) noexcept {
    return type >= 133 && type <= 137;
}

/// Multicast listener queries and reports (RFC 2710, RFC 3810).
bool is_listener_discovery(std::uint16_t type) noexcept {
    return (type >= 130 && type <= 132) || type == 143;
}

void read_ports_unless_fragment(reading& r) noexcept {
    r.readable = r.later_fragment || read_ports(r.ip) == drop_reason::none;
}

void read_ipv4(reading& r) noexcept {
    packet& p = r.ip;
    if (p.length < sizeof(wire::ipv4_header)) return;
    const wire::ipv4_header& ip = p.ipv4();
    const unsigned header = (ip.version_ihl & 0x0f) * 4u;
    if (ip.version_ihl >> 4 != 4 || header < sizeof ip || header > p.length) return;
    const std::uint16_t fragment = ip.fragment.host();
    r.fragment = (fragment & (wire::ipv4_mf | wire::ipv4_offset_mask)) != 0;
    r.later_fragment = (fragment & wire::ipv4_offset_mask) != 0;
    r.fragment_id = ip.id.host();
    r.hop_limit = ip.ttl;
    p.protocol = ip.protocol;
    p.l4_offset = static_cast<std::uint16_t>(header);
    read_ports_unless_fragment(r);
}

/// What stands in front of the upper layer, to its end or to where a later fragment begins.
bool skip_extension_headers(reading& r) noexcept {
    packet& p = r.ip;
    for (unsigned i = 0; i < max_extension_headers && !r.later_fragment; ++i) {
        const bool is_fragment = p.protocol == wire::proto_fragment;
        if (!is_fragment && p.protocol != wire::proto_hopopts &&
            p.protocol != wire::proto_routing && p.protocol != wire::proto_dstopts)
            return true;
        if (p.length < p.l4_offset + 8u) return false;
        const std::uint8_t* header = p.data + p.l4_offset;
        if (is_fragment) {
            const auto offset = wire::load<wire::be16>(header + 2).host();
            r.fragment = true;
            r.later_fragment = (offset & 0xfff8) != 0;
            r.fragment_id = wire::load<wire::be32>(header + 4).host();
        }
        p.l4_offset =
            static_cast<std::uint16_t>(p.l4_offset + (is_fragment ? 8u : (header[1] + 1u) * 8u));
        p.protocol = header[0];
        if (p.l4_offset > p.length) return false;
    }
    return r.later_fragment;
}

void read_ipv6(reading& r) noexcept {
    packet& p = r.ip;
    if (p.length < sizeof(wire::ipv6_header) || p.data[0] >> 4 != 6) return;
    p.protocol = p.ipv6().next_header;
    p.l4_offset = sizeof(wire::ipv6_header);
    r.hop_limit = p.ipv6().hop_limit;
    if (skip_extension_headers(r)) read_ports_unless_fragment(r);
}

reading read_frame(const packet& frame) noexcept {
    reading r{.ip = frame};
    if (frame.length < sizeof(wire::ethernet_header)) return r;
    std::uint32_t at = sizeof(wire::ethernet_header);
    const auto type_at = [&](std::uint32_t end) {
        return wire::load<wire::be16>(frame.data + end - 2).host();
    };
    std::uint16_t type = type_at(at);
    for (unsigned tags = 0; is_vlan_tag(type); ++tags) {
        if (tags == max_vlan_tags || frame.length < at + vlan_tag_length) {
            r.tags_hide = true;
            return r;
        }
        at += vlan_tag_length;
        type = type_at(at);
    }
    if (type != wire::ethertype_ipv4 && type != wire::ethertype_ipv6) return r;
    r.ip.pull(static_cast<int>(at));
    r.ip.family = type == wire::ethertype_ipv4 ? family::ipv4 : family::ipv6;
    type == wire::ethertype_ipv4 ? read_ipv4(r) : read_ipv6(r);
    return r;
}

/// Only where the IP header itself could be read.
ipsec::address destination_of(const packet& ip) noexcept {
    return ip.family == family::ipv4 ? ipsec::address::v4(ip.ipv4().destination)
                                     : ipsec::address::v6(ip.ipv6().destination);
}

bool has_addresses(const packet& ip) noexcept {
    return ip.length >=
           (ip.family == family::ipv4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header));
}

bool is_group(const packet& ip) noexcept {
    if (ip.family == family::ipv6) return ip.ipv6().destination.data()[0] == 0xff;
    const std::uint32_t to = ip.ipv4().destination.host();
    return (to & 0xf0000000) == 0xe0000000 || to == 0xffffffff;
}

/// Whether a packet may fall under one, or under the default.
bool has_policies(const stage& s, policy_direction d, family f) noexcept {
    if (s.shared.has_more_policies() || s.shared.blocks_by_default(d)) return true;
    const tables::spd& spd = s.shared.policies(d);
    return f == family::ipv4 ? !spd.v4.empty() : !spd.v6.empty();
}

/// An address of the machine, in whichever VRF one of its interfaces is.
bool is_local(const stage& s, const ipsec::address& a) noexcept {
    if (s.routes.lookup(a).kind == adjacency_kind::local) return true;
    const interface_table& all = s.routes.interfaces();
    if (!all.has_vrfs()) return false;
    for (std::size_t i = 0; i < all.size(); ++i)
        if (const std::uint16_t vrf = all[static_cast<std::uint16_t>(i)].vrf;
            vrf != 0 && s.routes.lookup(a, vrf).kind == adjacency_kind::local)
            return true;
    return false;
}

/// IP for an address of the machine.
bool stack_takes(const stage& s, const reading& r) noexcept {
    const packet& ip = r.ip;
    if (ip.protocol == wire::proto_esp) return false;
    if (ip.protocol == wire::proto_udp) {
        // The first fragment has the ports and decides for those that follow it.
        if (r.later_fragment)
            return s.fragments == nullptr ||
                   !s.fragments->expects(source_of(ip), destination_of(ip), r.fragment_id);
        const bool esp = r.readable && is_esp_in_udp(ip, s.shared);
        if (esp && r.fragment && s.fragments != nullptr)
            s.fragments->announce(source_of(ip), destination_of(ip), r.fragment_id);
        if (esp) return false;
        if (r.readable && is_ike_port(ip.destination_port)) return true;
    }
    return r.fragment && !has_policies(s, policy_direction::in, ip.family);
}

bool stack_takes_frame(const stage& s, const reading& r, bool group_frame) noexcept {
    const packet& ip = r.ip;
    if (r.tags_hide) return false;
    if (ip.family == family::unspecified) return true;
    if (!has_addresses(ip)) return false;
    if (is_group(ip)) return true;
    if (r.readable && ip.protocol == wire::proto_icmpv6 && r.hop_limit == 255 &&
        is_neighbour_discovery(ip.source_port.host()))
        return true;
    return is_local(s, destination_of(ip)) ? stack_takes(s, r) : group_frame;
}

/// Most frames are IP from host to host, in one piece, and neither UDP of IKE's nor ICMPv6: a few
/// bytes say so.
bool is_plainly_the_paths(const packet& frame) noexcept {
    constexpr std::size_t headers = sizeof(wire::ethernet_header) + sizeof(wire::ipv6_header) + 4;
    const std::uint8_t* at = frame.data;
    if (frame.length < headers || (at[0] & 1) != 0) return false;
    const std::uint8_t* ip = at + sizeof(wire::ethernet_header);
    const auto type = wire::load<wire::be16>(ip - 2).host();
    if (type == wire::ethertype_ipv4) {
        const auto fragment = wire::load<wire::be16>(ip + 6).host();
        const std::uint8_t* udp = ip + sizeof(wire::ipv4_header);
        return ip[0] == 0x45 && ip[16] < 224 &&
               (fragment & (wire::ipv4_mf | wire::ipv4_offset_mask)) == 0 &&
               (ip[9] != wire::proto_udp || !is_ike_port(wire::load<wire::be16>(udp + 2)));
    }
    if (type != wire::ethertype_ipv6 || ip[24] == 0xff) return false;
    const std::uint8_t* udp = ip + sizeof(wire::ipv6_header);
    switch (ip[6]) {
    case wire::proto_tcp:
    case wire::proto_esp:
        return true;
    case wire::proto_udp:
        return !is_ike_port(wire::load<wire::be16>(udp + 2));
    default:
        return false;
    }
}

/// Whether the frame bears another unicast address than the port's; untagged frames only, as a
/// VLAN may have an address of its own.
bool is_for_another(const stage& s, const packet& frame) noexcept {
    if (frame.length < sizeof(wire::ethernet_header)) return false;
    const auto& e = *reinterpret_cast<const wire::ethernet_header*>(frame.data);
    if ((e.destination[0] & 1) != 0 || is_vlan_tag(e.type.host())) return false;
    const wire::mac_address& own = s.routes.interface(frame.port).mac;
    return own != wire::mac_address{} && e.destination != own;
}

/// What may leave in clear whatever the policies say.
bool is_exempt(const reading& r) noexcept {
    const packet& ip = r.ip;
    if (ip.protocol == wire::proto_esp) return true;
    if (r.later_fragment) return false;
    if (ip.protocol == wire::proto_udp)
        return is_ike_port(ip.source_port) || is_ike_port(ip.destination_port);
    if (ip.family != family::ipv6 || ip.protocol != wire::proto_icmpv6) return false;
    const std::uint16_t type = ip.source_port.host();
    return (r.hop_limit == 255 && is_neighbour_discovery(type)) ||
           (r.hop_limit == 1 && is_listener_discovery(type));
}

/// From the machine itself; the unspecified address is that of one that has none yet.
bool is_own(const stage& s, const packet& ip) noexcept {
    const ipsec::address source = source_of(ip);
    return source.is_any() || is_local(s, source);
}

} // namespace

arrival sort_arrival(const stage& s, packet& frame) noexcept {
    if (is_for_another(s, frame)) return arrival::other;
    if (is_plainly_the_paths(frame)) [[likely]]
        return arrival::path;
    if (frame.length < sizeof(wire::ethernet_header)) return arrival::path;
    const reading r = read_frame(frame);
    if (!stack_takes_frame(s, r, (frame.data[0] & 1) != 0)) return arrival::path;
    if (r.readable) {
        complete_checksum(r.ip);
        frame.family = r.ip.family;
        frame.protocol = r.ip.protocol;
        frame.source_port = r.ip.source_port;
        frame.destination_port = r.ip.destination_port;
    }
    return arrival::stack;
}

void fragment_memory::remember(const key& k, bool allowed) noexcept {
    entries_[next_] = {k, allowed};
    next_ = (next_ + 1) % entries_.size();
}

/// The newest judgement counts: numbers come again.
bool fragment_memory::allowed(const key& k) const noexcept {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        const entry& e = entries_[(next_ + entries_.size() - 1 - i) % entries_.size()];
        if (e.packet == k) return e.allowed;
    }
    return false;
}

bool machine_rules::may_leave(const packet& frame) noexcept {
    const reading r = read_frame(frame);
    const packet& ip = r.ip;
    if (r.tags_hide) return false;
    if (ip.family == family::unspecified) return true;
    if (!has_addresses(ip) || !is_own(stage_, ip)) return false;
    if (r.readable && is_exempt(r)) return true;
    if (stage_.shared.closed()) return false;
    if (!has_policies(stage_, policy_direction::out, ip.family)) return true;
    if (!r.readable) return false;
    const fragment_memory::key which{source_of(ip), destination_of(ip), r.fragment_id};
    if (r.later_fragment) return fragments_.allowed(which);
    const bool allowed = may_leave_in_clear(stage_, ip);
    if (r.fragment) fragments_.remember(which, allowed);
    return allowed;
}

} // namespace esplane::fastpath

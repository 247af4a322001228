// SPDX-License-Identifier: Apache-2.0
#include "xfrm/route_codec.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/nexthop.h>

#include "xfrm/host_routes.h"
#include "xfrm/rtnetlink.h"

namespace esplane::xfrm {
namespace {

using namespace rtnetlink;

std::optional<wire::mac_address> mac_from(const nlattr* attr) {
    wire::mac_address mac;
    if (attr == nullptr || nla_len(attr) != static_cast<int>(mac.size())) return {};
    std::memcpy(mac.data(), nla_data(attr), mac.size());
    return mac;
}

std::optional<control::route_kind> kind_of(int type) {
    switch (type) {
    case RTN_UNICAST:
        return control::route_kind::unicast;
    case RTN_LOCAL:
    case RTN_ANYCAST:
        return control::route_kind::local;
    case RTN_BROADCAST:
        return control::route_kind::broadcast;
    case RTN_BLACKHOLE:
        return control::route_kind::blackhole;
    case RTN_UNREACHABLE:
        return control::route_kind::unreachable;
    case RTN_PROHIBIT:
        return control::route_kind::prohibit;
    default:
        return {};
    }
}

/// RTA_VIA: a next hop of a family of its own.
ipsec::address via_from(const nlattr* attr) {
    if (attr == nullptr || nla_len(attr) < static_cast<int>(sizeof(rtvia))) return {};
    const auto via = wire::load<rtvia>(nla_data(attr));
    return address_from(family_of(via.rtvia_family),
                        static_cast<const std::uint8_t*>(nla_data(attr)) + sizeof via,
                        nla_len(attr) - static_cast<int>(sizeof via));
}

/// Weights are counted from 1 here, from 0 in messages; 256 is more than anybody needs.
std::uint8_t weight_from(unsigned less_one) {
    return static_cast<std::uint8_t>(std::min(less_one + 1, 255u));
}

next_hop hop_from(ipsec::family fam, int ifindex, unsigned flags,
                  const attribute_table<RTA_MAX>& attr) {
    next_hop h;
    const bool wrapped = attr.get<std::uint16_t>(RTA_ENCAP_TYPE).value_or(0) != 0;
    h.ifindex = wrapped ? 0 : ifindex;
    h.gateway = attr.has(RTA_VIA) ? via_from(attr[RTA_VIA]) : address_from(fam, attr[RTA_GATEWAY]);
    h.dead = (flags & RTNH_F_DEAD) != 0;
    return h;
}

/// False where the list is malformed.
bool read_multipath(std::vector<next_hop>& hops, ipsec::family fam, const nlattr* list) {
    auto at = static_cast<const std::uint8_t*>(nla_data(list));
    for (int left = nla_len(list); left >= static_cast<int>(sizeof(rtnexthop));) {
        const auto one = wire::load<rtnexthop>(at);
        attribute_table<RTA_MAX> attr;
        if (one.rtnh_len < sizeof one || one.rtnh_len > left ||
            !attr.parse(reinterpret_cast<const nlattr*>(at + sizeof one),
                        one.rtnh_len - static_cast<int>(sizeof one)))
            return false;
        hops.push_back(hop_from(fam, one.rtnh_ifindex, one.rtnh_flags, attr));
        hops.back().weight = weight_from(one.rtnh_hops);
        at += RTNH_ALIGN(one.rtnh_len);
        left -= static_cast<int>(RTNH_ALIGN(one.rtnh_len));
    }
    return true;
}

std::uint32_t mtu_from(const nlattr* metrics) {
    attribute_table<RTAX_MAX> attr;
    if (!attr.parse_nested(metrics)) return 0;
    return attr.get<std::uint32_t>(RTAX_MTU).value_or(0);
}

routing_rule::reach reach_of(const fib_rule_hdr& header, const attribute_table<FRA_MAX>& attr) {
    if (attr.get<std::uint8_t>(FRA_PROTOCOL) == host_routes::protocol)
        return routing_rule::reach::own;
    constexpr std::array conditions{FRA_DST,      FRA_SRC,         FRA_IIFNAME,    FRA_OIFNAME,
                                    FRA_FWMARK,   FRA_FWMASK,      FRA_TUN_ID,     FRA_UID_RANGE,
                                    FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE};
    const bool unconditional = header.action == FR_ACT_TO_TBL && header.tos == 0 &&
                               (header.flags & FIB_RULE_INVERT) == 0 &&
                               attr.get<std::int32_t>(FRA_SUPPRESS_PREFIXLEN).value_or(-1) == -1 &&
                               std::none_of(conditions.begin(), conditions.end(),
                                            [&](int type) { return attr.has(type); });
    if (!unconditional) return routing_rule::reach::conditional;
    return attr.get<std::uint8_t>(FRA_L3MDEV).value_or(0) != 0 ? routing_rule::reach::l3mdev
                                                               : routing_rule::reach::everything;
}

std::string text_from(const nlattr* attr) {
    if (attr == nullptr) return {};
    const auto* text = static_cast<const char*>(nla_data(attr));
    return {text, ::strnlen(text, static_cast<std::size_t>(nla_len(attr)))};
}

void read_vlan(control::link& l, const nlattr* data, const attribute_table<IFLA_MAX>& link) {
    attribute_table<IFLA_VLAN_MAX> attr;
    if (!attr.parse_nested(data)) return;
    const auto protocol = attr.get<wire::be16>(IFLA_VLAN_PROTOCOL);
    l.kind = control::link_kind::vlan;
    l.vlan_id = attr.get<std::uint16_t>(IFLA_VLAN_ID).value_or(0);
    l.vlan_protocol = protocol ? protocol->host() : ETH_P_8021Q;
    // A parent in another namespace has an index that is somebody else's here.
    if (!link.has(IFLA_LINK_NETNSID)) l.parent = link.get<std::int32_t>(IFLA_LINK).value_or(0);
}

void read_vrf(control::link& l, const nlattr* data) {
    attribute_table<IFLA_VRF_MAX> attr;
    if (!attr.parse_nested(data)) return;
    l.kind = control::link_kind::vrf;
    l.vrf = attr.get<std::uint32_t>(IFLA_VRF_TABLE).value_or(0);
}

void read_kind(control::link& l, const attribute_table<IFLA_MAX>& link) {
    attribute_table<IFLA_INFO_MAX> info;
    if (!info.parse_nested(link[IFLA_LINKINFO])) return;
    const std::string kind = text_from(info[IFLA_INFO_KIND]);
    if (kind == "vlan") read_vlan(l, info[IFLA_INFO_DATA], link);
    if (kind == "vrf") read_vrf(l, info[IFLA_INFO_DATA]);
    if (kind == "bond") l.kind = control::link_kind::bond;
    if (kind == "tun") l.kind = control::link_kind::tun;
}

} // namespace

std::optional<link_message> parse_link(const nlmsghdr& message) {
    reader<ifinfomsg, IFLA_MAX> m;
    if (!m.read(message, RTM_NEWLINK, RTM_DELLINK) || m.header.ifi_family != AF_UNSPEC) return {};
    link_message said;
    control::link& l = said.link;
    l.ifindex = m.header.ifi_index;
    l.name = text_from(m.attr[IFLA_IFNAME]);
    if (l.name.empty()) return {};
    l.mac = mac_from(m.attr[IFLA_ADDRESS]).value_or(wire::mac_address{});
    l.mtu = m.attr.get<std::uint32_t>(IFLA_MTU).value_or(0);
    l.master = m.attr.get<std::int32_t>(IFLA_MASTER).value_or(0);
    read_kind(l, m.attr);
    said.flags = m.header.ifi_flags & (IFF_UP | IFF_LOWER_UP);
    l.up = said.flags == (IFF_UP | IFF_LOWER_UP);
    said.gone = message.nlmsg_type == RTM_DELLINK;
    return said;
}

std::optional<control::interface_address> parse_address(const nlmsghdr& message) {
    reader<ifaddrmsg, IFA_MAX> m;
    if (!m.read(message, RTM_NEWADDR, RTM_DELADDR)) return {};
    // On a point-to-point link IFA_ADDRESS is the other end's.
    const nlattr* own = m.attr.has(IFA_LOCAL) ? m.attr[IFA_LOCAL] : m.attr[IFA_ADDRESS];
    control::interface_address a;
    a.ifindex = static_cast<int>(m.header.ifa_index);
    a.local = address_from(family_of(m.header.ifa_family), own);
    a.prefix = m.header.ifa_prefixlen;
    if (a.local.fam == ipsec::family::unspecified) return {};
    return a;
}

std::optional<routing_rule> parse_rule(const nlmsghdr& message) {
    reader<fib_rule_hdr, FRA_MAX> m;
    if (!m.read(message, RTM_NEWRULE, RTM_NEWRULE)) return {};
    routing_rule r;
    r.priority = m.attr.get<std::uint32_t>(FRA_PRIORITY).value_or(0);
    r.table = m.attr.get<std::uint32_t>(FRA_TABLE).value_or(m.header.table);
    r.what = reach_of(m.header, m.attr);
    return r;
}

bool parse_route(const nlmsghdr& message, route_message& into) {
    reader<rtmsg, RTA_MAX> m;
    if (!m.read(message, RTM_NEWROUTE, RTM_DELROUTE)) return false;
    const ipsec::family fam = family_of(m.header.rtm_family);
    const auto kind = kind_of(m.header.rtm_type);
    if (fam == ipsec::family::unspecified || !kind || m.header.rtm_tos != 0 ||
        m.header.rtm_src_len != 0 || m.header.rtm_dst_len > ipsec::address_bits(fam) ||
        (m.header.rtm_flags & RTM_F_CLONED) != 0)
        return false;

    into.destination = address_from(fam, m.attr[RTA_DST]);
    into.destination.fam = fam;
    into.prefix = m.header.rtm_dst_len;
    into.table = m.attr.get<std::uint32_t>(RTA_TABLE).value_or(m.header.rtm_table);
    into.metric = m.attr.get<std::uint32_t>(RTA_PRIORITY).value_or(0);
    into.place = (message.nlmsg_flags & NLM_F_REPLACE) != 0  ? route_place::instead
                 : (message.nlmsg_flags & NLM_F_APPEND) != 0 ? route_place::last
                                                             : route_place::first;
    into.gone = message.nlmsg_type == RTM_DELROUTE;
    route_path& path = into.path;
    path.kind = *kind;
    path.mtu = mtu_from(m.attr[RTA_METRICS]);
    path.preferred_source = address_from(fam, m.attr[RTA_PREFSRC]);
    path.nexthop_id = m.attr.get<std::uint32_t>(RTA_NH_ID).value_or(0);
    path.advertised = m.header.rtm_protocol == RTPROT_RA;
    path.hops.clear();
    if (path.nexthop_id != 0) return true;
    if (m.attr.has(RTA_MULTIPATH)) return read_multipath(path.hops, fam, m.attr[RTA_MULTIPATH]);
    if (const auto ifindex = m.attr.get<std::int32_t>(RTA_OIF))
        path.hops.push_back(hop_from(fam, *ifindex, m.header.rtm_flags, m.attr));
    return true;
}

std::optional<nexthop_message> parse_nexthop(const nlmsghdr& message) {
    reader<nhmsg, NHA_MAX> m;
    if (!m.read(message, RTM_NEWNEXTHOP, RTM_DELNEXTHOP) || m.attr.has(NHA_FDB)) return {};
    nexthop_message n;
    n.id = m.attr.get<std::uint32_t>(NHA_ID).value_or(0);
    n.gone = message.nlmsg_type == RTM_DELNEXTHOP;
    n.blackhole = m.attr.has(NHA_BLACKHOLE);
    const bool wrapped = m.attr.get<std::uint16_t>(NHA_ENCAP_TYPE).value_or(0) != 0;
    if (!wrapped) n.hop.ifindex = m.attr.get<std::int32_t>(NHA_OIF).value_or(0);
    n.hop.gateway = address_from(family_of(m.header.nh_family), m.attr[NHA_GATEWAY]);
    n.hop.dead = (m.header.nh_flags & RTNH_F_DEAD) != 0;
    if (const nlattr* group = m.attr[NHA_GROUP]; group != nullptr) {
        const auto* members = static_cast<const std::uint8_t*>(nla_data(group));
        const auto count = static_cast<std::size_t>(nla_len(group)) / sizeof(nexthop_grp);
        for (std::size_t i = 0; i < count; ++i) {
            const auto one = wire::load<nexthop_grp>(members + i * sizeof(nexthop_grp));
            n.group.push_back({one.id, weight_from(one.weight)});
        }
    }
    if (n.id == 0) return {};
    return n;
}

std::optional<control::neighbour> parse_neighbour(const nlmsghdr& message) {
    constexpr int valid =
        NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY;
    reader<ndmsg, NDA_MAX> m;
    if (!m.read(message, RTM_NEWNEIGH, RTM_DELNEIGH)) return {};
    control::neighbour n;
    n.ifindex = m.header.ndm_ifindex;
    n.ip = address_from(family_of(m.header.ndm_family), m.attr[NDA_DST]);
    if (n.ip.fam == ipsec::family::unspecified || (m.header.ndm_flags & NTF_PROXY) != 0) return {};
    const auto mac = mac_from(m.attr[NDA_LLADDR]);
    n.resolved =
        message.nlmsg_type == RTM_NEWNEIGH && (m.header.ndm_state & valid) != 0 && mac.has_value();
    if (n.resolved) n.mac = *mac;
    return n;
}

} // namespace esplane::xfrm

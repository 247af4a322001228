// SPDX-License-Identifier: Apache-2.0
#include "xfrm/route_codec.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <sys/socket.h>

namespace esplane::xfrm {
namespace {

/// The attributes of a message behind its header struct.
template <int Max>
class attributes {
  public:
    bool parse(const nlmsghdr& m, int header_size) {
        return nlmsg_parse(const_cast<nlmsghdr*>(&m), header_size, table_.data(), Max, nullptr) ==
               0;
    }
    bool parse(const nlattr* first, int length) {
        return nla_parse(table_.data(), Max, const_cast<nlattr*>(first), length, nullptr) == 0;
    }
    [[nodiscard]] bool has(int type) const { return table_[type] != nullptr; }
    [[nodiscard]] const nlattr* operator[](int type) const { return table_[type]; }

    template <typename T>
    [[nodiscard]] std::optional<T> get(int type) const {
        if (!has(type) || nla_len(table_[type]) < static_cast<int>(sizeof(T))) return {};
        return wire::load<T>(nla_data(table_[type]));
    }

  private:
    std::array<nlattr*, Max + 1> table_{};
};

/// The struct at the front of a message, and its attributes.
template <typename Header, int Max>
struct reader {
    Header header{};
    attributes<Max> attr;

    bool read(const nlmsghdr& m, int type) {
        if (m.nlmsg_type != type || !nlmsg_valid_hdr(&m, sizeof header)) return false;
        std::memcpy(&header, nlmsg_data(&m), sizeof header);
        return attr.parse(m, sizeof header);
    }
};

ipsec::family family_of(int af) {
    return af == AF_INET    ? ipsec::family::ipv4
           : af == AF_INET6 ? ipsec::family::ipv6
                            : ipsec::family::unspecified;
}

/// An address of `length` bytes; unspecified where it does not fit the family.
ipsec::address address_from(ipsec::family fam, const void* bytes, int length) {
    ipsec::address a;
    if (fam == ipsec::family::unspecified || length != ipsec::address_length(fam)) return a;
    a.fam = fam;
    std::memcpy(a.bytes.data(), bytes, static_cast<std::size_t>(length));
    return a;
}

ipsec::address address_from(ipsec::family fam, const nlattr* attr) {
    return attr == nullptr ? ipsec::address{} : address_from(fam, nla_data(attr), nla_len(attr));
}

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

void read_gateway(control::route& r, ipsec::family fam, const attributes<RTA_MAX>& attr) {
    r.gateway = attr.has(RTA_VIA) ? via_from(attr[RTA_VIA]) : address_from(fam, attr[RTA_GATEWAY]);
}

/// The first next hop that is alive; false where there is none.
bool read_first_hop(control::route& r, ipsec::family fam, const nlattr* multipath) {
    auto at = static_cast<const std::uint8_t*>(nla_data(multipath));
    for (int left = nla_len(multipath); left >= static_cast<int>(sizeof(rtnexthop));) {
        const auto hop = wire::load<rtnexthop>(at);
        if (hop.rtnh_len < sizeof hop || hop.rtnh_len > left) return false;
        attributes<RTA_MAX> attr;
        if ((hop.rtnh_flags & RTNH_F_DEAD) == 0 &&
            attr.parse(reinterpret_cast<const nlattr*>(at + sizeof hop),
                       hop.rtnh_len - static_cast<int>(sizeof hop))) {
            r.ifindex = hop.rtnh_ifindex;
            read_gateway(r, fam, attr);
            return true;
        }
        at += RTNH_ALIGN(hop.rtnh_len);
        left -= static_cast<int>(RTNH_ALIGN(hop.rtnh_len));
    }
    return false;
}

std::uint32_t mtu_from(const nlattr* metrics) {
    attributes<RTAX_MAX> attr;
    if (metrics == nullptr ||
        !attr.parse(static_cast<const nlattr*>(nla_data(metrics)), nla_len(metrics)))
        return 0;
    return attr.get<std::uint32_t>(RTAX_MTU).value_or(0);
}

bool is_plain(const fib_rule_hdr& header, const attributes<FRA_MAX>& attr) {
    constexpr std::array conditions{FRA_DST,       FRA_SRC,      FRA_IIFNAME,     FRA_OIFNAME,
                                    FRA_FWMARK,    FRA_FWMASK,   FRA_TUN_ID,      FRA_L3MDEV,
                                    FRA_UID_RANGE, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE};
    return header.action == FR_ACT_TO_TBL && header.tos == 0 &&
           (header.flags & FIB_RULE_INVERT) == 0 &&
           attr.get<std::int32_t>(FRA_SUPPRESS_PREFIXLEN).value_or(-1) == -1 &&
           std::none_of(conditions.begin(), conditions.end(),
                        [&](int type) { return attr.has(type); });
}

} // namespace

std::optional<control::link> parse_link(const nlmsghdr& message) {
    reader<ifinfomsg, IFLA_MAX> m;
    if (!m.read(message, RTM_NEWLINK) || m.header.ifi_family != AF_UNSPEC) return {};
    const nlattr* name = m.attr[IFLA_IFNAME];
    if (name == nullptr || nla_len(name) < 1) return {};

    control::link l;
    l.ifindex = m.header.ifi_index;
    l.name.assign(static_cast<const char*>(nla_data(name)),
                  ::strnlen(static_cast<const char*>(nla_data(name)),
                            static_cast<std::size_t>(nla_len(name))));
    l.mac = mac_from(m.attr[IFLA_ADDRESS]).value_or(wire::mac_address{});
    l.mtu = m.attr.get<std::uint32_t>(IFLA_MTU).value_or(0);
    l.up = (m.header.ifi_flags & (IFF_UP | IFF_LOWER_UP)) == (IFF_UP | IFF_LOWER_UP);
    return l;
}

std::optional<control::interface_address> parse_address(const nlmsghdr& message) {
    reader<ifaddrmsg, IFA_MAX> m;
    if (!m.read(message, RTM_NEWADDR)) return {};
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
    if (!m.read(message, RTM_NEWRULE)) return {};
    routing_rule r;
    r.fam = family_of(m.header.family);
    r.priority = m.attr.get<std::uint32_t>(FRA_PRIORITY).value_or(0);
    r.table = m.attr.get<std::uint32_t>(FRA_TABLE).value_or(m.header.table);
    r.plain = is_plain(m.header, m.attr);
    if (r.fam == ipsec::family::unspecified) return {};
    return r;
}

std::optional<control::route> parse_route(const nlmsghdr& message) {
    reader<rtmsg, RTA_MAX> m;
    if (!m.read(message, RTM_NEWROUTE)) return {};
    const ipsec::family fam = family_of(m.header.rtm_family);
    const auto kind = kind_of(m.header.rtm_type);
    if (fam == ipsec::family::unspecified || !kind || m.header.rtm_tos != 0 ||
        m.header.rtm_src_len != 0 || m.header.rtm_dst_len > ipsec::address_bits(fam) ||
        (m.header.rtm_flags & (RTM_F_CLONED | RTNH_F_DEAD)) != 0)
        return {};

    control::route r;
    r.kind = *kind;
    r.destination = address_from(fam, m.attr[RTA_DST]);
    r.destination.fam = fam;
    r.prefix = m.header.rtm_dst_len;
    r.table = m.attr.get<std::uint32_t>(RTA_TABLE).value_or(m.header.rtm_table);
    r.metric = m.attr.get<std::uint32_t>(RTA_PRIORITY).value_or(0);
    r.ifindex = m.attr.get<std::int32_t>(RTA_OIF).value_or(0);
    r.mtu = mtu_from(m.attr[RTA_METRICS]);
    r.preferred_source = address_from(fam, m.attr[RTA_PREFSRC]);
    read_gateway(r, fam, m.attr);
    if (m.attr.has(RTA_MULTIPATH) && !read_first_hop(r, fam, m.attr[RTA_MULTIPATH])) return {};
    return r;
}

std::optional<control::neighbour> parse_neighbour(const nlmsghdr& message) {
    constexpr int valid =
        NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY;
    reader<ndmsg, NDA_MAX> m;
    if (!m.read(message, RTM_NEWNEIGH) && !m.read(message, RTM_DELNEIGH)) return {};
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

// SPDX-License-Identifier: Apache-2.0
#include "xfrm/host_routes.h"

#include <algorithm>
#include <optional>
#include <system_error>

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

#include "xfrm/rtnetlink.h"

namespace esplane::xfrm {
namespace {

using namespace rtnetlink;

constexpr int receive_bytes = 1 << 20;
/// Of the routes that count, and of the unreachable ones behind them.
constexpr std::uint32_t way_metric = 1024;
constexpr std::uint32_t barrier_metric = 2048;
constexpr char loopback[] = "lo";

/// Of NLMSG_ERROR and NLMSG_DONE: 0 or an errno value.
int code_of(const nlmsghdr& m) {
    int code = 0;
    if (m.nlmsg_len >= NLMSG_LENGTH(sizeof code)) std::memcpy(&code, NLMSG_DATA(&m), sizeof code);
    return -code;
}

// Rules.

std::uint8_t action_of(host_rule::verdict v) {
    switch (v) {
    case host_rule::verdict::lookup:
        return FR_ACT_TO_TBL;
    case host_rule::verdict::jump:
        return FR_ACT_GOTO;
    case host_rule::verdict::landing:
        break;
    }
    return FR_ACT_NOP;
}

host_rule::verdict verdict_of(std::uint8_t action) {
    return action == FR_ACT_TO_TBL ? host_rule::verdict::lookup
           : action == FR_ACT_GOTO ? host_rule::verdict::jump
                                   : host_rule::verdict::landing;
}

writer message_of(const host_rule& r) {
    fib_rule_hdr header{};
    header.family = static_cast<std::uint8_t>(af_of(r.family));
    header.action = action_of(r.what);
    if (r.unless) header.flags = FIB_RULE_INVERT;
    writer w = writer::behind(header);
    w.put(FRA_PRIORITY, r.priority);
    w.put(FRA_PROTOCOL, host_routes::protocol);
    if (r.what == host_rule::verdict::lookup) w.put(FRA_TABLE, r.to);
    if (r.what == host_rule::verdict::jump) w.put(FRA_GOTO, r.to);
    if (r.mask != 0) {
        w.put(FRA_FWMARK, r.mark);
        w.put(FRA_FWMASK, r.mask);
    }
    if (r.of_machine) w.put(FRA_IIFNAME, loopback);
    if (r.protocol != 0) w.put(FRA_IP_PROTO, r.protocol);
    if (r.source_port != 0)
        w.put(FRA_SPORT_RANGE, fib_rule_port_range{r.source_port, r.source_port});
    return w;
}

/// One of ours; nothing for those of others.
std::optional<host_rule> parse_own_rule(const nlmsghdr& message) {
    reader<fib_rule_hdr, FRA_MAX> m;
    if (!m.read(message, RTM_NEWRULE, RTM_NEWRULE) ||
        m.attr.get<std::uint8_t>(FRA_PROTOCOL) != host_routes::protocol)
        return {};
    host_rule r;
    r.family = family_of(m.header.family);
    r.priority = m.attr.get<std::uint32_t>(FRA_PRIORITY).value_or(0);
    r.what = verdict_of(m.header.action);
    if (r.what == host_rule::verdict::lookup)
        r.to = m.attr.get<std::uint32_t>(FRA_TABLE).value_or(m.header.table);
    if (r.what == host_rule::verdict::jump) r.to = m.attr.get<std::uint32_t>(FRA_GOTO).value_or(0);
    r.mark = m.attr.get<std::uint32_t>(FRA_FWMARK).value_or(0);
    r.mask = m.attr.get<std::uint32_t>(FRA_FWMASK).value_or(0);
    r.unless = (m.header.flags & FIB_RULE_INVERT) != 0;
    r.of_machine = m.attr.has(FRA_IIFNAME);
    r.protocol = m.attr.get<std::uint8_t>(FRA_IP_PROTO).value_or(0);
    if (const auto ports = m.attr.get<fib_rule_port_range>(FRA_SPORT_RANGE))
        r.source_port = ports->start;
    return r;
}

// Routes.

std::uint8_t type_of(host_route::way way) {
    switch (way) {
    case host_route::way::device:
    case host_route::way::past:
        return RTN_UNICAST;
    case host_route::way::around:
        return RTN_THROW;
    case host_route::way::nowhere:
        break;
    }
    return RTN_UNREACHABLE;
}

/// Scope and the rest as `ip route add` has them: whoever gives routes with gateways is answered
/// past these, which reach too far to be a gateway's.
rtmsg header_of(const host_prefix& where) {
    rtmsg header{};
    header.rtm_family = static_cast<std::uint8_t>(af_of(where.address.fam));
    header.rtm_dst_len = where.length;
    header.rtm_table = RT_TABLE_UNSPEC;
    header.rtm_protocol = host_routes::protocol;
    header.rtm_scope = RT_SCOPE_UNIVERSE;
    return header;
}

writer message_of(const host_prefix& where, rtmsg header, std::uint32_t table,
                  std::uint32_t metric) {
    writer w = writer::behind(header);
    if (where.length != 0) w.put_address(RTA_DST, where.address);
    w.put(RTA_TABLE, table);
    w.put(RTA_PRIORITY, metric);
    return w;
}

void put_gateway(writer& w, const ipsec::address& gateway, ipsec::family family) {
    if (gateway.fam == family) {
        w.put_address(RTA_GATEWAY, gateway);
        return;
    }
    std::array<std::uint8_t, sizeof(rtvia) + 16> via{};
    const auto family_there = static_cast<std::uint16_t>(af_of(gateway.fam));
    std::memcpy(via.data(), &family_there, sizeof family_there);
    std::memcpy(via.data() + sizeof(rtvia), gateway.bytes.data(), 16);
    w.put(RTA_VIA, via.data(), sizeof(rtvia) + ipsec::address_length(gateway.fam));
}

writer message_of(const host_prefix& where, const host_route& r, std::uint32_t table) {
    rtmsg header = header_of(where);
    header.rtm_type = type_of(r.what);
    if (!r.gateway.is_any()) header.rtm_flags = RTNH_F_ONLINK;
    writer w = message_of(where, header, table, way_metric);
    if (r.ifindex != 0) w.put(RTA_OIF, r.ifindex);
    if (!r.gateway.is_any()) put_gateway(w, r.gateway, where.address.fam);
    if (!r.source.is_any()) w.put_address(RTA_PREFSRC, r.source);
    writer metrics;
    if (r.mtu != 0) metrics.put(RTAX_MTU, r.mtu);
    if (r.mss != 0) metrics.put(RTAX_ADVMSS, r.mss);
    w.nest(RTA_METRICS, metrics);
    return w;
}

struct read_route {
    host_prefix where;
    host_route route;
    bool barrier = false;
};

host_route::way way_of(std::uint8_t type) {
    return type == RTN_THROW     ? host_route::way::around
           : type != RTN_UNICAST ? host_route::way::nowhere
                                 : host_route::way::past;
}

ipsec::address gateway_in(const attribute_table<RTA_MAX>& attr, ipsec::family family) {
    const nlattr* via = attr[RTA_VIA];
    if (via == nullptr) return address_from(family, attr[RTA_GATEWAY]);
    if (nla_len(via) < static_cast<int>(sizeof(rtvia))) return {};
    const auto head = wire::load<rtvia>(nla_data(via));
    return address_from(family_of(head.rtvia_family),
                        static_cast<const std::uint8_t*>(nla_data(via)) + sizeof head,
                        nla_len(via) - static_cast<int>(sizeof head));
}

/// What an answer about a route says of the way; nothing where it is no IP route.
std::optional<read_route> parse_any_route(const nlmsghdr& message, std::uint32_t& table) {
    reader<rtmsg, RTA_MAX> m;
    if (!m.read(message, RTM_NEWROUTE, RTM_NEWROUTE)) return {};
    const ipsec::family family = family_of(m.header.rtm_family);
    if (family == ipsec::family::unspecified) return {};
    read_route r;
    r.where = {address_from(family, m.attr[RTA_DST]), m.header.rtm_dst_len};
    r.where.address.fam = family;
    table = m.attr.get<std::uint32_t>(RTA_TABLE).value_or(m.header.rtm_table);
    r.barrier = m.attr.get<std::uint32_t>(RTA_PRIORITY) == barrier_metric;
    r.route.what = way_of(m.header.rtm_type);
    if (m.header.rtm_type == RTN_UNICAST)
        r.route.ifindex = m.attr.get<std::int32_t>(RTA_OIF).value_or(0);
    r.route.gateway = gateway_in(m.attr, family);
    r.route.source = address_from(family, m.attr[RTA_PREFSRC]);
    attribute_table<RTAX_MAX> metrics;
    if (metrics.parse_nested(m.attr[RTA_METRICS])) {
        r.route.mtu = metrics.get<std::uint32_t>(RTAX_MTU).value_or(0);
        r.route.mss = metrics.get<std::uint32_t>(RTAX_ADVMSS).value_or(0);
    }
    return r;
}

std::uint8_t maker_of(const nlmsghdr& message) {
    reader<rtmsg, RTA_MAX> m;
    return m.read(message, RTM_NEWROUTE, RTM_NEWROUTE) ? m.header.rtm_protocol : RTPROT_UNSPEC;
}

} // namespace

std::string host_prefix::to_string() const {
    return address.to_string() + "/" + std::to_string(length);
}

result<host_routes> host_routes::open(std::uint32_t table) {
    auto socket = route_socket::open(receive_bytes);
    if (!socket) return tl::unexpected(socket.error());
    return host_routes(std::move(*socket), table);
}

/// Sends, and calls take(const nlmsghdr&) for each message of the answer.
template <typename Take>
result<void> host_routes::ask(int type, unsigned flags, std::span<const std::byte> body,
                              const std::string& what, Take take) {
    if (auto sent = socket_.send(type, flags, body); !sent) return sent;
    std::optional<int> end;
    while (!end) {
        const auto bytes = socket_.receive(true);
        if (!bytes) return tl::unexpected(bytes.error());
        for_each_message(*bytes, [&](const nlmsghdr& m) {
            if (m.nlmsg_seq != socket_.sequence()) return;
            if (m.nlmsg_type == NLMSG_DONE || m.nlmsg_type == NLMSG_ERROR)
                end = code_of(m);
            else
                take(m);
        });
    }
    if (*end == 0) return {};
    return fail(*end, what + ": " + std::generic_category().message(*end));
}

result<void> host_routes::tell(int type, unsigned flags, std::span<const std::byte> body,
                               const std::string& what) {
    return ask(type, flags | NLM_F_ACK, body, what, [](const nlmsghdr&) {});
}

result<std::vector<host_rule>> host_routes::rules(ipsec::family family, std::uint32_t first,
                                                  std::uint32_t last) {
    fib_rule_hdr header{};
    header.family = static_cast<std::uint8_t>(af_of(family));
    std::vector<host_rule> found;
    auto done = ask(RTM_GETRULE, NLM_F_DUMP, writer::behind(header).bytes(), "reading ip rule",
                    [&](const nlmsghdr& m) {
                        if (auto r = parse_own_rule(m); r && r->family == family)
                            if (r->priority >= first && r->priority <= last) found.push_back(*r);
                    });
    if (!done) return tl::unexpected(done.error());
    return found;
}

result<void> host_routes::set_rules(ipsec::family family, std::uint32_t first, std::uint32_t last,
                                    const std::vector<host_rule>& wanted) {
    auto found = rules(family, first, last);
    if (!found) return tl::unexpected(found.error());
    for (const host_rule& r : wanted) {
        if (const auto at = std::find(found->begin(), found->end(), r); at != found->end()) {
            found->erase(at);
            continue;
        }
        if (auto added = tell(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, message_of(r).bytes(),
                              "ip rule add priority " + std::to_string(r.priority));
            !added)
            return added;
    }
    // What leads somewhere goes before what jumps over it.
    std::stable_partition(found->begin(), found->end(),
                          [](const host_rule& r) { return r.what == host_rule::verdict::lookup; });
    for (const host_rule& r : *found)
        if (auto gone = tell(RTM_DELRULE, 0, message_of(r).bytes(),
                             "ip rule del priority " + std::to_string(r.priority));
            !gone)
            return gone;
    return {};
}

result<void> host_routes::read() {
    there_.clear();
    blocked_.clear();
    for (const auto family : {ipsec::family::ipv4, ipsec::family::ipv6})
        if (auto done = read(family); !done) return done;
    for (const host_prefix& where : blocked_)
        if (host_route& r = there_[where]; r.what == host_route::way::past)
            r.what = host_route::way::device;
    return {};
}

result<void> host_routes::read(ipsec::family family) {
    rtmsg header{};
    header.rtm_family = static_cast<std::uint8_t>(af_of(family));
    writer w = writer::behind(header);
    w.put(RTA_TABLE, table_);
    auto done =
        ask(RTM_GETROUTE, NLM_F_DUMP, w.bytes(),
            "reading the routes of table " + std::to_string(table_), [&](const nlmsghdr& m) {
                std::uint32_t table = 0;
                const auto r = parse_any_route(m, table);
                if (!r || table != table_ || maker_of(m) != protocol) return;
                if (!r->barrier)
                    there_[r->where] = r->route;
                else if (blocked_.insert(r->where).second)
                    there_.try_emplace(r->where, host_route{.what = host_route::way::nowhere});
            });
    // The kernel makes a table with its first route.
    if (!done && (done.error().code == ENOENT || done.error().code == EAFNOSUPPORT)) return {};
    return done;
}

result<void> host_routes::put(const host_prefix& where, const host_route& route) {
    const auto known = there_.find(where);
    if (known != there_.end() && known->second == route) return {};
    const bool blocks =
        route.what == host_route::way::device || route.what == host_route::way::nowhere;
    if (blocks)
        if (auto done = block(where); !done) return done;
    if (route.what == host_route::way::nowhere)
        return known != there_.end() ? withdraw(where, false) : result<void>{};
    if (auto done = tell(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE,
                         message_of(where, route, table_).bytes(), "route to " + where.to_string());
        !done)
        return done;
    there_[where] = route;
    if (!blocks && blocked_.contains(where)) return withdraw(where, true);
    return {};
}

result<void> host_routes::block(const host_prefix& where) {
    if (blocked_.contains(where)) return {};
    rtmsg header = header_of(where);
    header.rtm_type = RTN_UNREACHABLE;
    if (auto done = tell(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE,
                         message_of(where, header, table_, barrier_metric).bytes(),
                         "blocking " + where.to_string());
        !done)
        return done;
    blocked_.insert(where);
    there_.try_emplace(where, host_route{.what = host_route::way::nowhere});
    return {};
}

/// The route that counts, or the barrier behind it.  One that is gone already has what was wanted.
result<void> host_routes::withdraw(const host_prefix& where, bool barrier) {
    auto done = tell(
        RTM_DELROUTE, 0,
        message_of(where, header_of(where), table_, barrier ? barrier_metric : way_metric).bytes(),
        "taking away the route to " + where.to_string());
    if (!done && done.error().code != ESRCH && done.error().code != ENOENT) return done;
    if (barrier)
        blocked_.erase(where);
    else
        there_[where] = host_route{.what = host_route::way::nowhere};
    return {};
}

result<void> host_routes::remove(const host_prefix& where) {
    const auto known = there_.find(where);
    if (known == there_.end()) return {};
    if (known->second.what != host_route::way::nowhere)
        if (auto done = withdraw(where, false); !done) return done;
    if (blocked_.contains(where))
        if (auto done = withdraw(where, true); !done) return done;
    there_.erase(where);
    return {};
}

result<host_route> host_routes::way_to(const ipsec::address& destination, std::uint32_t mark) {
    rtmsg header{};
    header.rtm_family = static_cast<std::uint8_t>(af_of(destination.fam));
    header.rtm_dst_len = ipsec::address_bits(destination.fam);
    writer w = writer::behind(header);
    w.put_address(RTA_DST, destination);
    if (mark != 0) w.put(RTA_MARK, mark);
    std::optional<host_route> way;
    auto done = ask(RTM_GETROUTE, NLM_F_ACK, w.bytes(), "the way to " + destination.to_string(),
                    [&](const nlmsghdr& m) {
                        std::uint32_t table = 0;
                        if (auto r = parse_any_route(m, table)) way = r->route;
                    });
    if (!done) return tl::unexpected(done.error());
    if (!way || way->what != host_route::way::past)
        return fail(ENETUNREACH, "the way to " + destination.to_string() + ": there is none");
    way->mtu = way->mss = 0;
    return *way;
}

} // namespace esplane::xfrm

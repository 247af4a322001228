// SPDX-License-Identifier: Apache-2.0
#include "xfrm/route.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

namespace esplane::xfrm {
namespace {

constexpr int query_buffer_bytes = 1 << 20;
/// Datagrams a poll takes in.
constexpr int events_a_poll = 4096;
/// Routes a poll reads, or finds gone.
constexpr std::uint64_t routes_a_poll = 10000;
/// A dump that something changed under is read again.
constexpr int dump_attempts = 5;
/// Messages that wait for the end of a reading; more are a gap.
constexpr std::size_t waiting_bytes = 64 << 20;
/// For more links than that it is cheaper to read all routes once.
constexpr std::size_t suspects_read_alone = 8;

constexpr const char* reading_failed = "reading the kernel's routing state";

constexpr std::array<unsigned, 9> groups{
    RTNLGRP_LINK,        RTNLGRP_NEIGH,      RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV4_RULE,   RTNLGRP_IPV6_RULE,  RTNLGRP_NEXTHOP};

template <typename T>
T body_of(const nlmsghdr& m) {
    T body{};
    if (m.nlmsg_len >= NLMSG_LENGTH(sizeof body))
        std::memcpy(&body, reinterpret_cast<const std::byte*>(&m) + NLMSG_HDRLEN, sizeof body);
    return body;
}

/// Of NLMSG_ERROR and NLMSG_DONE: 0 or an errno value.
int code_of(const nlmsghdr& m) {
    return -body_of<int>(m);
}

tl::unexpected<error> fail_code(int code, const std::string& what) {
    return fail(code, what + ": " + std::generic_category().message(code));
}

int af_of(ipsec::family family) {
    return family == ipsec::family::ipv4 ? AF_INET : AF_INET6;
}

/// A header and one attribute behind it.
template <typename Header>
std::vector<std::byte> with_attribute(const Header& header, int type, const void* data,
                                      std::size_t length) {
    const rtattr attr{static_cast<unsigned short>(RTA_LENGTH(length)),
                      static_cast<unsigned short>(type)};
    std::vector<std::byte> body(NLMSG_ALIGN(sizeof header) + RTA_SPACE(length));
    std::memcpy(body.data(), &header, sizeof header);
    std::memcpy(body.data() + NLMSG_ALIGN(sizeof header), &attr, sizeof attr);
    std::memcpy(body.data() + NLMSG_ALIGN(sizeof header) + RTA_LENGTH(0), data, length);
    return body;
}

/// The tables that rules lead a VRF's traffic to (vrf 0: all other).  A VRF's order ends at its own
/// table: what its traffic does not find there it finds where all other does.
lookup_order order_by(const std::vector<routing_rule>& rules, std::uint32_t vrf) {
    lookup_order order{vrf, {}};
    const auto add = [&](std::uint32_t table) {
        if (std::find(order.tables.begin(), order.tables.end(), table) == order.tables.end())
            order.tables.push_back(table);
    };
    bool own = false;
    for (const routing_rule& r : rules) {
        if (r.what == routing_rule::reach::everything) add(r.table);
        if (r.what != routing_rule::reach::l3mdev || vrf == 0) continue;
        add(vrf);
        own = true;
        break;
    }
    if (vrf != 0 && !own) order.tables.clear();
    return order;
}

std::size_t count_conditional(const std::vector<routing_rule>& rules) {
    return static_cast<std::size_t>(std::count_if(rules.begin(), rules.end(), [](auto& r) {
        return r.what == routing_rule::reach::conditional;
    }));
}

} // namespace

route_monitor::route_monitor(route_socket events, route_socket queries, route_socket routes)
    : events_(std::move(events))
    , queries_(std::move(queries))
    , routes_(std::move(routes)) {}

route_monitor::~route_monitor() = default;

result<std::unique_ptr<route_monitor>> route_monitor::open(int event_bytes) {
    auto events = route_socket::open(event_bytes);
    auto queries = route_socket::open(query_buffer_bytes);
    auto routes = route_socket::open(query_buffer_bytes);
    for (const auto* socket : {&events, &queries, &routes})
        if (!*socket) return tl::unexpected(socket->error());
    // Subscribed before the first dump: what happens between is seen twice, not never.
    if (auto r = events->follow(groups); !r) return tl::unexpected(std::move(r.error()));
    std::unique_ptr<route_monitor> m(
        new route_monitor(std::move(*events), std::move(*queries), std::move(*routes)));
    m->pending_.routes_afresh = true;
    if (auto r = m->refresh(); !r) return tl::unexpected(std::move(r.error()));
    return m;
}

result<control::network_change> route_monitor::poll() {
    take_events();
    const auto done = advance();
    failed_ = !done;
    if (failed_) {
        start_over();
        return tl::unexpected(done.error());
    }
    loading_ = loading_ && !readings_.empty();
    pending_.continues = loading_;
    return std::exchange(pending_, {});
}

bool route_monitor::unfinished() const noexcept {
    return !failed_ && (more_events_ || stale_.any() || !suspects_.empty() || !readings_.empty());
}

result<void> route_monitor::advance() {
    if (auto r = refresh(); !r) return r;
    if (auto r = plan_readings(); !r) return r;
    return read_routes();
}

control::network route_monitor::snapshot() const {
    control::network all = network_;
    rib_.for_each([&](control::route r) { all.routes.push_back(std::move(r)); });
    for (const auto& [key, n] : neighbours_)
        all.neighbours.push_back(n);
    return all;
}

std::size_t route_monitor::skipped_rules() const noexcept {
    return count_conditional(rules_v4_) + count_conditional(rules_v6_);
}

void route_monitor::take_events() {
    for (int i = 0; i < events_a_poll; ++i) {
        const auto bytes = events_.receive(false);
        if (!bytes) {
            start_over();
            continue;
        }
        more_events_ = !bytes->empty();
        if (!more_events_) return;
        for_each_message(*bytes, [&](const nlmsghdr& m) { sort_event(m); });
    }
}

/// After a gap nothing that still waits may have the last word: what contradicts it can be lost.
void route_monitor::start_over() {
    stale_ = {};
    waiting_.clear();
    readings_.clear();
    for (int i = 0; i < 100 * events_a_poll; ++i)
        if (const auto bytes = events_.receive(false); bytes && bytes->empty()) return;
}

/// Routes and what they hang on wait while routes are being read; neighbours never do.
void route_monitor::sort_event(const nlmsghdr& m) {
    if (m.nlmsg_type == RTM_NEWNEIGH || m.nlmsg_type == RTM_DELNEIGH || readings_.empty()) {
        take_event(m);
        return;
    }
    // The kernel goes on with a dump of IPv6 by counting: what goes meanwhile hides others.
    const bool is_route = m.nlmsg_type == RTM_NEWROUTE || m.nlmsg_type == RTM_DELROUTE;
    reading& r = readings_.front();
    if (is_route && asked_ && r.family == ipsec::family::ipv6)
        r.interrupted |= body_of<rtmsg>(m).rtm_family == AF_INET6;
    const auto* first = reinterpret_cast<const std::byte*>(&m);
    waiting_.insert(waiting_.end(), first, first + m.nlmsg_len);
    waiting_.resize(NLMSG_ALIGN(waiting_.size()));
    if (waiting_.size() > waiting_bytes) start_over();
}

void route_monitor::take_event(const nlmsghdr& m) {
    switch (m.nlmsg_type) {
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        if (parse_route(m, scratch_)) rib_.take_event(scratch_, pending_.routes);
        break;
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
        if (const auto n = parse_neighbour(m)) take_neighbour(*n, m.nlmsg_type == RTM_DELNEIGH);
        break;
    case RTM_NEWLINK:
    case RTM_DELLINK:
        if (const auto said = parse_link(m)) take_link(*said);
        break;
    case RTM_NEWADDR:
    case RTM_DELADDR:
        stale_.addresses = true;
        if (const auto a = parse_address(m); a && m.nlmsg_type == RTM_DELADDR)
            lost_addresses_.push_back(*a);
        break;
    case RTM_NEWNEXTHOP:
    case RTM_DELNEXTHOP:
        if (const auto n = parse_nexthop(m)) rib_.take_nexthop(*n, pending_.routes);
        break;
    case RTM_NEWRULE:
    case RTM_DELRULE:
        stale_.rules = true;
        break;
    default:
        break;
    }
}

void route_monitor::take_link(const link_message& said) {
    const int ifindex = said.link.ifindex;
    const auto known = links_.find(ifindex);
    const bool is_new = known == links_.end();
    if (!is_new && (said.gone || known->second.flags != said.flags ||
                    known->second.link.master != said.link.master))
        suspects_.insert(ifindex);
    if (said.gone) {
        forget_neighbours(ifindex);
        if (!is_new) links_.erase(known);
    } else {
        links_[ifindex] = said;
    }
    publish_links();
}

/// One that is not resolved counts as little as one that is not there: a scan of a network makes
/// many.
void route_monitor::take_neighbour(const control::neighbour& n, bool gone) {
    auto& known = neighbours_[{n.ifindex, n.ip}];
    if (known.resolved != n.resolved || known.mac != n.mac)
        pending_.neighbours.push_back({n, !n.resolved});
    known = n;
    if (gone) neighbours_.erase({n.ifindex, n.ip});
}

void route_monitor::forget_neighbours(int ifindex) {
    std::vector<control::neighbour> lost;
    for (auto at = neighbours_.lower_bound({ifindex, {}});
         at != neighbours_.end() && at->first.first == ifindex; ++at)
        lost.push_back({ifindex, at->first.second});
    for (const control::neighbour& n : lost)
        take_neighbour(n, true);
}

/// IPv4 routes go in silence with the source they prefer, and with the last address of their link.
void route_monitor::suspect_routes_after_lost_addresses() {
    const auto& all = network_.addresses;
    for (const control::interface_address& lost : std::exchange(lost_addresses_, {})) {
        if (lost.local.fam != ipsec::family::ipv4) continue;
        if (std::none_of(all.begin(), all.end(), [&](auto& a) {
                return a.ifindex == lost.ifindex && a.local.fam == lost.local.fam;
            }))
            suspects_.insert(lost.ifindex);
        if (std::none_of(all.begin(), all.end(), [&](auto& a) { return a.local == lost.local; }))
            for (const int ifindex : rib_.paths().links_speaking_as(lost.local))
                suspects_.insert(ifindex);
    }
}

result<void> route_monitor::refresh() {
    const std::array<std::pair<bool*, result<void> (route_monitor::*)()>, 6> parts{{
        {&stale_.links, &route_monitor::refresh_links},
        {&stale_.addresses, &route_monitor::refresh_addresses},
        {&stale_.nexthops, &route_monitor::refresh_nexthops},
        {&stale_.rules, &route_monitor::refresh_rules},
        {&stale_.neighbours, &route_monitor::refresh_neighbours},
        {&stale_.routes, &route_monitor::refresh_routes},
    }};
    for (const auto& [stale, read] : parts) {
        if (!*stale) continue;
        if (auto r = (this->*read)(); !r) return r;
        *stale = false;
    }
    return {};
}

template <typename T, typename Header>
result<std::vector<T>> route_monitor::dump(int type, const Header& header,
                                           std::optional<T> (*parse)(const nlmsghdr&)) {
    for (int attempt = 0; attempt < dump_attempts; ++attempt) {
        if (auto r = queries_.send(type, NLM_F_DUMP, header); !r)
            return tl::unexpected(std::move(r.error()));
        std::vector<T> found;
        bool interrupted = false;
        std::optional<int> end;
        while (!end) {
            const auto bytes = queries_.receive(true);
            if (!bytes) return tl::unexpected(bytes.error());
            for_each_message(*bytes, [&](const nlmsghdr& m) {
                if (m.nlmsg_seq != queries_.sequence()) return;
                interrupted |= (m.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
                if (m.nlmsg_type == NLMSG_DONE || m.nlmsg_type == NLMSG_ERROR)
                    end = code_of(m);
                else if (auto one = parse(m))
                    found.push_back(std::move(*one));
            });
        }
        if (*end != 0) return fail_code(*end, reading_failed);
        if (!interrupted) return found;
    }
    return fail_code(EAGAIN, reading_failed);
}

result<void> route_monitor::refresh_links() {
    auto all = dump(RTM_GETLINK, ifinfomsg{}, parse_link);
    if (!all) return tl::unexpected(std::move(all.error()));
    links_.clear();
    for (link_message& said : *all)
        links_[said.link.ifindex] = std::move(said);
    publish_links();
    return {};
}

/// A link's VRF is its master's.
void route_monitor::publish_links() {
    std::vector<control::link> links;
    links.reserve(links_.size());
    for (const auto& [ifindex, said] : links_) {
        links.push_back(said.link);
        const auto master = links_.find(said.link.master);
        if (master != links_.end() && master->second.link.kind == control::link_kind::vrf)
            links.back().vrf = master->second.link.vrf;
    }
    if (links == network_.links) return;
    network_.links = std::move(links);
    pending_.interfaces = true;
    set_orders();
}

result<void> route_monitor::refresh_addresses() {
    auto all = dump(RTM_GETADDR, ifaddrmsg{}, parse_address);
    if (!all) return tl::unexpected(std::move(all.error()));
    if (*all != network_.addresses) {
        network_.addresses = std::move(*all);
        pending_.interfaces = true;
    }
    suspect_routes_after_lost_addresses();
    return {};
}

/// A kernel before 5.3 has none.
result<void> route_monitor::refresh_nexthops() {
    auto all = dump(RTM_GETNEXTHOP, nhmsg{}, parse_nexthop);
    if (!all && all.error().code == EOPNOTSUPP) return {};
    if (!all) return tl::unexpected(std::move(all.error()));
    rib_.set_nexthops(*all, pending_.routes);
    return {};
}

result<void> route_monitor::refresh_rules() {
    for (const auto& [family, rules] :
         {std::pair(AF_INET, &rules_v4_), std::pair(AF_INET6, &rules_v6_)}) {
        fib_rule_hdr header{};
        header.family = static_cast<std::uint8_t>(family);
        auto all = dump(RTM_GETRULE, header, parse_rule);
        if (!all) return tl::unexpected(std::move(all.error()));
        std::stable_sort(all->begin(), all->end(),
                         [](auto& a, auto& b) { return a.priority < b.priority; });
        *rules = std::move(*all);
    }
    set_orders();
    return {};
}

/// Orders that stay as they are cost nothing.
void route_monitor::set_orders() {
    std::set<std::uint32_t> vrfs{0};
    for (const control::link& l : network_.links)
        vrfs.insert(l.vrf);
    for (const auto& [family, rules] :
         {std::pair(ipsec::family::ipv4, &rules_v4_), std::pair(ipsec::family::ipv6, &rules_v6_)}) {
        std::vector<lookup_order> orders;
        for (const std::uint32_t vrf : vrfs)
            orders.push_back(order_by(*rules, vrf));
        rib_.set_orders(family, std::move(orders), pending_.routes);
    }
}

result<void> route_monitor::refresh_neighbours() {
    neighbour_map lost = neighbours_;
    for (const int family : {AF_INET, AF_INET6}) {
        ndmsg header{};
        header.ndm_family = static_cast<std::uint8_t>(family);
        auto all = dump(RTM_GETNEIGH, header, parse_neighbour);
        if (!all) return tl::unexpected(std::move(all.error()));
        for (const control::neighbour& n : *all) {
            lost.erase({n.ifindex, n.ip});
            take_neighbour(n, false);
        }
    }
    for (const auto& [key, n] : lost)
        take_neighbour({n.ifindex, n.ip}, true);
    return {};
}

/// In pieces: see read_routes().
result<void> route_monitor::refresh_routes() {
    suspects_.clear();
    readings_ = {{ipsec::family::ipv4}, {ipsec::family::ipv6}};
    waiting_.clear();
    if (!std::exchange(asked_, false)) return {};
    auto fresh = route_socket::open(query_buffer_bytes); // the other goes on with its dump
    if (!fresh) return tl::unexpected(std::move(fresh.error()));
    routes_ = std::move(*fresh);
    return {};
}

namespace {

result<void> ask_for(route_socket& socket, int ifindex, const ipsec::address& neighbour) {
    ndmsg header{};
    header.ndm_family = static_cast<std::uint8_t>(af_of(neighbour.fam));
    header.ndm_ifindex = ifindex;
    header.ndm_flags = NTF_USE;
    const auto body = with_attribute(header, NDA_DST, neighbour.bytes.data(),
                                     ipsec::address_length(neighbour.fam));
    if (auto r = socket.send(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_ACK, std::span(body)); !r) return r;
    std::optional<int> answer;
    while (!answer) {
        const auto bytes = socket.receive(true);
        if (!bytes) return tl::unexpected(bytes.error());
        for_each_message(*bytes, [&](const nlmsghdr& m) {
            if (m.nlmsg_seq == socket.sequence() && m.nlmsg_type == NLMSG_ERROR)
                answer = code_of(m);
        });
    }
    if (*answer != 0)
        return fail_code(*answer, "asking for the neighbour " + neighbour.to_string());
    return {};
}

} // namespace

result<void> route_monitor::resolve(int ifindex, const ipsec::address& neighbour) {
    return ask_for(queries_, ifindex, neighbour);
}

result<void> route_monitor::resolve_once(int ifindex, const ipsec::address& neighbour) {
    auto socket = route_socket::open(query_buffer_bytes);
    if (!socket) return tl::unexpected(socket.error());
    return ask_for(*socket, ifindex, neighbour);
}

/// Next hop objects go in silence too, with their link.
result<void> route_monitor::plan_readings() {
    std::vector<int> links;
    for (const int ifindex : std::exchange(suspects_, {}))
        if (rib_.paths().uses(ifindex)) links.push_back(ifindex);
    if (links.empty()) return {};
    if (links.size() > suspects_read_alone) links = {0};
    for (const int ifindex : links)
        for (const auto family : {ipsec::family::ipv4, ipsec::family::ipv6})
            readings_.push_back({family, ifindex});
    return refresh_nexthops();
}

result<void> route_monitor::read_routes() {
    for (const std::uint64_t enough = routes_read_ + routes_a_poll;
         !readings_.empty() && routes_read_ < enough;) {
        if (readings_.front().ended) {
            sweep();
            return {};
        }
        if (!asked_)
            if (auto r = ask_for_routes(); !r) return r;
        const auto bytes = routes_.receive(true);
        if (!bytes) return tl::unexpected(bytes.error());
        result<bool> ended = false;
        for_each_message(*bytes, [&](const nlmsghdr& m) {
            if (ended && !*ended && m.nlmsg_seq == routes_.sequence()) ended = read_piece(m);
        });
        if (!ended) return tl::unexpected(std::move(ended.error()));
        if (*ended) end_dump();
    }
    return {};
}

result<void> route_monitor::ask_for_routes() {
    reading& r = readings_.front();
    rtmsg header{};
    header.rtm_family = static_cast<unsigned char>(af_of(r.family));
    if (r.attempts++ == 0) rib_.begin_reading(r.family, r.ifindex);
    r.interrupted = false;
    asked_ = true;
    if (r.ifindex == 0) return routes_.send(RTM_GETROUTE, NLM_F_DUMP, header);
    const auto body = with_attribute(header, RTA_OIF, &r.ifindex, sizeof r.ifindex);
    return routes_.send(RTM_GETROUTE, NLM_F_DUMP, std::span(body));
}

/// True at the end of the dump.  That a link is not there any more (ENODEV) is an end as well.
result<bool> route_monitor::read_piece(const nlmsghdr& m) {
    reading& r = readings_.front();
    r.interrupted |= (m.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
    if (m.nlmsg_type == NLMSG_DONE || m.nlmsg_type == NLMSG_ERROR) {
        const int code = code_of(m);
        if (code != 0 && code != ENODEV) return fail_code(code, reading_failed);
        return true;
    }
    ++routes_read_;
    if (parse_route(m, scratch_)) rib_.take_read(scratch_, pending_.routes);
    return false;
}

void route_monitor::end_dump() {
    asked_ = false;
    reading& r = readings_.front();
    r.ended = !r.interrupted || r.attempts >= dump_attempts;
}

/// What was read in any attempt is there, or waits to be told that it is gone.
void route_monitor::sweep() {
    if (!rib_.sweep(readings_.front().family, routes_a_poll, pending_.routes)) return;
    readings_.pop_front();
    if (readings_.empty()) replay();
}

void route_monitor::replay() {
    const auto messages = std::exchange(waiting_, {});
    for_each_message(messages, [&](const nlmsghdr& m) { take_event(m); });
}

} // namespace esplane::xfrm

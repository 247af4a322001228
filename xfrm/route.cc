// SPDX-License-Identifier: Apache-2.0
#include "xfrm/route.h"

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <tuple>

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>

namespace esplane::xfrm {
namespace {

constexpr int event_buffer_bytes = 4 << 20;
/// Datagrams a poll takes in before it reads again what they said has changed.
constexpr int events_a_poll = 1024;
/// A dump that something changed under is read again.
constexpr int dump_attempts = 10;

tl::unexpected<error> fail_netlink(int code, const std::string& what) {
    return fail(code == -NLE_PERM ? EPERM : EIO, what + ": " + nl_geterror(code));
}

auto fields(const control::link& l) {
    return std::tie(l.ifindex, l.name, l.mac, l.mtu, l.up);
}

bool same(const std::vector<control::link>& a, const std::vector<control::link>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](auto& x, auto& y) { return fields(x) == fields(y); });
}

/// Puts `fresh` in the place of `current`; true if they differ.
template <typename T>
bool replace(std::vector<T>& current, std::vector<T> fresh) {
    const bool changed = current != fresh;
    if (changed) current = std::move(fresh);
    return changed;
}

/// Prefixes of the tables that are looked up before the present one.
class earlier_prefixes {
  public:
    void add(const control::route& r) {
        lengths_.insert(r.prefix);
        prefixes_.emplace(r.prefix, ipsec::masked(r.destination, r.prefix));
    }
    [[nodiscard]] bool cover(const control::route& r) const {
        return std::any_of(lengths_.begin(), lengths_.upper_bound(r.prefix), [&](auto length) {
            return prefixes_.contains({length, ipsec::masked(r.destination, length)});
        });
    }

  private:
    std::set<std::uint8_t> lengths_;
    std::set<std::pair<std::uint8_t, ipsec::address>> prefixes_;
};

/// Tables in the order in which plain rules reach them, each once.
std::vector<std::uint32_t> tables_in_order(std::vector<routing_rule> rules) {
    std::stable_sort(rules.begin(), rules.end(),
                     [](const auto& a, const auto& b) { return a.priority < b.priority; });
    std::vector<std::uint32_t> tables;
    for (const routing_rule& r : rules)
        if (r.plain && std::find(tables.begin(), tables.end(), r.table) == tables.end())
            tables.push_back(r.table);
    return tables;
}

/// Appends those routes of one family that a lookup can end at, best metric first.
void append_reachable(std::vector<control::route>& out, std::vector<control::route> routes,
                      const std::vector<std::uint32_t>& tables) {
    std::stable_sort(routes.begin(), routes.end(),
                     [](const auto& a, const auto& b) { return a.metric < b.metric; });
    earlier_prefixes earlier;
    for (const std::uint32_t table : tables) {
        const auto first = out.size();
        for (const control::route& r : routes)
            if (r.table == table && !earlier.cover(r)) out.push_back(r);
        for (auto i = first; i < out.size(); ++i)
            earlier.add(out[i]);
    }
}

template <typename Parsed>
struct collector {
    std::vector<Parsed> found;
    std::optional<Parsed> (*parse)(const nlmsghdr&);

    static int take(nl_msg* message, void* self) {
        auto& c = *static_cast<collector*>(self);
        if (auto x = c.parse(*nlmsg_hdr(message))) c.found.push_back(std::move(*x));
        return NL_OK;
    }
};

} // namespace

void route_monitor::close_socket::operator()(nl_sock* s) const noexcept {
    nl_socket_free(s);
}

route_monitor::~route_monitor() = default;

int route_monitor::descriptor() const noexcept {
    return nl_socket_get_fd(events_.get());
}

result<std::unique_ptr<route_monitor>> route_monitor::open() {
    std::unique_ptr<route_monitor> m(new route_monitor);
    if (auto r = m->connect(); !r) return tl::unexpected(std::move(r.error()));
    // Subscribed before the first dump: what happens between is seen twice, not never.
    if (auto r = m->follow(); !r) return tl::unexpected(std::move(r.error()));
    if (auto r = m->reload(); !r) return tl::unexpected(std::move(r.error()));
    return m;
}

result<void> route_monitor::connect() {
    for (socket_ptr* s : {&events_, &queries_}) {
        s->reset(nl_socket_alloc());
        if (!*s) return fail(ENOMEM, "netlink socket");
        if (const int e = nl_connect(s->get(), NETLINK_ROUTE); e < 0)
            return fail_netlink(e, "connecting to rtnetlink");
    }
    nl_socket_enable_msg_peek(queries_.get());
    return {};
}

result<void> route_monitor::follow() {
    nl_sock* s = events_.get();
    (void)::setsockopt(nl_socket_get_fd(s), SOL_SOCKET, SO_RCVBUFFORCE, &event_buffer_bytes,
                       sizeof event_buffer_bytes);
    nl_socket_disable_seq_check(s);
    nl_socket_enable_msg_peek(s);
    nl_socket_modify_cb(s, NL_CB_VALID, NL_CB_CUSTOM, on_event, this);
    nl_socket_set_nonblocking(s);
    if (const int e = nl_socket_add_memberships(s, RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR,
                                                RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
                                                RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE,
                                                RTNLGRP_IPV6_RULE, RTNLGRP_NEXTHOP, RTNLGRP_NONE);
        e < 0)
        return fail_netlink(e, "following rtnetlink");
    return {};
}

int route_monitor::on_event(nl_msg* message, void* self) {
    static_cast<route_monitor*>(self)->take_event(*nlmsg_hdr(message));
    return NL_OK;
}

void route_monitor::take_event(const nlmsghdr& message) {
    switch (message.nlmsg_type) {
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
        if (const auto n = parse_neighbour(message))
            take_neighbour(*n, message.nlmsg_type == RTM_DELNEIGH);
        break;
    case RTM_NEWLINK:
    case RTM_DELLINK:
        // With a link go addresses, neighbours and, unannounced, routes.
        stale_ = {};
        break;
    case RTM_NEWADDR:
    case RTM_DELADDR:
        stale_.addresses = stale_.routes = true;
        break;
    default:
        stale_.routes = true;
    }
}

/// One that is not resolved counts as little as one that is not there: a scan of a network makes
/// many.
void route_monitor::take_neighbour(const control::neighbour& n, bool gone) {
    auto& known = neighbours_[{n.ifindex, n.ip}];
    neighbours_changed_ |= known.resolved != n.resolved || known.mac != n.mac;
    known = n;
    if (gone) neighbours_.erase({n.ifindex, n.ip});
}

result<bool> route_monitor::poll() {
    for (int i = 0; i < events_a_poll; ++i) {
        const int e = nl_recvmsgs_default(events_.get());
        if (e == -NLE_AGAIN) break;
        if (e < 0) stale_ = {}; // a gap: ENOBUFS comes as NLE_NOMEM
    }
    if (auto r = reload(); !r) return tl::unexpected(std::move(r.error()));
    return std::exchange(changed_, false);
}

result<void> route_monitor::reload() {
    const std::array<std::pair<bool*, result<void> (route_monitor::*)()>, 4> parts{{
        {&stale_.links, &route_monitor::reload_links},
        {&stale_.addresses, &route_monitor::reload_addresses},
        {&stale_.routes, &route_monitor::reload_routes},
        {&stale_.neighbours, &route_monitor::reload_neighbours},
    }};
    for (const auto& [stale, read] : parts) {
        if (!*stale) continue;
        if (auto r = (this->*read)(); !r) return r;
        *stale = false;
    }
    if (std::exchange(neighbours_changed_, false)) copy_neighbours();
    return {};
}

void route_monitor::copy_neighbours() {
    std::vector<control::neighbour> all;
    for (const auto& [key, n] : neighbours_)
        all.push_back(n);
    changed_ |= replace(network_.neighbours, std::move(all));
}

template <typename T>
result<std::vector<T>> route_monitor::dump(int type, int family,
                                           std::optional<T> (*parse)(const nlmsghdr&)) {
    int e = 0;
    for (int attempt = 0; attempt < dump_attempts; ++attempt) {
        collector<T> c{{}, parse};
        rtgenmsg which{static_cast<unsigned char>(family)};
        nl_socket_modify_cb(queries_.get(), NL_CB_VALID, NL_CB_CUSTOM, collector<T>::take, &c);
        e = nl_send_simple(queries_.get(), type, NLM_F_DUMP, &which, sizeof which);
        if (e >= 0) e = nl_recvmsgs_default(queries_.get());
        nl_socket_modify_cb(queries_.get(), NL_CB_VALID, NL_CB_DEFAULT, nullptr, nullptr);
        if (e >= 0) return std::move(c.found);
        if (e != -NLE_DUMP_INTR) break;
    }
    return fail_netlink(e, "reading the kernel's routing state");
}

result<void> route_monitor::reload_links() {
    auto links = dump<control::link>(RTM_GETLINK, AF_UNSPEC, parse_link);
    if (!links) return tl::unexpected(std::move(links.error()));
    changed_ |= !same(network_.links, *links);
    network_.links = std::move(*links);
    return {};
}

result<void> route_monitor::reload_addresses() {
    auto addresses = dump<control::interface_address>(RTM_GETADDR, AF_UNSPEC, parse_address);
    if (!addresses) return tl::unexpected(std::move(addresses.error()));
    changed_ |= replace(network_.addresses, std::move(*addresses));
    return {};
}

result<void> route_monitor::reload_routes() {
    std::vector<control::route> reachable;
    std::size_t skipped = 0;
    for (const int family : {AF_INET, AF_INET6}) {
        auto rules = dump<routing_rule>(RTM_GETRULE, family, parse_rule);
        if (!rules) return tl::unexpected(std::move(rules.error()));
        auto routes = dump<control::route>(RTM_GETROUTE, family, parse_route);
        if (!routes) return tl::unexpected(std::move(routes.error()));
        skipped += std::count_if(rules->begin(), rules->end(), [](auto& r) { return !r.plain; });
        append_reachable(reachable, std::move(*routes), tables_in_order(std::move(*rules)));
    }
    skipped_rules_ = skipped;
    changed_ |= replace(network_.routes, std::move(reachable));
    return {};
}

result<void> route_monitor::reload_neighbours() {
    neighbour_map fresh;
    for (const int family : {AF_INET, AF_INET6}) {
        auto all = dump<control::neighbour>(RTM_GETNEIGH, family, parse_neighbour);
        if (!all) return tl::unexpected(std::move(all.error()));
        for (control::neighbour& n : *all)
            fresh.insert_or_assign({n.ifindex, n.ip}, n);
    }
    neighbours_ = std::move(fresh);
    neighbours_changed_ = true;
    return {};
}

result<void> route_monitor::resolve(int ifindex, const ipsec::address& neighbour) {
    ndmsg header{};
    header.ndm_family = neighbour.fam == ipsec::family::ipv4 ? AF_INET : AF_INET6;
    header.ndm_ifindex = ifindex;
    header.ndm_flags = NTF_USE;
    nl_msg* m = nlmsg_alloc_simple(RTM_NEWNEIGH, NLM_F_CREATE);
    if (m == nullptr) return fail(ENOMEM, "asking for a neighbour");
    nlmsg_append(m, &header, sizeof header, NLMSG_ALIGNTO);
    nla_put(m, NDA_DST, ipsec::address_length(neighbour.fam), neighbour.bytes.data());
    const int e = nl_send_sync(queries_.get(), m);
    if (e < 0) return fail_netlink(e, "asking for the neighbour " + neighbour.to_string());
    return {};
}

} // namespace esplane::xfrm

// SPDX-License-Identifier: Apache-2.0
#include "xfrm/route_rib.h"

#include <algorithm>
#include <type_traits>

namespace esplane::xfrm {
namespace {

template <typename Key>
constexpr bool is_v6 = std::is_same_v<Key, key_v6>;

template <typename Key>
Key key_of(const ipsec::address& a, unsigned length) {
    if constexpr (is_v6<Key>) {
        const auto high = wire::load<wire::be64>(a.bytes.data());
        const auto low = wire::load<wire::be64>(a.bytes.data() + 8);
        return Key{high.host(), low.host()}.first(length);
    } else {
        return Key{a.as_v4().host()}.first(length);
    }
}

ipsec::address address_of(const key_v4& key) {
    return ipsec::address::v4(wire::be32(key.bits));
}

ipsec::address address_of(const key_v6& key) {
    std::array<std::uint8_t, 16> bytes;
    wire::store(bytes.data(), wire::be64(key.high));
    wire::store(bytes.data() + 8, wire::be64(key.low));
    return ipsec::address::v6(bytes);
}

/// Whether a hop is dead is its state; the rest says which route it is.
bool same_hop(const next_hop& a, const next_hop& b) {
    return a.ifindex == b.ifindex && a.gateway == b.gateway && a.weight == b.weight;
}

bool same_route(const route_path& a, const route_path& b) {
    return a.kind == b.kind && a.mtu == b.mtu && a.preferred_source == b.preferred_source &&
           a.nexthop_id == b.nexthop_id && a.advertised == b.advertised &&
           std::equal(a.hops.begin(), a.hops.end(), b.hops.begin(), b.hops.end(), same_hop);
}

/// IPv6 makes one multipath route of those of a metric that have gateways, unless by advertisement.
bool joins_others(const route_path& p) {
    return p.nexthop_id == 0 && !p.advertised && !p.hops.empty() &&
           std::all_of(p.hops.begin(), p.hops.end(), [](const next_hop& h) {
               return h.gateway.fam != ipsec::family::unspecified;
           });
}

bool has_hop(const std::vector<next_hop>& hops, const next_hop& hop) {
    return std::any_of(hops.begin(), hops.end(), [&](auto& h) { return same_hop(h, hop); });
}

std::vector<next_hop> without(std::vector<next_hop> hops, const std::vector<next_hop>& gone) {
    std::erase_if(hops, [&](const next_hop& h) { return has_hop(gone, h); });
    return hops;
}

} // namespace

template <typename Key>
template <typename Item>
std::uint32_t family_rib<Key>::pool<Item>::add(const Item& item) {
    if (free.empty()) {
        items.push_back(item);
        return static_cast<std::uint32_t>(items.size() - 1);
    }
    const std::uint32_t i = free.back();
    free.pop_back();
    items[i] = item;
    return i;
}

template <typename Key>
template <typename Item>
void family_rib<Key>::pool<Item>::remove(std::uint32_t i) {
    items[i].node = nodes::none;
    free.push_back(i);
}

/// The first route of a prefix for which is(route) holds, or none.
template <typename Key>
template <typename Is>
std::uint32_t family_rib<Key>::first_where(typename nodes::index node, Is is) const {
    std::uint32_t i = tree_.value(node).route;
    while (i != none && !is(routes_.items[i]))
        i = routes_.items[i].next;
    return i;
}

/// The route that a lookup in that table ends at.
template <typename Key>
std::uint32_t family_rib<Key>::best(typename nodes::index node, std::uint32_t table) const {
    return first_where(node,
                       [&](const route& r) { return r.table == table && paths_.usable(r.path); });
}

template <typename Key>
std::uint32_t family_rib<Key>::find_same(typename nodes::index node, const route_message& m) const {
    return first_where(node, [&](const route& r) {
        return r.table == m.table && r.metric == m.metric &&
               same_route(paths_.told(r.path), m.path);
    });
}

/// The route that `m` takes the place of, or none.
///
/// IPv4 replaces the first of its metric where it says so.  IPv6 tells a multipath route whole
/// whenever a hop came to it; else it replaces the first that is multipath, or not, as `m` is.
template <typename Key>
std::uint32_t family_rib<Key>::find_replaced(typename nodes::index node,
                                             const route_message& m) const {
    const bool instead = m.place == route_place::instead;
    const auto of_metric = [&](const route& r) {
        return r.table == m.table && r.metric == m.metric;
    };
    if constexpr (is_v6<Key>) {
        const bool joins = joins_others(m.path);
        const auto alike = first_where(node, [&](const route& r) {
            return of_metric(r) && joins_others(paths_.told(r.path)) == joins;
        });
        if (alike != none && (joins || instead)) return alike;
    }
    return instead ? first_where(node, of_metric) : none;
}

/// The route that a new one goes in front of; none = behind all.
template <typename Key>
std::uint32_t family_rib<Key>::place_for(typename nodes::index node, const route_message& m) const {
    const bool in_front = !is_v6<Key> && m.place == route_place::first;
    return first_where(node, [&](const route& r) {
        return r.table == m.table && (in_front ? r.metric >= m.metric : r.metric > m.metric);
    });
}

template <typename Key>
void family_rib<Key>::add(typename nodes::index node, std::uint32_t before,
                          const route_message& m) {
    const std::uint32_t fresh =
        routes_.add({before, node, paths_.hold(m.path), m.table, m.metric, reading_});
    std::uint32_t* link = &tree_.value(node).route;
    while (*link != before)
        link = &routes_.items[*link].next;
    *link = fresh;
    ++table_sizes_[m.table];
}

template <typename Key>
void family_rib<Key>::remove(typename nodes::index node, std::uint32_t i) {
    std::uint32_t* link = &tree_.value(node).route;
    while (*link != i)
        link = &routes_.items[*link].next;
    *link = routes_.items[i].next;
    paths_.release(routes_.items[i].path);
    --table_sizes_[routes_.items[i].table];
    routes_.remove(i);
}

template <typename Key>
void family_rib<Key>::set_path(std::uint32_t i, const route_path& path) {
    const route_paths::id old = routes_.items[i].path;
    routes_.items[i].path = paths_.hold(path);
    routes_.items[i].read = reading_;
    paths_.release(old);
}

template <typename Key>
void family_rib<Key>::put(typename nodes::index node, const route_message& m) {
    const std::uint32_t same = find_same(node, m);
    const std::uint32_t replaced = find_replaced(node, m);
    if (replaced != none) {
        if (same != none && same != replaced) remove(node, same);
        set_path(replaced, m.path);
    } else if (same != none) {
        set_path(same, m.path);
    } else {
        add(node, place_for(node, m), m);
    }
}

/// In the order of the reading: in front of those of its metric that have not been read yet.  One
/// link's routes say nothing about the order among others': what is known of them stays in place.
template <typename Key>
void family_rib<Key>::put_read(typename nodes::index node, const route_message& m) {
    const std::uint32_t same = find_same(node, m);
    if (same != none && reading_of_ != 0) {
        set_path(same, m.path);
        return;
    }
    if (same != none) remove(node, same);
    const auto not_yet = [&](const route& r) {
        return r.table == m.table &&
               (r.metric > m.metric || (r.metric == m.metric && r.read != reading_));
    };
    add(node, first_where(node, not_yet), m);
}

/// One that is not there is no error: a change may be told that a reading has shown already.
template <typename Key>
void family_rib<Key>::take_out(typename nodes::index node, const route_message& m) {
    if (const std::uint32_t same = find_same(node, m); same != none) {
        remove(node, same);
        return;
    }
    if constexpr (is_v6<Key>) { // one hop of several
        const std::uint32_t i = first_where(node, [&](const route& r) {
            return r.table == m.table && r.metric == m.metric &&
                   joins_others(paths_.told(r.path)) && joins_others(m.path);
        });
        if (i == none) return;
        route_path rest = paths_.told(routes_.items[i].path);
        rest.hops = without(std::move(rest.hops), m.path.hops);
        if (rest.hops.empty())
            remove(node, i);
        else
            set_path(i, rest);
    }
}

template <typename Key>
control::route family_rib<Key>::route_of(const winner& w) const {
    control::route r = paths_.seen(w.path);
    r.destination = address_of(tree_.key(w.node));
    r.prefix = static_cast<std::uint8_t>(tree_.length(w.node));
    r.table = w.table;
    r.metric = w.metric;
    r.vrf = w.vrf;
    return r;
}

template <typename Key>
control::network_change::route_change family_rib<Key>::loss_of(const winner& w) const {
    control::network_change::route_change lost;
    lost.what.destination = address_of(tree_.key(w.node));
    lost.what.prefix = static_cast<std::uint8_t>(tree_.length(w.node));
    lost.what.vrf = w.vrf;
    lost.gone = true;
    return lost;
}

template <typename Key>
bool family_rib<Key>::covered(typename nodes::index node, std::uint32_t table) const {
    bool found = false;
    tree_.above(node, [&](typename nodes::index n) { found = found || best(n, table) != none; });
    return found;
}

/// The route that a prefix contributes to that order; none where it has none, or a table before
/// covers it.
template <typename Key>
std::uint32_t family_rib<Key>::choose(typename nodes::index node, const lookup_order& order) const {
    for (const std::uint32_t table : order.tables) {
        if (const std::uint32_t i = best(node, table); i != none) return i;
        if (table != order.tables.back() && covered(node, table)) return none;
    }
    return none;
}

template <typename Key>
void family_rib<Key>::crown(typename nodes::index node, const lookup_order& order, const route& r,
                            std::uint32_t current, route_changes& out) {
    paths_.hold(r.path);
    bool changed = true;
    if (current == none) {
        std::uint32_t& first = tree_.value(node).winner;
        current = winners_.add({first, node, r.path, r.table, r.metric, order.vrf});
        first = current;
    } else {
        winner& w = winners_.items[current];
        changed = w.path != r.path;
        paths_.release(w.path);
        w.path = r.path;
        w.table = r.table;
        w.metric = r.metric;
    }
    if (changed) out.push_back({route_of(winners_.items[current]), false});
}

template <typename Key>
void family_rib<Key>::dethrone(typename nodes::index node, std::uint32_t w, route_changes& out) {
    out.push_back(loss_of(winners_.items[w]));
    std::uint32_t* link = &tree_.value(node).winner;
    while (*link != w)
        link = &winners_.items[*link].next;
    *link = winners_.items[w].next;
    paths_.release(winners_.items[w].path);
    winners_.remove(w);
}

/// Decides anew who wins a prefix for that order's VRF.
template <typename Key>
void family_rib<Key>::weigh(typename nodes::index node, const lookup_order& order,
                            route_changes& out) {
    std::uint32_t current = tree_.value(node).winner;
    while (current != none && winners_.items[current].vrf != order.vrf)
        current = winners_.items[current].next;
    const std::uint32_t chosen = choose(node, order);
    if (chosen != none)
        crown(node, order, routes_.items[chosen], current, out);
    else if (current != none)
        dethrone(node, current, out);
}

/// Some table behind `table` has routes.
template <typename Key>
bool family_rib<Key>::followed(const lookup_order& order, std::uint32_t table) const {
    const auto at = std::find(order.tables.begin(), order.tables.end(), table);
    return at != order.tables.end() &&
           std::any_of(at + 1, order.tables.end(), [&](std::uint32_t later) {
               const auto size = table_sizes_.find(later);
               return size != table_sizes_.end() && size->second != 0;
           });
}

template <typename Key>
void family_rib<Key>::weigh_table(typename nodes::index node, std::uint32_t table,
                                  bool came_or_went, route_changes& out) {
    const auto concerned = orders_of_.find(table);
    if (concerned == orders_of_.end()) return;
    for (const std::size_t i : concerned->second) {
        const lookup_order& order = orders_[i];
        weigh(node, order, out);
        if (came_or_went && tree_.length(node) < Key::width && followed(order, table))
            tree_.below(node, [&](typename nodes::index n) { weigh(n, order, out); });
    }
}

/// Lets alter() change the routes of a prefix and table, and follows up what that means.
template <typename Key>
template <typename Alter>
void family_rib<Key>::alter(typename nodes::index node, std::uint32_t table, Alter alter,
                            route_changes& out) {
    const std::uint32_t before = best(node, table);
    const route was = before == none ? route{} : routes_.items[before];
    if (before != none) paths_.hold(was.path); // an id must not come to mean another meanwhile
    alter();
    const std::uint32_t after = best(node, table);
    const bool came_or_went = (before == none) != (after == none);
    if (came_or_went || (after != none && (routes_.items[after].path != was.path ||
                                           routes_.items[after].metric != was.metric)))
        weigh_table(node, table, came_or_went, out);
    if (before != none) paths_.release(was.path);
    if (tree_.value(node) == heads{}) tree_.erase(node);
}

template <typename Key>
void family_rib<Key>::take_event(const route_message& m, route_changes& out) {
    const Key key = key_of<Key>(m.destination, m.prefix);
    const auto node = m.gone ? tree_.find(key, m.prefix) : tree_.insert(key, m.prefix);
    if (node == nodes::none) return;
    alter(
        node, m.table, [&] { m.gone ? take_out(node, m) : put(node, m); }, out);
}

template <typename Key>
void family_rib<Key>::take_read(const route_message& m, route_changes& out) {
    const auto node = tree_.insert(key_of<Key>(m.destination, m.prefix), m.prefix);
    alter(
        node, m.table, [&] { put_read(node, m); }, out);
}

template <typename Key>
bool family_rib<Key>::sweep(std::size_t most, route_changes& out) {
    for (; swept_ < routes_.items.size(); ++swept_) {
        const route r = routes_.items[swept_];
        if (r.node == nodes::none || r.read == reading_) continue;
        if (reading_of_ != 0 && !paths_.leaves_by(r.path, reading_of_)) continue;
        if (most-- == 0) return false;
        alter(
            r.node, r.table, [&] { remove(r.node, swept_); }, out);
    }
    return true;
}

template <typename Key>
void family_rib<Key>::nexthop_gone(std::uint32_t nexthop_id, route_changes& out) {
    for (std::uint32_t i = 0; i < routes_.items.size(); ++i) {
        const route r = routes_.items[i];
        if (r.node == nodes::none || paths_.told(r.path).nexthop_id != nexthop_id) continue;
        alter(
            r.node, r.table, [&] { remove(r.node, i); }, out);
    }
}

/// Such a path may have become usable, or ceased to be: whoever stood behind it is weighed too.
template <typename Key>
void family_rib<Key>::paths_changed(const std::vector<route_paths::id>& changed,
                                    route_changes& out) {
    const auto is_changed = [&](route_paths::id path) {
        return std::find(changed.begin(), changed.end(), path) != changed.end();
    };
    for (const winner& w : winners_.items)
        if (w.node != nodes::none && is_changed(w.path) && paths_.usable(w.path))
            out.push_back({route_of(w), false});
    for (std::uint32_t i = 0; i < routes_.items.size(); ++i) {
        const route r = routes_.items[i];
        if (r.node != nodes::none && is_changed(r.path)) weigh_table(r.node, r.table, true, out);
    }
}

template <typename Key>
void family_rib<Key>::weigh_all(const lookup_order& order, route_changes& out) {
    weigh(nodes::root, order, out);
    tree_.below(nodes::root, [&](typename nodes::index n) { weigh(n, order, out); });
}

template <typename Key>
void family_rib<Key>::set_orders(std::vector<lookup_order> orders, route_changes& out) {
    std::swap(orders_, orders);
    orders_of_.clear();
    for (std::size_t i = 0; i < orders_.size(); ++i)
        for (const std::uint32_t table : orders_[i].tables)
            orders_of_[table].push_back(i);
    const auto has = [](const std::vector<lookup_order>& all, std::uint32_t vrf) {
        return std::any_of(all.begin(), all.end(), [&](auto& o) { return o.vrf == vrf; });
    };
    for (const lookup_order& old : orders)
        if (!has(orders_, old.vrf)) weigh_all({old.vrf, {}}, out);
    for (const lookup_order& order : orders_)
        if (std::find(orders.begin(), orders.end(), order) == orders.end()) weigh_all(order, out);
}

template class family_rib<key_v4>;
template class family_rib<key_v6>;

void rib::set_orders(ipsec::family family, std::vector<lookup_order> orders, route_changes& out) {
    if (family == ipsec::family::ipv4)
        v4_.set_orders(std::move(orders), out);
    else
        v6_.set_orders(std::move(orders), out);
}

void rib::take_event(const route_message& m, route_changes& out) {
    if (m.destination.fam == ipsec::family::ipv4)
        v4_.take_event(m, out);
    else
        v6_.take_event(m, out);
}

void rib::take_nexthop(const nexthop_message& m, route_changes& out) {
    if (m.gone) {
        v4_.nexthop_gone(m.id, out);
        v6_.nexthop_gone(m.id, out);
    }
    paths_changed(paths_.set_nexthop(m), out);
}

void rib::pass_over(std::vector<int> links, route_changes& out) {
    paths_changed(paths_.pass_over(std::move(links)), out);
}

void rib::paths_changed(const std::vector<route_paths::id>& changed, route_changes& out) {
    if (changed.empty()) return;
    v4_.paths_changed(changed, out);
    v6_.paths_changed(changed, out);
}

void rib::set_nexthops(const std::vector<nexthop_message>& all, route_changes& out) {
    std::unordered_map<std::uint32_t, nexthop_message> gone = paths_.nexthops();
    for (const nexthop_message& n : all) {
        const auto known = gone.find(n.id);
        const bool same = known != gone.end() && known->second == n;
        if (known != gone.end()) gone.erase(known);
        if (!same) take_nexthop(n, out);
    }
    for (auto& [id, n] : gone) {
        n.gone = true;
        take_nexthop(n, out);
    }
}

void rib::begin_reading(ipsec::family family, int ifindex) noexcept {
    family == ipsec::family::ipv4 ? v4_.begin_reading(ifindex) : v6_.begin_reading(ifindex);
}

void rib::take_read(const route_message& m, route_changes& out) {
    if (m.destination.fam == ipsec::family::ipv4)
        v4_.take_read(m, out);
    else
        v6_.take_read(m, out);
}

bool rib::sweep(ipsec::family family, std::size_t most, route_changes& out) {
    return family == ipsec::family::ipv4 ? v4_.sweep(most, out) : v6_.sweep(most, out);
}

} // namespace esplane::xfrm

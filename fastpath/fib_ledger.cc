// SPDX-License-Identifier: Apache-2.0
#include "fastpath/fib_ledger.h"

#include <algorithm>

namespace esplane::fastpath {

using ipsec::family;

namespace {

bool is_host(const ipsec::address& a, unsigned prefix) {
    return prefix == ipsec::address_bits(a.fam);
}

path path_of(const control::route& r, std::uint16_t vrf) {
    path p;
    p.vrf = vrf;
    if (r.kind == control::route_kind::local) {
        p.kind = path_kind::local;
        return p;
    }
    if (r.kind != control::route_kind::unicast) {
        p.kind = path_kind::denied;
        return p;
    }
    p.kind = path_kind::unicast;
    p.mtu = r.mtu;
    p.hops.push_back({r.ifindex, r.gateway, r.more.empty() ? std::uint8_t{1} : r.weight});
    p.hops.insert(p.hops.end(), r.more.begin(), r.more.end());
    for (control::hop& h : p.hops) {
        if (!h.gateway.is_any()) continue;
        h.gateway = {};                                                  // "any" in one form
        if (is_host(r.destination, r.prefix)) h.gateway = r.destination; // its own neighbour
    }
    return p;
}

} // namespace

// VRFs.

std::optional<std::uint16_t> fib::ledger::take_index(std::uint32_t table) {
    if (table == 0) return std::uint16_t{0};
    if (const auto known = index_by_table_.find(table); known != index_by_table_.end())
        return known->second;
    if (index_by_table_.size() == most_vrfs) return {};
    const auto taken = [&](std::uint16_t i) {
        return std::any_of(index_by_table_.begin(), index_by_table_.end(),
                           [&](const auto& one) { return one.second == i; });
    };
    do // not at once the one that was given up last
        last_index_ = static_cast<std::uint16_t>(last_index_ % most_vrfs + 1);
    while (taken(last_index_));
    index_by_table_[table] = last_index_;
    return last_index_;
}

std::uint16_t fib::ledger::index_of(std::uint32_t table) const {
    const auto known = index_by_table_.find(table);
    return known == index_by_table_.end() ? std::uint16_t{0} : known->second;
}

fib::ledger::vrf* fib::ledger::find_vrf(std::uint16_t index) {
    vrf_set& set = loading_ ? loaded_ : current_;
    return index < set.size() ? set[index].get() : nullptr;
}

/// Made where it is not there; nullptr where there is no memory.
fib::ledger::vrf* fib::ledger::take_vrf(std::uint16_t index) {
    if (vrf* known = find_vrf(index)) return known;
    const bool wide = index == 0;
    if (!memory.has_room(2 * (wide ? lpm_table<4>::wide_lines : lpm_table<4>::narrow_lines)))
        return nullptr;
    vrf_set& set = loading_ ? loaded_ : current_;
    if (index >= set.size()) set.resize(index + 1u);
    set[index] = std::make_unique<vrf>(memory, retired, wide);
    if (!loading_) publish(index);
    return set[index].get();
}

void fib::ledger::publish(std::uint16_t index) {
    const vrf_tables* tables = nullptr;
    if (index < current_.size() && current_[index] != nullptr) {
        current_[index]->tables->v4.publish();
        current_[index]->tables->v6.publish();
        tables = current_[index]->tables.get();
    }
    owner_.vrfs_[index].store(tables, std::memory_order_release);
    if (index == 0) owner_.main_.store(tables, std::memory_order_release);
}

void fib::ledger::drop(std::unique_ptr<vrf> v) {
    if (v == nullptr) return;
    const auto release = [&](std::uint32_t number) { paths.release(number); };
    v->v4.for_each_value(release);
    v->v6.for_each_value(release);
    old_tables_.push_back(std::move(v->tables));
}

/// VRFs that no link belongs to and no route is in.
void fib::ledger::drop_idle_vrfs(const control::network& now) {
    std::erase_if(index_by_table_, [&](const auto& one) {
        const auto [table, index] = one;
        const auto belongs = [table = table](const auto& l) { return l.vrf == table; };
        if (std::any_of(now.links.begin(), now.links.end(), belongs)) return false;
        if (loading_) return false;
        if (vrf* v = find_vrf(index)) {
            if (v->v4.size() + v->v6.size() != 0) return false;
            drop(std::move(current_[index]));
            publish(index);
        }
        return true;
    });
}

// Interfaces.

void fib::ledger::change_interfaces(const control::network& now, const device_bindings& bindings) {
    const auto vrf_of = [&](std::uint32_t table) { return take_index(table).value_or(0); };
    use(std::make_unique<interface_table>(now, bindings, *interfaces_, vrf_of));
    drop_idle_vrfs(now);
    if (!loading_) reconsider_all();
}

void fib::ledger::use(std::unique_ptr<const interface_table> fresh) {
    owner_.interfaces_.store(fresh.get(), std::memory_order_release);
    owner_.has_vrfs_.store(fresh->has_vrfs(), std::memory_order_release);
    paths.use(*fresh);
    old_interfaces_.push_back(std::exchange(interfaces_, std::move(fresh)));
}

// Routes.

void fib::ledger::begin_afresh() {
    loading_ = true;
    for (auto& v : loaded_)
        drop(std::move(v));
    loaded_.clear();
    (void)take_vrf(0);
}

/// What was loaded takes the place of what was there.
void fib::ledger::end_afresh() {
    loading_ = false;
    current_.swap(loaded_);
    for (auto& [key, n] : neighbours_)
        for (const auto& [index, number] : std::exchange(n.installed, {}))
            paths.release(number);
    reconsider_all();
    for (std::size_t i = 0; i < std::max(current_.size(), loaded_.size()); ++i)
        publish(static_cast<std::uint16_t>(i));
    for (auto& v : loaded_)
        drop(std::move(v));
    loaded_.clear();
}

void fib::ledger::change_route(const control::network_change::route_change& c) {
    const control::route& r = c.what;
    const auto index = c.gone ? index_of(r.vrf) : take_index(r.vrf);
    if (!index || (c.gone && r.vrf != 0 && *index == 0)) {
        refused_ += !c.gone;
        return;
    }
    std::optional<std::uint32_t> number;
    if (!c.gone) {
        number = paths.take(path_of(r, *index));
        if (!number) {
            ++refused_;
            return;
        }
    }
    set_route(*index, r.destination, r.prefix, number);
}

/// number   nothing: the route is gone.  Takes over the caller's share of the
/// path.
void fib::ledger::set_route(std::uint16_t index, const ipsec::address& to, unsigned length,
                            std::optional<std::uint32_t> number) {
    if (to.fam == family::ipv4)
        set_route<4>(index, to, length, number);
    else
        set_route<16>(index, to, length, number);
}

template <unsigned Bytes>
void fib::ledger::set_route(std::uint16_t index, const ipsec::address& to, unsigned length,
                            std::optional<std::uint32_t> number) {
    vrf* v = number ? take_vrf(index) : find_vrf(index);
    if (v == nullptr) {
        if (number) refuse(*number);
        return;
    }
    const std::uint8_t* bytes = to.bytes.data();
    auto& routes = v->template routes<Bytes>();
    const auto before = routes.find(bytes, length);
    if (!number && !before) return;
    if (number == before) {
        paths.release(*number);
        return;
    }
    typename prefix_map<Bytes>::covering leads{length, 0};
    if (number)
        leads.value = *number;
    else
        leads = routes.cover(bytes, length).value_or(decltype(leads){0, next_hops::missing});
    if (!v->tables->template of<Bytes>().assign(bytes, length, leads.length, leads.value)) {
        if (number) refuse(*number);
        return;
    }
    if (number)
        routes.set(bytes, length, *number);
    else
        routes.erase(bytes, length);
    if (before) paths.release(*before);
    if (!loading_) reconsider(index, to, length);
}

void fib::ledger::refuse(std::uint32_t number) {
    paths.release(number);
    ++refused_;
}

// Neighbours.

void fib::ledger::change_neighbour(const control::network_change::neighbour_change& c) {
    const control::neighbour& what = c.what;
    const neighbour_key key{what.ip.fam, what.ip, what.ifindex};
    if (what.resolved && !c.gone) {
        paths.set_neighbour(what.ifindex, what.ip, what.mac);
        neighbours_.try_emplace(key);
        if (loading_) return;
        for (const std::uint16_t index : paths.vrfs_on_link(what.ifindex))
            reconsider(index, what.ip, ipsec::address_bits(what.ip.fam));
        return;
    }
    const auto known = neighbours_.find(key);
    if (known == neighbours_.end()) return;
    while (!known->second.installed.empty())
        uninstall(known->second.installed.back().first, key, known->second);
    neighbours_.erase(known);
    paths.set_neighbour(what.ifindex, what.ip, {});
}

/// The path of a neighbour as a host route of its own: where its address is routed onto the link it
/// was seen on, and no host route says otherwise.
template <unsigned Bytes>
std::optional<path> fib::ledger::path_to(std::uint16_t index, const neighbour_key& key) {
    const auto& [fam, ip, ifindex] = key;
    const vrf* v = find_vrf(index);
    if (v == nullptr) return {};
    const auto& routes = const_cast<vrf*>(v)->template routes<Bytes>();
    if (routes.find(ip.bytes.data(), Bytes * 8)) return {};
    const auto cover = routes.cover(ip.bytes.data(), Bytes * 8);
    if (!cover) return {};
    path p = paths.at(cover->value);
    if (p.kind != path_kind::unicast || p.hops.size() != 1 || p.hops[0].ifindex != ifindex ||
        !p.hops[0].gateway.is_any() || interfaces_->find(ifindex) == interface_table::none)
        return {};
    p.hops[0].gateway = ip;
    return p;
}

/// After a change of routes in `prefix` or of neighbours: who of them is a host route now.
void fib::ledger::reconsider(std::uint16_t index, const ipsec::address& prefix, unsigned length) {
    const ipsec::address from = ipsec::masked(prefix, length);
    const auto first = neighbours_.lower_bound({prefix.fam, from, 0});
    const auto each = [&](auto take) {
        for (auto one = first; one != neighbours_.end(); ++one) {
            const auto& [fam, ip, ifindex] = one->first;
            if (fam != prefix.fam ||
                !ipsec::prefix_equal(ip.bytes.data(), from.bytes.data(), length))
                return;
            const auto p = fam == family::ipv4 ? path_to<4>(index, one->first)
                                               : path_to<16>(index, one->first);
            take(one->first, one->second, p);
        }
    };
    // Those on other links first: they must not take away what the right one put there.
    each([&](const auto& key, neighbour& n, const auto& p) {
        if (!p) uninstall(index, key, n);
    });
    each([&](const auto& key, neighbour& n, const auto& p) {
        if (p) install(index, key, n, *p);
    });
}

void fib::ledger::reconsider_all() {
    if (neighbours_.empty()) return;
    for (std::size_t i = 0; i < current_.size(); ++i)
        for (const ipsec::address& all : {ipsec::address::v4({}), ipsec::address::v6({})})
            reconsider(static_cast<std::uint16_t>(i), all, 0);
}

void fib::ledger::uninstall(std::uint16_t index, const neighbour_key& key, neighbour& n) {
    const auto at = std::find_if(n.installed.begin(), n.installed.end(),
                                 [&](const auto& one) { return one.first == index; });
    if (at == n.installed.end()) return;
    paths.release(at->second);
    n.installed.erase(at);
    const auto& [fam, ip, ifindex] = key;
    if (fam == family::ipv4)
        uncover<4>(index, ip);
    else
        uncover<16>(index, ip);
}

/// Leads to what a host route or else the next shorter one says.
template <unsigned Bytes>
void fib::ledger::uncover(std::uint16_t index, const ipsec::address& host) {
    vrf* v = find_vrf(index);
    if (v == nullptr) return;
    const std::uint8_t* bytes = host.bytes.data();
    const auto& routes = v->template routes<Bytes>();
    if (routes.find(bytes, Bytes * 8)) return;
    const auto below = routes.cover(bytes, Bytes * 8)
                           .value_or(typename prefix_map<Bytes>::covering{0, next_hops::missing});
    if (!v->tables->template of<Bytes>().assign(bytes, Bytes * 8, below.length, below.value))
        ++refused_;
}

void fib::ledger::install(std::uint16_t index, const neighbour_key& key, neighbour& n,
                          const path& p) {
    const auto number = paths.take(p);
    const auto at = std::find_if(n.installed.begin(), n.installed.end(),
                                 [&](const auto& one) { return one.first == index; });
    const bool there = at != n.installed.end();
    if (!number || (there && at->second == *number)) {
        if (number) paths.release(*number);
        return;
    }
    const auto& [fam, ip, ifindex] = key;
    vrf_tables& tables = *find_vrf(index)->tables;
    const unsigned bits = ipsec::address_bits(fam);
    const bool done = fam == family::ipv4 ? tables.v4.assign(ip.bytes.data(), bits, bits, *number)
                                          : tables.v6.assign(ip.bytes.data(), bits, bits, *number);
    if (!done) {
        refuse(*number);
        return;
    }
    if (there)
        paths.release(std::exchange(at->second, *number));
    else
        n.installed.emplace_back(index, *number);
}

// The rest.

fib::ledger::garbage fib::ledger::take_garbage() {
    return {std::exchange(retired, {}), paths.take_garbage(), std::exchange(old_tables_, {}),
            std::exchange(old_interfaces_, {})};
}

void fib::ledger::recycle(garbage& g) {
    for (const lpm_memory::block b : g.blocks)
        memory.release(b);
    paths.recycle(g.paths);
    g.tables.clear();
}

bool fib::ledger::is_near() const {
    return std::all_of(current_.begin(), current_.end(), [](const auto& v) {
        return v == nullptr || (v->tables->v4.is_near() && v->tables->v6.is_near());
    });
}

fib_usage fib::ledger::usage() const {
    fib_usage u;
    for (const auto& v : current_) {
        if (v == nullptr) continue;
        u.routes_v4 += v->v4.size();
        u.routes_v6 += v->v6.size();
    }
    u.next_hops = paths.size();
    u.neighbours = neighbours_.size();
    u.vrfs = index_by_table_.size();
    u.bytes = memory.used_bytes();
    u.refused = refused_;
    return u;
}

} // namespace esplane::fastpath

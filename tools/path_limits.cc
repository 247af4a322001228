// SPDX-License-Identifier: Apache-2.0
#include "tools/path_limits.h"

#include <algorithm>

#include "lib/base/overloaded.h"

namespace esplane::tools {

namespace {

std::optional<std::uint32_t> smaller(std::optional<std::uint32_t> a,
                                     std::optional<std::uint32_t> b) {
    if (!a || !b) return a ? a : b;
    return std::min(*a, *b);
}

} // namespace

void path_limits::on_event(const ipsec::event& e) {
    std::visit(overloaded{
                   [&](const ipsec::sa_added& a) { take(a.what); },
                   [&](const ipsec::sa_updated& u) { take(u.what); },
                   [&](const ipsec::sa_deleted& d) { forget(d.what.id); },
                   [&](const ipsec::sa_flushed&) {
                       sas_.clear();
                       costs_.clear();
                       changed_ = true;
                   },
                   [&](const ipsec::sa_expired& x) {
                       if (x.hard) forget(x.what.id);
                   },
                   [&](const ipsec::policy_added& a) { take(a.what); },
                   [&](const ipsec::policy_updated& u) { take(u.what); },
                   [&](const ipsec::policy_deleted& d) { forget_policy(d.what.index); },
                   [&](const ipsec::policy_flushed& f) { forget_policies(f.type); },
                   [&](const ipsec::policies_migrated& m) {
                       for (const ipsec::relocated_sa& s : m.sas) {
                           forget(s.before);
                           take(s.now);
                       }
                       if (m.selected != nullptr) take(*m.selected);
                   },
                   [&](const ipsec::policy_expired& x) {
                       if (x.hard) forget_policy(x.what.index);
                   },
                   [](const auto&) {},
               },
               e);
}

/// In transport mode the packet names the peer, and with it the selector where that is one host.
auto path_limits::endpoint_of(const ipsec::policy& p) -> std::optional<endpoint> {
    if (!p.protects()) return std::nullopt;
    const ipsec::template_& t = p.templates.front();
    const bool tunnel = t.run_mode == ipsec::mode::tunnel;
    return endpoint{tunnel ? t.id.destination : p.sel.destination, t.reqid};
}

void path_limits::take(const ipsec::sa& s) {
    if (s.state != ipsec::sa_state::valid) return;
    forget(s.id);
    const known_sa known{s.source, s.reqid, ipsec::overhead_of(s)};
    sas_.emplace(s.id, known);
    ++costs_[{s.id.destination, s.reqid}][known.costs];
    changed_ = true;
    if (const auto limited = limit_of(s.id.destination)) around_.limit_sa(s.id, limited);
}

void path_limits::forget(const ipsec::sa_id& id) {
    const auto found = sas_.find(id);
    if (found == sas_.end()) return;
    const auto costs = costs_.find({id.destination, found->second.reqid});
    const auto users = costs->second.find(found->second.costs);
    if (--users->second == 0) costs->second.erase(users);
    if (costs->second.empty()) costs_.erase(costs);
    sas_.erase(found);
    changed_ = true;
}

void path_limits::take(const ipsec::policy& p) {
    if (p.dir != ipsec::policy_direction::out) return;
    forget_policy(p.index);
    const auto e = endpoint_of(p);
    if (!e) return;
    const need n{*e, p.if_id != 0};
    policies_.emplace(p.index, known_policy{n, p.type});
    ++needs_[n].policies;
    changed_ = true;
}

void path_limits::forget_policy(std::uint32_t index) {
    const auto found = policies_.find(index);
    if (found == policies_.end()) return;
    const auto users = needs_.find(found->second.needs);
    if (--users->second.policies == 0) {
        lost_need_ |= users->second.mtu.has_value();
        needs_.erase(users);
    }
    policies_.erase(found);
}

void path_limits::forget_policies(ipsec::policy_type type) {
    std::vector<std::uint32_t> gone;
    for (const auto& [index, p] : policies_)
        if (p.type == type) gone.push_back(index);
    for (const std::uint32_t index : gone)
        forget_policy(index);
}

void path_limits::heard(const ipsec::sa_id& id, const ipsec::address& source, std::uint32_t mtu,
                        std::uint64_t now_ns) {
    const auto found = sas_.lower_bound({id.destination, id.spi, id.protocol}); // of any mark
    if (found == sas_.end() || found->first.destination != id.destination ||
        found->first.spi != id.spi || found->second.source != source)
        return;
    set(id.destination, mtu, now_ns);
}

void path_limits::learnt(const ipsec::address& peer, std::uint32_t mtu, std::uint64_t now_ns) {
    const auto first = sas_.lower_bound({.destination = peer, .spi = {}, .protocol = 0});
    if (first != sas_.end() && first->first.destination == peer) set(peer, mtu, now_ns);
}

/// Never more than is known already: paths grow when a limit is forgotten.
void path_limits::set(const ipsec::address& peer, std::uint32_t mtu, std::uint64_t now_ns) {
    mtu = std::max(mtu, peer.fam == ipsec::family::ipv4 ? least_v4 : least_v6);
    const std::uint32_t before = path_to(peer);
    if (mtu >= before && before != 0) return;
    if (limits_.size() == most && !limits_.contains(peer)) return;
    limits_[peer] = {mtu, now_ns + age_ns};
    tell_sas(peer);
    changed_ = true;
}

void path_limits::tell_sas(const ipsec::address& peer) const {
    const auto known = limit_of(peer);
    for (auto s = sas_.lower_bound({.destination = peer, .spi = {}, .protocol = 0});
         s != sas_.end() && s->first.destination == peer; ++s)
        around_.limit_sa(s->first, known);
}

bool path_limits::tend(std::uint64_t now_ns) {
    for (auto one = limits_.begin(); one != limits_.end();) {
        if (now_ns < one->second.until_ns) {
            ++one;
            continue;
        }
        const ipsec::address peer = one->first;
        one = limits_.erase(one);
        tell_sas(peer);
        changed_ = true;
    }
    bool other = std::exchange(lost_need_, false);
    if (!std::exchange(changed_, false)) return other;
    for (auto& [n, who] : needs_) {
        const auto mtu = smallest_mtu(n.of);
        other |= std::exchange(who.mtu, mtu) != mtu;
    }
    return other;
}

std::optional<std::uint32_t> path_limits::limit_of(const ipsec::address& peer) const {
    const auto found = limits_.find(peer);
    if (found == limits_.end()) return std::nullopt;
    return found->second.mtu;
}

/// 0: nothing is known.
std::uint32_t path_limits::path_to(const ipsec::address& peer) const {
    const std::uint32_t route = around_.route_mtu(peer);
    const auto known = limit_of(peer);
    if (!known) return route;
    return route == 0 ? *known : std::min(route, *known);
}

std::optional<std::uint32_t> path_limits::smallest_mtu(const endpoint& e) const {
    std::optional<std::uint32_t> smallest;
    const auto costs = costs_.find(e);
    const std::uint32_t path = costs != costs_.end() ? path_to(e.peer) : 0;
    if (path == 0) return smallest;
    for (const auto& [one, count] : costs->second)
        smallest = smaller(smallest, one.largest_inner(path));
    return smallest;
}

std::uint32_t path_limits::mtu_for(const ipsec::policy& p) const {
    const auto e = endpoint_of(p);
    return e ? smallest_mtu(*e).value_or(0) : 0;
}

std::optional<std::uint32_t> path_limits::smallest_mtu() const {
    std::optional<std::uint32_t> smallest;
    for (const auto& [n, who] : needs_)
        if (!n.by_interface) smallest = smaller(smallest, smallest_mtu(n.of));
    return smallest;
}

} // namespace esplane::tools

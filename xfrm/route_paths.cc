// SPDX-License-Identifier: Apache-2.0
#include "xfrm/route_paths.h"

#include <algorithm>

namespace esplane::xfrm {
namespace {

/// splitmix64's finish: every bit of the input reaches every bit of the output.
std::uint64_t mix(std::uint64_t h, std::uint64_t value) noexcept {
    h = (h ^ value) * 0xbf58476d1ce4e5b9;
    return h ^ h >> 29;
}

std::uint64_t mix(std::uint64_t h, const ipsec::address& a) noexcept {
    h = mix(h, wire::load<std::uint64_t>(a.bytes.data()));
    return mix(h, wire::load<std::uint64_t>(a.bytes.data() + 8) + static_cast<unsigned>(a.fam));
}

} // namespace

std::size_t route_paths::hash_of::operator()(const route_path& path) const noexcept {
    std::uint64_t h = mix(static_cast<std::uint64_t>(path.kind), path.mtu);
    h = mix(mix(h, path.preferred_source), path.nexthop_id);
    for (const next_hop& hop : path.hops)
        h = mix(mix(h, hop.gateway),
                static_cast<std::uint64_t>(hop.ifindex) << 16 | hop.weight << 1 | hop.dead);
    return h;
}

route_paths::id route_paths::hold(const route_path& path) {
    if (const auto found = known_.find(path); found != known_.end()) {
        hold(*found);
        return *found;
    }
    auto fresh = static_cast<id>(paths_.size());
    if (free_.empty()) {
        paths_.emplace_back();
    } else {
        fresh = free_.back();
        free_.pop_back();
    }
    stored& s = paths_[fresh];
    s.told = path;
    s.hash = hash_of{this}(path);
    s.users = 1;
    resolve(s);
    known_.insert(fresh);
    return fresh;
}

void route_paths::release(id path) {
    stored& s = paths_[path];
    if (--s.users != 0) return;
    known_.erase(path);
    s = {};
    free_.push_back(path);
}

bool route_paths::leaves_by(id path, int ifindex) const noexcept {
    const auto by_it = [&](const next_hop& h) { return h.ifindex == ifindex; };
    const route_path& told = paths_[path].told;
    if (told.nexthop_id == 0) return std::any_of(told.hops.begin(), told.hops.end(), by_it);
    const std::vector<next_hop> hops = hops_of(told);
    return std::any_of(hops.begin(), hops.end(), by_it);
}

/// A group's members are never groups.
std::vector<next_hop> route_paths::hops_of(const route_path& path) const {
    if (path.nexthop_id == 0) return path.hops;
    const auto found = nexthops_.find(path.nexthop_id);
    if (found == nexthops_.end()) return {};
    if (found->second.group.empty()) return {found->second.hop};
    std::vector<next_hop> hops;
    for (const auto& member : found->second.group) {
        const auto one = nexthops_.find(member.id);
        if (one == nexthops_.end() || !one->second.group.empty()) continue;
        hops.push_back(one->second.hop);
        hops.back().weight = member.weight;
    }
    return hops;
}

/// A group may hold one blackhole, as its only member.
bool route_paths::is_blackhole(const route_path& path) const {
    auto found = nexthops_.find(path.nexthop_id);
    if (found != nexthops_.end() && found->second.group.size() == 1)
        found = nexthops_.find(found->second.group.front().id);
    return found != nexthops_.end() && found->second.blackhole;
}

void route_paths::resolve(stored& path) const {
    control::route seen;
    seen.kind = is_blackhole(path.told) ? control::route_kind::blackhole : path.told.kind;
    seen.mtu = path.told.mtu;
    seen.preferred_source = path.told.preferred_source;
    std::size_t alive = 0;
    for (const next_hop& h : hops_of(path.told)) {
        if (!is_alive(h)) continue;
        if (alive++ != 0) {
            seen.more.push_back({h.ifindex, h.gateway, h.weight});
            continue;
        }
        seen.ifindex = h.ifindex;
        seen.gateway = h.gateway;
        seen.weight = h.weight;
    }
    path.usable = alive != 0 || seen.kind != control::route_kind::unicast;
    path.seen = std::move(seen);
}

bool route_paths::is_alive(const next_hop& h) const {
    return !h.dead &&
           std::find(passed_over_.begin(), passed_over_.end(), h.ifindex) == passed_over_.end();
}

bool route_paths::names(std::uint32_t nexthop_id, std::uint32_t member) const {
    if (nexthop_id == 0) return false;
    if (nexthop_id == member) return true;
    const auto found = nexthops_.find(nexthop_id);
    if (found == nexthops_.end()) return false;
    const auto& group = found->second.group;
    return std::any_of(group.begin(), group.end(), [&](auto& m) { return m.id == member; });
}

std::vector<route_paths::id> route_paths::set_nexthop(const nexthop_message& n) {
    if (n.gone)
        nexthops_.erase(n.id);
    else
        nexthops_[n.id] = n;
    return resolve_again([&](const stored& s) { return names(s.told.nexthop_id, n.id); });
}

std::vector<route_paths::id> route_paths::pass_over(std::vector<int> links) {
    if (links == passed_over_) return {};
    passed_over_ = std::move(links);
    return resolve_again([](const stored&) { return true; });
}

template <typename Concerns>
std::vector<route_paths::id> route_paths::resolve_again(Concerns concerns) {
    std::vector<id> changed;
    for (const id path : known_) {
        stored& s = paths_[path];
        if (!concerns(s)) continue;
        const auto before = std::pair(s.seen, s.usable);
        resolve(s);
        if (before != std::pair(s.seen, s.usable)) changed.push_back(path);
    }
    return changed;
}

bool route_paths::uses(int ifindex) const {
    return std::any_of(known_.begin(), known_.end(),
                       [&](id path) { return leaves_by(path, ifindex); });
}

std::vector<int> route_paths::links_speaking_as(const ipsec::address& source) const {
    std::vector<int> links;
    for (const id path : known_) {
        if (paths_[path].told.preferred_source != source) continue;
        for (const next_hop& h : hops_of(paths_[path].told))
            links.push_back(h.ifindex);
    }
    std::sort(links.begin(), links.end());
    links.erase(std::unique(links.begin(), links.end()), links.end());
    return links;
}

} // namespace esplane::xfrm

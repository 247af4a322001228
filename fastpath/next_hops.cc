// SPDX-License-Identifier: Apache-2.0
#include "fastpath/next_hops.h"

#include <algorithm>
#include <cstdlib>
#include <nmmintrin.h>
#include <sys/mman.h>
#include <utility>

namespace esplane::fastpath {

namespace {

constexpr std::size_t target_bytes = next_hops::most * sizeof(route_target);

route_target* map_targets() {
    void* p = ::mmap(nullptr, target_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) std::abort(); // as where operator new finds nothing
    return static_cast<route_target*>(p);
}

} // namespace

void next_hops::unmap::operator()(route_target* p) const noexcept {
    ::munmap(p, target_bytes);
}

next_hops::next_hops()
    : targets_(map_targets()) {
    (void)take({}); // the first number, missing: this one route keeps it
}

std::size_t next_hops::hash::operator()(const path& p) const noexcept {
    std::uint64_t h =
        static_cast<std::uint64_t>(p.kind) | std::uint64_t{p.vrf} << 8 | std::uint64_t{p.mtu} << 32;
    for (const control::hop& one : p.hops) {
        h = _mm_crc32_u64(h, wire::load<std::uint64_t>(one.gateway.bytes.data()));
        h = _mm_crc32_u64(h, wire::load<std::uint64_t>(one.gateway.bytes.data() + 8));
        h = _mm_crc32_u64(h, static_cast<std::uint64_t>(one.ifindex) << 8 | one.weight);
    }
    return h * 0x9e3779b97f4a7c15;
}

next_hops::garbage next_hops::take_garbage() {
    return std::exchange(garbage_, {});
}

void next_hops::recycle(const garbage& g) {
    free_.insert(free_.end(), g.numbers.begin(), g.numbers.end());
}

std::optional<std::uint32_t> next_hops::take(const path& p) {
    if (const auto known = numbers_.find(p); known != numbers_.end()) {
        ++records_[known->second].routes;
        return known->second;
    }
    std::uint32_t number;
    if (!free_.empty()) {
        number = free_.back();
        free_.pop_back();
    } else {
        number = static_cast<std::uint32_t>(records_.size());
        if (number == most) return {};
        records_.emplace_back();
    }
    records_[number] = {p, 1, nullptr};
    numbers_.emplace(p, number);
    for (const control::hop& h : p.hops)
        by_hop_.emplace(hop_key{h.ifindex, h.gateway}, number);
    rebuild(number);
    return number;
}

void next_hops::release(std::uint32_t number) {
    if (--records_[number].routes == 0) forget(number);
}

void next_hops::forget(std::uint32_t number) {
    record& r = records_[number];
    for (const control::hop& h : r.what.hops) {
        const auto [first, last] = by_hop_.equal_range({h.ifindex, h.gateway});
        const auto found =
            std::find_if(first, last, [&](const auto& one) { return one.second == number; });
        if (found != last) by_hop_.erase(found);
    }
    numbers_.erase(r.what);
    garbage_.runs.push_back(std::move(r.run));
    garbage_.numbers.push_back(number);
    r = {};
}

void next_hops::use(const interface_table& interfaces) {
    interfaces_ = &interfaces;
    for (std::uint32_t i = 0; i < records_.size(); ++i)
        if (records_[i].routes != 0) rebuild(i);
}

void next_hops::set_neighbour(int ifindex, const ipsec::address& ip,
                              const std::optional<wire::mac_address>& mac) {
    const hop_key key{ifindex, ip};
    if (mac)
        neighbours_[key] = *mac;
    else
        neighbours_.erase(key);
    const auto [first, last] = by_hop_.equal_range(key);
    for (auto one = first; one != last; ++one)
        rebuild(one->second);
}

std::vector<std::uint16_t> next_hops::vrfs_on_link(int ifindex) const {
    std::vector<std::uint16_t> vrfs;
    const auto [first, last] = by_hop_.equal_range({ifindex, ipsec::address{}});
    for (auto one = first; one != last; ++one) {
        const std::uint16_t vrf = records_[one->second].what.vrf;
        if (std::find(vrfs.begin(), vrfs.end(), vrf) == vrfs.end()) vrfs.push_back(vrf);
    }
    return vrfs;
}

adjacency next_hops::make(const path& p, const control::hop& h) const {
    adjacency a;
    a.vrf = p.vrf;
    a.ifindex = h.ifindex;
    a.gateway = h.gateway;
    const std::uint16_t index =
        interfaces_ != nullptr ? interfaces_->find(h.ifindex) : interface_table::none;
    if (index == interface_table::none) {
        a.kind = adjacency_kind::foreign;
        return a;
    }
    const interface& i = (*interfaces_)[index];
    a.interface = index;
    a.mtu = p.mtu != 0 ? std::min(i.mtu, p.mtu) : i.mtu;
    if (i.kind == interface_kind::tunnel) {
        a.kind = adjacency_kind::tunnel;
        a.if_id = i.if_id;
        return a;
    }
    if (i.kind == interface_kind::machine) {
        a.kind = adjacency_kind::denied;
        return a;
    }
    a.port = i.port;
    if (i.kind == interface_kind::kernel) {
        a.kind = adjacency_kind::bare;
        return a;
    }
    a.kind = adjacency_kind::unresolved;
    a.source = i.mac;
    a.tags = i.tags;
    if (const auto known = neighbours_.find({h.ifindex, h.gateway}); known != neighbours_.end()) {
        a.kind = adjacency_kind::forward;
        a.destination = known->second;
    }
    return a;
}

std::unique_ptr<next_hops::garbage::run> next_hops::make(const path& p) const {
    auto r = std::make_unique<garbage::run>();
    if (p.kind == path_kind::unicast) {
        for (const control::hop& h : p.hops)
            r->adjacencies.push_back(make(p, h));
        make_group(*r, p);
        return r;
    }
    adjacency a;
    a.vrf = p.vrf;
    switch (p.kind) {
    case path_kind::local:
        a.kind = adjacency_kind::local;
        break;
    case path_kind::denied:
        a.kind = adjacency_kind::denied;
        break;
    case path_kind::bare:
        a.kind = adjacency_kind::bare;
        a.port = static_cast<std::uint8_t>(p.hops.front().ifindex);
        a.interface = a.port;
        a.mtu = p.mtu;
        break;
    default:
        a.kind = adjacency_kind::missing;
    }
    r->adjacencies.push_back(a);
    return r;
}

/// A hop whose link is down or that is no port of ours takes no flow while another can.
bool next_hops::is_usable(const adjacency& a) const {
    return a.kind != adjacency_kind::foreign && (*interfaces_)[a.interface].up;
}

void next_hops::make_group(garbage::run& r, const path& p) const {
    if (p.hops.size() < 2) return;
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < p.hops.size(); ++i) {
        if (!is_usable(r.adjacencies[i])) continue;
        const std::uint32_t weight = p.hops[i].weight != 0 ? p.hops[i].weight : 256;
        total += weight;
        r.members.push_back({weight, &r.adjacencies[i]});
    }
    std::uint64_t sum = 0;
    for (hop_group::member& m : r.members) {
        sum += m.bound; // its weight still
        m.bound = static_cast<std::uint32_t>((sum << 32) / total - 1);
    }
    r.group.members = r.members.data();
}

void next_hops::rebuild(std::uint32_t number) {
    record& r = records_[number];
    auto fresh = make(r.what);
    const auto same_members = [](const garbage::run& a, const garbage::run& b) {
        return std::equal(a.members.begin(), a.members.end(), b.members.begin(), b.members.end(),
                          [&](const auto& x, const auto& y) {
                              return x.bound == y.bound &&
                                     x.to - a.adjacencies.data() == y.to - b.adjacencies.data();
                          });
    };
    if (r.run != nullptr && r.run->adjacencies == fresh->adjacencies &&
        same_members(*r.run, *fresh))
        return;
    std::swap(r.run, fresh);
    if (fresh != nullptr) garbage_.runs.push_back(std::move(fresh));
    const route_target target = r.run->members.size() > 1 ? route_target(&r.run->group)
                                : r.run->members.size() == 1
                                    ? route_target(r.run->members.front().to)
                                    : route_target(&r.run->adjacencies.front());
    std::atomic_ref<route_target>(targets_[number]).store(target, std::memory_order_release);
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/spd.h"

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace esplane::ipsec {

namespace {

/// An index is (n << 3) | direction.
constexpr std::uint32_t index_step = 8;

constexpr std::uint32_t bits_of(policy_direction dir) noexcept {
    return static_cast<std::uint32_t>(dir);
}

/// Of what no two policies share, but for the security context.
std::uint32_t hash_of_name(policy_direction dir, policy_type type, std::uint32_t if_id,
                           const mark_mask& m, const selector& s) noexcept {
    constexpr std::size_t packed = offsetof(selector, fam) + sizeof(family);
    static_assert(packed == 2 * sizeof(address) + 2 + 4 * sizeof(wire::be16) + 1 + 1,
                  "padding must not be hashed");
    const auto head = std::hash<std::string_view>()({reinterpret_cast<const char*>(&s), packed});
    const std::uint64_t tail = (std::uint64_t{s.user} << 32) |
                               static_cast<std::uint32_t>(s.ifindex << 3) |
                               static_cast<std::uint32_t>(type) << 2 | bits_of(dir);
    const std::uint64_t mark = (std::uint64_t{m.mask} << 32) | m.value;
    const std::uint64_t all = head ^ (tail * 0x9e3779b97f4a7c15u) ^ (if_id * 0xc2b2ae3d27d4eb4fu) ^
                              (mark * 0xd6e8feb86659fd93u);
    return static_cast<std::uint32_t>(all ^ all >> 32);
}

} // namespace

bool spd::has_name(const policy& p, const policy_key& k) {
    return p.dir == k.dir && p.type == k.type && p.if_id == k.if_id && p.mark == k.mark &&
           p.sel == k.sel && p.security == k.security;
}

spd::entry* spd::find(const policy_key& k) {
    if (k.index != 0) {
        entry* e = find_index(k.index);
        return e != nullptr && e->what.dir == k.dir && e->what.if_id == k.if_id &&
                       e->what.mark == k.mark && e->what.type == k.type
                   ? e
                   : nullptr;
    }
    return by_name_.find(hash_of_name(k.dir, k.type, k.if_id, k.mark, k.sel),
                         [&](const entry& e) { return has_name(e.what, k); });
}

spd::entry* spd::find_index(std::uint32_t index) {
    return by_index_.find(hash_of_index(index),
                          [&](const entry& e) { return e.what.index == index; });
}

bool spd::has_index(std::uint32_t index) const {
    return by_index_.find(hash_of_index(index),
                          [&](const entry& e) { return e.what.index == index; }) != nullptr;
}

spd::entry* spd::find_serial(std::uint64_t serial) {
    entry* const e = newest_from(serial);
    return e != nullptr && e->serial() == serial ? e : nullptr;
}

spd::entry* spd::newest_from(std::uint64_t serial) {
    auto after = std::ranges::upper_bound(arrivals_, serial, {}, &arrival::serial);
    while (after != arrivals_.begin())
        if (const auto& e = (--after)->there) return e.get();
    return nullptr;
}

std::uint32_t spd::choose_index(policy_direction dir, std::uint32_t wanted) const {
    if (wanted != 0 && !has_index(wanted)) return wanted;
    return generate_index(dir).index;
}

spd::index_choice spd::generate_index(policy_direction dir) const {
    for (std::uint32_t generator = index_generator_;; generator += index_step) {
        std::uint32_t index = generator | bits_of(dir);
        if (index == 0) index = index_step; // 0 means "none"
        if (!has_index(index)) return {index, generator + index_step};
    }
}

spd::entry& spd::insert(policy p, bool index_chosen) {
    if (index_chosen) index_generator_ = generate_index(p.dir).generator;
    const std::uint32_t name_hash = hash_of_name(p.dir, p.type, p.if_id, p.mark, p.sel);
    entry& e = arrive(std::make_unique<entry>(entry{std::move(p), {}, name_hash}));
    by_name_.insert(&e);
    by_index_.insert(&e);
    ++counts_[bits_of(e.what.dir)];
    return e;
}

void spd::replace(entry& e, policy p) {
    std::unique_ptr<entry> same = leave(e.serial());
    same->what = std::move(p);
    arrive(std::move(same));
}

spd::entry& spd::arrive(std::unique_ptr<entry> e) {
    e->what.position = ++last_position_;
    return *arrivals_.emplace_back(arrival{last_position_, std::move(e)}).there;
}

/// Leaves a gap; where these are the greater part they are closed.
std::unique_ptr<spd::entry> spd::leave(std::uint64_t serial) {
    const auto at = std::ranges::lower_bound(arrivals_, serial, {}, &arrival::serial);
    std::unique_ptr<entry> gone = std::move(at->there);
    ++gaps_;
    const auto is_gap = [](const arrival& a) { return a.there == nullptr; };
    for (; !arrivals_.empty() && is_gap(arrivals_.back()); --gaps_)
        arrivals_.pop_back();
    for (; !arrivals_.empty() && is_gap(arrivals_.front()); --gaps_)
        arrivals_.pop_front();
    if (2 * gaps_ > arrivals_.size()) {
        std::erase_if(arrivals_, is_gap);
        gaps_ = 0;
    }
    return gone;
}

policy spd::take(entry& e) {
    by_name_.erase(&e);
    by_index_.erase(&e);
    --counts_[bits_of(e.what.dir)];
    return std::move(leave(e.serial())->what);
}

} // namespace esplane::ipsec

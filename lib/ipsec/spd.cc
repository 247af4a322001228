// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/spd.h"

#include <cstddef>
#include <string_view>

namespace esplane::ipsec {

namespace {

/// An index is (n << 3) | direction.
constexpr std::uint32_t index_step = 8;

constexpr std::uint32_t bits_of(policy_direction dir) noexcept {
    return static_cast<std::uint32_t>(dir);
}

} // namespace

std::size_t spd::name_hash::operator()(const name& n) const noexcept {
    constexpr std::size_t packed = offsetof(selector, fam) + sizeof(family);
    static_assert(packed == 2 * sizeof(address) + 2 + 4 * sizeof(wire::be16) + 1 + 1,
                  "padding must not be hashed");
    const selector& s = n.sel;
    const auto head = std::hash<std::string_view>()({reinterpret_cast<const char*>(&s), packed});
    const std::uint64_t tail = (std::uint64_t{s.user} << 32) |
                               static_cast<std::uint32_t>(s.ifindex << 3) |
                               static_cast<std::uint32_t>(n.type) << 2 | bits_of(n.dir);
    const std::uint64_t mark = (std::uint64_t{n.mark.mask} << 32) | n.mark.value;
    return head ^ (tail * 0x9e3779b97f4a7c15u) ^ (n.if_id * 0xc2b2ae3d27d4eb4fu) ^
           (mark * 0xd6e8feb86659fd93u);
}

spd::entry* spd::find(const policy_key& k) {
    if (k.index != 0) {
        entry* e = find_index(k.index);
        return e != nullptr && e->what.dir == k.dir && e->what.if_id == k.if_id &&
                       e->what.mark == k.mark && e->what.type == k.type
                   ? e
                   : nullptr;
    }
    const auto at = by_name_.find({k.dir, k.type, k.if_id, k.mark, k.sel, k.security});
    return at == by_name_.end() ? nullptr : &at->second;
}

spd::entry* spd::find_index(std::uint32_t index) {
    const auto at = by_index_.find(index);
    return at == by_index_.end() ? nullptr : at->second;
}

spd::entry* spd::find_serial(std::uint64_t serial) {
    const auto at = by_serial_.find(serial);
    return at == by_serial_.end() ? nullptr : at->second;
}

spd::entry* spd::newest_from(std::uint64_t serial) {
    const auto after = by_serial_.upper_bound(serial);
    return after == by_serial_.begin() ? nullptr : std::prev(after)->second;
}

std::uint32_t spd::choose_index(policy_direction dir, std::uint32_t wanted) const {
    if (wanted != 0 && !by_index_.contains(wanted)) return wanted;
    return generate_index(dir).index;
}

spd::name spd::name_of(const policy& p) {
    return {p.dir, p.type, p.if_id, p.mark, p.sel, p.security};
}

spd::index_choice spd::generate_index(policy_direction dir) const {
    for (std::uint32_t generator = index_generator_;; generator += index_step) {
        std::uint32_t index = generator | bits_of(dir);
        if (index == 0) index = index_step; // 0 means "none"
        if (!by_index_.contains(index)) return {index, generator + index_step};
    }
}

spd::entry& spd::insert(policy p, bool index_chosen) {
    if (index_chosen) index_generator_ = generate_index(p.dir).generator;
    entry& e = by_name_[name_of(p)];
    e.what = std::move(p);
    by_index_.emplace(e.what.index, &e);
    ++counts_[bits_of(e.what.dir)];
    link(e);
    return e;
}

void spd::replace(entry& e, policy p) {
    by_serial_.erase(e.serial());
    e.what = std::move(p);
    link(e);
}

void spd::link(entry& e) {
    e.what.position = ++last_position_;
    by_serial_.emplace_hint(by_serial_.end(), e.serial(), &e);
}

policy spd::take(entry& e) {
    policy what = std::move(e.what);
    by_serial_.erase(what.position);
    by_index_.erase(what.index);
    --counts_[bits_of(what.dir)];
    by_name_.erase(name_of(what));
    return what;
}

} // namespace esplane::ipsec

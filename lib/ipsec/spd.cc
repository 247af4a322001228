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

policy spd::entry::describe() const {
    policy p = kept_.unpack();
    p.dir = dir;
    p.type = type;
    p.index = index;
    p.position = serial;
    return p;
}

bool spd::has_name(const entry& e, const policy_key& k) {
    if (e.dir != k.dir || e.type != k.type) return false;
    const policy p = e.describe();
    return p.if_id == k.if_id && p.mark == k.mark && p.sel == k.sel && p.security == k.security;
}

spd::entry* spd::find(const policy_key& k) {
    if (k.index == 0)
        return by_name_.find(hash_of_name(k.dir, k.type, k.if_id, k.mark, k.sel),
                             [&](const entry& e) { return has_name(e, k); });
    entry* const e = find_index(k.index);
    if (e == nullptr || e->dir != k.dir || e->type != k.type) return nullptr;
    const policy p = e->describe();
    return p.if_id == k.if_id && p.mark == k.mark ? e : nullptr;
}

spd::entry* spd::find_index(std::uint32_t index) {
    return by_index_.find(hash_of_index(index), [&](const entry& e) { return e.index == index; });
}

bool spd::has_index(std::uint32_t index) const {
    return by_index_.find(hash_of_index(index), [&](const entry& e) { return e.index == index; }) !=
           nullptr;
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

spd::entry& spd::insert(const policy& p, bool index_chosen) {
    if (index_chosen) index_generator_ = generate_index(p.dir).generator;
    entry& e = arrivals_.put(std::make_unique<entry>());
    e.index = p.index;
    e.dir = p.dir;
    e.type = p.type;
    e.name_hash_ = hash_of_name(p.dir, p.type, p.if_id, p.mark, p.sel);
    e.keep(p);
    by_name_.insert(&e);
    by_index_.insert(&e);
    ++counts_[bits_of(e.dir)];
    return e;
}

void spd::replace(entry& e, const policy& p) {
    arrivals_.put(arrivals_.take(e.serial)).keep(p);
}

void spd::erase(entry& e) {
    by_name_.erase(&e);
    by_index_.erase(&e);
    --counts_[bits_of(e.dir)];
    arrivals_.take(e.serial);
}

} // namespace esplane::ipsec

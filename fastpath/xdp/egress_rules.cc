// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/egress_rules.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

namespace esplane::fastpath {
namespace {

void set_prefix(std::uint32_t (&words)[4], unsigned length) {
    std::uint8_t bytes[16] = {};
    for (unsigned bit = 0; bit < length; ++bit)
        bytes[bit / 8] = static_cast<std::uint8_t>(bytes[bit / 8] | 0x80 >> bit % 8);
    std::memcpy(words, bytes, sizeof bytes);
}

esplane_tuple bits_of(const ipsec::selector& s) {
    esplane_tuple bits{};
    set_prefix(bits.source, s.source_prefix);
    set_prefix(bits.destination, s.destination_prefix);
    bits.source_port = s.source_port_mask.network();
    bits.destination_port = s.destination_port_mask.network();
    bits.protocol = s.protocol == 0 ? 0 : 0xff;
    bits.family = static_cast<std::uint8_t>(s.fam);
    return bits;
}

esplane_tuple masked_tuple(const ipsec::selector& s, const esplane_tuple& bits) {
    esplane_tuple t{};
    std::memcpy(t.source, s.source.bytes.data(), sizeof t.source);
    std::memcpy(t.destination, s.destination.bytes.data(), sizeof t.destination);
    for (int i = 0; i < 4; ++i) {
        t.source[i] &= bits.source[i];
        t.destination[i] &= bits.destination[i];
    }
    t.source_port = static_cast<__u16>(s.source_port.network() & bits.source_port);
    t.destination_port = static_cast<__u16>(s.destination_port.network() & bits.destination_port);
    t.protocol = static_cast<__u8>(s.protocol & bits.protocol);
    t.family = bits.family;
    return t;
}

esplane_rule rule_of(const egress_rule& r) {
    return {r.rank(), r.allow ? 0u : 1u, 0};
}

} // namespace

std::size_t egress_rule_space::tuple_hash::operator()(const esplane_tuple& t) const noexcept {
    return std::hash<std::string_view>()({reinterpret_cast<const char*>(&t), sizeof t});
}

bool egress_rule_space::tuple_equal::operator()(const esplane_tuple& a,
                                                const esplane_tuple& b) const noexcept {
    return std::memcmp(&a, &b, sizeof a) == 0;
}

bool egress_rule_space::shape_less::operator()(const shape& a, const shape& b) const noexcept {
    static_assert(sizeof(shape) == sizeof(esplane_tuple) + 4);
    return std::memcmp(&a, &b, sizeof a) < 0;
}

egress_rule_space::egress_rule_space(std::vector<egress_device> devices)
    : devices_(std::move(devices)) {}

auto egress_rule_space::places_of(const egress_rule& r) const -> std::vector<place> {
    const bool for_one = r.sel.ifindex != 0; // device, by its tags
    const auto only = std::ranges::find(devices_, r.sel.ifindex, &egress_device::ifindex);
    if (for_one && only == devices_.end()) return {};
    const auto place_of = [&](const shape& of) {
        place at{of, masked_tuple(r.sel, of.bits)};
        if (for_one) std::copy(only->tags.begin(), only->tags.end(), at.tuple.tags);
        return at;
    };
    shape of{bits_of(r.sel), esplane_kind_whole | esplane_kind_fragment};
    if (for_one) of.bits.tags[0] = of.bits.tags[1] = 0xffff;
    if (of.bits.source_port == 0 && of.bits.destination_port == 0) return {place_of(of)};

    of.kinds = esplane_kind_whole;
    std::vector<place> places{place_of(of)};
    if (r.allow) return places;
    of.kinds = esplane_kind_fragment;
    of.bits.source_port = of.bits.destination_port = 0;
    places.push_back(place_of(of));
    return places;
}

egress_change egress_rule_space::insert(const egress_rule& r) {
    egress_change change;
    for (const place& at : places_of(r))
        insert(at, rule_of(r), change);
    return change;
}

egress_change egress_rule_space::erase(const egress_rule& r) {
    egress_change change;
    for (const place& at : places_of(r))
        erase(at, rule_of(r), change);
    return change;
}

auto egress_rule_space::open_mask(const shape& of, egress_change& change) -> mask_rules& {
    const auto [at, fresh] = masks_.try_emplace(of);
    if (!fresh) return at->second;
    at->second.best_rank = ~std::uint64_t{0};
    at->second.number = static_cast<std::uint32_t>(masks_.size() - 1 + free_numbers_.size());
    if (!free_numbers_.empty()) {
        at->second.number = *free_numbers_.begin();
        free_numbers_.erase(free_numbers_.begin());
    }
    change.masks_before = true;
    return at->second;
}

void egress_rule_space::insert(const place& at, const esplane_rule& rule, egress_change& change) {
    mask_rules& mask = open_mask(at.of, change);
    if (rule.rank < mask.best_rank) {
        mask.best_rank = rule.rank;
        change.masks_before = true;
    }
    const auto [best, fresh] = mask.best.try_emplace(at.tuple, rule);
    entries_ += fresh ? 1 : 0;
    if (!fresh && best->second.rank < rule.rank) {
        mask.others[at.tuple].insert(rule);
        return;
    }
    if (!fresh) mask.others[at.tuple].insert(std::exchange(best->second, rule));
    change.puts.push_back({{at.tuple, mask.number, 0}, rule});
}

/// The best rank of a mask stays: it says only that none is better.
void egress_rule_space::erase(const place& at, const esplane_rule& rule, egress_change& change) {
    const auto found = masks_.find(at.of);
    mask_rules& mask = found->second;
    const auto best = mask.best.find(at.tuple);
    const auto others = mask.others.find(at.tuple);
    if (best->second.rank != rule.rank) {
        others->second.erase(rule);
    } else if (others != mask.others.end()) {
        best->second = others->second.extract(others->second.begin()).value();
        change.puts.push_back({{at.tuple, mask.number, 0}, best->second});
    } else {
        change.drops.push_back({at.tuple, mask.number, 0});
        mask.best.erase(best);
        --entries_;
    }
    if (others != mask.others.end() && others->second.empty()) mask.others.erase(others);
    if (!mask.best.empty()) return;
    free_numbers_.insert(mask.number);
    masks_.erase(found);
    change.masks_after = true;
}

result<void> egress_rule_space::fits() const {
    if (masks_.size() > ESPLANE_MAX_MASKS)
        return fail(E2BIG, "the out policies look at " + std::to_string(masks_.size()) +
                               " combinations of prefix lengths and ports, more than the " +
                               std::to_string(ESPLANE_MAX_MASKS) +
                               " that the egress filter holds: use fewer different ones");
    if (entries_ > ESPLANE_MAX_RULES)
        return fail(E2BIG, std::to_string(entries_) + " out policies are more than the " +
                               std::to_string(ESPLANE_MAX_RULES) + " that the egress filter holds");
    return {};
}

void egress_rule_space::renumber() {
    std::uint32_t next = 0;
    for (auto& [of, mask] : masks_)
        mask.number = next++;
    free_numbers_.clear();
}

esplane_mask_bank egress_rule_space::masks() const {
    esplane_mask_bank bank{};
    for (const auto& [of, mask] : masks_) {
        bank.masks[mask.number] = {of.bits, of.kinds, mask.best_rank};
        bank.count = std::max(bank.count, mask.number + 1);
    }
    return bank;
}

std::vector<egress_entry> egress_rule_space::entries() const {
    std::vector<egress_entry> all;
    all.reserve(entries_);
    for (const auto& [of, mask] : masks_)
        for (const auto& [tuple, rule] : mask.best)
            all.push_back({{tuple, mask.number, 0}, rule});
    return all;
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/egress_rules.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <string>
#include <tuple>

namespace esplane::fastpath {
namespace {

/// Any struct of the maps ordered by its bytes; none has padding.
template <typename T>
struct by_bytes {
    bool operator()(const T& a, const T& b) const noexcept {
        return std::memcmp(&a, &b, sizeof(T)) < 0;
    }
};

/// The part of a mask that tells it from others.
struct mask_shape {
    esplane_tuple bits;
    std::uint32_t kinds;
};
static_assert(sizeof(mask_shape) == sizeof(esplane_tuple) + 4);

using rules_of_mask = std::map<esplane_tuple, esplane_rule, by_bytes<esplane_tuple>>;
using rule_space = std::map<mask_shape, rules_of_mask, by_bytes<mask_shape>>;

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

/// Looks at the tags too, where the rule is for one device.
void look_at_device(const egress_device* only, esplane_tuple& bits) {
    if (only != nullptr) bits.tags[0] = bits.tags[1] = 0xffff;
}

void insert(rule_space& space, const ipsec::selector& s, const egress_device* only,
            const mask_shape& shape, const esplane_rule& rule) {
    esplane_tuple tuple = masked_tuple(s, shape.bits);
    if (only != nullptr) std::copy(only->tags.begin(), only->tags.end(), tuple.tags);
    const auto [at, fresh] = space[shape].try_emplace(tuple, rule);
    if (!fresh && rule.rank < at->second.rank) at->second = rule;
}

/// only   the device that the rule is for; nullptr = all
void insert(rule_space& space, const egress_rule& r, const egress_device* only,
            std::uint32_t position) {
    const esplane_rule rule{std::uint64_t{r.priority} << 32 | position, r.allow ? 0u : 1u, 0};
    mask_shape shape{bits_of(r.sel), esplane_kind_whole | esplane_kind_fragment};
    look_at_device(only, shape.bits);
    if (shape.bits.source_port == 0 && shape.bits.destination_port == 0)
        return insert(space, r.sel, only, shape, rule);

    shape.kinds = esplane_kind_whole;
    insert(space, r.sel, only, shape, rule);
    if (r.allow) return;
    shape.kinds = esplane_kind_fragment;
    shape.bits.source_port = shape.bits.destination_port = 0;
    insert(space, r.sel, only, shape, rule);
}

std::uint64_t best_rank(const rules_of_mask& rules) {
    const auto best = std::min_element(
        rules.begin(), rules.end(), [](auto& a, auto& b) { return a.second.rank < b.second.rank; });
    return best->second.rank;
}

void append(egress_rule_set& set, const rules_of_mask& rules, std::uint32_t mask) {
    for (const auto& [tuple, rule] : rules) {
        set.keys.push_back({tuple, mask, 0});
        set.rules.push_back(rule);
    }
}

} // namespace

result<egress_rule_set> compile_egress_rules(std::span<const egress_rule> rules,
                                             std::span<const egress_device> devices) {
    rule_space space;
    for (std::uint32_t i = 0; i < rules.size(); ++i) {
        const std::int32_t named = rules[i].sel.ifindex;
        const auto only = std::find_if(devices.begin(), devices.end(),
                                       [&](const egress_device& d) { return d.ifindex == named; });
        if (named == 0)
            insert(space, rules[i], nullptr, i);
        else if (only != devices.end())
            insert(space, rules[i], &*only, i);
    }
    if (space.size() > ESPLANE_MAX_MASKS)
        return fail(E2BIG, "the out policies look at " + std::to_string(space.size()) +
                               " combinations of prefix lengths and ports, more than the " +
                               std::to_string(ESPLANE_MAX_MASKS) +
                               " that the egress filter holds: use fewer different ones");

    std::vector<std::tuple<std::uint64_t, const mask_shape*, const rules_of_mask*>> sorted;
    for (const auto& [shape, of_mask] : space)
        sorted.emplace_back(best_rank(of_mask), &shape, &of_mask);
    std::sort(sorted.begin(), sorted.end());

    egress_rule_set set;
    for (const auto& [rank, shape, of_mask] : sorted) {
        append(set, *of_mask, set.bank.count);
        set.bank.masks[set.bank.count++] = {shape->bits, shape->kinds, rank};
    }
    if (set.rules.size() > ESPLANE_MAX_RULES)
        return fail(E2BIG, std::to_string(set.rules.size()) + " out policies are more than the " +
                               std::to_string(ESPLANE_MAX_RULES) + " that the egress filter holds");
    return set;
}

} // namespace esplane::fastpath

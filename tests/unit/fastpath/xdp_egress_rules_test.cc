// SPDX-License-Identifier: Apache-2.0
//
// The tuple space, looked up here as the egress program does it, against the policies themselves.
#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "fastpath/xdp/egress_rules.h"
#include "tests/unit/fastpath/xdp_rules_model.h"

namespace esplane::fastpath {
namespace {

esplane_tuple tuple_of(const ipsec::flow& f) {
    esplane_tuple t{};
    std::memcpy(t.source, f.source.bytes.data(), sizeof t.source);
    std::memcpy(t.destination, f.destination.bytes.data(), sizeof t.destination);
    t.source_port = f.source_port.network();
    t.destination_port = f.destination_port.network();
    t.protocol = f.protocol;
    t.family = static_cast<std::uint8_t>(f.source.fam);
    return t;
}

bool covers(const esplane_mask& mask, const esplane_tuple& rule, const esplane_tuple& packet) {
    const auto* bits = reinterpret_cast<const std::uint8_t*>(&mask.bits);
    const auto* a = reinterpret_cast<const std::uint8_t*>(&rule);
    const auto* b = reinterpret_cast<const std::uint8_t*>(&packet);
    for (std::size_t i = 0; i < sizeof(esplane_tuple); ++i)
        if (i != offsetof(esplane_tuple, family) && a[i] != (b[i] & bits[i])) return false;
    return rule.family == packet.family;
}

/// The device with index 1, and two on top of it.
constexpr std::uint16_t tag_5 = ESPLANE_TAG | 5;
constexpr std::uint16_t service_tag_7 = ESPLANE_TAG | ESPLANE_TAG_SERVICE | 7;
const std::vector<egress_device> devices{{1, {}}, {2, {tag_5, 0}}, {3, {service_tag_7, tag_5}}};

/// The maps as the guard keeps them, without a kernel.
class maps {
  public:
    explicit maps(std::span<const egress_rule> rules)
        : space_(devices) {
        for (const egress_rule& r : rules)
            insert(r);
    }
    void insert(const egress_rule& r) { apply(space_.insert(r)); }
    void erase(const egress_rule& r) { apply(space_.erase(r)); }
    void write_whole() {
        follow_ = true;
        space_.renumber();
        masks_ = space_.masks();
        entries_.clear();
        for (const egress_entry& e : space_.entries())
            entries_.emplace(bytes_of(e.key), e);
    }

    [[nodiscard]] bool allows(const test::outgoing& p, const egress_device& by = {}) const {
        esplane_tuple t = tuple_of(p.flow);
        std::copy(by.tags.begin(), by.tags.end(), t.tags);
        const esplane_rule* best = nullptr;
        for (const auto& [key, e] : entries_) {
            const esplane_mask& mask = masks_.masks[e.key.mask];
            const auto kind = p.later_fragment ? esplane_kind_fragment : esplane_kind_whole;
            EXPECT_LE(mask.best_rank, e.rule.rank);
            if ((mask.kinds & kind) != 0 && covers(mask, e.key.tuple, t) &&
                (best == nullptr || e.rule.rank < best->rank))
                best = &e.rule;
        }
        return best == nullptr || best->deny == 0;
    }
    [[nodiscard]] std::size_t size() const { return entries_.size(); }
    [[nodiscard]] std::uint32_t mask_count() const { return masks_.count; }
    [[nodiscard]] const egress_rule_space& space() const { return space_; }

  private:
    static std::string bytes_of(const esplane_rule_key& k) {
        return {reinterpret_cast<const char*>(&k), sizeof k};
    }
    void apply(const egress_change& change) {
        follow_ = follow_ && space_.fits();
        if (!follow_) return; // until they are written whole
        if (change.masks_before) masks_ = space_.masks();
        for (const egress_entry& e : change.puts)
            entries_.insert_or_assign(bytes_of(e.key), e);
        for (const esplane_rule_key& k : change.drops)
            EXPECT_EQ(entries_.erase(bytes_of(k)), 1u);
        if (change.masks_after) masks_ = space_.masks();
    }

    egress_rule_space space_;
    bool follow_ = true;
    esplane_mask_bank masks_{};
    std::map<std::string, egress_entry> entries_;
};

egress_rule to_host(const char* destination) {
    egress_rule r;
    r.sel.fam = ipsec::family::ipv4;
    r.sel.source.fam = ipsec::family::ipv4;
    r.sel.destination = ipsec::address::parse(destination).value();
    r.sel.destination_prefix = 32;
    return r;
}

TEST(EgressRules, TheTupleSpaceDecidesAsThePoliciesOneByOne) {
    for (unsigned seed = 0; seed < 50; ++seed) {
        test::rules_model model(seed);
        const auto rules = model.rules(1 + seed % 12);
        const maps held(rules);
        for (int i = 0; i < 500; ++i) {
            const auto p = model.packet();
            ASSERT_EQ(held.allows(p), test::rules_model::allows(rules, p))
                << "seed " << seed << " packet " << i;
        }
    }
}

/// Rules come and go in any order; what stays behind would let out, or hold back, what it must not.
TEST(EgressRules, AfterAnyChangesTheTupleSpaceDecidesAsThePoliciesThatAreLeft) {
    for (unsigned seed = 0; seed < 30; ++seed) {
        test::rules_model model(seed);
        std::mt19937 random(seed);
        const auto all = model.rules(20);
        std::vector<egress_rule> there;
        maps held(there);
        for (int step = 0; step < 100; ++step) {
            const egress_rule& r = all[random() % all.size()];
            const auto at = std::ranges::find(there, r.position, &egress_rule::position);
            if (at == there.end()) {
                held.insert(r);
                there.push_back(r);
            } else {
                held.erase(r);
                there.erase(at);
            }
            std::ranges::sort(there, {}, &egress_rule::position);
            for (int i = 0; i < 20; ++i) {
                const auto p = model.packet();
                ASSERT_EQ(held.allows(p), test::rules_model::allows(there, p))
                    << "seed " << seed << " step " << step;
            }
        }
        for (const egress_rule& r : there)
            held.erase(r);
        EXPECT_EQ(held.size(), 0u);
        EXPECT_EQ(held.space().masks().count, 0u);
    }
}

TEST(EgressRules, AChangeTouchesAsManyEntriesHoweverManyRulesThereAre) {
    egress_rule_space space(devices);
    egress_rule r = to_host("10.0.0.1");
    (void)space.insert(r);
    for (std::uint32_t i = 1; i < 10'000; ++i) {
        wire::store(r.sel.destination.bytes.data(), wire::be32(0x0a000001 + i));
        r.position = i;
        const egress_change added = space.insert(r);
        ASSERT_EQ(added.puts.size(), 1u);
        ASSERT_FALSE(added.masks_before);
    }
    const egress_change gone = space.erase(r);
    EXPECT_EQ(gone.drops.size(), 1u);
    EXPECT_FALSE(gone.masks_after);
}

TEST(EgressRules, AMaskThatBecomesFreeIsGivenAgain) {
    egress_rule wide = to_host("10.0.0.1"), other = wide, narrow = wide;
    wide.sel.destination_prefix = 8;
    other.sel.destination_prefix = 16;
    other.position = 1;
    narrow.position = 2;
    maps held({});
    for (const egress_rule& r : {wide, narrow})
        held.insert(r);
    held.erase(wide);
    held.insert(other);
    EXPECT_EQ(held.mask_count(), 2u);
}

TEST(EgressRules, ARuleForAnotherDeviceIsLeftOut) {
    egress_rule r = to_host("10.0.0.1");
    r.sel.ifindex = 7;
    EXPECT_EQ(maps({&r, 1}).size(), 0u);
}

TEST(EgressRules, ARuleForADeviceHoldsForWhatLeavesByItAlone) {
    test::outgoing p;
    p.flow.source = p.flow.destination = ipsec::address::parse("10.0.0.1").value();
    for (const egress_device& named : devices) {
        egress_rule r = to_host("10.0.0.1");
        r.sel.ifindex = named.ifindex;
        const maps held({&r, 1});
        for (const egress_device& by : devices)
            EXPECT_EQ(held.allows(p, by), by.ifindex != named.ifindex) << by.ifindex;
    }
    const egress_rule for_all = to_host("10.0.0.1");
    for (const egress_device& by : devices)
        EXPECT_FALSE(maps({&for_all, 1}).allows(p, by));
}

TEST(EgressRules, HostBitsOfASelectorAreNotLookedAt) {
    egress_rule r = to_host("10.0.0.77");
    r.sel.destination_prefix = 24;
    test::outgoing p;
    p.flow.source = p.flow.destination = ipsec::address::parse("10.0.0.1").value();
    EXPECT_FALSE(maps({&r, 1}).allows(p));
}

TEST(EgressRules, MoreMasksThanThereAreDoNotFitUntilOneGoes) {
    std::vector<egress_rule> rules;
    for (std::uint8_t source = 0; source < 5; ++source)
        for (std::uint8_t destination = 0; destination < 13; ++destination) {
            rules.push_back(to_host("10.0.0.1"));
            rules.back().sel.source_prefix = source;
            rules.back().sel.destination_prefix = destination;
            rules.back().position = static_cast<std::uint32_t>(rules.size());
        }
    ASSERT_EQ(rules.size(), ESPLANE_MAX_MASKS + 1u);
    maps held(rules);
    ASSERT_FALSE(held.space().fits());
    EXPECT_EQ(held.space().fits().error().code, E2BIG);
    held.erase(rules.front());
    EXPECT_TRUE(held.space().fits());
    held.write_whole();
    EXPECT_EQ(held.mask_count(), static_cast<std::uint32_t>(ESPLANE_MAX_MASKS));
    EXPECT_EQ(held.size(), static_cast<std::size_t>(ESPLANE_MAX_MASKS));
}

} // namespace
} // namespace esplane::fastpath

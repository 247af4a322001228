// SPDX-License-Identifier: Apache-2.0
//
// The tuple space, looked up here as the egress program does it, against the policies themselves.
#include <cstring>

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

bool allows(const egress_rule_set& set, const test::outgoing& p, const egress_device& by = {}) {
    esplane_tuple t = tuple_of(p.flow);
    std::copy(by.tags.begin(), by.tags.end(), t.tags);
    const esplane_rule* best = nullptr;
    for (std::size_t i = 0; i < set.keys.size(); ++i) {
        const esplane_mask& mask = set.bank.masks[set.keys[i].mask];
        const auto kind = p.later_fragment ? esplane_kind_fragment : esplane_kind_whole;
        if ((mask.kinds & kind) != 0 && covers(mask, set.keys[i].tuple, t) &&
            (best == nullptr || set.rules[i].rank < best->rank))
            best = &set.rules[i];
    }
    return best == nullptr || best->deny == 0;
}

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
        const auto set = compile_egress_rules(rules, devices);
        ASSERT_TRUE(set);
        for (int i = 0; i < 500; ++i) {
            const auto p = model.packet();
            ASSERT_EQ(allows(*set, p), test::rules_model::allows(rules, p))
                << "seed " << seed << " packet " << i;
        }
    }
}

TEST(EgressRules, MasksAreSortedByTheirBestRule) {
    test::rules_model model(7);
    const auto set = compile_egress_rules(model.rules(40), devices);
    ASSERT_TRUE(set);
    for (std::uint32_t i = 1; i < set->bank.count; ++i)
        EXPECT_LE(set->bank.masks[i - 1].best_rank, set->bank.masks[i].best_rank);
}

TEST(EgressRules, ARuleForAnotherDeviceIsLeftOut) {
    egress_rule r = to_host("10.0.0.1");
    r.sel.ifindex = 7;
    EXPECT_TRUE(compile_egress_rules({&r, 1}, devices)->rules.empty());
}

TEST(EgressRules, ARuleForADeviceHoldsForWhatLeavesByItAlone) {
    test::outgoing p;
    p.flow.source = p.flow.destination = ipsec::address::parse("10.0.0.1").value();
    for (const egress_device& named : devices) {
        egress_rule r = to_host("10.0.0.1");
        r.sel.ifindex = named.ifindex;
        const auto set = compile_egress_rules({&r, 1}, devices);
        for (const egress_device& by : devices)
            EXPECT_EQ(allows(*set, p, by), by.ifindex != named.ifindex) << by.ifindex;
    }
    const egress_rule for_all = to_host("10.0.0.1");
    for (const egress_device& by : devices)
        EXPECT_FALSE(allows(*compile_egress_rules({&for_all, 1}, devices), p, by));
}

TEST(EgressRules, HostBitsOfASelectorAreNotLookedAt) {
    egress_rule r = to_host("10.0.0.77");
    r.sel.destination_prefix = 24;
    const auto set = compile_egress_rules({&r, 1}, devices);
    test::outgoing p;
    p.flow.source = p.flow.destination = ipsec::address::parse("10.0.0.1").value();
    EXPECT_FALSE(allows(*set, p));
}

TEST(EgressRules, MoreMasksThanFitAreRefused) {
    std::vector<egress_rule> rules;
    for (std::uint8_t source = 0; source < 9; ++source)
        for (std::uint8_t destination = 0; destination < 8; ++destination) {
            rules.push_back(to_host("10.0.0.1"));
            rules.back().sel.source_prefix = source;
            rules.back().sel.destination_prefix = destination;
        }
    const auto set = compile_egress_rules(rules, devices);
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error().code, E2BIG);
    EXPECT_TRUE(compile_egress_rules(std::span(rules).first(ESPLANE_MAX_MASKS), devices));
}

} // namespace
} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// The policy table against a list that is searched from the front.
#include "fastpath/classify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <thread>

#include "bench/rulesets/rulesets.h"
#include "fastpath/quiescence.h"

namespace esplane::fastpath {
namespace {

using ipsec::address;
using ipsec::family;

/// Few values for each field, so that policies overlap and flows fall under several.
template <std::size_t Words>
struct world {
    static constexpr bool v4 = Words == v4_words;
    std::mt19937 random{Words};

    std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); }

    address any_address() {
        address a;
        a.fam = v4 ? family::ipv4 : family::ipv6;
        const std::size_t length = ipsec::address_length(a.fam);
        a.bytes[0] = static_cast<std::uint8_t>(10 + below(2));
        a.bytes[1] = static_cast<std::uint8_t>(below(2) * 0x80);
        a.bytes[length / 2] = static_cast<std::uint8_t>(below(2));
        a.bytes[length - 1] = static_cast<std::uint8_t>(below(4));
        return a;
    }
    std::uint8_t any_prefix() {
        constexpr std::uint8_t bits = v4 ? 32 : 128;
        const std::uint8_t choices[] = {0, 8, 9, bits / 2 + 8, bits - 2, bits - 1, bits};
        return choices[below(std::size(choices))];
    }
    wire::be16 any_port() { return wire::be16(static_cast<std::uint16_t>(1000 + below(3))); }
    wire::be16 any_mask() {
        const std::uint16_t choices[] = {0, 0, 0xffff, 0xfffe, 0x0001};
        return wire::be16(choices[below(std::size(choices))]);
    }
    std::uint8_t any_protocol() {
        const std::uint8_t choices[] = {wire::proto_tcp, wire::proto_udp, wire::proto_icmp};
        return choices[below(std::size(choices))];
    }
    ipsec::selector any_selector() {
        ipsec::selector s;
        s.fam = v4 ? family::ipv4 : family::ipv6;
        s.source = any_address();
        s.destination = any_address();
        s.source_prefix = any_prefix();
        s.destination_prefix = any_prefix();
        if (below(2) != 0) s.protocol = any_protocol();
        s.source_port = any_port();
        s.source_port_mask = any_mask();
        s.destination_port = any_port();
        s.destination_port_mask = any_mask();
        return s;
    }
    ipsec::flow any_flow() {
        return {any_address(), any_address(), any_port(), any_port(), any_protocol()};
    }
};

/// A flow is a selector that leaves nothing open.
template <std::size_t Words>
flow_key<Words> key_of_flow(const ipsec::flow& f) {
    ipsec::selector s;
    s.source = f.source;
    s.destination = f.destination;
    s.source_prefix = s.destination_prefix = ipsec::address_bits(f.source.fam);
    s.source_port = f.source_port;
    s.destination_port = f.destination_port;
    s.source_port_mask = s.destination_port_mask = wire::be16(0xffff);
    s.protocol = f.protocol;
    return key_of<Words>(s).first;
}

template <std::size_t Words>
struct listed {
    ipsec::selector selector;
    std::unique_ptr<keyed_policy<Words>> entry;
};

template <std::size_t Words>
struct model {
    std::vector<listed<Words>> all;

    const policy_entry* find(const ipsec::flow& f) const {
        const policy_entry* best = nullptr;
        for (const auto& one : all)
            if (one.selector.matches(f) && (best == nullptr || one.entry->run.rank < best->rank))
                best = &one.entry->run;
        return best;
    }
};

template <std::size_t Words>
struct table_and_list {
    retired graveyard;
    policy_table<Words> table{graveyard};
    model<Words> list;
    world<Words> w;
    std::uint32_t position = 0;

    void insert(const ipsec::selector& s) {
        auto e = std::make_unique<keyed_policy<Words>>();
        e->run.rank = std::uint64_t{w.below(4)} << 32 | ++position;
        table.insert(e.get(), s);
        list.all.push_back({s, std::move(e)});
    }
    void erase(std::size_t at) {
        table.erase(list.all[at].entry.get());
        list.all.erase(list.all.begin() + static_cast<std::ptrdiff_t>(at));
    }
    std::size_t any() { return w.below(static_cast<std::uint32_t>(list.all.size())); }

    void change() {
        const auto what = w.below(8);
        if (list.all.empty() || what < 4)
            insert(w.any_selector());
        else if (what == 4)
            insert(ipsec::selector(list.all[any()].selector)); // a chain under one key
        else if (what == 5) { // an update: the new one is there before the old one goes
            const std::size_t at = any();
            insert(ipsec::selector(list.all[at].selector));
            erase(at);
        } else
            erase(any());
    }
    void compare(int flows) {
        for (int i = 0; i < flows; ++i) {
            const ipsec::flow f = w.any_flow();
            ASSERT_EQ(table.find(key_of_flow<Words>(f)), list.find(f)) << position;
        }
    }
    void run() {
        for (int round = 0; round < 600; ++round) {
            change();
            compare(20);
        }
        while (!list.all.empty()) {
            erase(any());
            compare(5);
        }
        graveyard.reclaim();
        EXPECT_EQ(table.find(key_of_flow<Words>(w.any_flow())), nullptr);
    }
};

TEST(PolicyTable, FindsForIpv4WhatASearchOfTheListFinds) {
    table_and_list<v4_words>().run();
}

TEST(PolicyTable, FindsForIpv6WhatASearchOfTheListFinds) {
    table_and_list<v6_words>().run();
}

/// Rules go in and out at random until all are in; now and then a burst of flows, of which some
/// fall under no rule, is looked up.
void hold_against_list(bench::rule_kind kind, unsigned count) {
    const auto rules = bench::make_rules(kind, count, {});
    const auto flows = bench::make_flows(rules, 40 * count);
    retired graveyard;
    policy_table<v4_words> table(graveyard);
    model<v4_words> list;
    std::mt19937 random(7);
    unsigned next_flow = 0;
    const auto put_in = [&](const ipsec::policy& p, unsigned position) {
        auto e = std::make_unique<keyed_policy<v4_words>>();
        e->run.rank = std::uint64_t{p.priority} << 32 | position;
        table.insert(e.get(), p.sel);
        list.all.push_back({p.sel, std::move(e)});
    };
    const auto take_out = [&](std::size_t at) {
        table.erase(list.all[at].entry.get());
        std::swap(list.all[at], list.all.back());
        list.all.pop_back();
    };
    const auto compare_burst = [&] {
        std::array<flow_key<v4_words>, 64> keys;
        std::array<const policy_entry*, 64> found;
        const std::size_t size = 1 + random() % keys.size();
        const unsigned first = next_flow;
        for (std::size_t i = 0; i < size; ++i)
            keys[i] = key_of_flow<v4_words>(flows[next_flow++ % flows.size()]);
        table.find(std::span(keys).first(size), found.data());
        for (unsigned i = 0; i < size; ++i)
            ASSERT_EQ(found[i], list.find(flows[(first + i) % flows.size()])) << list.all.size();
    };
    for (unsigned n = 0; n < count; ++n) {
        put_in(rules[n], n);
        if (random() % 8 == 0) take_out(random() % list.all.size());
        if (n % 16 == 0) compare_burst();
        if (n % 64 == 0) graveyard.reclaim();
    }
    while (!list.all.empty()) {
        take_out(random() % list.all.size());
        if (list.all.size() % 16 == 0) compare_burst();
    }
    EXPECT_TRUE(table.empty());
}

TEST(PolicyTable, FindsInAccessListsWhatASearchOfTheListFinds) {
    hold_against_list(bench::rule_kind::acl, 4000);
}

TEST(PolicyTable, FindsInAHubWhatASearchOfTheListFinds) {
    hold_against_list(bench::rule_kind::hub, 1000);
}

/// A chain of one key is full at once; the rest goes to where ports are looked at.
TEST(PolicyTable, FindsThePolicyOfAPortAmongThoseOfAllPorts) {
    retired graveyard;
    policy_table<v4_words> table(graveyard);
    std::vector<keyed_policy<v4_words>> entries(2000);
    const auto of_ports = [](unsigned n) {
        ipsec::selector s;
        s.protocol = wire::proto_udp;
        s.source_port = wire::be16(static_cast<std::uint16_t>(n / 50));
        s.destination_port = wire::be16(static_cast<std::uint16_t>(n % 50));
        s.source_port_mask = s.destination_port_mask = wire::be16(0xffff);
        s.source_prefix = static_cast<std::uint8_t>(n % 7); // more shapes than tuples of their own
        return s;
    };
    for (unsigned n = 0; n < entries.size(); ++n) {
        entries[n].run.rank = n;
        table.insert(&entries[n], of_ports(n));
    }
    EXPECT_TRUE(table.reads_ports());
    for (unsigned n = 0; n < entries.size(); ++n) {
        const ipsec::selector s = of_ports(n);
        const ipsec::flow f{{}, {}, s.source_port, s.destination_port, s.protocol};
        ASSERT_EQ(table.find(key_of_flow<v4_words>(f)), &entries[n].run) << n;
    }
    for (auto& e : entries)
        table.erase(&e);
    EXPECT_FALSE(table.reads_ports());
    EXPECT_TRUE(table.empty());
}

/// A thousand policies stay; others, better and worse, of the same keys and of new ones, come and
/// go by the thousand, so that tables grow, tuples come and go.
TEST(PolicyTable, WhileOthersChangeNoFlowFindsWorseThanWhatStays) {
    constexpr unsigned staying = 1000, others = 6000;
    const auto rules = bench::make_rules(bench::rule_kind::acl, staying + others, {});
    const auto staying_rules = std::span(rules).first(staying);
    retired graveyard;
    policy_table<v4_words> table(graveyard);
    std::vector<std::unique_ptr<keyed_policy<v4_words>>> entries;
    const auto insert = [&](unsigned n, std::uint32_t priority) {
        auto e = std::make_unique<keyed_policy<v4_words>>();
        e->run.set_rank(priority, n);
        table.insert(e.get(), rules[n].sel);
        return e;
    };
    constexpr std::uint32_t priority_of_staying = 500;
    for (unsigned n = 0; n < staying; ++n)
        entries.push_back(insert(n, priority_of_staying));

    std::atomic<bool> stop{false};
    std::uint64_t worse = 0, searches = 0;
    std::thread worker([&] {
        reader self;
        const auto flows = bench::make_flows(staying_rules, 64 * 64);
        std::array<flow_key<v4_words>, 64> keys;
        std::array<const policy_entry*, 64> found;
        for (std::size_t first = 0; !stop; first = (first + 64) % flows.size(), ++searches) {
            for (std::size_t i = 0; i < 64; ++i)
                keys[i] = key_of_flow<v4_words>(flows[first + i]);
            table.find(keys, found.data());
            for (const policy_entry* one : found)
                worse += one == nullptr || one->rank >> 32 > priority_of_staying ? 1 : 0;
            self.quiescent();
        }
    });
    std::mt19937 random(3);
    for (int round = 0; round < 2; ++round) {
        const auto first_other = entries.size();
        for (unsigned n = 0; n < others; ++n) {
            entries.push_back(insert(staying + n, static_cast<std::uint32_t>(random() % 1000)));
            if (n % 256 == 0) graveyard.reclaim();
        }
        while (entries.size() > first_other) {
            std::swap(entries[first_other + random() % (entries.size() - first_other)],
                      entries.back());
            table.erase(entries.back().get());
            graveyard.add([gone = std::shared_ptr(std::move(entries.back()))] {});
            entries.pop_back();
            if (entries.size() % 256 == 0) graveyard.reclaim();
        }
    }
    stop = true;
    worker.join();
    EXPECT_EQ(worse, 0u);
    EXPECT_GT(searches, 100u);
}

/// Each mask is a tuple of its own once the first few are a chain.
TEST(PolicyTable, FindsThePolicyAmongMoreMasksThanAreHashedByPart) {
    retired graveyard;
    policy_table<v4_words> table(graveyard);
    std::vector<keyed_policy<v4_words>> entries(300);
    const auto of_mask = [](unsigned n) {
        ipsec::selector s;
        s.protocol = wire::proto_udp;
        s.source_port = s.source_port_mask = wire::be16(static_cast<std::uint16_t>(0x8000 | n));
        return s;
    };
    for (unsigned n = 0; n < entries.size(); ++n) {
        entries[n].run.rank = n;
        table.insert(&entries[n], of_mask(n));
    }
    const auto expected = [&](wire::be16 port) {
        unsigned n = 0;
        while ((port.host() & (0x8000 | n)) != (0x8000 | n))
            ++n;
        return &entries[n].run;
    };
    for (unsigned n = 0; n < entries.size(); ++n) {
        const ipsec::flow f{{}, {}, of_mask(n).source_port, {}, wire::proto_udp};
        ASSERT_EQ(table.find(key_of_flow<v4_words>(f)), expected(f.source_port)) << n;
    }
    for (unsigned n = 0; n < 100; ++n) // the best go
        table.erase(&entries[n]);
    const ipsec::flow f{{}, {}, of_mask(150).source_port, {}, wire::proto_udp};
    EXPECT_EQ(table.find(key_of_flow<v4_words>(f)), &entries[128].run);
}

TEST(PolicyTable, AmongEqualPrioritiesTheEarlierWins) {
    retired graveyard;
    policy_table<v4_words> table(graveyard);
    const ipsec::selector everything;
    keyed_policy<v4_words> second, first, better;
    second.run.rank = std::uint64_t{5} << 32 | 2;
    first.run.rank = std::uint64_t{5} << 32 | 1;
    better.run.rank = std::uint64_t{4} << 32 | 3;
    for (auto* e : {&second, &first, &better})
        table.insert(e, everything);
    EXPECT_EQ(table.find({}), &better.run);
    table.erase(&better);
    EXPECT_EQ(table.find({}), &first.run);
    table.erase(&first);
    EXPECT_EQ(table.find({}), &second.run);
    table.erase(&second);
    EXPECT_EQ(table.find({}), nullptr);
}

} // namespace
} // namespace esplane::fastpath

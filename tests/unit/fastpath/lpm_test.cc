// SPDX-License-Identifier: Apache-2.0
//
// Longest prefix match against a list of prefixes that is searched from the front, while prefixes
// come and go; and readers that look things up meanwhile.
#include "fastpath/lpm.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <random>
#include <thread>

#include "fastpath/prefix_map.h"
#include "fastpath/quiescence.h"
#include "fastpath/retired.h"
#include "lib/ipsec/address.h"

namespace esplane::fastpath {
namespace {

using ipsec::address;
using ipsec::family;

template <unsigned Bytes>
constexpr family family_of = Bytes == 4 ? family::ipv4 : family::ipv6;

/// Prefixes by length, the longest first, and what a search of them all finds.
template <unsigned Bytes>
struct model {
    std::map<unsigned, std::map<address, std::uint32_t>, std::greater<>> prefixes;

    [[nodiscard]] std::pair<unsigned, std::uint32_t> cover(const address& to,
                                                           unsigned below) const {
        for (auto at = prefixes.upper_bound(below); at != prefixes.end(); ++at) {
            const auto& [length, values] = *at;
            const auto found = values.find(ipsec::masked(to, length));
            if (found != values.end()) return {length, found->second};
        }
        return {0, 0};
    }
    [[nodiscard]] std::uint32_t find(const address& to) const {
        return cover(to, Bytes * 8 + 1).second;
    }
};

/// A table beside its model: every change is made to both.
template <unsigned Bytes>
struct pair_of_tables {
    lpm_memory memory;
    std::vector<lpm_memory::block> retired;
    lpm_table<Bytes> table{memory, retired, 0};
    prefix_map<Bytes> prefixes;
    model<Bytes> want;

    void set(const address& prefix, unsigned length, std::uint32_t value) {
        ASSERT_TRUE(table.assign(prefix.bytes.data(), length, length, value));
        prefixes.set(prefix.bytes.data(), length, value);
        want.prefixes[length][ipsec::masked(prefix, length)] = value;
    }
    void erase(const address& prefix, unsigned length) {
        const bool there = want.prefixes[length].erase(ipsec::masked(prefix, length)) != 0;
        ASSERT_EQ(prefixes.erase(prefix.bytes.data(), length).has_value(), there);
        if (!there) return;
        const auto below = prefixes.cover(prefix.bytes.data(), length)
                               .value_or(typename prefix_map<Bytes>::covering{0, 0});
        ASSERT_EQ(std::pair(below.length, below.value), want.cover(prefix, length));
        ASSERT_TRUE(table.assign(prefix.bytes.data(), length, below.length, below.value));
    }
    void check(const std::vector<address>& all) {
        std::vector<const std::uint8_t*> burst;
        std::vector<std::uint32_t> wanted;
        for (const address& to : all) {
            wanted.push_back(want.find(to));
            ASSERT_EQ(table.find(to.bytes.data()), wanted.back()) << to.to_string();
            burst.push_back(to.bytes.data());
        }
        std::array<std::uint32_t, lpm_table<Bytes>::max_burst> found;
        for (std::size_t at = 0; at < burst.size(); at += found.size()) {
            const auto some =
                std::span(burst).subspan(at, std::min(found.size(), burst.size() - at));
            table.find(some, found.data());
            for (std::size_t i = 0; i < some.size(); ++i)
                ASSERT_EQ(found[i], wanted[at + i]) << all[at + i].to_string();
        }
    }
    void recycle() {
        for (const lpm_memory::block b : std::exchange(retired, {}))
            memory.release(b);
    }
};

/// Addresses that agree with each other in many bits: prefixes nest and nodes fill.
address near_address(std::mt19937& random, family f, unsigned odds) {
    address a;
    a.fam = f;
    for (std::size_t i = 0; i < ipsec::address_length(f); ++i)
        if (random() % odds == 0) a.bytes[i] = static_cast<std::uint8_t>(random() % 37 * 7);
    return a;
}

template <unsigned Bytes>
void churn(unsigned seed, bool published) {
    std::mt19937 random(seed);
    const unsigned odds = 1 + seed % 6;
    pair_of_tables<Bytes> t;
    if (published) t.table.publish();
    std::vector<std::pair<address, unsigned>> there;
    for (int round = 0; round < 20; ++round) {
        const bool grows = round % 10 < 6;
        for (int i = 0; i < 60; ++i) {
            if (there.empty() || random() % 10 < (grows ? 8u : 2u)) {
                const auto length = static_cast<unsigned>(random() % (Bytes * 8 + 1));
                const address to = near_address(random, family_of<Bytes>, odds);
                t.set(to, length, static_cast<std::uint32_t>(1 + random() % 50));
                there.emplace_back(to, length);
            } else {
                const std::size_t which = random() % there.size();
                t.erase(there[which].first, there[which].second);
                there.erase(there.begin() + static_cast<std::ptrdiff_t>(which));
            }
            if (testing::Test::HasFatalFailure()) return;
        }
        if (round % 3 == 0) t.recycle();
        std::vector<address> to;
        for (int i = 0; i < 150; ++i)
            to.push_back(near_address(random, family_of<Bytes>, odds));
        for (const auto& [prefix, length] : there) // the edges
            to.push_back(prefix);
        t.check(to);
        if (testing::Test::HasFatalFailure()) return;
    }
    for (const auto& [prefix, length] : there)
        t.erase(prefix, length);
    t.check({near_address(random, family_of<Bytes>, 1)});
}

TEST(Lpm, FindsWhatASearchOfAllPrefixesFinds) {
    for (unsigned seed = 0; seed < 6 && !HasFatalFailure(); ++seed) {
        SCOPED_TRACE(seed);
        churn<4>(seed, seed % 2 == 0);
        churn<16>(seed, seed % 2 == 0);
    }
}

TEST(Lpm, GivesBackAllItTook) {
    pair_of_tables<4> v4;
    pair_of_tables<16> v6;
    const std::size_t empty_v4 = v4.memory.used_bytes(), empty_v6 = v6.memory.used_bytes();
    std::mt19937 random(7);
    std::vector<std::pair<address, address>> there;
    for (int i = 0; i < 30; ++i) {
        there.emplace_back(near_address(random, family::ipv4, 1),
                           near_address(random, family::ipv6, 1));
        v4.set(there.back().first, 17 + i % 16, 5);
        v6.set(there.back().second, 17 + i, 5);
    }
    EXPECT_GT(v4.memory.used_bytes(), empty_v4);
    int i = 0;
    for (const auto& [a, b] : there) {
        v4.erase(a, 17 + i % 16);
        v6.erase(b, 17 + i++);
    }
    EXPECT_EQ(v4.memory.used_bytes(), empty_v4);
    EXPECT_EQ(v6.memory.used_bytes(), empty_v6);
}

TEST(Lpm, TakesALineAStepForAHostAmongMany) {
    pair_of_tables<4> v4;
    pair_of_tables<16> v6;
    std::mt19937 random(5);
    for (int i = 0; i < 400; ++i) { // from here on nodes are packed
        v4.set(near_address(random, family::ipv4, 1), 32, 1);
        v6.set(near_address(random, family::ipv6, 1), 128, 1);
    }
    const std::size_t before = v4.memory.used_bytes(), before_v6 = v6.memory.used_bytes();
    v4.set(*address::parse("8.1.2.3"), 32, 1);
    v6.set(*address::parse("fd01::1:2:3"), 128, 1);
    EXPECT_LE(v4.memory.used_bytes() - before, 2 * lpm_memory::line_bytes);
    EXPECT_LE(v6.memory.used_bytes() - before_v6, lpm_memory::line_bytes);
}

TEST(Lpm, RefusesWhatItHasNoRoomForAndStaysWhole) {
    lpm_memory memory(4 << 20);
    std::vector<lpm_memory::block> retired;
    lpm_table<4> table(memory, retired, 0);
    model<4> want;
    std::mt19937 random(3);
    bool refused = false;
    for (int i = 0; i < 100'000 && !refused; ++i) {
        const address to = address::v4(wire::be32(static_cast<std::uint32_t>(random())));
        refused = !table.assign(to.bytes.data(), 32, 32, 9);
        if (!refused) want.prefixes[32][to] = 9;
    }
    EXPECT_TRUE(refused);
    EXPECT_LE(memory.used_bytes(), std::size_t{4} << 20);
    for (const auto& [to, value] : want.prefixes[32])
        ASSERT_EQ(table.find(to.bytes.data()), 9u);
}

/// The reader sees one of the two values that an address ever has, never anything else, while its
/// neighbourhood is torn down and built up; old nodes are used again as soon as it was quiescent.
template <unsigned Bytes>
void read_while_it_changes() {
    lpm_memory memory;
    std::vector<lpm_memory::block> blocks;
    retired graveyard;
    lpm_table<Bytes> table(memory, blocks, 1);
    table.publish();
    std::mt19937 random(11);
    std::vector<address> hosts;
    for (int i = 0; i < 64; ++i)
        hosts.push_back(near_address(random, family_of<Bytes>, 2));

    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> rounds{0}, wrong{0};
    std::thread worker([&] {
        reader here;
        std::vector<const std::uint8_t*> burst;
        for (const address& to : hosts)
            burst.push_back(to.bytes.data());
        std::array<std::uint32_t, lpm_table<Bytes>::max_burst> found;
        while (!stop.load(std::memory_order_relaxed)) {
            table.find(burst, found.data());
            for (std::size_t i = 0; i < burst.size(); ++i) {
                wrong += found[i] - 1 > 1;
                wrong += table.find(burst[i]) - 1 > 1;
            }
            here.quiescent();
            rounds.fetch_add(1, std::memory_order_relaxed);
        }
    });
    for (int i = 0; i < 2000 || rounds.load() < 50; ++i) {
        const address& to = hosts[random() % hosts.size()];
        const auto length = static_cast<unsigned>(random() % (Bytes * 8 + 1));
        const auto value = static_cast<std::uint32_t>(1 + random() % 2);
        ASSERT_TRUE(table.assign(to.bytes.data(), length, length, value));
        if (i % 50 != 0) continue;
        // Everything from the top: no depth stays behind that later changes could not overwrite.
        ASSERT_TRUE(table.assign(to.bytes.data(), 0, 0, value));
        graveyard.add([&memory, old = std::exchange(blocks, {})] {
            for (const lpm_memory::block b : old)
                memory.release(b);
        });
        graveyard.reclaim();
    }
    stop = true;
    worker.join();
    EXPECT_EQ(wrong.load(), 0u);
}

TEST(Lpm, AReaderSeesOldOrNewWhileItChanges) {
    read_while_it_changes<4>();
    read_while_it_changes<16>();
}

} // namespace
} // namespace esplane::fastpath

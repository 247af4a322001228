// SPDX-License-Identifier: Apache-2.0
//
// The paged table against std::set, and the filter that stands before it.
#include "fastpath/paged_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "fastpath/presence.h"

namespace esplane::fastpath {
namespace {

struct item {
    std::uint32_t hash = 0;
    std::uint32_t name = 0;
};

item* find(const paged_table<item>& t, const item& wanted) {
    return t.find(wanted.hash, [&](const item& one) { return one.name == wanted.name; });
}

/// hash_bits   few: many entries of one hash
void hold_against_vector(unsigned count, std::uint32_t hash_bits) {
    retired graveyard;
    paged_table<item> table(graveyard);
    std::mt19937 random(hash_bits);
    std::vector<item> items(count);
    for (unsigned n = 0; n < count; ++n)
        items[n] = {static_cast<std::uint32_t>(random()) & hash_bits, n};
    for (item& one : items) {
        EXPECT_EQ(find(table, one), nullptr);
        table.insert(&one, one.hash);
    }
    for (item& one : items)
        ASSERT_EQ(find(table, one), &one) << one.name;
    std::vector<std::uint32_t> hashes, expected;
    table.each_hash([&](std::uint32_t h) { hashes.push_back(h); });
    for (const item& one : items)
        expected.push_back(one.hash);
    std::ranges::sort(hashes);
    std::ranges::sort(expected);
    EXPECT_EQ(hashes, expected);
    for (unsigned n = 0; n < count; n += 2)
        table.erase(&items[n], items[n].hash);
    for (unsigned n = 0; n < count; ++n)
        ASSERT_EQ(find(table, items[n]), n % 2 == 0 ? nullptr : &items[n]) << n;
    for (unsigned n = 0; n < count; n += 2) // into the slots that are free
        table.insert(&items[n], items[n].hash);
    for (item& one : items)
        ASSERT_EQ(find(table, one), &one) << one.name;
}

TEST(PagedTable, FindsWhatIsIn) {
    hold_against_vector(50'000, ~std::uint32_t{0});
}

TEST(PagedTable, HoldsMoreThanAPageOfOneHash) {
    hold_against_vector(300, 1);
}

TEST(PagedTable, TellsEntriesOfOneTagApart) {
    hold_against_vector(20'000, 0xfff);
}

TEST(PagedTable, PutsAnotherInThePlaceOfAnEntry) {
    retired graveyard;
    paged_table<item> table(graveyard);
    item before{7, 1}, after{7, 1};
    table.insert(&before, 7);
    table.replace(&before, &after, 7);
    EXPECT_EQ(find(table, before), &after);
    table.erase(&after, 7);
    EXPECT_EQ(find(table, before), nullptr);
}

TEST(Presence, HasWhatIsInAndLittleElse) {
    retired graveyard;
    presence keys(graveyard);
    std::mt19937 random(1);
    std::vector<std::uint32_t> in;
    for (int n = 0; n < 20'000; ++n) {
        const auto hash = static_cast<std::uint32_t>(random());
        keys.add(hash, [&](auto take) { std::ranges::for_each(in, take); });
        in.push_back(hash);
    }
    for (const std::uint32_t hash : in)
        ASSERT_TRUE(keys.read().may_have(hash));
    unsigned wrong = 0;
    for (int n = 0; n < 20'000; ++n)
        wrong += keys.read().may_have(static_cast<std::uint32_t>(random())) ? 1 : 0;
    EXPECT_LT(wrong, 800u);
}

TEST(Presence, ForgetsInTimeWhatWasTakenOut) {
    retired graveyard;
    presence keys(graveyard);
    std::vector<std::uint32_t> in;
    for (std::uint32_t n = 0; n < 100'000; ++n) { // one comes, one goes
        const std::uint32_t hash = n * 0x9e3779b1;
        keys.add(hash, [&](auto take) { std::ranges::for_each(in, take); });
        in.push_back(hash);
        if (in.size() < 10) continue;
        in.erase(in.begin());
        keys.remove();
    }
    unsigned had = 0;
    for (std::uint32_t n = 0; n < 100'000; ++n)
        had += keys.read().may_have(n * 0x9e3779b1 + 1) ? 1 : 0;
    EXPECT_LT(had, 20'000u);
}

} // namespace
} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// The paged table against a vector, and the words that sum its lines up.
#include "fastpath/paged_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

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
    hold_against_vector(2000, 1);
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

/// How many of so many hashes at random a table may have.
unsigned count_maybe(const paged_table<item>& t, unsigned tries) {
    std::mt19937 random(99);
    unsigned had = 0;
    for (unsigned n = 0; n < tries; ++n)
        had += t.read().may_have(static_cast<std::uint32_t>(random())) ? 1 : 0;
    return had;
}

TEST(PagedTable, MayHaveWhatIsInAndLittleElse) {
    retired graveyard;
    paged_table<item> table(graveyard);
    std::mt19937 random(1);
    std::vector<item> items(20'000);
    for (item& one : items) {
        one.hash = static_cast<std::uint32_t>(random());
        table.insert(&one, one.hash);
    }
    for (const item& one : items)
        ASSERT_TRUE(table.read().may_have(one.hash));
    EXPECT_LT(count_maybe(table, 20'000), 600u);
}

TEST(PagedTable, ForgetsAtOnceWhatWasTakenOut) {
    retired graveyard;
    paged_table<item> table(graveyard);
    std::mt19937 random(1);
    std::vector<item> items(20'000);
    for (item& one : items) {
        one.hash = static_cast<std::uint32_t>(random());
        table.insert(&one, one.hash);
    }
    for (unsigned n = 100; n < items.size(); ++n)
        table.erase(&items[n], items[n].hash);
    for (unsigned n = 0; n < 100; ++n)
        EXPECT_TRUE(table.read().may_have(items[n].hash)) << "others of its line went";
    EXPECT_LT(count_maybe(table, 20'000), 20u);
}

/// Lines double, pages are split, the directory doubles, while a reader asks for what was there
/// before.
TEST(PagedTable, HidesNothingWhileItGrows) {
    constexpr unsigned first = 200, all = 20'000;
    std::mt19937 random(11);
    std::vector<item> items(all);
    for (unsigned n = 0; n < all; ++n)
        items[n] = {static_cast<std::uint32_t>(random()), n};
    std::uint64_t missed = 0;
    for (int round = 0; round < 20; ++round) {
        retired graveyard;
        paged_table<item> table(graveyard);
        for (unsigned n = 0; n < first; ++n)
            table.insert(&items[n], items[n].hash);
        std::atomic<bool> stop{false};
        std::atomic<bool> begun{false};
        std::thread worker([&] {
            while (!stop.load(std::memory_order_relaxed)) {
                for (unsigned n = 0; n < first; ++n) {
                    missed += table.read().may_have(items[n].hash) ? 0 : 1;
                    missed += find(table, items[n]) == nullptr ? 1 : 0;
                }
                begun = true;
            }
        });
        while (!begun)
            std::this_thread::yield();
        for (unsigned n = first; n < all; ++n)
            table.insert(&items[n], items[n].hash);
        stop = true;
        worker.join();
    }
    EXPECT_EQ(missed, 0u);
}

TEST(PagedTable, ReadsSeldomMoreThanALine) {
    retired graveyard;
    paged_table<item> table(graveyard);
    std::mt19937 random(5);
    std::vector<item> items(50'000);
    for (item& one : items) {
        one.hash = static_cast<std::uint32_t>(random());
        table.insert(&one, one.hash);
    }
    const auto further = std::ranges::count_if(
        items, [&](const item& one) { return table.read().line_of(one.hash).reaches_on(); });
    EXPECT_LT(further, 5000);
}

} // namespace
} // namespace esplane::fastpath

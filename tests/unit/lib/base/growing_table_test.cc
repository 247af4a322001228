// SPDX-License-Identifier: Apache-2.0
#include "lib/base/growing_table.h"

#include <deque>
#include <functional>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace esplane {
namespace {

struct number {
    std::uint32_t value;
};
/// Many numbers have one hash.
struct bad_hash {
    std::uint32_t operator()(const number& n) const noexcept { return n.value / 3 * 0x9e3779b1u; }
};
using table = growing_table<number, bad_hash>;

template <typename Table>
number* find(const Table& t, std::uint32_t value) {
    return t.find(bad_hash{}({value}), [&](const number& n) { return n.value == value; });
}

template <typename Table>
std::multiset<std::uint32_t> all_of(const Table& t) {
    std::multiset<std::uint32_t> all;
    t.each([&](const number& n) {
        all.insert(n.value);
        return true;
    });
    return all;
}

TEST(GrowingTable, HoldsWhatAMapHoldsWhateverIsPutInAndTakenOut) {
    std::minstd_rand random(1);
    std::deque<number> all;
    for (std::uint32_t i = 0; i < 5000; ++i)
        all.push_back({i});
    std::set<std::uint32_t> there;
    table t;
    for (int step = 0; step < 100'000; ++step) {
        // It grows and shrinks in turn, so that arrays of all sizes are moved.
        const auto at = static_cast<std::uint32_t>(random() % all.size());
        const bool grows = step / 20'000 % 2 == 0;
        if (there.contains(at) && (!grows || random() % 4 == 0)) {
            t.erase(&all[at]);
            there.erase(at);
        } else if (!there.contains(at) && (grows || random() % 4 == 0)) {
            t.insert(&all[at]);
            there.insert(at);
        }
        ASSERT_EQ(t.size(), there.size());
        const auto other = static_cast<std::uint32_t>(random() % all.size());
        ASSERT_EQ(find(t, other), there.contains(other) ? &all[other] : nullptr) << other;
        if (step % 1000 == 0) {
            ASSERT_EQ(all_of(t), std::multiset<std::uint32_t>(there.begin(), there.end()));
        }
    }
}

TEST(GrowingTable, ReplacesAnEntryWhereverItIs) {
    std::deque<number> all;
    std::deque<number> next;
    table t;
    for (std::uint32_t i = 0; i < 3000; ++i) {
        all.push_back({i});
        next.push_back({i});
        t.insert(&all.back());
        const std::uint32_t old = i / 2;
        t.replace(find(t, old), &next[old]);
        ASSERT_EQ(find(t, old), &next[old]);
    }
    EXPECT_EQ(t.size(), 3000u);
    EXPECT_EQ(all_of(t).size(), 3000u);
}

/// Counts the entries that are looked at for their hash.
struct counting_hash {
    static inline std::size_t calls = 0;
    std::uint32_t operator()(const number& n) const noexcept {
        ++calls;
        return n.value * 0x9e3779b1u;
    }
};

TEST(GrowingTable, NoSingleInsertionMovesMoreThanAFewEntries) {
    std::deque<number> all;
    growing_table<number, counting_hash> t;
    std::size_t most = 0;
    for (std::uint32_t i = 0; i < 300'000; ++i) {
        all.push_back({i});
        counting_hash::calls = 0;
        t.insert(&all.back());
        most = std::max(most, counting_hash::calls);
    }
    EXPECT_LE(most, 80u);
}

/// Keeps arrays until the readers are done.
class kept {
  public:
    explicit kept(std::vector<std::function<void()>>& releases)
        : releases_(&releases) {}
    template <typename Release>
    void operator()(Release release) const {
        releases_->push_back(release);
    }

  private:
    std::vector<std::function<void()>>* releases_;
};

TEST(GrowingTable, AReaderAlwaysFindsWhatIsThereWhileItGrows) {
    std::vector<std::function<void()>> releases;
    constexpr std::uint32_t count = 200'000;
    std::vector<number> all(count);
    for (std::uint32_t i = 0; i < count; ++i)
        all[i].value = i;
    {
        growing_table<number, bad_hash, kept> t{kept(releases)};
        std::atomic<std::uint32_t> there{0};
        std::atomic<std::uint32_t> missed{0};
        std::thread reader([&] {
            std::minstd_rand random(2);
            for (std::uint32_t n = 0; n != count;) {
                n = there.load(std::memory_order_acquire);
                if (n == 0) continue;
                const auto wanted = static_cast<std::uint32_t>(random() % n);
                if (find(t, wanted) != &all[wanted]) ++missed;
            }
        });
        for (std::uint32_t i = 0; i < count; ++i) {
            t.insert(&all[i]);
            there.store(i + 1, std::memory_order_release);
        }
        reader.join();
        EXPECT_EQ(missed, 0u);
    }
    for (const auto& release : releases)
        release();
}

} // namespace
} // namespace esplane

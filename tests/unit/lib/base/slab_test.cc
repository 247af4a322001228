// SPDX-License-Identifier: Apache-2.0
#include "lib/base/slab.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "lib/base/sanitizer.h"

namespace esplane::slab_test {
namespace {

constexpr std::size_t object_size = 1600; ///< no power of two
constexpr std::size_t of_a_chunk = (huge_memory::page - slab::line) / object_size;

bool is_zero(const void* memory, std::size_t size = object_size) {
    const auto* const bytes = static_cast<const std::uint8_t*>(memory);
    return bytes[0] == 0 && std::memcmp(bytes, bytes + 1, size - 1) == 0;
}

std::vector<void*> take(slab& from, std::size_t count) {
    std::vector<void*> objects(count);
    std::ranges::generate(objects, [&] { return from.take(); });
    return objects;
}

void give_back(const std::vector<void*>& objects) {
    std::ranges::for_each(objects, slab::give_back);
}

TEST(Slab, GivesNoTwoTheSameByte) {
    slab s(object_size);
    const std::vector<void*> all = take(s, 3 * of_a_chunk);
    std::set<std::uintptr_t> starts;
    for (void* object : all) {
        EXPECT_TRUE(is_zero(object));
        std::memset(object, 0xff, object_size);
        starts.insert(reinterpret_cast<std::uintptr_t>(object));
    }
    EXPECT_EQ(starts.size(), all.size());
    std::uintptr_t end = 0;
    for (const std::uintptr_t start : starts) {
        EXPECT_EQ(start % slab::line, 0u);
        EXPECT_GE(start, end);
        end = start + object_size;
    }
    give_back(all);
}

TEST(Slab, GivesZerosWhereSecretsWere) {
    slab s(object_size);
    for (int round = 0; round < 3; ++round) {
        const std::vector<void*> all = take(s, 100);
        for (void* object : all) {
            EXPECT_TRUE(is_zero(object));
            std::memset(object, 0x5a, object_size);
        }
        give_back(all);
    }
}

TEST(Slab, KeepsOneChunkOfAllThatAreEmpty) {
    slab s(object_size);
    const std::vector<void*> all = take(s, 5 * of_a_chunk);
    EXPECT_EQ(s.chunks(), 5u);
    give_back(all);
    EXPECT_EQ(s.chunks(), 1u);
}

TEST(Slab, FillsHolesBeforeItGrows) {
    slab s(object_size);
    std::vector<void*> all = take(s, 4 * of_a_chunk);
    for (std::size_t i = 0; i < all.size(); i += 2)
        slab::give_back(all[i]);
    for (std::size_t i = 0; i < all.size(); i += 2)
        all[i] = s.take();
    EXPECT_EQ(s.chunks(), 4u);
    give_back(all);
}

TEST(Slab, IsSharedByThreads) {
    slab s(object_size);
    const auto work = [&] {
        for (int round = 0; round < 20; ++round)
            give_back(take(s, 500));
    };
    std::thread other(work);
    work();
    other.join();
    EXPECT_EQ(s.chunks(), 1u);
}

struct alignas(64) sample : on_slab<sample> {
    explicit sample(int n)
        : value(n) {}
    int value;
};

TEST(Slab, HoldsObjectsOfAClass) {
    const auto a = std::make_unique<sample>(1);
    const auto b = std::make_unique<sample>(2);
    EXPECT_EQ(a->value, 1);
    EXPECT_EQ(b->value, 2);
    EXPECT_EQ(b.get() - a.get(), 1);
}

long page_faults() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    return used.ru_minflt;
}

#if !defined(ESPLANE_ASAN) && !defined(__SANITIZE_THREAD__) // they have page faults of their own
TEST(Slab, PutsItsFirstChunkOnAHugePageWhenItIsFull) {
    slab s(object_size);
    const std::vector<void*> all = take(s, of_a_chunk);
    std::memset(all[0], 1, object_size);
    void* const next = s.take();
    const long faults = page_faults();
    for (std::size_t n = 1; n < all.size(); ++n)
        std::memset(all[n], 1, object_size);
    EXPECT_LE(page_faults() - faults, 4);
    EXPECT_EQ(*static_cast<const std::uint8_t*>(all[0]), 1) << "what was there stayed";
    slab::give_back(next);
    give_back(all);
}
#endif

TEST(HugeMemory, ThatWasReservedIsTouchedAlready) {
    constexpr std::size_t size = 8 * huge_memory::page;
    const std::size_t before = huge_memory::now().reserved;
    ASSERT_TRUE(huge_memory::reserve(size));
    EXPECT_EQ(huge_memory::now().reserved - before, size);
    const std::size_t unused = huge_memory::now().unused;
    const long faults = page_faults();
    void* const memory = huge_memory::take(size, huge_memory::pages::huge);
    std::memset(memory, 1, size);
#if !defined(ESPLANE_ASAN) && !defined(__SANITIZE_THREAD__) // they have page faults of their own
    EXPECT_LE(page_faults() - faults, 4);
#else
    (void)faults;
#endif
    EXPECT_EQ(unused - huge_memory::now().unused, size);
    huge_memory::give_back(memory, size);
    EXPECT_EQ(huge_memory::now().unused, unused);
}

TEST(HugeMemory, OfTheReserveIsZeroAgainWhenItIsGivenAgain) {
    ASSERT_TRUE(huge_memory::reserve(2 * huge_memory::page));
    for (int round = 0; round < 2; ++round) {
        void* const memory = huge_memory::take(2 * huge_memory::page, huge_memory::pages::huge);
        EXPECT_TRUE(is_zero(memory, 2 * huge_memory::page));
        std::memset(memory, 1, 2 * huge_memory::page);
        huge_memory::give_back(memory, 2 * huge_memory::page);
    }
}

TEST(HugeMemory, IsGivenAlsoWhereTheReserveHasNoRoom) {
    ASSERT_TRUE(huge_memory::reserve(huge_memory::page));
    const std::size_t size = huge_memory::now().reserved + huge_memory::page;
    void* const memory = huge_memory::take(size, huge_memory::pages::small);
    ASSERT_NE(memory, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory) % huge_memory::page, 0u);
    EXPECT_EQ(*static_cast<const std::uint8_t*>(memory), 0);
    huge_memory::give_back(memory, size);
}

} // namespace
} // namespace esplane::slab_test

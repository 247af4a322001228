// SPDX-License-Identifier: Apache-2.0
//
// Where memory lies.  A machine with one node shows that what is asked for is found again, and that
// a node that is not there changes nothing.
#include "fastpath/numa.h"

#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "fastpath/buffer_pool.h"

namespace esplane::fastpath {
namespace {

constexpr int not_there = 1000;

TEST(Numa, TheCpuWeRunOnHasTheNodeThatItsPagesAreOn) {
    unsigned cpu = 0, node = 0;
    ASSERT_EQ(::getcpu(&cpu, &node), 0);
    EXPECT_EQ(node_of_cpu(static_cast<int>(cpu)), static_cast<int>(node));
    EXPECT_EQ(node_of_cpu(-1), -1);
    EXPECT_EQ(node_of_cpu(1 << 20), -1);
}

TEST(Numa, PagesLieOnTheNodeThatWasAskedFor) {
    const std::size_t bytes = 1u << 20;
    void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(at, MAP_FAILED);
    const int node = node_of_cpu(0);
    ASSERT_GE(node, 0);
    prefer_node(at, bytes, node);
    std::memset(at, 1, bytes);
    for (std::size_t i = 0; i < bytes; i += 4096)
        ASSERT_EQ(node_of_page(static_cast<std::uint8_t*>(at) + i), node);
    ::munmap(at, bytes);
}

TEST(Numa, ANodeThatIsNotThereChangesNothing) {
    const node_scope here(not_there);
    std::vector<std::uint8_t> touched(1u << 20, 1);
    EXPECT_GE(node_of_page(touched.data()), 0);
    const int nodes[] = {not_there, -1};
    const auto pool = buffer_pool::make(1024, 2, nodes).value();
    std::vector<std::uint64_t> frames(pool->count());
    EXPECT_EQ(pool->take(frames), pool->count());
}

TEST(Numa, EachLanesFramesLieOnItsNode) {
    const int node = node_of_cpu(0);
    ASSERT_GE(node, 0);
    const int nodes[] = {node, node, node};
    const auto pool = buffer_pool::make(1000, 3, nodes).value();
    for (std::uint32_t i = 0; i < pool->count(); ++i)
        ASSERT_EQ(node_of_page(pool->base() + std::uint64_t{i} * buffer_pool::frame_size), node);
}

} // namespace
} // namespace esplane::fastpath

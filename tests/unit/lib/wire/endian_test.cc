// SPDX-License-Identifier: Apache-2.0
#include "lib/wire/endian.h"

#include <gtest/gtest.h>

#include <array>
#include <type_traits>

namespace esplane::wire {
namespace {

static_assert(!std::is_convertible_v<std::uint32_t, be32>, "byte order is never implicit");
static_assert(!std::is_convertible_v<be32, std::uint32_t>, "byte order is never implicit");
static_assert(std::is_trivially_copyable_v<be64>);

TEST(BigEndian, LiesInMemoryMostSignificantByteFirst) {
    const be32 value(0x01020304);
    const auto bytes = std::bit_cast<std::array<std::uint8_t, 4>>(value);
    EXPECT_EQ(bytes, (std::array<std::uint8_t, 4>{1, 2, 3, 4}));
}

TEST(BigEndian, ComesBackAsItWent) {
    EXPECT_EQ(be16(0xabcd).host(), 0xabcd);
    EXPECT_EQ(be64(0x0102030405060708).host(), 0x0102030405060708u);
    EXPECT_EQ(be32::from_network(be32(77).network()), be32(77));
}

TEST(BigEndian, OrdersByValueNotByBytes) {
    EXPECT_LT(be32(0x000000ff), be32(0x00000100));
}

TEST(LoadAndStore, WorkAtOddAddresses) {
    std::array<std::uint8_t, 9> buffer{};
    store(buffer.data() + 1, be64(0x1122334455667788));
    EXPECT_EQ(buffer[1], 0x11);
    EXPECT_EQ(load<be64>(buffer.data() + 1).host(), 0x1122334455667788u);
}

} // namespace
} // namespace esplane::wire

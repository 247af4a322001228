// SPDX-License-Identifier: Apache-2.0
#include "lib/wire/headers.h"

#include <gtest/gtest.h>

#include <cstddef>

namespace esplane::wire {
namespace {

TEST(Headers, FieldsLieWhereTheRfcsPutThem) {
    EXPECT_EQ(offsetof(ethernet_header, type), 12u);
    EXPECT_EQ(offsetof(ipv4_header, total_length), 2u);
    EXPECT_EQ(offsetof(ipv4_header, fragment), 6u);
    EXPECT_EQ(offsetof(ipv4_header, ttl), 8u);
    EXPECT_EQ(offsetof(ipv4_header, protocol), 9u);
    EXPECT_EQ(offsetof(ipv4_header, checksum), 10u);
    EXPECT_EQ(offsetof(ipv4_header, destination), 16u);
    EXPECT_EQ(offsetof(ipv6_header, payload_length), 4u);
    EXPECT_EQ(offsetof(ipv6_header, next_header), 6u);
    EXPECT_EQ(offsetof(ipv6_header, hop_limit), 7u);
    EXPECT_EQ(offsetof(ipv6_header, source), 8u);
    EXPECT_EQ(offsetof(ipv6_header, destination), 24u);
    EXPECT_EQ(offsetof(udp_header, checksum), 6u);
    EXPECT_EQ(offsetof(esp_header, sequence), 4u);
}

TEST(Headers, NoneNeedsAlignment) {
    EXPECT_EQ(alignof(ethernet_header), 1u);
    EXPECT_EQ(alignof(udp_header), 1u);
    EXPECT_EQ(alignof(esp_header), 1u);
}

} // namespace
} // namespace esplane::wire

// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/address.h"

#include <gtest/gtest.h>

namespace esplane::ipsec {
namespace {

TEST(Address, TextComesBackInCanonicalForm) {
    EXPECT_EQ(address::parse("10.1.0.1")->to_string(), "10.1.0.1");
    EXPECT_EQ(address::parse("fd01:0:0::1")->to_string(), "fd01::1");
    EXPECT_EQ(address().to_string(), "any");
}

TEST(Address, TextThatIsNoneIsRefusedByName) {
    for (const char* text : {"", "10.1.0", "10.1.0.256", "fd01::1::2", "gateway"}) {
        const auto a = address::parse(text);
        ASSERT_FALSE(a) << text;
        EXPECT_EQ(a.error().code, EINVAL);
        EXPECT_NE(a.error().text.find(text), std::string::npos);
    }
}

TEST(Address, OfIpv4HasNoOtherBytes) {
    const address a = address::v4(wire::be32(0x0a010001));
    EXPECT_EQ(a, *address::parse("10.1.0.1"));
    EXPECT_EQ(a.as_v4(), wire::be32(0x0a010001));
    for (std::size_t i = 4; i < a.bytes.size(); ++i)
        EXPECT_EQ(a.bytes[i], 0);
}

TEST(Address, ZeroIsAnyInBothFamilies) {
    EXPECT_TRUE(address().is_any());
    EXPECT_TRUE(address::parse("0.0.0.0")->is_any());
    EXPECT_TRUE(address::parse("::")->is_any());
    EXPECT_FALSE(address::parse("::1")->is_any());
}

TEST(Prefix, ComparesExactlyItsBits) {
    const auto a = *address::parse("10.1.0.0");
    const auto b = *address::parse("10.1.0.1");
    for (unsigned length = 0; length <= 31; ++length)
        EXPECT_TRUE(prefix_equal(a.bytes.data(), b.bytes.data(), length)) << length;
    EXPECT_FALSE(prefix_equal(a.bytes.data(), b.bytes.data(), 32));
}

TEST(Prefix, MaskingClearsExactlyTheRest) {
    const auto a = *address::parse("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    EXPECT_EQ(masked(a, 0).to_string(), "::");
    EXPECT_EQ(masked(a, 1).to_string(), "8000::");
    EXPECT_EQ(masked(a, 33).to_string(), "ffff:ffff:8000::");
    EXPECT_EQ(masked(a, 128), a);
}

} // namespace
} // namespace esplane::ipsec

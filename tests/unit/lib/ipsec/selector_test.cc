// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/selector.h"

#include <gtest/gtest.h>

namespace esplane::ipsec {
namespace {

selector networks(const char* source, std::uint8_t source_prefix, const char* destination,
                  std::uint8_t destination_prefix) {
    selector s;
    s.source = *address::parse(source);
    s.destination = *address::parse(destination);
    s.source_prefix = source_prefix;
    s.destination_prefix = destination_prefix;
    s.fam = s.source.fam;
    return s;
}

flow packet(const char* source, const char* destination, std::uint8_t protocol = 17,
            std::uint16_t source_port = 1000, std::uint16_t destination_port = 53) {
    return {*address::parse(source), *address::parse(destination), wire::be16(source_port),
            wire::be16(destination_port), protocol};
}

TEST(Selector, CoversItsNetworksOnly) {
    const selector s = networks("10.1.0.0", 24, "10.2.0.0", 16);
    EXPECT_TRUE(s.matches(packet("10.1.0.9", "10.2.255.1")));
    EXPECT_FALSE(s.matches(packet("10.1.1.9", "10.2.255.1")));
    EXPECT_FALSE(s.matches(packet("10.1.0.9", "10.3.0.1")));
    EXPECT_FALSE(s.matches(packet("10.2.0.1", "10.1.0.9")));
}

TEST(Selector, OfOneFamilyNeverCoversTheOther) {
    EXPECT_FALSE(networks("0.0.0.0", 0, "0.0.0.0", 0).matches(packet("fd01::1", "fd01::2")));
    EXPECT_FALSE(networks("::", 0, "::", 0).matches(packet("10.1.0.1", "10.1.0.2")));
}

TEST(Selector, WithoutAFamilyCoversBoth) {
    EXPECT_TRUE(selector().matches(packet("fd01::1", "fd01::2")));
    EXPECT_TRUE(selector().matches(packet("10.1.0.1", "10.1.0.2")));
}

TEST(Selector, LooksAtPortsThroughTheirMasks) {
    selector s = networks("10.1.0.0", 24, "10.2.0.0", 24);
    s.destination_port = wire::be16(0x0400);
    s.destination_port_mask = wire::be16(0xfc00);
    EXPECT_TRUE(s.matches(packet("10.1.0.1", "10.2.0.1", 17, 9, 1024)));
    EXPECT_TRUE(s.matches(packet("10.1.0.1", "10.2.0.1", 17, 9, 2047)));
    EXPECT_FALSE(s.matches(packet("10.1.0.1", "10.2.0.1", 17, 9, 1023)));
    EXPECT_FALSE(s.matches(packet("10.1.0.1", "10.2.0.1", 17, 9, 2048)));
}

TEST(Selector, OfAProtocolCoversNoOther) {
    selector s = networks("10.1.0.0", 24, "10.2.0.0", 24);
    s.protocol = 6;
    EXPECT_TRUE(s.matches(packet("10.1.0.1", "10.2.0.1", 6)));
    EXPECT_FALSE(s.matches(packet("10.1.0.1", "10.2.0.1", 17)));
}

TEST(Selector, ReadsAsText) {
    selector s = networks("10.1.0.0", 24, "10.2.0.0", 16);
    EXPECT_EQ(s.to_string(), "10.1.0.0/24 10.2.0.0/16");
    s.protocol = 17;
    s.source_port = wire::be16(500);
    s.source_port_mask = wire::be16(0xffff);
    EXPECT_EQ(s.to_string(), "10.1.0.0/24 10.2.0.0/16 proto 17 sport 500");
}

} // namespace
} // namespace esplane::ipsec

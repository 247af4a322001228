// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/overhead.h"

#include <gtest/gtest.h>

namespace esplane::ipsec {
namespace {

sa made(suite run, mode how, const char* destination, bool encapsulated) {
    sa s;
    s.id.destination = *address::parse(destination);
    s.algs.run = run;
    s.run_mode = how;
    if (encapsulated) s.encap.emplace();
    return s;
}

TEST(Overhead, IsWhatTheKernelSaysInItsPacketTooBig) {
    const auto largest = [](suite run, mode how, const char* to, bool udp) {
        return largest_inner(made(run, how, to, udp), 1500);
    };
    EXPECT_EQ(largest(suite::aes128_gcm16, mode::tunnel, "192.0.2.1", false), 1446u);
    EXPECT_EQ(largest(suite::aes128_gcm16, mode::tunnel, "192.0.2.1", true), 1438u);
    EXPECT_EQ(largest(suite::aes256_gcm16, mode::tunnel, "2001:db8::1", false), 1426u);
    EXPECT_EQ(largest(suite::aes256_cbc_sha256_128, mode::tunnel, "192.0.2.1", false), 1438u);
    EXPECT_EQ(largest(suite::aes256_cbc_sha256_128, mode::tunnel, "192.0.2.1", true), 1422u);
    EXPECT_EQ(largest(suite::null_sha256_128, mode::tunnel, "192.0.2.1", false), 1454u);
    EXPECT_EQ(largest(suite::aes128_gcm16, mode::transport, "192.0.2.1", false), 1466u);
    EXPECT_EQ(largest(suite::aes128_gcm16, mode::transport, "2001:db8::1", true), 1458u);
}

TEST(Overhead, TheLargestInnerPacketFitsAndOneByteMoreDoesNot) {
    for (unsigned run = 0; run < suite_count; ++run)
        for (const mode how : {mode::tunnel, mode::transport})
            for (const char* to : {"192.0.2.1", "2001:db8::1"})
                for (const bool udp : {false, true}) {
                    const overhead o = overhead_of(made(static_cast<suite>(run), how, to, udp));
                    for (std::uint32_t mtu = 576; mtu < 1600; ++mtu) {
                        const std::uint32_t inner = o.largest_inner(mtu);
                        ASSERT_LE(o.outer_length(inner), mtu);
                        ASSERT_GT(o.outer_length(inner + 1), mtu);
                    }
                }
}

TEST(Overhead, NothingFitsAPathShorterThanTheHeaders) {
    const sa s = made(suite::aes128_gcm16, mode::tunnel, "192.0.2.1", false);
    EXPECT_EQ(largest_inner(s, 0), 0u);
    EXPECT_EQ(largest_inner(s, 55), 0u);
    EXPECT_EQ(largest_inner(s, 56), 2u);
}

} // namespace
} // namespace esplane::ipsec

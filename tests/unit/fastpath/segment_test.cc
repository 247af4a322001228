// SPDX-License-Identifier: Apache-2.0
//
// Super-packets cut into what they stand for: what the segments say, put together, is what was cut.
#include "fastpath/segment.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "lib/wire/checksum.h"
#include "lib/wire/headers.h"

namespace esplane::tests {
namespace {

using fastpath::segmenter;
using bytes = std::vector<std::uint8_t>;

constexpr std::uint32_t first_sequence = 0xffff'f000; // wraps on its way
constexpr std::uint16_t first_id = 0xfffe;
constexpr std::uint8_t fin_psh_ack_cwr = 0x99;

struct shape {
    bool v4 = true;
    bool tcp = true;
    unsigned tags = 0;
    unsigned ip_options = 0;  ///< bytes, IPv4
    unsigned tcp_options = 0; ///< bytes
    std::size_t payload = 10000;

    [[nodiscard]] std::size_t ip_at() const { return 14 + 4 * tags; }
    [[nodiscard]] std::size_t l4_at() const { return ip_at() + (v4 ? 20 + ip_options : 40); }
    [[nodiscard]] std::size_t payload_at() const { return l4_at() + (tcp ? 20 + tcp_options : 8); }
};

bytes super_packet(const shape& s) {
    std::mt19937 random(7);
    bytes f(s.payload_at() + s.payload);
    for (std::uint8_t& b : f)
        b = static_cast<std::uint8_t>(random());
    for (unsigned i = 0; i < s.tags; ++i)
        wire::store(&f[12 + 4 * i], wire::be16(i + 1 == s.tags ? 0x8100 : 0x88a8));
    wire::store(&f[s.ip_at() - 2], wire::be16(s.v4 ? 0x0800 : 0x86dd));
    if (s.v4) {
        f[s.ip_at()] = static_cast<std::uint8_t>(0x45 + s.ip_options / 4);
        wire::store(&f[s.ip_at() + 4], wire::be16(first_id));
        f[s.ip_at() + 9] = s.tcp ? 6 : 17;
    } else {
        f[s.ip_at()] = 0x60;
        f[s.ip_at() + 6] = s.tcp ? 6 : 17;
    }
    if (s.tcp) {
        wire::store(&f[s.l4_at() + 4], wire::be32(first_sequence));
        f[s.l4_at() + 12] = static_cast<std::uint8_t>((5 + s.tcp_options / 4) << 4);
        f[s.l4_at() + 13] = fin_psh_ack_cwr;
    }
    return f;
}

/// The ones' complement sum of 16-bit words, byte by byte; 0xffff where a checksum in it is right.
std::uint32_t plain_sum(const bytes& b) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < b.size(); ++i)
        sum += i % 2 == 0 ? b[i] * 256u : b[i];
    while (sum > 0xffff)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

std::uint32_t l4_sum(const shape& s, const bytes& f) {
    bytes summed(f.begin() + static_cast<std::ptrdiff_t>(s.ip_at() + (s.v4 ? 12 : 8)),
                 f.begin() + static_cast<std::ptrdiff_t>(s.ip_at() + (s.v4 ? 20 : 40)));
    const std::size_t length = f.size() - s.l4_at();
    for (const std::size_t b :
         {std::size_t{0}, std::size_t{s.tcp ? 6u : 17u}, length >> 8, length & 0xff})
        summed.push_back(static_cast<std::uint8_t>(b));
    summed.insert(summed.end(), f.begin() + static_cast<std::ptrdiff_t>(s.l4_at()), f.end());
    return plain_sum(summed);
}

/// One segment against what it was cut from.
void check_segment(const shape& s, const bytes& whole, const bytes& f, std::size_t offset,
                   unsigned index) {
    const bool first = offset == 0, last = offset + f.size() - s.payload_at() == s.payload;
    EXPECT_TRUE(
        std::equal(f.begin(), f.begin() + static_cast<std::ptrdiff_t>(s.ip_at()), whole.begin()));
    const auto word = [&](std::size_t at) { return wire::load<wire::be16>(&f[at]).host(); };
    if (s.v4) {
        EXPECT_EQ(word(s.ip_at() + 2), f.size() - s.ip_at());
        EXPECT_EQ(word(s.ip_at() + 4), static_cast<std::uint16_t>(first_id + index));
        EXPECT_EQ(plain_sum({f.begin() + static_cast<std::ptrdiff_t>(s.ip_at()),
                             f.begin() + static_cast<std::ptrdiff_t>(s.l4_at())}),
                  0xffffu);
    } else {
        EXPECT_EQ(word(s.ip_at() + 4), f.size() - s.l4_at());
    }
    if (s.tcp) {
        EXPECT_EQ(wire::load<wire::be32>(&f[s.l4_at() + 4]).host(),
                  static_cast<std::uint32_t>(first_sequence + offset));
        EXPECT_EQ(f[s.l4_at() + 13], 0x10 | (first ? 0x80 : 0) | (last ? 0x09 : 0));
    } else {
        EXPECT_EQ(word(s.l4_at() + 4), f.size() - s.l4_at());
    }
    EXPECT_EQ(l4_sum(s, f), 0xffffu);
}

void check(const shape& s, std::uint32_t size) {
    const bytes whole = super_packet(s);
    segmenter cut;
    ASSERT_TRUE(cut.start(whole, size));
    EXPECT_EQ(cut.longest(), s.payload_at() + size);
    bytes payload;
    for (unsigned index = 0; !cut.done(); ++index) {
        bytes f(cut.longest());
        f.resize(cut.next(f.data()));
        ASSERT_GT(f.size(), s.payload_at());
        check_segment(s, whole, f, payload.size(), index);
        payload.insert(payload.end(), f.begin() + static_cast<std::ptrdiff_t>(s.payload_at()),
                       f.end());
    }
    EXPECT_EQ(payload,
              bytes(whole.begin() + static_cast<std::ptrdiff_t>(s.payload_at()), whole.end()));
}

TEST(Segmenter, WhatItCutsPutTogetherIsWhatThereWas) {
    for (const bool v4 : {true, false})
        for (const bool tcp : {true, false})
            for (const unsigned tags : {0u, 1u, 2u})
                for (const std::uint32_t size : {1u, 536u, 1448u, 9999u, 10000u, 20000u})
                    check({v4, tcp, tags, v4 ? 8u : 0u, tcp ? 12u : 0u,
                           size == 1 ? std::size_t{50} : std::size_t{10000}},
                          size);
}

TEST(Segmenter, WithoutEthernetItCutsTheSame) {
    for (const bool v4 : {true, false})
        for (const bool tcp : {true, false}) {
            const shape s{.v4 = v4, .tcp = tcp};
            const bytes frame = super_packet(s);
            const bytes packet(frame.begin() + 14, frame.end());
            segmenter of_frame, of_packet;
            ASSERT_TRUE(of_frame.start(frame, 1448));
            ASSERT_TRUE(of_packet.start_ip(packet, 1448));
            while (!of_frame.done()) {
                ASSERT_FALSE(of_packet.done());
                bytes expected(of_frame.longest()), got(of_packet.longest());
                expected.resize(of_frame.next(expected.data()));
                got.resize(of_packet.next(got.data()));
                EXPECT_EQ(got, bytes(expected.begin() + 14, expected.end()));
            }
            EXPECT_TRUE(of_packet.done());
        }
    segmenter cut;
    EXPECT_FALSE(cut.start_ip({}, 1448));
    EXPECT_FALSE(cut.start_ip(bytes(10000, 0x50), 1448));
}

TEST(Segmenter, WhatIsNeitherTcpNorUdpBehindIpIsRefused) {
    const bytes good = super_packet({});
    bytes arp = good, gre = good, options = good, tcp = good;
    wire::store(&arp[12], wire::be16(0x0806));
    gre[23] = 47;
    options[14] = 0x44; // shorter than an IP header can be
    tcp[14 + 20 + 12] = 0x40;
    segmenter cut;
    for (const bytes& bad : {arp, gre, options, tcp})
        EXPECT_FALSE(cut.start(bad, 1448));
    EXPECT_FALSE(cut.start(good, 0));
    EXPECT_TRUE(cut.done());
}

TEST(Segmenter, NothingIsReadPastTheEnd) {
    for (const shape& s : {shape{}, shape{.v4 = false}, shape{.tcp = false}, shape{.tags = 2}}) {
        const bytes whole = super_packet(s);
        for (std::size_t length = 0; length <= s.payload_at(); ++length) {
            const bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
            segmenter cut;
            EXPECT_FALSE(cut.start(part, 1448)) << length;
        }
    }
}

} // namespace
} // namespace esplane::tests

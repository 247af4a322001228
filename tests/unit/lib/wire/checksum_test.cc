// SPDX-License-Identifier: Apache-2.0
#include "lib/wire/checksum.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

namespace esplane::wire {
namespace {

/// RFC 1071 word by word, in host order: slow and plain.
std::uint16_t plain_checksum(const std::vector<std::uint8_t>& bytes) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); i += 2) {
        const unsigned low = i + 1 < bytes.size() ? bytes[i + 1] : 0;
        sum += (unsigned{bytes[i]} << 8) | low;
        if (sum > 0xffff) sum -= 0xffff;
    }
    return static_cast<std::uint16_t>(~sum);
}

TEST(Checksum, OfRfc1071sExampleIsItsAnswer) {
    const std::array<std::uint8_t, 8> bytes{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    EXPECT_EQ(checksum_finish(checksum_add(0, bytes.data(), bytes.size())).host(),
              static_cast<std::uint16_t>(~0xddf2));
}

TEST(Checksum, OfRandomBytesOfEveryLengthIsThePlainOne) {
    std::mt19937 random(1);
    for (std::size_t length = 0; length <= 300; ++length) {
        std::vector<std::uint8_t> bytes(length);
        for (auto& b : bytes)
            b = static_cast<std::uint8_t>(random());
        EXPECT_EQ(checksum_finish(checksum_add(0, bytes.data(), length)).host(),
                  plain_checksum(bytes))
            << length << " bytes";
    }
}

TEST(Checksum, OfTheLargestPacketOfOnesDoesNotOverflow) {
    const std::vector<std::uint8_t> bytes(65535, 0xff);
    EXPECT_EQ(checksum_finish(checksum_add(0, bytes.data(), bytes.size())).host(),
              plain_checksum(bytes));
}

TEST(Checksum, CanBeTakenPieceByPiece) {
    const std::array<std::uint8_t, 7> bytes{9, 8, 7, 6, 5, 4, 3};
    const auto whole = checksum_add(0, bytes.data(), 7);
    const auto pieces = checksum_add(checksum_add(0, bytes.data(), 2), bytes.data() + 2, 5);
    EXPECT_EQ(checksum_fold(whole), checksum_fold(pieces));
}

TEST(Checksum, OfAShortSumIsThatOfALongOne) {
    std::mt19937 random(3);
    for (const std::uint32_t high : {0u, 1u, 0x7fffu, 0xfffeu, 0xffffu})
        for (const std::uint32_t low : {0u, 1u, 0x7fffu, 0xfffeu, 0xffffu})
            EXPECT_EQ(checksum_fold(high << 16 | low), checksum_fold(std::uint64_t{high + low}))
                << high << ' ' << low;
    for (int round = 0; round < 10000; ++round) {
        const auto sum = static_cast<std::uint32_t>(random());
        EXPECT_EQ(checksum_finish(sum), checksum_finish(std::uint64_t{sum})) << sum;
    }
}

TEST(Checksum, UpdatedForOneWordIsTheChecksumTakenAnew) {
    std::mt19937 random(2);
    for (int round = 0; round < 10000; ++round) {
        std::array<be16, 10> words;
        for (auto& w : words)
            w = be16(static_cast<std::uint16_t>(random()));
        const be16 before = checksum_finish(checksum_add(0, words.data(), sizeof words));
        const be16 old = words[3];
        words[3] = be16(static_cast<std::uint16_t>(random()));
        const be16 after = checksum_finish(checksum_add(0, words.data(), sizeof words));
        EXPECT_EQ(checksum_update(before, old, words[3]), after);
    }
}

TEST(Checksum, OfThePseudoHeaderIsThatOfItsBytes) {
    const std::array<std::uint8_t, 4> source{10, 1, 0, 1};
    const std::array<std::uint8_t, 4> destination{10, 2, 0, 255};
    const std::vector<std::uint8_t> bytes{10, 1, 0, 1, 10, 2, 0, 255, 0, 17, 0x12, 0x34};
    const auto sum = checksum_pseudo(source.data(), destination.data(), 4, 17, 0x1234);
    EXPECT_EQ(checksum_finish(sum).host(), plain_checksum(bytes));
}

TEST(Checksum, ACopyIsTheSameBytesAndTheSameSum) {
    std::vector<std::uint8_t> from(300);
    for (std::size_t i = 0; i < from.size(); ++i)
        from[i] = static_cast<std::uint8_t>(i * i + 251 * i);
    for (std::size_t at = 0; at < 8; ++at)
        for (std::size_t length = 0; length < 280; ++length) {
            std::vector<std::uint8_t> into(300, 0xee), expected(into);
            std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(at), length,
                        expected.begin() + 3);
            const auto sum = checksum_copy(7, &into[3], &from[at], length);
            EXPECT_EQ(into, expected);
            EXPECT_EQ(checksum_fold(sum), checksum_fold(checksum_add(7, &from[at], length)));
        }
}

} // namespace
} // namespace esplane::wire

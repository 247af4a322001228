// SPDX-License-Identifier: Apache-2.0
#include "lib/base/secret.h"

#include <gtest/gtest.h>

namespace esplane {
namespace {

secret of(std::vector<std::uint8_t> bytes) {
    return secret(bytes);
}

TEST(Secret, MovingLeavesNothingBehind) {
    secret from = of({1, 2, 3});
    const secret to = std::move(from);
    EXPECT_TRUE(from.empty()); // NOLINT(bugprone-use-after-move): the point of the test
    EXPECT_EQ(to.size(), 3u);
}

TEST(Secret, EqualityLooksAtEveryByteAndTheLength) {
    EXPECT_TRUE(of({1, 2, 3}).equals(of({1, 2, 3})));
    EXPECT_FALSE(of({1, 2, 3}).equals(of({1, 2, 4})));
    EXPECT_FALSE(of({1, 2, 3}).equals(of({0, 2, 3})));
    EXPECT_FALSE(of({1, 2, 3}).equals(of({1, 2})));
}

TEST(Secret, ACloneIsEqualAndItsOwn) {
    secret first = of({7, 8});
    const secret second = first.clone();
    first = of({});
    EXPECT_TRUE(second.equals(of({7, 8})));
}

} // namespace
} // namespace esplane

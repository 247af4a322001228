// SPDX-License-Identifier: Apache-2.0
#include "fastpath/balance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/wire/headers.h"

namespace esplane::fastpath {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

ipsec::sa_id id(std::uint32_t spi) {
    return {{}, wire::be32(spi), wire::proto_esp};
}

std::vector<std::uint32_t> spis(const std::vector<ipsec::sa_id>& ids) {
    std::vector<std::uint32_t> all;
    for (const ipsec::sa_id& one : ids)
        all.push_back(one.spi.host());
    return all;
}

TEST(Balancer, MovesOnlyWhatStaysUnequal) {
    balancer b;
    const double unequal[] = {0.95, 0.1}, equal[] = {0.95, 0.9};
    EXPECT_FALSE(b.look(unequal));
    EXPECT_FALSE(b.look(equal));
    for (unsigned i = 0; i < balancer::patience - 2; ++i)
        EXPECT_FALSE(b.look(unequal));
    const auto measure = b.look(unequal);
    ASSERT_TRUE(measure);
    EXPECT_FALSE(measure->now);
    const auto move = b.look(unequal);
    ASSERT_TRUE(move);
    EXPECT_TRUE(move->now);
    EXPECT_EQ(move->from, 0u);
    EXPECT_EQ(move->to, 1u);
    for (unsigned i = 0; i < balancer::rest + 1; ++i)
        EXPECT_FALSE(b.look(unequal)) << "what moved must show first";
    EXPECT_TRUE(b.look(unequal));
}

TEST(Balancer, LeavesWorkersAloneThatHaveTime) {
    balancer b;
    const double shares[] = {0.7, 0.0};
    for (unsigned i = 0; i < 20; ++i)
        EXPECT_FALSE(b.look(shares));
}

TEST(Balancer, GivesNothingToAWorkerThatTakesNoPart) {
    balancer b;
    const double shares[] = {0.9, -1, 0.8};
    for (unsigned i = 0; i < 20; ++i)
        EXPECT_FALSE(b.look(shares));
}

TEST(Balancer, ChoosesTheLargestThatFitIntoHalfTheDifference) {
    const balancer::imbalance i{0, 1, 0.8, true};
    EXPECT_THAT(spis(balancer::choose(i, 0.9, {{id(1), 50}, {id(2), 30}, {id(3), 20}})),
                ElementsAre(1)); // 0.45: more than half, but better than none
    EXPECT_THAT(spis(balancer::choose(i, 0.9, {{id(1), 40}, {id(2), 40}, {id(3), 20}})),
                ElementsAre(1)); // 0.36, then 0.04 are left
    EXPECT_THAT(
        spis(balancer::choose(i, 0.9, {{id(1), 25}, {id(2), 25}, {id(3), 25}, {id(4), 25}})),
        ElementsAre(1)); // 0.225, and the next would pass the half
}

TEST(Balancer, CallsAnSaFatThatMakesMoreThanHalf) {
    EXPECT_EQ(balancer::fat_one({{id(1), 10}, {id(2), 100}, {id(3), 20}}), id(2));
    EXPECT_FALSE(balancer::fat_one({{id(1), 50}, {id(2), 50}}));
    EXPECT_FALSE(balancer::fat_one({}));
}

TEST(Balancer, LeavesTheOnlySaWhereItIs) {
    const balancer::imbalance i{0, 1, 0.85, true};
    EXPECT_THAT(balancer::choose(i, 0.95, {{id(1), 1000}}), IsEmpty());
    EXPECT_THAT(balancer::choose(i, 0.95, {}), IsEmpty());
    EXPECT_THAT(balancer::choose(i, 0.95, {{id(1), 0}, {id(2), 0}}), IsEmpty());
}

} // namespace
} // namespace esplane::fastpath

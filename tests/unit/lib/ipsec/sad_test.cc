// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/sad.h"

#include <gtest/gtest.h>

namespace esplane::ipsec {
namespace {

sa with_spi(std::uint32_t spi, const char* destination = "10.1.0.2") {
    sa s;
    s.id = {*address::parse(destination), wire::be32(spi), 50};
    return s;
}

std::vector<std::uint32_t> walk(sad& db) {
    std::vector<std::uint32_t> spis;
    for (auto* e = db.newest_from(~0ull); e != nullptr; e = db.newest_from(e->serial - 1))
        spis.push_back(e->id.spi.host());
    return spis;
}

TEST(Sad, FindsAnSaByAllPartsOfItsId) {
    sad db;
    db.insert(with_spi(1));
    EXPECT_NE(db.find(with_spi(1).id), nullptr);
    EXPECT_EQ(db.find(with_spi(2).id), nullptr);
    EXPECT_EQ(db.find(with_spi(1, "10.1.0.3").id), nullptr);
    EXPECT_EQ(db.find(with_spi(1, "a01:2::").id), nullptr) << "same bytes, other family";
    sa_id ah = with_spi(1).id;
    ah.protocol = 51;
    EXPECT_EQ(db.find(ah), nullptr);
}

sa with_mark(std::uint32_t value, std::uint32_t mask) {
    sa s = with_spi(1);
    s.id.mark = {value, mask};
    return s;
}

TEST(Sad, FindsTheSaThatARequestsMarkIsFor) {
    sad db;
    const auto* five = &db.insert(with_mark(5, 0xff));
    const auto* six = &db.insert(with_mark(6, 0xff));
    EXPECT_EQ(db.find(with_mark(5, 0xff).id), five);
    EXPECT_EQ(db.find(with_mark(0x106, 0xffff).id), six) << "the SA's mask says what counts";
    EXPECT_EQ(db.find(with_mark(7, 0xff).id), nullptr);
    EXPECT_EQ(db.find(with_spi(1).id), nullptr) << "no mark is mark 0";
    EXPECT_TRUE(db.knows_spi(wire::be32(1), 50));
    const auto* any = &db.insert(with_spi(1));
    EXPECT_EQ(db.find(with_spi(1).id), any);
    EXPECT_EQ(db.find(with_mark(5, 0xff).id), any) << "the newest of those it is for";
    EXPECT_EQ(db.find_exact(with_mark(5, 0xff).id), five);
}

TEST(Sad, AnSaWithAMarkThatIsTakenOutIsGone) {
    sad db;
    db.insert(with_mark(6, 0xff));
    db.erase(db.insert(with_mark(5, 0xff)));
    EXPECT_EQ(db.find(with_mark(5, 0xff).id), nullptr);
    EXPECT_NE(db.find(with_mark(6, 0xff).id), nullptr);
    db.erase(*db.find(with_mark(6, 0xff).id));
    EXPECT_FALSE(db.knows_spi(wire::be32(1), 50));
}

TEST(Sad, WalksFromTheNewestDown) {
    sad db;
    for (std::uint32_t spi : {1u, 2u, 3u})
        db.insert(with_spi(spi));
    EXPECT_EQ(walk(db), (std::vector<std::uint32_t>{3, 2, 1}));
}

TEST(Sad, AnSaTakenOutIsGoneFromEveryIndex) {
    sad db;
    db.insert(with_spi(1));
    auto& middle = db.insert(with_spi(2));
    const std::uint64_t serial = middle.serial;
    db.insert(with_spi(3));
    db.erase(middle);
    EXPECT_EQ(db.find(with_spi(2).id), nullptr);
    EXPECT_EQ(db.find_serial(serial), nullptr);
    EXPECT_EQ(walk(db), (std::vector<std::uint32_t>{3, 1}));
    EXPECT_EQ(db.size(), 2u);
}

TEST(Sad, ASerialIsNeverGivenTwice) {
    sad db;
    const std::uint64_t first = db.insert(with_spi(1)).serial;
    db.erase(*db.find(with_spi(1).id));
    EXPECT_GT(db.insert(with_spi(1)).serial, first);
}

TEST(Sad, KnowsAnSpiForAsLongAsAnyOfManyHasIt) {
    sad db;
    const char* const destinations[] = {"10.0.0.1", "10.0.0.2", "10.0.0.3"};
    for (const char* destination : destinations)
        db.insert(with_spi(1, destination));
    for (const char* destination : destinations) {
        EXPECT_TRUE(db.knows_spi(wire::be32(1), 50));
        EXPECT_FALSE(db.knows_spi(wire::be32(1), 51));
        db.erase(*db.find(with_spi(1, destination).id));
    }
    EXPECT_FALSE(db.knows_spi(wire::be32(1), 50));
}

TEST(Sad, EntriesStayWhereTheyAreWhileItGrows) {
    sad db;
    auto& first = db.insert(with_spi(1));
    for (std::uint32_t spi = 2; spi < 10'000; ++spi)
        db.insert(with_spi(spi));
    EXPECT_EQ(db.find(with_spi(1).id), &first);
    EXPECT_EQ(db.find_serial(1), &first);
}

} // namespace
} // namespace esplane::ipsec

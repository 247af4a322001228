// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/spd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace esplane::ipsec {
namespace {

using enum policy_direction;

policy from(const char* source, policy_direction dir = out) {
    policy p;
    p.dir = dir;
    p.sel.fam = family::ipv4;
    p.sel.source = *address::parse(source);
    p.sel.source_prefix = 32;
    return p;
}

spd::entry& put(spd& db, policy p) {
    const std::uint32_t wanted = std::exchange(p.index, db.choose_index(p.dir, p.index));
    const bool chosen = p.index != wanted;
    return db.insert(std::move(p), chosen);
}

std::vector<std::uint32_t> walk(spd& db) {
    std::vector<std::uint32_t> indices;
    for (auto* e = db.newest_from(~0ull); e != nullptr; e = db.newest_from(e->serial - 1))
        indices.push_back(e->index);
    return indices;
}

// The numbers that a kernel 6.12 gave in the same order of calls.
TEST(Spd, GivesIndicesAsTheKernelDoes) {
    spd db;
    EXPECT_EQ(put(db, from("10.0.0.1", out)).index, 1u);
    EXPECT_EQ(put(db, from("10.0.0.2", in)).index, 8u);
    EXPECT_EQ(put(db, from("10.0.0.3", fwd)).index, 18u);
    EXPECT_EQ(put(db, from("10.0.0.4", out)).index, 25u);
    EXPECT_EQ(put(db, from("10.0.0.5", out)).index, 33u);
}

TEST(Spd, KeepsPoliciesOfTwoInterfacesApart) {
    spd db;
    policy p = from("10.0.0.1");
    const auto* none = &put(db, p);
    p.if_id = 7;
    const auto* seven = &put(db, p);
    EXPECT_EQ(db.find({out, p.sel, 0, 0}), none);
    EXPECT_EQ(db.find({out, p.sel, 0, 7}), seven);
    EXPECT_EQ(db.find({out, p.sel, 0, 8}), nullptr);
    EXPECT_EQ(db.find({out, {}, seven->index, 7}), seven);
    EXPECT_EQ(db.find({out, {}, seven->index, 0}), nullptr);
}

TEST(Spd, NeverGivesIndexZero) {
    spd db;
    EXPECT_EQ(put(db, from("10.0.0.1", in)).index, 8u);
    EXPECT_EQ(put(db, from("10.0.0.2", in)).index, 16u);
}

TEST(Spd, HonoursAnIndexThatIsFree) {
    spd db;
    policy p = from("10.0.0.1");
    p.index = 0x1001;
    EXPECT_EQ(put(db, p).index, 0x1001u);
    p.sel.source_prefix = 24;
    EXPECT_EQ(put(db, p).index, 1u) << "taken: the next free one";
}

TEST(Spd, SkipsIndicesThatClientsTook) {
    spd db;
    policy p = from("10.0.0.1");
    p.index = 9;
    put(db, p);
    EXPECT_EQ(put(db, from("10.0.0.2")).index, 1u);
    EXPECT_EQ(put(db, from("10.0.0.3")).index, 17u);
}

TEST(Spd, ChoosingAnIndexChangesNothing) {
    spd db;
    EXPECT_EQ(db.choose_index(out, 0), 1u);
    EXPECT_EQ(db.choose_index(out, 0), 1u);
}

TEST(Spd, FindsBySelectorWithinItsDirection) {
    spd db;
    put(db, from("10.0.0.1", out));
    EXPECT_NE(db.find({out, from("10.0.0.1").sel, 0}), nullptr);
    EXPECT_EQ(db.find({in, from("10.0.0.1").sel, 0}), nullptr);
    selector other = from("10.0.0.1").sel;
    other.ifindex = 3;
    EXPECT_EQ(db.find({out, other, 0}), nullptr);
}

TEST(Spd, FindsByIndexWhateverTheSelector) {
    spd db;
    put(db, from("10.0.0.1", out));
    EXPECT_NE(db.find({out, {}, 1}), nullptr);
    EXPECT_EQ(db.find({in, {}, 1}), nullptr);
    EXPECT_EQ(db.find({out, from("10.0.0.1").sel, 9}), nullptr);
}

TEST(Spd, APolicyReplacedIsTheNewest) {
    spd db;
    auto& first = put(db, from("10.0.0.1"));
    put(db, from("10.0.0.2"));
    policy p = first.describe();
    p.priority = 7;
    db.replace(first, std::move(p));
    EXPECT_EQ(walk(db), (std::vector<std::uint32_t>{1, 9}));
    EXPECT_EQ(first.describe().position, 3u);
    EXPECT_EQ(db.size(), 2u);
}

TEST(Spd, APolicyTakenOutIsGoneFromEveryIndex) {
    spd db;
    put(db, from("10.0.0.1"));
    put(db, from("10.0.0.2"));
    db.erase(*db.find_index(1));
    EXPECT_EQ(db.find({out, from("10.0.0.1").sel, 0}), nullptr);
    EXPECT_EQ(db.find_index(1), nullptr);
    EXPECT_EQ(db.find_serial(1), nullptr);
    EXPECT_EQ(walk(db), (std::vector<std::uint32_t>{9}));
    EXPECT_EQ(db.count(out), 1u);
}

/// Against a list, newest last.
TEST(Spd, FindsAndWalksAsAListDoes) {
    spd db;
    std::vector<std::pair<unsigned, std::uint32_t>> list; // number of the name, index
    std::mt19937 random(1);
    const auto name = [](unsigned n) {
        return from(("10.1." + std::to_string(n / 256) + "." + std::to_string(n % 256)).c_str());
    };
    const auto key = [&](unsigned n) { return policy_key{.dir = out, .sel = name(n).sel}; };
    const auto check = [&] {
        std::vector<std::uint32_t> newest_first;
        for (const auto& one : list)
            newest_first.insert(newest_first.begin(), one.second);
        ASSERT_EQ(walk(db), newest_first);
        ASSERT_EQ(db.size(), list.size());
    };
    for (unsigned round = 0; round < 6000; ++round) {
        const auto n = static_cast<unsigned>(random() % 500);
        const auto at = std::ranges::find(list, n, &std::pair<unsigned, std::uint32_t>::first);
        spd::entry* const e = db.find(key(n));
        ASSERT_EQ(e == nullptr, at == list.end());
        if (e == nullptr) {
            list.emplace_back(n, put(db, name(n)).index);
        } else if (random() % 4 == 0) { // the newest then
            policy p = name(n);
            p.index = e->index;
            db.replace(*e, std::move(p));
            std::rotate(at, at + 1, list.end());
        } else {
            ASSERT_EQ(db.find_index(at->second), e);
            ASSERT_EQ(db.find_serial(e->serial), e);
            db.erase(*e);
            list.erase(at);
        }
        if (round % 100 == 0) check();
    }
    while (!list.empty()) {
        db.erase(*db.find_index(list[list.size() / 2].second));
        list.erase(list.begin() + static_cast<long>(list.size() / 2));
        if (list.size() % 16 == 0) check();
    }
}

TEST(Spd, CountsByDirection) {
    spd db;
    put(db, from("10.0.0.1", in));
    put(db, from("10.0.0.1", out));
    put(db, from("10.0.0.2", out));
    EXPECT_EQ(db.count(in), 1u);
    EXPECT_EQ(db.count(out), 2u);
    EXPECT_EQ(db.count(fwd), 0u);
}

} // namespace
} // namespace esplane::ipsec

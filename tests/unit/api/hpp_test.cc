// SPDX-License-Identifier: Apache-2.0
//
// <esplane/esplane.hpp>, with nothing of the tree beside it.
#include <esplane/esplane.hpp>

#include <array>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

namespace {

using esplane::engine;

static_assert(!std::is_copy_constructible_v<engine> && std::is_move_constructible_v<engine>);
static_assert(!std::is_copy_constructible_v<esplane::worker>);

constexpr std::array<std::uint8_t, 20> key{1, 2, 3};

esplane::sa example_sa() {
    esplane::sa s;
    s.id.destination = *esplane::parse_address("192.0.2.2");
    s.id.spi = 7;
    s.aead = esplane::algorithm("rfc4106(gcm(aes))", key, 128);
    return s;
}

TEST(Hpp, AnEngineOwnsWhatItIsMadeOf) {
    std::vector<std::uint32_t> told;
    esplane::engine_options o;
    o.on_event = [&](const esplane_event& e) { told.push_back(e.kind); };
    auto made = engine::create(std::move(o));
    ASSERT_TRUE(made) << made.error().text;
    engine e = *std::move(made);
    engine moved = std::move(e);
    const esplane::sa s = example_sa();
    EXPECT_TRUE(moved.add(s, esplane::now()));
    EXPECT_TRUE(moved.remove(s.id));
    EXPECT_EQ(told, (std::vector<std::uint32_t>{ESPLANE_SA_ADDED, ESPLANE_SA_DELETED}));
}

TEST(Hpp, AnErrorSaysWhatIsWrong) {
    auto e = *engine::create({});
    esplane::sa s = example_sa();
    s.mode = 4; // BEET
    const auto refused = e.add(s, esplane::now());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EOPNOTSUPP);
    EXPECT_EQ(refused.error().field, "mode");
    EXPECT_FALSE(refused.error().text.empty());
    EXPECT_FALSE(esplane::parse_address("10.0.0"));
    esplane::engine_options o;
    o.abi_version = 0;
    EXPECT_EQ(engine::create(std::move(o)).error().code, EPROTONOSUPPORT);
}

TEST(Hpp, AWalkMeetsWhatWasAdded) {
    auto e = *engine::create({});
    ASSERT_TRUE(e.add(example_sa(), esplane::now()));
    std::uint64_t cursor = esplane::walk_start;
    esplane::sa found;
    auto more = e.next(cursor, found);
    ASSERT_TRUE(more && *more);
    EXPECT_EQ(found.id.spi, 7u);
    more = e.next(cursor, found);
    EXPECT_TRUE(more && !*more);
    EXPECT_EQ(e.get(example_sa().id)->aead.key_length, key.size());
}

TEST(Hpp, AWorkerIsOneUntilItGoes) {
    auto e = *engine::create({});
    {
        auto w = e.register_worker();
        ASSERT_TRUE(w);
        esplane::worker kept = *std::move(w);
        EXPECT_EQ(kept.index(), 0u);
        EXPECT_EQ(e.register_worker().error().code, EALREADY);
        std::vector<esplane::packet> none;
        EXPECT_TRUE(kept.outbound(none, esplane::now()));
        EXPECT_TRUE(kept.offline());
        EXPECT_TRUE(kept.online());
        EXPECT_TRUE(kept.quiescent());
    }
    EXPECT_TRUE(e.register_worker());
    EXPECT_EQ(e.count()->received, 0u);
}

TEST(Hpp, ReasonsHaveNames) {
    bool found = false;
    for (std::uint16_t r = 1; r < esplane_reason_count(); ++r) {
        EXPECT_FALSE(esplane::reason_text(r).empty());
        found = found || esplane::reason_name(r) == "icv_mismatch";
    }
    EXPECT_TRUE(found);
}

} // namespace

// SPDX-License-Identifier: Apache-2.0
#include "tools/nat_keepalives.h"

#include <gtest/gtest.h>

#include "tests/unit/lib/fake_backend.h"

namespace esplane::tools {
namespace {

struct NatKeepalives : testing::Test {
    static void no_random(std::span<std::uint8_t>) {}
    static moment at(std::uint64_t s) { return {(1000 + s) * 1'000'000'000, 1'000'000 + s}; }

    static ipsec::sa make(std::uint32_t spi, std::uint32_t interval) {
        ipsec::sa s;
        s.id = {*ipsec::address::parse("10.1.0.2"), wire::be32(spi), 50};
        s.source = *ipsec::address::parse("10.1.0.1");
        s.dir = ipsec::direction::out;
        s.encap = {wire::be16(4500), wire::be16(4500), {}};
        s.nat_keepalive = interval;
        return s;
    }
    void add(const ipsec::sa& s) { ASSERT_TRUE(layer.add_sa(s.clone(), {}, at(0))); }
    void used(const ipsec::sa& s, std::uint64_t when) {
        backend.usage[s.id].last_used = at(when).realtime_s;
    }

    control::fake_backend backend;
    control::layer layer{backend, no_random};
    std::vector<std::uint32_t> sent;
    nat_keepalives keepalives{layer,
                              [this](const ipsec::sa& s) { sent.push_back(s.id.spi.host()); }};
};

TEST_F(NatKeepalives, AnSaThatAsksForNoneGetsNone) {
    add(make(1, 0));
    EXPECT_FALSE(keepalives.next_ns());
    keepalives.tick(at(1000));
    EXPECT_TRUE(sent.empty());
}

TEST_F(NatKeepalives, ASilentSaGetsOneAtOnceAndOneEachInterval) {
    add(make(1, 20));
    for (std::uint64_t s = 0; s <= 60; ++s)
        keepalives.tick(at(s));
    EXPECT_EQ(sent.size(), 4u);
}

TEST_F(NatKeepalives, AnSaThatSendsNeedsNone) {
    const ipsec::sa s = make(1, 20);
    add(s);
    used(s, 0);
    keepalives.tick(at(0));
    EXPECT_TRUE(sent.empty());
    EXPECT_EQ(keepalives.next_ns(), at(20).monotonic_ns);
    used(s, 15);
    keepalives.tick(at(20));
    EXPECT_TRUE(sent.empty());
    keepalives.tick(at(34));
    EXPECT_TRUE(sent.empty());
    keepalives.tick(at(35));
    EXPECT_EQ(sent.size(), 1u);
}

TEST_F(NatKeepalives, AnSaThatIsGoneGetsNoneAnyMore) {
    const ipsec::sa s = make(1, 20);
    add(s);
    add(make(2, 20));
    ASSERT_TRUE(layer.delete_sa(s.id, {}));
    keepalives.tick(at(0));
    EXPECT_EQ(sent, (std::vector<std::uint32_t>{2}));
}

} // namespace
} // namespace esplane::tools

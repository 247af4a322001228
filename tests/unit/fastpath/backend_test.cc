// SPDX-License-Identifier: Apache-2.0
//
// From templates to SAs, under traffic.
#include "fastpath/backend.h"

#include <gtest/gtest.h>

#include <compare>
#include <iterator>
#include <random>
#include <set>

#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using ipsec::family;

using gateway_ports::plain;
using gateway_ports::secure;

struct Backend : testing::Test {
    lab one{1};

    std::vector<std::uint32_t> spis_of(const packet_spec& p) {
        one.push(plain, {make_packet(p)});
        std::vector<std::uint32_t> spis;
        for (const frame& f : one.sent(secure))
            spis.push_back(wire::load<wire::be32>(&f[f[9] == wire::proto_udp ? 28 : 20]).host());
        return spis;
    }
    std::vector<std::uint32_t> spis() { return spis_of({}); }
    [[nodiscard]] ipsec::sa leaving(std::uint32_t spi, std::uint32_t key_seed) const {
        const tunnel_options o{.spi = spi, .key_seed = key_seed};
        ipsec::sa s;
        s.id = one.sa_of(o, true);
        s.source = *ipsec::address::parse("192.168.77.1");
        s.reqid = o.reqid;
        s.algs = make_algorithms(o.run, key_seed);
        return s;
    }
    void add(ipsec::sa s) { ASSERT_TRUE(one.control.add_sa(std::move(s), {}, one.clock)); }
};

using spi_list = std::vector<std::uint32_t>;

TEST_F(Backend, TakesTheNewestSaThatIsNotDying) {
    one.add_policies({});
    ipsec::sa first = leaving(0x100, 1), second = leaving(0x200, 2);
    second.limits.soft_packets = 2;
    add(std::move(first));
    EXPECT_EQ(spis(), spi_list{0x100});
    add(std::move(second));
    EXPECT_EQ(spis(), spi_list{0x200});
    EXPECT_EQ(spis(), spi_list{0x200});
    EXPECT_EQ(spis(), spi_list{0x200}); // with this one the soft event comes
    EXPECT_EQ(spis(), spi_list{0x100});
    ASSERT_TRUE(one.control.delete_sa(leaving(0x100, 1).id, {}));
    EXPECT_EQ(spis(), spi_list{0x200}); // dying is better than none
}

TEST_F(Backend, OfManySasBetweenTheSameEndsTheNewestThatIsLeftIsTaken) {
    constexpr std::uint32_t count = 40;
    one.add_policies({});
    std::set<std::uint32_t> left;
    for (std::uint32_t spi = 0x100; spi < 0x100 + count; ++spi) {
        add(leaving(spi, spi));
        left.insert(spi);
    }
    for (std::uint32_t i = 0; i < count; ++i) {
        ASSERT_EQ(spis(), spi_list{*left.rbegin()});
        auto goes = left.begin();
        std::advance(goes, i * 7 % left.size()); // first, last and between
        ASSERT_TRUE(one.control.delete_sa(leaving(*goes, *goes).id, {}));
        left.erase(goes);
    }
    EXPECT_TRUE(spis().empty());
}

TEST_F(Backend, OfManySasTheBestIsTakenHoweverTheyCameAndWent) {
    struct known {
        bool lives;
        std::uint64_t add_time;
        std::uint32_t spi; // the later, the higher
        auto operator<=>(const known&) const = default;
    };
    one.add_policies({});
    std::minstd_rand random(3);
    std::set<known> there;
    for (std::uint32_t spi = 0x100; spi < 0x300; ++spi) {
        if (there.empty() || random() % 5 < 3) {
            ipsec::sa s = leaving(spi, spi);
            s.current.add_time = 1000 + random() % 8;
            s.dying = random() % 4 == 0;
            there.insert({!s.dying, s.current.add_time, spi});
            ASSERT_TRUE(one.control.restore_sa(std::move(s), one.clock));
        } else {
            auto goes = std::prev(there.end()); // mostly the best
            if (random() % 3 == 0) goes = there.begin();
            ASSERT_TRUE(one.control.delete_sa(leaving(goes->spi, 0).id, {}));
            there.erase(goes);
        }
        ASSERT_EQ(spis(), there.empty() ? spi_list{} : spi_list{there.rbegin()->spi});
    }
}

TEST_F(Backend, TakesOnlyTheSpiThatATemplateNames) {
    ipsec::policy p;
    p.dir = ipsec::policy_direction::out;
    p.sel.fam = family::ipv4;
    ipsec::template_ t;
    t.id.destination = *ipsec::address::parse("192.168.77.2");
    t.id.spi = wire::be32(0x100);
    t.source = *ipsec::address::parse("192.168.77.1");
    t.fam = family::ipv4;
    t.reqid = 1;
    p.templates = {t};
    one.add_policy(p);
    add(leaving(0x200, 2));
    EXPECT_TRUE(spis().empty());
    EXPECT_EQ(one.drops(drop_reason::sa_missing), 1u);
    add(leaving(0x100, 1));
    EXPECT_EQ(spis(), spi_list{0x100});
}

TEST_F(Backend, NeverSendsThroughAnSaOfTheOtherDirectionOrAnotherReqid) {
    one.add_policies({});
    ipsec::sa in = leaving(0x100, 1), other = leaving(0x200, 2);
    in.dir = ipsec::direction::in;
    other.reqid = 9;
    add(std::move(in));
    add(std::move(other));
    EXPECT_TRUE(spis().empty());
    ipsec::sa out = leaving(0x300, 3);
    out.dir = ipsec::direction::out;
    add(std::move(out));
    EXPECT_EQ(spis(), spi_list{0x300});
}

TEST_F(Backend, AnSaThatOnlySendsOpensNothing) {
    lab two{2};
    const tunnel_options o;
    two.add_policies(o);
    ipsec::sa s = leaving(0x1000, 3);
    s.dir = ipsec::direction::out;
    ASSERT_TRUE(two.control.add_sa(std::move(s), {}, two.clock));
    one.add_tunnel(o);
    one.push(plain, {make_packet({})});
    two.push(secure, one.sent(secure));
    EXPECT_EQ(two.drops(drop_reason::sa_unknown), 1u);
}

TEST_F(Backend, PassesByAnSaWhoseSelectorAFlowMisses) {
    one.add_policies({});
    add(leaving(0x100, 1));
    ipsec::sa narrow = leaving(0x200, 2);
    narrow.sel.fam = family::ipv4;
    narrow.sel.protocol = wire::proto_udp;
    narrow.sel.destination_port.set(53);
    narrow.sel.destination_port_mask.set(0xffff);
    add(std::move(narrow));
    EXPECT_EQ(spis_of({.destination_port = 53}), spi_list{0x200});
    EXPECT_EQ(spis_of({.destination_port = 54}), spi_list{0x100});
    EXPECT_EQ(spis_of({.family = family::ipv6}), spi_list{0x100});
}

TEST_F(Backend, RekeysWithoutLosingAPacket) {
    lab two{2};
    tunnel_options now;
    one.add_tunnel(now);
    two.add_tunnel(now);
    std::uint32_t sent = 0, received = 0;
    const auto traffic = [&] {
        std::vector<frame> burst;
        for (int i = 0; i < 20; ++i)
            burst.push_back(make_packet({.number = sent++}));
        one.push(plain, burst);
        two.push(secure, one.sent(secure));
        for (const frame& f : two.sent(plain))
            EXPECT_EQ(number_of(f), received++);
    };
    for (std::uint32_t generation = 1; generation < 50; ++generation) {
        tunnel_options next = now;
        next.spi = 0x1000 + generation * 16;
        next.key_seed = generation + 1;
        traffic();
        two.add_sas(next); // the receiver first
        traffic();
        one.add_sas(next);
        traffic();
        for (lab* l : {&one, &two})
            for (const bool leaving : {true, false})
                ASSERT_TRUE(l->control.delete_sa(l->sa_of(now, leaving), {}));
        traffic();
        now = next;
    }
    EXPECT_EQ(received, sent);
    EXPECT_EQ(one.worker->counters().dropped_total() + two.worker->counters().dropped_total(), 0u);
    EXPECT_EQ(one.tables.inbound().size(), 2u);
}

TEST_F(Backend, SendsToTheNewPortsAfterAnUpdate) {
    const tunnel_options o{.encapsulated = true};
    one.add_tunnel(o);
    EXPECT_EQ(one.backend.encap_ports(), std::vector{wire::be16(4500)});
    ipsec::sa s = one.control.get_sa(one.sa_of(o, true))->clone();
    s.algs = make_algorithms(o.run, o.key_seed * 2 + 1);
    s.encap = {wire::be16(4500), wire::be16(40000), {}};
    ASSERT_TRUE(one.control.update_sa(std::move(s), {}, one.clock));
    one.push(plain, {make_packet({})});
    const auto wire = one.sent(secure);
    ASSERT_EQ(wire.size(), 1u);
    EXPECT_EQ(wire::load<wire::be16>(&wire[0][20]).host(), 4500);
    EXPECT_EQ(wire::load<wire::be16>(&wire[0][22]).host(), 40000);
    EXPECT_EQ(wire::load<wire::be32>(&wire[0][32]).host(), 1u); // the number goes on: the first
}

TEST_F(Backend, ClosesThePortWithTheLastSaBehindIt) {
    const tunnel_options o{.encapsulated = true};
    one.add_tunnel(o);
    EXPECT_TRUE(one.tables.is_encap_port(wire::be16(4500)));
    one.control.flush_sas(0, {});
    EXPECT_FALSE(one.tables.is_encap_port(wire::be16(4500)));
    EXPECT_TRUE(one.backend.encap_ports().empty());
}

TEST(NonceRegistry, IsBoundedAndKeepsTheOldestThatIsInUse) {
    fastpath::nonce_registry registry(fixed_random(1), 10);
    const auto key = [](std::uint8_t n) {
        const std::uint8_t bytes[20] = {n};
        return secret(bytes);
    };
    const auto in_use = registry.space_for(key(0)).value();
    for (std::uint8_t n = 1; n < 100; ++n)
        ASSERT_TRUE(registry.space_for(key(n)));
    EXPECT_LE(registry.size(), 10u);
    EXPECT_EQ(registry.space_for(key(0)).value(), in_use);
}

TEST(NonceRegistry, GrowsBeyondItsLimitWhileMoreKeysAreInUse) {
    fastpath::nonce_registry registry(fixed_random(1), 10);
    const auto key = [](std::uint8_t n) {
        const std::uint8_t bytes[20] = {n};
        return secret(bytes);
    };
    std::vector<fastpath::nonce_lease> in_use;
    for (std::uint8_t n = 0; n < 100; ++n)
        in_use.push_back(registry.space_for(key(n)).value());
    EXPECT_EQ(registry.size(), 100u);
    for (std::uint8_t n = 0; n < 100; ++n)
        EXPECT_EQ(registry.space_for(key(n)).value(), in_use[n]);
    in_use.clear();
    for (std::uint8_t n = 100; n < 200; ++n)
        ASSERT_TRUE(registry.space_for(key(n)));
    EXPECT_LE(registry.size(), 10u);
}

TEST(NonceRegistry, ASpaceMayOutliveIt) {
    auto registry = std::make_unique<fastpath::nonce_registry>(fixed_random(1));
    const std::uint8_t bytes[20] = {7};
    const auto in_use = registry->space_for(secret(bytes)).value();
    const std::uint64_t before = in_use->take().value();
    registry.reset();
    EXPECT_EQ(in_use->take().value() - before, fastpath::nonce_space::block);
}

TEST(NonceRegistry, AKeyThatWasForgottenGoesOnAboveItsMark) {
    fastpath::nonce_registry registry(fixed_random(1), 2);
    const auto key = [](std::uint8_t n) {
        const std::uint8_t bytes[20] = {n};
        return secret(bytes);
    };
    std::uint64_t last = 0;
    for (int i = 0; i < 5; ++i)
        last = registry.space_for(key(1)).value()->take().value();
    for (std::uint8_t n = 2; n < 10; ++n)
        ASSERT_TRUE(registry.space_for(key(n)));
    EXPECT_EQ(registry.space_for(key(1)).value()->take().value() - last,
              fastpath::nonce_space::block);
}

TEST(NonceRegistry, KeepsToItsRangeAndEndsWithIt) {
    constexpr std::uint64_t base = ~std::uint64_t{0} - 5 * fastpath::nonce_space::block; // wraps
    fastpath::nonce_space space(base,
                                fastpath::nonce_space::range - 2 * fastpath::nonce_space::block);
    EXPECT_EQ(space.take().value() - base,
              fastpath::nonce_space::range - 2 * fastpath::nonce_space::block);
    EXPECT_TRUE(space.take());
    EXPECT_FALSE(space.take());
    EXPECT_FALSE(space.take());
}

TEST(NonceRegistry, StartsWhereItIsTold) {
    fastpath::nonce_registry registry(fixed_random(1));
    registry.start_at(77);
    const std::uint8_t bytes[20] = {7};
    EXPECT_EQ(registry.space_for(secret(bytes)).value()->take(), 77u);
}

TEST(NonceRegistry, AKeyThatComesBackGoesOnAboveItsMark) {
    fastpath::nonce_registry registry(fixed_random(1));
    const std::uint8_t bytes[20] = {7}, others[20] = {8};
    std::uint64_t before = registry.space_for(secret(bytes)).value()->take().value();
    for (int i = 0; i < 5; ++i) {
        const std::uint64_t next = registry.space_for(secret(bytes)).value()->take().value();
        EXPECT_EQ(next - before, fastpath::nonce_space::block);
        before = next;
    }
    EXPECT_NE(registry.space_for(secret(bytes)).value(),
              registry.space_for(secret(others)).value());
}

} // namespace
} // namespace esplane::tests

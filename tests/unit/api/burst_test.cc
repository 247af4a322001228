// SPDX-License-Identifier: Apache-2.0
//
// Bursts through the C interface: each verdict, and what becomes of the packet.
#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "lib/wire/headers.h"
#include "tests/support/esp_peer.h"
#include "tests/support/lab.h"
#include "tests/unit/api/gateway.h"

namespace {
std::atomic<unsigned> allocations{0};
} // namespace

// The library's, too: an executable's operator new comes first.
void* operator new(std::size_t size) {
    ++allocations;
    if (void* p = std::malloc(size)) return p;
    throw std::bad_alloc();
}
void operator delete(void* p) noexcept {
    std::free(p);
}
void operator delete(void* p, std::size_t) noexcept {
    std::free(p);
}

namespace esplane::tests {
namespace {

const char* reason_of(const buffer& b) {
    return esplane_reason_name(b.packet.reason);
}

/// The packet of site 1 behind its ESP.
buffer encrypted(gateway& near, const packet_spec& spec = {}) {
    buffer b(make_packet(spec));
    near.outbound(b);
    EXPECT_EQ(b.packet.verdict, ESPLANE_PROTECTED);
    return buffer(b.content());
}

class ApiBurst : public testing::Test {
  protected:
    ApiBurst() {
        near.add_tunnel();
        far.add_tunnel();
    }
    gateway near{1}, far{2};
};

TEST_F(ApiBurst, ATunnelGivesBackWhatWentIn) {
    for (const std::uint32_t length : {32u, 64u, 65u, 66u, 67u, 1000u, 1446u}) {
        const bytes inner = make_packet({.length = length});
        buffer b(inner);
        near.outbound(b);
        ASSERT_EQ(b.packet.verdict, ESPLANE_PROTECTED);
        EXPECT_EQ(b.packet.family, ESPLANE_IPV4);
        EXPECT_EQ(b.packet.spi, 0x1001u);
        EXPECT_EQ(b.packet.user, &b);
        EXPECT_EQ(b.packet.local, 0);
        ASSERT_NE(b.content(), inner);
        far.inbound(b); // where it lies
        ASSERT_EQ(b.packet.verdict, ESPLANE_DECRYPTED) << reason_of(b);
        EXPECT_EQ(b.packet.spi, 0x1001u);
        EXPECT_EQ(b.packet.local, 0);
        EXPECT_EQ(b.content(), inner);
        EXPECT_EQ(b.packet.headroom + b.packet.length + b.packet.tailroom, 256 + length);
    }
    EXPECT_EQ(near.counters().encrypted, 7u);
    EXPECT_EQ(far.counters().decrypted, 7u);
}

TEST_F(ApiBurst, ManyPacketsEachHaveTheirOwnVerdict) {
    constexpr std::size_t count = 150; // more than a burst
    std::vector<buffer> buffers;
    std::vector<esplane_packet> packets;
    buffers.reserve(count);
    for (std::uint32_t i = 0; i < count; ++i) {
        buffers.emplace_back(make_packet({.to = i % 3 == 0 ? 3u : 2u, .number = i}));
        packets.push_back(buffers.back().packet);
    }
    near.working(
        [&] { ASSERT_EQ(esplane_outbound(near.worker, packets.data(), count, at(1), 0), 0); });
    for (std::uint32_t i = 0; i < count; ++i) {
        EXPECT_EQ(packets[i].verdict, i % 3 == 0 ? ESPLANE_BYPASS : ESPLANE_PROTECTED) << i;
        far.working([&] { ASSERT_EQ(esplane_inbound(far.worker, &packets[i], 1, at(1)), 0); });
        EXPECT_EQ(number_of({packets[i].data, packets[i].data + 64}), i);
    }
    EXPECT_EQ(near.counters().received, count);
    EXPECT_EQ(near.counters().passed, count);
    EXPECT_EQ(near.counters().encrypted, 100u);
}

TEST(ApiPackets, OfALongerStructAreFoundAtTheirDistance) {
    struct longer {
        esplane_packet known;
        std::uint64_t later[2];
    };
    gateway g(1, [](esplane_engine_options& o) { o.packet_size = sizeof(longer); });
    g.add_tunnel();
    buffer a(make_packet({.number = 1})), b(make_packet({.number = 2}));
    longer packets[2] = {{a.packet, {7, 7}}, {b.packet, {7, 7}}};
    g.working([&] { ASSERT_EQ(esplane_outbound(g.worker, &packets[0].known, 2, at(1), 0), 0); });
    for (const longer& p : packets) {
        EXPECT_EQ(p.known.verdict, ESPLANE_PROTECTED);
        EXPECT_EQ(p.later[0], 7u);
        EXPECT_EQ(p.later[1], 7u);
    }
}

TEST(ApiPackets, AreProtectedByTheLibraryAloneWhereAsked) {
    gateway g(1, [](esplane_engine_options& o) { o.library_gcm = 1; });
    g.add_tunnel();
    buffer b(make_packet({}));
    g.outbound(b);
    EXPECT_EQ(b.packet.verdict, ESPLANE_PROTECTED);
}

TEST_F(ApiBurst, WhatNoPolicyCoversLeavesAsItCame) {
    buffer b(make_packet({.to = 3}));
    near.outbound(b);
    EXPECT_EQ(b.packet.verdict, ESPLANE_BYPASS);
    EXPECT_TRUE(b.untouched());
}

TEST_F(ApiBurst, WhatAPolicyBlocksIsDiscardedWhole) {
    esplane_template via;
    esplane_policy p = make_policy(ESPLANE_OUT, 1, via);
    p.template_count = 0;
    p.action = ESPLANE_BLOCK;
    ASSERT_EQ(esplane_policy_update(near.engine, &p, at(1)), 0);
    buffer b(make_packet({}));
    near.outbound(b);
    EXPECT_EQ(b.packet.verdict, ESPLANE_DISCARD);
    EXPECT_STREQ(reason_of(b), "policy_block");
    EXPECT_TRUE(b.untouched());
}

TEST_F(ApiBurst, NothingLeavesInClearWhileItsSaIsMissing) {
    ASSERT_EQ(esplane_sa_flush(near.engine), 0);
    buffer b(make_packet({}));
    near.outbound(b);
    EXPECT_EQ(b.packet.verdict, ESPLANE_DISCARD);
    EXPECT_STREQ(reason_of(b), "sa_missing");
    EXPECT_TRUE(b.untouched());
}

TEST_F(ApiBurst, TooBigNamesTheLargestPacketThatFits) {
    buffer big(make_packet({.length = 1480}));
    near.outbound(big);
    ASSERT_EQ(big.packet.verdict, ESPLANE_TOO_BIG);
    EXPECT_TRUE(big.untouched());
    EXPECT_EQ(big.packet.spi, 0x1001u);
    EXPECT_EQ(near.dropped("too_big"), 1u);
    const std::uint32_t mtu = big.packet.mtu;
    buffer fits(make_packet({.length = mtu})), over(make_packet({.length = mtu + 1}));
    near.outbound(fits);
    EXPECT_EQ(fits.packet.verdict, ESPLANE_PROTECTED);
    EXPECT_LE(fits.packet.length, 1500u);
    near.outbound(over);
    EXPECT_EQ(over.packet.verdict, ESPLANE_TOO_BIG);

    buffer fragmentable(make_packet({.length = 1480, .dont_fragment = false}));
    near.outbound(fragmentable);
    EXPECT_EQ(fragmentable.packet.verdict, ESPLANE_TOO_BIG);
    EXPECT_EQ(fragmentable.packet.mtu, mtu);

    ASSERT_EQ(esplane_set_mtu(near.engine, 9000), 0);
    buffer again(make_packet({.length = 1480}));
    near.outbound(again);
    EXPECT_EQ(again.packet.verdict, ESPLANE_PROTECTED);
}

TEST_F(ApiBurst, APacketIsDecryptedOnce) {
    buffer first = encrypted(near);
    buffer second(first.content());
    far.inbound(first);
    EXPECT_EQ(first.packet.verdict, ESPLANE_DECRYPTED);
    far.inbound(second);
    EXPECT_EQ(second.packet.verdict, ESPLANE_DISCARD);
    EXPECT_STREQ(reason_of(second), "replay_duplicate");
    EXPECT_TRUE(second.untouched());
}

TEST_F(ApiBurst, AForgeryIsDiscardedAndMovesNothing) {
    buffer good = encrypted(near);
    bytes bad = good.content();
    bad.back() ^= 1;
    buffer forged(bad);
    far.inbound(forged);
    EXPECT_EQ(forged.packet.verdict, ESPLANE_DISCARD);
    EXPECT_STREQ(reason_of(forged), "icv_mismatch");
    far.inbound(good);
    EXPECT_EQ(good.packet.verdict, ESPLANE_DECRYPTED);
}

TEST_F(ApiBurst, WhatComesInClearWhereAPolicyProtectsIsDiscarded) {
    buffer b(make_packet({})); // of site 1, at site 2
    far.inbound(b);
    EXPECT_EQ(b.packet.verdict, ESPLANE_DISCARD);
    EXPECT_STREQ(reason_of(b), "policy_template");
    buffer other(make_packet({.from = 3, .to = 2}));
    far.inbound(other);
    EXPECT_EQ(other.packet.verdict, ESPLANE_BYPASS);
    EXPECT_TRUE(other.untouched());
}

TEST_F(ApiBurst, OutboundHoldsPacketsFromOutsideAgainstForwardPolicies) {
    // From site 2's network to site 1's, in clear, through gateway 1.
    buffer trusted(make_packet({.from = 2, .to = 1}));
    near.outbound(trusted);
    EXPECT_EQ(trusted.packet.verdict, ESPLANE_BYPASS);
    buffer suspect(make_packet({.from = 2, .to = 1}));
    near.outbound(suspect, ESPLANE_FROM_OUTSIDE);
    EXPECT_EQ(suspect.packet.verdict, ESPLANE_DISCARD);
    EXPECT_STREQ(reason_of(suspect), "policy_template");
    buffer own(make_packet({}));
    near.outbound(own, ESPLANE_FROM_OUTSIDE);
    EXPECT_EQ(own.packet.verdict, ESPLANE_PROTECTED);
}

/// A UDP packet between the gateways themselves.
bytes to_gateway(unsigned to, std::uint16_t port) {
    bytes p = make_packet({.from = 3 - to, .to = to, .destination_port = port});
    const auto from_ip = ip("192.168.77." + std::to_string(3 - to));
    const auto to_ip = ip("192.168.77." + std::to_string(to));
    std::copy_n(from_ip.bytes, 4, p.begin() + 12);
    std::copy_n(to_ip.bytes, 4, p.begin() + 16);
    fix_header_checksum(p);
    return p;
}

TEST_F(ApiBurst, IkeReachesTheMachineWhateverPoliciesSay) {
    esplane_policy block;
    esplane_policy_init(&block);
    block.direction = ESPLANE_IN;
    block.action = ESPLANE_BLOCK;
    block.selector.family = ESPLANE_IPV4;
    const auto verdict = [&](std::uint16_t port) {
        buffer b(to_gateway(2, port));
        far.inbound(b);
        EXPECT_TRUE(b.untouched());
        EXPECT_EQ(b.packet.local, 1);
        return b.packet.verdict;
    };
    EXPECT_EQ(verdict(500), ESPLANE_FOR_MACHINE);
    EXPECT_EQ(verdict(53), ESPLANE_FOR_MACHINE);
    ASSERT_EQ(esplane_policy_add(far.engine, &block, at(1)), 0);
    EXPECT_EQ(verdict(500), ESPLANE_FOR_MACHINE);
    EXPECT_EQ(verdict(4500), ESPLANE_FOR_MACHINE);
    EXPECT_EQ(verdict(53), ESPLANE_DISCARD);
    EXPECT_EQ(far.counters().for_machine, 4u);
}

TEST_F(ApiBurst, EspForNobodyIsDiscarded) {
    buffer b = encrypted(near);
    const esplane_sa_id id = make_sa(1, far.key).id;
    ASSERT_EQ(esplane_sa_delete(far.engine, &id), 0);
    far.inbound(b);
    EXPECT_EQ(b.packet.verdict, ESPLANE_DISCARD);
    EXPECT_STREQ(reason_of(b), "sa_unknown");
}

/// A tunnel of an interface, beside the gateways' own.
class ApiInterface : public testing::Test {
  protected:
    ApiInterface() {
        for (gateway* g : {&near, &far}) {
            esplane_sa s = make_sa(1, g->key);
            s.if_id = 10;
            EXPECT_EQ(esplane_sa_add(g->engine, &s, at(1)), 0);
            esplane_template via;
            esplane_policy p = make_policy(g == &near ? ESPLANE_OUT : ESPLANE_FORWARD, 1, via);
            p.if_id = 10;
            EXPECT_EQ(esplane_policy_add(g->engine, &p, at(1)), 0);
        }
    }
    gateway near{1}, far{2};
};

TEST_F(ApiInterface, OnlyWhatIsRoutedIntoItIsProtectedByIt) {
    buffer elsewhere(make_packet({}));
    near.outbound(elsewhere);
    EXPECT_EQ(elsewhere.packet.verdict, ESPLANE_BYPASS);
    buffer other(make_packet({}));
    other.packet.if_id = 11;
    near.outbound(other);
    EXPECT_EQ(other.packet.verdict, ESPLANE_DISCARD);
    EXPECT_STREQ(reason_of(other), "interface_unprotected");
    EXPECT_TRUE(other.untouched());
    const bytes inner = make_packet({});
    buffer b(inner);
    b.packet.if_id = 10;
    near.outbound(b);
    ASSERT_EQ(b.packet.verdict, ESPLANE_PROTECTED) << reason_of(b);
    b.packet.if_id = 0;
    far.inbound(b);
    ASSERT_EQ(b.packet.verdict, ESPLANE_DECRYPTED) << reason_of(b);
    EXPECT_EQ(b.packet.if_id, 10u);
    EXPECT_EQ(b.content(), inner);
}

TEST_F(ApiInterface, WhatComesOutOfItIsHeldAgainstItsPoliciesAlone) {
    ASSERT_EQ(esplane_policy_flush(far.engine), 0);
    far.add_policy(ESPLANE_FORWARD, 1); // of no interface
    buffer b(make_packet({}));
    b.packet.if_id = 10;
    near.outbound(b);
    far.inbound(b);
    EXPECT_EQ(b.packet.verdict, ESPLANE_DISCARD);
    EXPECT_STREQ(reason_of(b), "policy_missing");
}

TEST_F(ApiBurst, AFilterJudgesInnerPackets) {
    struct seen {
        unsigned in = 0, out = 0;
        bytes last;
        void* user = nullptr;
        int verdict = 0;
    } s;
    const auto filter = [](void* user, std::uint32_t direction, std::uint32_t worker,
                           const std::uint8_t* packet, std::uint32_t length, void* packet_user) {
        auto& to = *static_cast<seen*>(user);
        ++(direction == ESPLANE_FILTER_OUT ? to.out : to.in);
        EXPECT_EQ(worker, 0u);
        to.last.assign(packet, packet + length);
        to.user = packet_user;
        return to.verdict;
    };
    const bytes inner = make_packet({});
    ASSERT_EQ(esplane_set_filter(near.engine, filter, &s), 0);
    ASSERT_EQ(esplane_set_filter(far.engine, filter, &s), 0);
    buffer b(inner);
    near.outbound(b);
    EXPECT_EQ(s.out, 1u);
    EXPECT_EQ(s.last, inner);
    EXPECT_EQ(s.user, &b);
    ASSERT_EQ(b.packet.verdict, ESPLANE_PROTECTED);
    s.verdict = 1;
    far.inbound(b);
    EXPECT_EQ(s.in, 1u);
    EXPECT_EQ(s.last, inner);
    EXPECT_EQ(b.packet.verdict, ESPLANE_DISCARD);
    EXPECT_STREQ(reason_of(b), "filter_denied");
    buffer denied(inner);
    near.outbound(denied);
    EXPECT_EQ(denied.packet.verdict, ESPLANE_DISCARD);
    EXPECT_TRUE(denied.untouched());
    ASSERT_EQ(esplane_set_filter(near.engine, nullptr, nullptr), 0);
    buffer passes(inner);
    near.outbound(passes);
    EXPECT_EQ(passes.packet.verdict, ESPLANE_PROTECTED);
}

TEST_F(ApiBurst, AccountsBalance) {
    for (std::uint32_t length = 0; length < 100; length += 3) { // some are no packets
        bytes p = make_packet({.length = 100});
        p.resize(length);
        buffer out(p), in(p);
        near.outbound(out);
        near.inbound(in);
    }
    buffer pass(make_packet({})), big(make_packet({.length = 1490}));
    near.outbound(pass);
    near.outbound(big);
    buffer ike(to_gateway(1, 500));
    near.inbound(ike);
    const esplane_counters c = near.counters();
    EXPECT_EQ(c.received, 71u);
    EXPECT_EQ(c.received, c.passed + c.for_machine + c.dropped + c.handed_over);
    EXPECT_EQ(c.passed, 1u);
    EXPECT_EQ(c.for_machine, 1u);
}

TEST_F(ApiBurst, NothingIsAllocatedOnTheWay) {
    std::vector<buffer> buffers;
    std::vector<esplane_packet> packets;
    buffers.reserve(64);
    for (std::uint32_t i = 0; i < 64; ++i) {
        buffers.emplace_back(make_packet({.length = i % 8 == 0 ? 1490u : 100u, .number = i}));
        packets.push_back(buffers.back().packet);
    }
    near.working([&] {
        const unsigned before = allocations;
        ASSERT_EQ(esplane_outbound(near.worker, packets.data(), 64, at(1), 0), 0);
        EXPECT_EQ(allocations, before);
    });
    far.working([&] {
        const unsigned before = allocations;
        ASSERT_EQ(esplane_inbound(far.worker, packets.data(), 64, at(1)), 0);
        ASSERT_EQ(esplane_worker_quiescent(far.worker), 0);
        EXPECT_EQ(allocations, before);
    });
    EXPECT_EQ(far.counters().decrypted, 56u);
}

} // namespace
} // namespace esplane::tests

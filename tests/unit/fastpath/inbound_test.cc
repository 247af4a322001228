// SPDX-License-Identifier: Apache-2.0
//
// ESP in, around texts that no well-behaved peer sends.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "tests/support/esp_peer.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using ipsec::family;

using gateway_ports::plain;
using gateway_ports::secure;

struct Inbound : testing::Test {
    lab two{2};

    void expect_balance() const {
        EXPECT_TRUE(two.worker->counters().balanced());
        EXPECT_EQ(two.pool->free_frames(), two.pool->count());
    }
    [[nodiscard]] ipsec::sa incoming(const tunnel_options& o) {
        const ipsec::sa* s = two.control.get_sa(two.sa_of(o, false));
        return s->clone();
    }
};

TEST_F(Inbound, ThrowsDummyPacketsAwayButTakesTheirNumber) {
    const tunnel_options o;
    two.add_tunnel(o);
    esp_peer peer(o);
    const frame dummy = peer.seal(peer.text_of(frame(50), wire::proto_none), 1);
    two.push(secure, {dummy});
    two.push(secure, {dummy});
    EXPECT_EQ(two.drops(drop_reason::dummy), 1u);
    EXPECT_EQ(two.drops(drop_reason::replay_duplicate), 1u);
    expect_balance();
}

TEST_F(Inbound, NamesWhatIsWrongInsideAnAuthenticPacket) {
    const tunnel_options o;
    two.add_tunnel(o);
    esp_peer peer(o);
    const frame v4 = make_packet({.length = 62});
    frame long_pad = peer.text_of(v4, wire::proto_ipip);
    long_pad[long_pad.size() - 2] = 255;
    frame whole_pad(8);
    whole_pad[6] = 7; // one byte more than there is
    frame all_pad(8);
    all_pad[6] = 6;
    all_pad[7] = wire::proto_ipip;
    frame no_version = v4;
    no_version[0] = 0x05;
    frame too_long = v4;
    too_long[3] = 200; // total length beyond the text
    fix_header_checksum(too_long);
    frame bad_sum = v4;
    bad_sum[10] ^= 1;
    const struct {
        frame text;
        drop_reason why;
    } cases[] = {
        {long_pad, drop_reason::esp_padding},
        {whole_pad, drop_reason::esp_padding},
        {all_pad, drop_reason::inner_malformed},
        {peer.text_of(v4, wire::proto_ipv6), drop_reason::inner_malformed},
        {peer.text_of(make_packet({.family = family::ipv6}), wire::proto_ipip),
         drop_reason::inner_malformed},
        {peer.text_of(v4, wire::proto_tcp), drop_reason::inner_malformed},
        {peer.text_of(no_version, wire::proto_ipip), drop_reason::inner_malformed},
        {peer.text_of(frame(19, 0x45), wire::proto_ipip), drop_reason::inner_malformed},
        {peer.text_of(frame(39, 0x60), wire::proto_ipv6), drop_reason::inner_malformed},
        {peer.text_of(too_long, wire::proto_ipip), drop_reason::ip_malformed},
        {peer.text_of(bad_sum, wire::proto_ipip), drop_reason::ip_checksum},
    };
    std::uint64_t sequence = 0;
    for (const auto& one : cases) {
        const std::uint64_t before = two.drops(one.why);
        two.push(secure, {peer.seal(one.text, ++sequence)});
        EXPECT_EQ(two.drops(one.why), before + 1) << sequence;
    }
    EXPECT_TRUE(two.sent(plain).empty());
    EXPECT_EQ(incoming(o).replay.received, sequence);
    expect_balance();
}

TEST_F(Inbound, CutsOffWhatFollowsTheInnerPacket) { // RFC 4303 section 2.7: TFC padding
    const tunnel_options o;
    two.add_tunnel(o);
    esp_peer peer(o);
    frame padded = make_packet({.number = 5});
    padded.resize(1000);
    two.push(secure, {peer.seal(peer.text_of(padded, wire::proto_ipip), 1)});
    const auto out = two.sent(plain);
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(out[0], make_packet({.number = 5, .ttl = 63}));
}

TEST_F(Inbound, DoesNotOpenEspInsideEsp) {
    const tunnel_options o;
    two.add_tunnel(o);
    esp_peer peer(o);
    const frame inner = peer.seal(peer.text_of(make_packet({}), wire::proto_ipip), 1);
    two.push(secure, {peer.seal(peer.text_of(inner, wire::proto_ipip), 2)});
    EXPECT_EQ(two.worker->counters().decrypted.get(), 1u);
    EXPECT_EQ(two.drops(drop_reason::policy_missing), 1u); // it came out of an SA nobody asked for
    EXPECT_TRUE(two.punted(secure).empty());
    expect_balance();
}

TEST_F(Inbound, TakesFramesUpToTheBufferAndNamesShortOnes) {
    const tunnel_options o;
    two.add_tunnel(o);
    esp_peer peer(o);
    const frame full = peer.seal(peer.text_of(make_packet({.length = 1438}), wire::proto_ipip), 1);
    for (std::size_t length = 20; length < full.size(); ++length) {
        frame cut(full.begin(), full.begin() + static_cast<std::ptrdiff_t>(length));
        wire::store(&cut[2], wire::be16(static_cast<std::uint16_t>(length)));
        fix_header_checksum(cut);
        two.push(secure, {cut});
    }
    EXPECT_EQ(two.worker->counters().dropped_total(), full.size() - 20);
    EXPECT_EQ(two.drops(drop_reason::sa_unknown), 8u); // no room for an SPI and a number
    EXPECT_EQ(two.drops(drop_reason::icv_mismatch) + two.drops(drop_reason::esp_malformed),
              full.size() - 28);
    frame giant = full;
    giant.resize(3800);
    wire::store(&giant[2], wire::be16(3800));
    fix_header_checksum(giant);
    const std::uint64_t before = two.drops(drop_reason::icv_mismatch);
    two.push(secure, {giant});
    EXPECT_EQ(two.drops(drop_reason::icv_mismatch), before + 1);
    EXPECT_EQ(incoming(o).replay.received, 0u);
    two.push(secure, {full});
    EXPECT_EQ(two.sent(plain).size(), 1u);
    expect_balance();
}

/// What becomes of inner ECN: RFC 6040, decapsulation, in the kernel's form (INET_ECN_decapsulate
/// without a drop: IP_ECN_set_ce where the inner packet can bear it).
TEST_F(Inbound, CarriesCongestionInwardsForAllPairsOfEcn) {
    constexpr std::uint8_t dscp_inner = 0x28, dscp_outer = 0xb8;
    for (const bool no_ecn : {false, true})
        for (const bool decap_dscp : {false, true})
            for (const family inner : {family::ipv4, family::ipv6}) {
                lab l{2};
                tunnel_options o{.replay_window = 64};
                if (no_ecn) o.flags |= ipsec::sa_flag::no_ecn;
                if (decap_dscp) o.flags |= ipsec::sa_flag::decap_dscp;
                l.add_tunnel(o);
                esp_peer peer(o);
                std::uint64_t sequence = 0;
                for (std::uint8_t in = 0; in < 4; ++in)
                    for (std::uint8_t out = 0; out < 4; ++out) {
                        const auto tos = static_cast<std::uint8_t>(dscp_inner | in);
                        const frame f = make_packet({.family = inner, .tos = tos});
                        l.push(secure, {peer.seal(peer.text_of(f, inner == family::ipv4 ? 4 : 41),
                                                  ++sequence,
                                                  static_cast<std::uint8_t>(dscp_outer | out))});
                        const std::uint8_t ecn = !no_ecn && out == 3 && in != 0 ? 3 : in;
                        const auto want =
                            static_cast<std::uint8_t>((decap_dscp ? dscp_outer : dscp_inner) | ecn);
                        EXPECT_EQ(l.sent(plain), std::vector<frame>{make_packet(
                                                     {.family = inner, .tos = want, .ttl = 63})})
                            << int(in) << int(out) << no_ecn << decap_dscp;
                    }
            }
}

TEST_F(Inbound, AForgeryIsNoFirstUse) {
    const tunnel_options o{.limits = {.hard_use_s = 5}};
    two.add_tunnel(o);
    esp_peer peer(o);
    frame forged = peer.seal(peer.text_of(make_packet({}), wire::proto_ipip), 1);
    forged.back() ^= 1;
    two.push(secure, {forged});
    EXPECT_EQ(incoming(o).current.use_time, 0u);
    EXPECT_EQ(incoming(o).statistics.integrity_failed, 1u);
    two.advance(10'000'000'000);
    EXPECT_NE(two.control.get_sa(two.sa_of(o, false)), nullptr);
}

TEST_F(Inbound, ABurstPassesNoMoreThanTheHardLimit) {
    const tunnel_options o{.limits = {.hard_packets = 5}};
    two.add_tunnel(o);
    esp_peer peer(o);
    std::vector<frame> burst;
    for (std::uint64_t i = 1; i <= 20; ++i)
        burst.push_back(peer.seal(peer.text_of(make_packet({}), wire::proto_ipip), i));
    two.push(secure, burst);
    EXPECT_EQ(two.sent(plain).size(), 5u);
    EXPECT_EQ(two.drops(drop_reason::sa_expired), 15u);
    expect_balance();
}

TEST_F(Inbound, KeepsToTheSelectorOfTheSa) {
    const tunnel_options o;
    two.add_policies(o);
    ipsec::sa s;
    s.id = two.sa_of(o, false);
    s.source = *ipsec::address::parse("192.168.77.1");
    s.reqid = o.reqid;
    s.algs = make_algorithms(o.run, o.key_seed * 2 + 1);
    s.sel.fam = family::ipv4;
    s.sel.protocol = wire::proto_udp;
    s.sel.destination_port.set(2000);
    s.sel.destination_port_mask.set(0xffff);
    ASSERT_TRUE(two.control.add_sa(std::move(s), {}, two.clock));
    esp_peer peer(o);
    const auto cross = [&](const packet_spec& p, std::uint64_t sequence) {
        const std::uint8_t next = p.family == family::ipv4 ? wire::proto_ipip : wire::proto_ipv6;
        two.push(secure, {peer.seal(peer.text_of(make_packet(p), next), sequence)});
        return two.sent(plain).size();
    };
    EXPECT_EQ(cross({}, 1), 1u);
    EXPECT_EQ(cross({.destination_port = 2001}, 2), 0u);
    EXPECT_EQ(two.drops(drop_reason::sa_selector), 1u);
    EXPECT_EQ(cross({.family = family::ipv6}, 3), 0u);
    EXPECT_EQ(two.drops(drop_reason::inner_family), 1u);
}

/// The dumbest window: every number ever taken.
struct set_window {
    std::uint64_t size;
    std::uint64_t highest = 0;
    std::set<std::uint64_t> taken{};

    bool take(std::uint64_t n) {
        if (n + size <= highest || !taken.insert(n).second) return false;
        highest = std::max(highest, n);
        return true;
    }
};

TEST_F(Inbound, TakesWhatASetOfNumbersTakesWhateverTheNetworkDoes) {
    for (const bool esn : {false, true})
        for (const std::uint32_t size : {32u, 64u, 1024u, 4096u}) {
            lab one{1}, other{2};
            const tunnel_options o{.esn = esn, .replay_window = size};
            one.add_tunnel(o);
            other.add_tunnel(o);
            std::mt19937 random(size + esn);
            set_window model{size};
            std::vector<std::pair<std::uint64_t, frame>> late;
            std::uint64_t sequence = 0;
            for (int round = 0; round < 60; ++round) {
                std::vector<frame> in;
                for (unsigned i = 0; i < 64; ++i)
                    in.push_back(make_packet({.number = static_cast<std::uint32_t>(++sequence)}));
                one.push(plain, in);
                std::uint64_t n = sequence - in.size();
                for (frame& f : one.sent(secure))
                    late.emplace_back(++n, std::move(f));
                std::shuffle(late.end() - 64, late.end(), random);
                std::vector<frame> wire;
                std::vector<std::uint32_t> want;
                for (unsigned i = 0; i < 80 && !late.empty(); ++i) { // some of them very late
                    const std::size_t back = random() % 8 == 0 ? 6000 : 80;
                    const std::size_t at =
                        late.size() - 1 - random() % std::min<std::size_t>(late.size(), back);
                    wire.push_back(late[at].second);
                    if (model.take(late[at].first))
                        want.push_back(static_cast<std::uint32_t>(late[at].first));
                }
                other.push(secure, wire);
                std::vector<std::uint32_t> have;
                for (const frame& f : other.sent(plain))
                    have.push_back(number_of(f));
                ASSERT_EQ(have, want) << "window " << size << " round " << round;
            }
            EXPECT_TRUE(other.worker->counters().balanced());
        }
}

} // namespace
} // namespace esplane::tests

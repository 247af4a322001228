// SPDX-License-Identifier: Apache-2.0
//
// ESP out, packets of several SAs in one burst: each SA numbers and counts its own, and what stops
// one packet stops no other.
#include <gtest/gtest.h>

#include <map>

#include "lib/wire/checksum.h"
#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using ipsec::family;

constexpr std::uint16_t port_of_first_sa = 2000;
constexpr unsigned sa_count = 3;

tunnel_options nth_tunnel(unsigned n, ipsec::lifetime_limits limits = {}) {
    return {.spi = 0x1000 + 2 * n, .reqid = n + 1, .key_seed = n + 1, .limits = limits};
}

/// Packets to UDP port 2000 + n go under SA number n.
struct three_sas {
    lab one{1}, two{2};

    /// limits   of the second SA
    explicit three_sas(ipsec::lifetime_limits limits = {}) {
        for (unsigned n = 0; n < sa_count; ++n) {
            const tunnel_options o = nth_tunnel(n, n == 1 ? limits : ipsec::lifetime_limits{});
            one.add_sas(o);
            two.add_sas(o);
            ipsec::policy p;
            p.dir = ipsec::policy_direction::out;
            p.sel.fam = family::ipv4;
            p.sel.destination_port = wire::be16(static_cast<std::uint16_t>(port_of_first_sa + n));
            p.sel.destination_port_mask = wire::be16(0xffff);
            ipsec::template_ t;
            t.id.destination = *ipsec::address::parse("192.168.77.2");
            t.source = *ipsec::address::parse("192.168.77.1");
            t.fam = family::ipv4;
            t.reqid = o.reqid;
            p.templates = {t};
            one.add_policy(std::move(p));
        }
        two.add_policies({.reqid = 0}); // any SA will do
    }
    [[nodiscard]] const ipsec::sa& sa(unsigned n) {
        return *one.control.get_sa(one.sa_of(nth_tunnel(n), true));
    }
};

/// One for each SA in turn.
std::vector<frame> interleaved(std::uint32_t count, std::uint32_t length = 64) {
    std::vector<frame> all;
    for (std::uint32_t i = 0; i < count; ++i)
        all.push_back(make_packet(
            {.destination_port = static_cast<std::uint16_t>(port_of_first_sa + i % sa_count),
             .length = length,
             .number = i}));
    return all;
}

/// Sequence numbers by SPI, in the order of the packets.
std::map<std::uint32_t, std::vector<std::uint32_t>>
sequence_numbers_of(const std::vector<frame>& esp) {
    std::map<std::uint32_t, std::vector<std::uint32_t>> all;
    for (const frame& f : esp)
        all[wire::load<wire::be32>(&f[20]).host()].push_back(wire::load<wire::be32>(&f[24]).host());
    return all;
}

std::vector<std::uint32_t> one_to(std::uint32_t last) {
    std::vector<std::uint32_t> all;
    for (std::uint32_t i = 1; i <= last; ++i)
        all.push_back(i);
    return all;
}

TEST(OutboundRun, SasThatTakeTurnsNumberAndCountTheirOwn) {
    three_sas t;
    const auto packets = interleaved(60);
    t.one.push(lab::plain, packets);
    const auto esp = t.one.sent(lab::secure);
    const auto numbers = sequence_numbers_of(esp);
    ASSERT_EQ(numbers.size(), sa_count);
    for (const auto& [spi, all] : numbers)
        EXPECT_EQ(all, one_to(20)) << spi;
    for (unsigned n = 0; n < sa_count; ++n) {
        EXPECT_EQ(t.sa(n).current.packets, 20u);
        EXPECT_EQ(t.sa(n).current.bytes, 20u * 64);
        EXPECT_EQ(t.sa(n).replay.sent, 20u);
    }
    t.two.push(lab::secure, esp);
    const auto out = t.two.sent(lab::plain);
    ASSERT_EQ(out.size(), packets.size());
    for (std::uint32_t i = 0; i < out.size(); ++i)
        EXPECT_EQ(number_of(out[i]), i);
}

TEST(OutboundRun, AHardLimitWithinABurstStopsItsSaAlone) {
    three_sas t({.soft_packets = 5, .hard_packets = 7});
    t.one.push(lab::plain, interleaved(60));
    const auto numbers = sequence_numbers_of(t.one.sent(lab::secure));
    EXPECT_EQ(numbers.at(0x1000), one_to(20));
    EXPECT_EQ(numbers.at(0x1002), one_to(7));
    EXPECT_EQ(numbers.at(0x1004), one_to(20));
    EXPECT_EQ(t.one.drops(drop_reason::sa_expired), 13u);
    EXPECT_TRUE(t.one.worker->counters().balanced());
}

TEST(OutboundRun, ALimitOfBytesIsExactHoweverFarItWas) {
    lab one{1};
    constexpr std::uint64_t limit = 5'000'000; // farther than a burst can go
    constexpr std::uint32_t length = 1300;
    one.add_tunnel({.limits = {.hard_bytes = limit}});
    std::size_t passed = 0;
    for (int burst = 0; burst < 70; ++burst) {
        std::vector<frame> packets(60, make_packet({.length = length}));
        one.push(lab::plain, packets);
        passed += one.sent(lab::secure).size();
    }
    EXPECT_EQ(passed, limit / length + 1); // looked at before a packet is counted
}

TEST(OutboundRun, APacketTooBigBurnsNoNumberAndStopsNoOther) {
    three_sas t;
    auto packets = interleaved(60);
    for (const std::size_t i : {4u, 5u, 10u, 59u})
        packets[i] =
            make_packet({.destination_port = static_cast<std::uint16_t>(port_of_first_sa + i % 3),
                         .length = 1500,
                         .number = static_cast<std::uint32_t>(i)});
    t.one.push(lab::plain, packets);
    const auto numbers = sequence_numbers_of(t.one.sent(lab::secure));
    EXPECT_EQ(numbers.at(0x1000), one_to(20));
    EXPECT_EQ(numbers.at(0x1002), one_to(18));
    EXPECT_EQ(numbers.at(0x1004), one_to(18));
    EXPECT_EQ(t.one.drops(drop_reason::too_big), 4u);
    EXPECT_EQ(t.one.sent(lab::plain).size(), 4u); // their sources are told
}

TEST(OutboundRun, EachPacketHasItsOwnTosDfAndLength) {
    lab one{1};
    one.add_tunnel({});
    std::vector<packet_spec> specs;
    for (const family inner : {family::ipv4, family::ipv6})
        for (const bool df : {true, false})
            for (unsigned tos = 0; tos < 12; ++tos)
                specs.push_back({.family = inner,
                                 .length = 60 + tos,
                                 .tos = static_cast<std::uint8_t>(tos * 21),
                                 .dont_fragment = df});
    std::vector<frame> packets;
    for (const packet_spec& spec : specs)
        packets.push_back(make_packet(spec));
    one.push(lab::plain, packets);
    const auto esp = one.sent(lab::secure);
    ASSERT_EQ(esp.size(), specs.size());
    for (std::size_t i = 0; i < specs.size(); ++i) {
        const frame& f = esp[i];
        const unsigned inner_tos = specs[i].tos;
        const unsigned ecn = (inner_tos & 3) == 3 ? 2 : inner_tos & 3;
        const bool df = specs[i].dont_fragment || specs[i].family == family::ipv6;
        EXPECT_EQ(f[1], (inner_tos & 0xfc) | ecn);
        EXPECT_EQ(wire::load<wire::be16>(&f[2]).host(), f.size());
        EXPECT_EQ(wire::load<wire::be16>(&f[6]).host(), df ? wire::ipv4_df : 0);
        EXPECT_EQ(wire::load<wire::be16>(&f[4]).host(), df ? 0 : i + 1); // unique where it counts
        EXPECT_EQ(wire::checksum_fold(wire::checksum_add(0, f.data(), 20)), 0xffff);
        EXPECT_EQ((f.size() - 20 - 8 - 8 - 16) % 4, 0u);
    }
}

} // namespace
} // namespace esplane::tests

// SPDX-License-Identifier: Apache-2.0
//
// ESP in, in bursts: what packets of one SA that follow each other share must not show.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/support/esp_peer.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using ipsec::family;

using gateway_ports::plain;
using gateway_ports::secure;

using numbers = std::vector<std::uint32_t>;

numbers up_to(std::uint32_t last) {
    numbers all(last);
    std::iota(all.begin(), all.end(), 1u);
    return all;
}

struct InboundRun : testing::Test {
    ~InboundRun() override {
        EXPECT_TRUE(two.worker->counters().balanced());
        EXPECT_EQ(two.pool->free_frames(), two.pool->count());
    }
    void begin(const tunnel_options& o) {
        if (peers.empty())
            two.add_tunnel(o);
        else
            two.add_sas(o); // the policies ask for the same reqid
        peers.emplace(o.spi, esp_peer(o));
    }
    /// ESP with that number, and inside a packet with the same.
    frame sealed(const tunnel_options& o, std::uint32_t number, std::uint32_t length = 64) {
        esp_peer& peer = peers.at(o.spi);
        return peer.seal(
            peer.text_of(make_packet({.length = length, .number = number}), wire::proto_ipip),
            number);
    }
    std::vector<frame> sealed(const tunnel_options& o, const numbers& all) {
        std::vector<frame> burst;
        for (const std::uint32_t n : all)
            burst.push_back(sealed(o, n));
        return burst;
    }
    /// The numbers that come out of a burst.
    numbers receive(const std::vector<frame>& burst) {
        two.push(secure, burst);
        numbers all;
        for (const frame& f : two.sent(plain))
            all.push_back(number_of(f));
        return all;
    }
    [[nodiscard]] ipsec::sa at(const tunnel_options& o) {
        return two.control.get_sa(two.sa_of(o, false))->clone();
    }
    fastpath::sa_in& run_of(const tunnel_options& o) {
        const ipsec::sa_id id = two.sa_of(o, false);
        return *two.tables.inbound().find(
            fastpath::hash_of_spi(id.spi, id.destination.bytes.data(), id.destination.fam),
            [&](const fastpath::sa_in& sa) { return sa.spi == id.spi; });
    }

    lab two{2};
    std::map<std::uint32_t, esp_peer> peers; ///< by SPI
};

TEST_F(InboundRun, TakesANumberThatComesTwiceInABurstOnce) {
    const tunnel_options o;
    begin(o);
    EXPECT_EQ(receive(sealed(o, {1, 2, 3, 3, 4, 2, 5})), up_to(5));
    EXPECT_EQ(two.drops(drop_reason::replay_duplicate), 2u);
    EXPECT_EQ(receive(sealed(o, {6, 6})), numbers{6});
    EXPECT_EQ(at(o).statistics.replay, 3u);
    EXPECT_EQ(at(o).current.packets, 6u);
}

TEST_F(InboundRun, TakesNumbersInAnyOrderAndNoneAgain) {
    for (const std::uint32_t window : {32u, 64u, 128u, 4096u}) {
        const tunnel_options o{.replay_window = window, .spi = 0x1000 + 2 * window};
        begin(o);
        const numbers mixed{5, 3, 4, 1, 2, 6, 7, 9, 8};
        EXPECT_EQ(receive(sealed(o, mixed)), mixed) << window;
        EXPECT_EQ(receive(sealed(o, mixed)), numbers{}) << window;
        EXPECT_EQ(at(o).statistics.replay, mixed.size()) << window;
    }
}

TEST_F(InboundRun, ANumberThatWasSkippedIsStillNew) {
    const tunnel_options o;
    begin(o);
    EXPECT_EQ(receive(sealed(o, {10, 11, 20, 21})), (numbers{10, 11, 20, 21}));
    EXPECT_EQ(receive(sealed(o, {25, 26, 27})), (numbers{25, 26, 27}));
    EXPECT_EQ(receive(sealed(o, {12, 19, 22, 24, 11, 20, 25, 27})), (numbers{12, 19, 22, 24}));
}

TEST_F(InboundRun, ABurstIsTakenWholeAndOnceWhereverItEnds) {
    for (const std::uint32_t window : {32u, 64u, 4096u})
        for (const std::uint32_t first : {1u, 30u, 60u, 64u, 100u, 127u}) {
            const tunnel_options o{.replay_window = window,
                                   .spi = 0x1000 + 2 * window + 256 * first};
            begin(o);
            numbers burst(64);
            std::iota(burst.begin(), burst.end(), first);
            EXPECT_EQ(receive(sealed(o, burst)), burst) << window << " from " << first;
            EXPECT_EQ(receive(sealed(o, burst)), numbers{}) << window << " from " << first;
            EXPECT_EQ(at(o).replay.received, first + 63);
        }
}

TEST_F(InboundRun, AForgeryStopsNoOtherWhereverItIs) {
    const tunnel_options o{.replay_window = 64};
    begin(o);
    std::uint32_t first = 1;
    std::uint64_t forged = 0;
    for (const std::uint32_t bad : {4u, 0u, 9u}) {
        numbers rest(10);
        std::iota(rest.begin(), rest.end(), first);
        first += 10;
        std::vector<frame> burst = sealed(o, rest);
        const frame honest = burst[bad];
        const std::uint32_t number = rest[bad];
        burst[bad].back() ^= 1;
        rest.erase(rest.begin() + bad);
        EXPECT_EQ(receive(burst), rest) << bad;
        EXPECT_EQ(at(o).statistics.integrity_failed, ++forged);
        EXPECT_EQ(receive({honest}), numbers{number}) << "a forgery takes no number";
    }
}

TEST_F(InboundRun, AHardLimitIsReachedInTheMiddleOfABurst) {
    for (const bool in_bytes : {false, true}) {
        tunnel_options o{.spi = in_bytes ? 0x1000u : 0x2000u};
        (in_bytes ? o.limits.hard_bytes : o.limits.hard_packets) = in_bytes ? 64 * 12 : 12;
        begin(o);
        EXPECT_EQ(receive(sealed(o, up_to(2))), up_to(2)); // the first use is behind it
        numbers more(20);
        std::iota(more.begin(), more.end(), 3u);
        EXPECT_EQ(receive(sealed(o, more)).size(), 10u);
        EXPECT_EQ(two.control.get_sa(two.sa_of(o, false)), nullptr) << "it is over";
    }
    EXPECT_EQ(two.drops(drop_reason::sa_expired), 20u);
}

TEST_F(InboundRun, CountsWhatWasInside) {
    const tunnel_options o;
    begin(o);
    std::vector<frame> burst;
    std::uint64_t bytes = 0;
    for (std::uint32_t n = 1; n <= 40; ++n) {
        burst.push_back(sealed(o, n, 60 + n));
        bytes += 60 + n;
    }
    EXPECT_EQ(receive(burst), up_to(40));
    EXPECT_EQ(run_of(o).account.packets.get(), 40u);
    EXPECT_EQ(run_of(o).account.bytes.get(), bytes);
    EXPECT_EQ(run_of(o).account.last_used.get(), two.clock.realtime_s);
}

TEST_F(InboundRun, SasThatTakeTurnsKeepTheirOwnCounts) {
    const tunnel_options a{.spi = 0x1000}, b{.spi = 0x2000, .key_seed = 7};
    begin(a);
    begin(b);
    std::vector<frame> burst;
    for (const auto& [o, n] : std::vector<std::pair<const tunnel_options*, std::uint32_t>>{
             {&a, 1}, {&b, 101}, {&a, 2}, {&b, 102}, {&b, 103}, {&a, 3}, {&a, 4}, {&b, 104}})
        burst.push_back(sealed(*o, n));
    EXPECT_EQ(receive(burst), (numbers{1, 101, 2, 102, 103, 3, 4, 104}));
    EXPECT_EQ(at(a).current.packets, 4u);
    EXPECT_EQ(at(b).current.packets, 4u);
    EXPECT_EQ(at(a).replay.received, 4u);
    EXPECT_EQ(at(b).replay.received, 104u);
    EXPECT_EQ(receive(burst), numbers{});
}

TEST_F(InboundRun, TheSameSpiAtAnotherAddressIsAnotherSa) {
    const tunnel_options v4{.key_seed = 3};
    const tunnel_options v6{.outer = family::ipv6, .key_seed = 5};
    begin(v4);
    two.add_sas(v6);
    esp_peer over_v6(v6);
    std::vector<frame> burst = sealed(v4, up_to(4));
    for (std::uint32_t n = 1; n <= 3; ++n)
        burst.insert(
            burst.begin() + n,
            over_v6.seal(over_v6.text_of(make_packet({.number = 200 + n}), wire::proto_ipip), n));
    EXPECT_EQ(receive(burst), up_to(4));
    EXPECT_EQ(two.drops(drop_reason::policy_template), 3u)
        << "policies ask for the other's address";
    EXPECT_EQ(at(v4).current.packets, 4u);
    EXPECT_EQ(at(v6).current.packets, 3u);
}

TEST_F(InboundRun, AnSaThatNobodyKnowsOrThatWasTakenAwayHarmsNoOther) {
    const tunnel_options a{.spi = 0x1000}, b{.spi = 0x2000, .key_seed = 7};
    begin(a);
    begin(b);
    const tunnel_options unknown{.spi = 0x3000};
    peers.emplace(unknown.spi, esp_peer(unknown));
    const auto burst = [&](std::uint32_t n) {
        return std::vector<frame>{sealed(a, n),       sealed(unknown, n), sealed(unknown, n + 1),
                                  sealed(b, 100 + n), sealed(b, 101 + n), sealed(unknown, n + 2),
                                  sealed(a, n + 1)};
    };
    EXPECT_EQ(receive(burst(1)), (numbers{1, 101, 102, 2}));
    EXPECT_EQ(two.drops(drop_reason::sa_unknown), 3u);
    run_of(b).owner.abandon(); // in the middle of a burst, as far as the worker can tell
    EXPECT_EQ(receive(burst(11)), (numbers{11, 12}));
    EXPECT_EQ(two.drops(drop_reason::sa_moved), 2u);
    EXPECT_TRUE(two.control.delete_sa(two.sa_of(a, false), {}));
    EXPECT_EQ(receive(burst(21)), numbers{});
    EXPECT_EQ(two.drops(drop_reason::sa_unknown), 6u + 5u);
}

TEST_F(InboundRun, EachPacketOfABurstIsHeldAgainstTheSelectorOfItsSa) {
    tunnel_options o;
    o.sel.fam = family::ipv4;
    o.sel.protocol = wire::proto_udp;
    o.sel.destination_port.set(2000);
    o.sel.destination_port_mask.set(0xffff);
    begin(o);
    esp_peer& peer = peers.at(o.spi);
    std::vector<frame> burst;
    for (std::uint32_t n = 1; n <= 6; ++n)
        burst.push_back(peer.seal(
            peer.text_of(make_packet({.destination_port = static_cast<std::uint16_t>(2000 + n % 2),
                                      .number = n}),
                         wire::proto_ipip),
            n));
    EXPECT_EQ(receive(burst), (numbers{2, 4, 6}));
    EXPECT_EQ(two.drops(drop_reason::sa_selector), 3u);
    EXPECT_EQ(at(o).current.packets, 6u) << "they were authentic";
}

/// A packet with a header of six words.
frame with_options(const frame& plain_one) {
    frame f = plain_one;
    f[0] = 0x46;
    f.insert(f.begin() + sizeof(wire::ipv4_header), {1, 1, 1, 0});
    wire::store(&f[2], wire::be16(static_cast<std::uint16_t>(f.size())));
    fix_header_checksum(f);
    return f;
}

frame changed(frame f, std::size_t at, std::uint8_t to) {
    f[at] = to;
    fix_header_checksum(f);
    return f;
}

TEST_F(InboundRun, EachPacketOfABurstIsWhatItIsWhateverIsAroundIt) {
    const tunnel_options o;
    begin(o);
    esp_peer& peer = peers.at(o.spi);
    const auto inner = [](std::uint32_t n) { return make_packet({.number = n}); };
    constexpr std::uint8_t next = wire::proto_ipip;
    frame bad_sum = inner(2);
    bad_sum[10] ^= 1;
    frame padded = inner(9);
    padded.resize(100); // RFC 4303 section 2.7
    const struct {
        frame text;
        drop_reason why; ///< none: it goes on
    } cases[] = {
        {peer.text_of(inner(1), next), drop_reason::none},
        {peer.text_of(bad_sum, next), drop_reason::ip_checksum},
        {peer.text_of(changed(inner(3), 3, 200), next), drop_reason::ip_malformed},
        {peer.text_of(changed(inner(4), 3, 27), next), drop_reason::ip_malformed},
        {peer.text_of(changed(inner(5), 12, 127), next), drop_reason::ip_scope},
        {peer.text_of(changed(inner(6), 16, 224), next), drop_reason::ip_scope},
        {peer.text_of(changed(inner(7), 12, 0), next), drop_reason::ip_scope},
        {peer.text_of(with_options(inner(8)), next), drop_reason::none},
        {peer.text_of(padded, next), drop_reason::none},
        {peer.text_of(make_packet({.family = family::ipv6, .number = 10}), wire::proto_ipv6),
         drop_reason::none},
        {peer.text_of(frame(50), wire::proto_none), drop_reason::dummy},
        {peer.text_of(inner(12), wire::proto_tcp), drop_reason::inner_malformed},
        {peer.text_of(changed(inner(13), 16, 20), next), drop_reason::policy_missing},
        {peer.text_of(inner(14), next), drop_reason::none},
    };
    std::vector<frame> burst;
    std::map<drop_reason, std::uint64_t> want;
    for (const auto& one : cases) {
        burst.push_back(peer.seal(one.text, burst.size() + 1));
        ++want[one.why];
    }
    two.push(secure, burst);
    for (const auto& [why, count] : want)
        if (why != drop_reason::none) {
            EXPECT_EQ(two.drops(why), count) << static_cast<int>(why);
        }
    const std::vector<frame> out = two.sent(plain);
    ASSERT_EQ(out.size(), want[drop_reason::none]);
    EXPECT_EQ(out[0], make_packet({.number = 1, .ttl = 63}));
    EXPECT_EQ(out[2], make_packet({.number = 9, .ttl = 63}));
    EXPECT_EQ(out.back(), make_packet({.number = 14, .ttl = 63}));
    EXPECT_EQ(at(o).replay.received, std::size(cases));
}

} // namespace
} // namespace esplane::tests

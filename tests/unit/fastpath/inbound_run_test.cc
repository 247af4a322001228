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
    /// A tunnel that has been used: its first packet, which the worker looks at by itself, is
    /// number 1 on the wire.
    void begin(const tunnel_options& o) {
        if (peers.empty())
            two.add_tunnel(o);
        else
            two.add_sas(o); // the policies ask for the same reqid
        know(o);
        two.push(secure, {sealed(o, 0)});
        (void)two.sent(plain);
    }
    void know(const tunnel_options& o) { peers.emplace(name_of(o), esp_peer(o)); }
    /// Authentic ESP, its number on the wire one more.
    frame sealed(const tunnel_options& o, const frame& inner, std::uint8_t next,
                 std::uint32_t number) {
        esp_peer& peer = peers.at(name_of(o));
        return peer.seal(peer.text_of(inner, next), number + 1);
    }
    /// The packet inside says its number, too.
    frame sealed(const tunnel_options& o, std::uint32_t number, std::uint32_t length = 64) {
        return sealed(o, make_packet({.length = length, .number = number}), wire::proto_ipip,
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
    /// Since begin().
    std::uint64_t taken(const tunnel_options& o) { return at(o).current.packets - 1; }
    std::uint64_t newest(const tunnel_options& o) { return at(o).replay.received - 1; }
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
    using name = std::pair<std::uint32_t, family>;
    static name name_of(const tunnel_options& o) { return {o.spi, o.outer}; }
    std::map<name, esp_peer> peers;
};

TEST_F(InboundRun, TakesANumberThatComesTwiceInABurstOnce) {
    const tunnel_options o;
    begin(o);
    EXPECT_EQ(receive(sealed(o, {1, 2, 3, 3, 4, 2, 5})), up_to(5));
    EXPECT_EQ(two.drops(drop_reason::replay_duplicate), 2u);
    EXPECT_EQ(receive(sealed(o, {6, 6})), numbers{6});
    EXPECT_EQ(at(o).statistics.replay, 3u);
    EXPECT_EQ(taken(o), 6u);
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
    EXPECT_EQ(receive(sealed(o, {40, 42, 43, 50})), (numbers{40, 42, 43, 50}));
    EXPECT_EQ(receive(sealed(o, {41, 42, 43, 44, 45})), (numbers{41, 44, 45}));
    EXPECT_EQ(receive(sealed(o, {46, 47, 48})), (numbers{46, 47, 48})) << "a run behind the newest";
    EXPECT_EQ(newest(o), 50u);
    EXPECT_EQ(receive(sealed(o, {47, 50})), numbers{});
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
            EXPECT_EQ(newest(o), first + 63);
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
        (in_bytes ? o.limits.hard_bytes : o.limits.hard_packets) = in_bytes ? 64 * 13 : 13;
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
    std::uint64_t bytes = 64; // the first packet's
    for (std::uint32_t n = 1; n <= 40; ++n) {
        burst.push_back(sealed(o, n, 60 + n));
        bytes += 60 + n;
    }
    EXPECT_EQ(receive(burst), up_to(40));
    EXPECT_EQ(run_of(o).account.packets.get(), 41u);
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
    EXPECT_EQ(taken(a), 4u);
    EXPECT_EQ(taken(b), 4u);
    EXPECT_EQ(newest(a), 4u);
    EXPECT_EQ(newest(b), 104u);
    EXPECT_EQ(receive(burst), numbers{});
}

TEST_F(InboundRun, AForgeryOfOneSaIsHeldAgainstNoOther) {
    const tunnel_options a{.spi = 0x1000}, b{.spi = 0x2000, .key_seed = 7};
    begin(a);
    begin(b);
    std::vector<frame> burst{sealed(a, 1),   sealed(a, 2), sealed(b, 101),
                             sealed(b, 102), sealed(a, 3), sealed(b, 103)};
    burst[3].back() ^= 1;
    EXPECT_EQ(receive(burst), (numbers{1, 2, 101, 3, 103}));
    EXPECT_EQ(at(a).statistics.integrity_failed, 0u);
    EXPECT_EQ(at(b).statistics.integrity_failed, 1u);
}

TEST_F(InboundRun, TheSameSpiAtAnotherAddressIsAnotherSa) {
    const tunnel_options v4{.key_seed = 3};
    const tunnel_options v6{.outer = family::ipv6, .key_seed = 5};
    begin(v4);
    begin(v6);
    const std::uint64_t before = two.drops(drop_reason::policy_template);
    std::vector<frame> burst = sealed(v4, up_to(4)), others = sealed(v6, up_to(3));
    burst.insert(burst.begin() + 1, others.begin(), others.end());
    EXPECT_EQ(receive(burst), up_to(4));
    EXPECT_EQ(two.drops(drop_reason::policy_template), before + 3)
        << "the policies ask for the other's address";
    EXPECT_EQ(taken(v4), 4u);
    EXPECT_EQ(taken(v6), 3u);
}

TEST_F(InboundRun, AnSaThatNobodyKnowsOrThatWasTakenAwayHarmsNoOther) {
    const tunnel_options a{.spi = 0x1000}, b{.spi = 0x2000, .key_seed = 7};
    begin(a);
    begin(b);
    const tunnel_options unknown{.spi = 0x3000};
    know(unknown);
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
    std::vector<frame> burst;
    for (std::uint32_t n = 1; n <= 6; ++n) {
        const auto port = static_cast<std::uint16_t>(2000 + n % 2);
        burst.push_back(
            sealed(o, make_packet({.destination_port = port, .number = n}), wire::proto_ipip, n));
    }
    EXPECT_EQ(receive(burst), (numbers{2, 4, 6}));
    EXPECT_EQ(two.drops(drop_reason::sa_selector), 3u);
    EXPECT_EQ(taken(o), 6u) << "they were authentic";
}

TEST_F(InboundRun, AnSaOfIpv6GivesUpNoIpv4) {
    tunnel_options o;
    o.sel.fam = family::ipv6;
    begin(o);
    const std::uint64_t before = two.drops(drop_reason::inner_family);
    std::vector<frame> burst = sealed(o, up_to(3));
    burst.push_back(
        sealed(o, make_packet({.family = family::ipv6, .number = 4}), wire::proto_ipv6, 4));
    EXPECT_EQ(receive(burst), numbers{4});
    EXPECT_EQ(two.drops(drop_reason::inner_family), before + 3);
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
    const auto inner = [](std::uint32_t n) { return make_packet({.number = n}); };
    constexpr std::uint8_t v4 = wire::proto_ipip;
    frame bad_sum = inner(2);
    bad_sum[10] ^= 1;
    frame padded = inner(9);
    padded.resize(100); // RFC 4303 section 2.7
    const struct {
        frame inner;
        std::uint8_t next;
        drop_reason why; ///< none: it goes on
    } cases[] = {
        {inner(1), v4, drop_reason::none},
        {bad_sum, v4, drop_reason::ip_checksum},
        {changed(inner(3), 3, 200), v4, drop_reason::ip_malformed},
        {changed(inner(4), 3, 27), v4, drop_reason::ip_malformed},
        {changed(inner(5), 12, 127), v4, drop_reason::ip_scope},
        {changed(inner(6), 16, 224), v4, drop_reason::ip_scope},
        {changed(inner(7), 12, 0), v4, drop_reason::ip_scope},
        {with_options(inner(8)), v4, drop_reason::none},
        {padded, v4, drop_reason::none},
        {make_packet({.family = family::ipv6, .number = 10}), wire::proto_ipv6, drop_reason::none},
        {frame(50), wire::proto_none, drop_reason::dummy},
        {inner(12), wire::proto_tcp, drop_reason::inner_malformed},
        {changed(inner(13), 16, 20), v4, drop_reason::policy_missing},
        {changed(inner(14), 3, 66), v4, drop_reason::ip_malformed}, // into the trailer
        {changed(inner(15), 3, 75), v4, drop_reason::ip_malformed}, // into the ICV
        {inner(16), v4, drop_reason::none},
    };
    std::vector<frame> burst;
    std::map<drop_reason, std::uint64_t> want;
    for (const auto& one : cases) {
        burst.push_back(
            sealed(o, one.inner, one.next, static_cast<std::uint32_t>(burst.size() + 1)));
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
    EXPECT_EQ(out.back(), make_packet({.number = 16, .ttl = 63}));
    EXPECT_EQ(newest(o), std::size(cases));
}

} // namespace
} // namespace esplane::tests

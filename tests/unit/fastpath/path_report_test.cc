// SPDX-License-Identifier: Apache-2.0
//
// Routers that say that ESP was too long: which of them control hears.
#include "fastpath/path_report.h"

#include <gtest/gtest.h>

#include "lib/wire/checksum.h"
#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using ipsec::family;

using gateway_ports::secure;
constexpr std::uint32_t mtu = 1300;

/// ICMP "fragmentation needed" or "packet too big" from a router to the source of `about`.
frame too_big(const frame& about, std::size_t quote) {
    const bool v4 = about[0] >> 4 == 4;
    const std::size_t ip = v4 ? 20 : 40;
    frame e(ip + 8);
    e[ip] = v4 ? 3 : 2;
    e[ip + 1] = v4 ? 4 : 0;
    wire::store(&e[ip + 4], wire::be32(mtu));
    e.insert(e.end(), about.begin(), about.begin() + static_cast<std::ptrdiff_t>(quote));
    const auto length = static_cast<std::uint32_t>(e.size() - ip);
    std::uint64_t sum = 0;
    if (v4) {
        wire::ipv4_header h{};
        h.version_ihl = 0x45;
        h.total_length.set(static_cast<std::uint16_t>(e.size()));
        h.ttl = 60;
        h.protocol = wire::proto_icmp;
        h.source = ipsec::address::parse("192.168.77.254")->as_v4();
        h.destination = wire::load<wire::be32>(&about[12]);
        h.checksum = wire::checksum_finish(wire::checksum_add(0, &h, sizeof h));
        wire::store(e.data(), h);
    } else {
        wire::ipv6_header h{};
        h.version_class_flow.set(0x60000000);
        h.payload_length.set(static_cast<std::uint16_t>(length));
        h.next_header = wire::proto_icmpv6;
        h.hop_limit = 60;
        h.source = ipsec::address::parse("fd77::254")->bytes;
        std::copy_n(&about[8], 16, h.destination.begin());
        wire::store(e.data(), h);
        sum = wire::checksum_pseudo(h.source.data(), h.destination.data(), 16, wire::proto_icmpv6,
                                    length);
    }
    wire::store(&e[ip + 2], wire::checksum_finish(wire::checksum_add(sum, &e[ip], length)));
    return e;
}

/// A gateway with a tunnel, and ESP that it sent.
struct sender {
    explicit sender(const tunnel_options& o)
        : options(o) {
        one.add_tunnel(o);
        one.push(lab::plain, {make_packet({.length = 1400})});
        const auto sent = one.sent(secure);
        if (!sent.empty()) esp = sent[0];
    }
    /// What the worker tells control of a packet that arrives.
    std::optional<fastpath::worker_event> told_of(const frame& f) {
        (void)one.ports[secure]->inject(with_ethernet(f), 0);
        one.run();
        for (fastpath::worker_event e; one.worker->events().pop(e);)
            if (e.kind == fastpath::worker_event_kind::path_limit) return e;
        return std::nullopt;
    }
    tunnel_options options;
    lab one{1};
    frame esp;
};

TEST(PathReport, NamesTheSaWhoseEspWasTooLong) {
    for (const family outer : {family::ipv4, family::ipv6})
        for (const bool encapsulated : {false, true}) {
            if (encapsulated && outer == family::ipv6) continue;
            sender s({.outer = outer, .encapsulated = encapsulated});
            const auto said = s.told_of(too_big(s.esp, 100));
            ASSERT_TRUE(said);
            EXPECT_EQ(said->id, s.one.sa_of(s.options, true));
            EXPECT_EQ(said->mtu, mtu);
            EXPECT_EQ(said->source, s.one.control.get_sa(said->id)->source);
            EXPECT_TRUE(s.one.worker->counters().balanced());
        }
}

TEST(PathReport, IsNotHeardWhereItIsDamagedOrQuotesTooLittle) {
    sender s({});
    frame damaged = too_big(s.esp, 100);
    damaged.back() ^= 1;
    EXPECT_FALSE(s.told_of(damaged));
    EXPECT_FALSE(s.told_of(too_big(s.esp, 23)));
    EXPECT_TRUE(s.told_of(too_big(s.esp, 24))) << "an SPI is enough";
}

TEST(PathReport, IsNotHeardOfWhatTheMachineDidNotSend) {
    sender s({});
    frame of_others = s.esp;
    of_others[15] ^= 1; // another source, which the router would have told
    frame e = too_big(of_others, 100);
    std::copy_n(&s.esp[12], 4, &e[16]);
    wire::store(&e[10], wire::be16());
    wire::store(&e[10], wire::checksum_finish(wire::checksum_add(0, e.data(), 20)));
    EXPECT_FALSE(s.told_of(e));
    frame not_esp = s.esp;
    not_esp[9] = wire::proto_tcp;
    EXPECT_FALSE(s.told_of(too_big(not_esp, 100)));
    frame udp = s.esp;
    udp[9] = wire::proto_udp; // from a port that no SA has
    EXPECT_FALSE(s.told_of(too_big(udp, 100)));
}

TEST(PathReport, IsHeardAtABoundedRate) {
    sender s({});
    const frame e = too_big(s.esp, 100);
    std::size_t heard = 0;
    for (int i = 0; i < 200; ++i)
        heard += s.told_of(e) ? 1 : 0;
    EXPECT_EQ(heard, fastpath::creation_budget::depth);
}

} // namespace
} // namespace esplane::tests

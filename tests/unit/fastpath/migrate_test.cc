// SPDX-License-Identifier: Apache-2.0
//
// Tunnels that go on between other addresses while packets flow: XFRM_MSG_MIGRATE.
//
//   site 1 ==== ESP between 192.168.77.1 and .2 ====> site 2      before
//   site 1 ==== ESP between fd77::1 and fd77::2 ====> site 2      after
#include <gtest/gtest.h>

#include <set>

#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using gateway_ports::plain;
using gateway_ports::secure;

using places = std::map<ipsec::address, ipsec::address>;

const places to_ipv6{{*ipsec::address::parse("192.168.77.1"), *ipsec::address::parse("fd77::1")},
                     {*ipsec::address::parse("192.168.77.2"), *ipsec::address::parse("fd77::2")}};
const places site_1_elsewhere{
    {*ipsec::address::parse("192.168.77.1"), *ipsec::address::parse("192.168.77.11")}};

struct Migrating : testing::Test {
    Migrating() {
        one.add_tunnel(o);
        two.add_tunnel(o);
    }

    /// One request for each policy, as key managers make them.
    static void migrate(lab& g, const places& to) {
        const auto place = [&](const ipsec::address& a) {
            const auto at = to.find(a);
            return at == to.end() ? a : at->second;
        };
        std::vector<ipsec::migration> all;
        control::cursor c;
        while (const ipsec::policy* p = g.control.next_policy(c)) {
            const ipsec::template_& t = p->templates.front();
            ipsec::migration m;
            m.selected.dir = p->dir;
            m.selected.sel = p->sel;
            m.moves.push_back({t.source, t.id.destination, place(t.source), place(t.id.destination),
                               50, ipsec::mode::tunnel, t.reqid});
            all.push_back(std::move(m));
        }
        for (const ipsec::migration& m : all) {
            const auto done = g.control.migrate(m, {}, g.clock);
            ASSERT_TRUE(done) << done.error().text << ' ' << done.error().code;
        }
    }
    /// Sends packets of those numbers; remembers their ESP.
    void send(std::uint32_t first, std::uint32_t count) {
        for (std::uint32_t n = first; n < first + count; ++n)
            one.push(plain, {make_packet({.number = n})});
        for (frame& f : one.sent(secure))
            esp.push_back(std::move(f));
    }
    /// Has the remembered ESP from index `first` on arrive.
    void arrive(std::size_t first) {
        two.push(secure, {esp.begin() + static_cast<std::ptrdiff_t>(first), esp.end()});
        for (const frame& f : two.sent(plain))
            arrived.push_back(number_of(f));
    }
    static std::size_t esp_of(const frame& f) {
        return f[0] >> 4 == 4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
    }
    static std::uint32_t sequence_of(const frame& f) {
        return wire::load<wire::be32>(f.data() + esp_of(f) + 4).host();
    }
    static std::uint64_t iv_of(const frame& f) {
        return wire::load<std::uint64_t>(f.data() + esp_of(f) + 8);
    }
    const ipsec::sa& sa_at(lab& g, unsigned spi, const char* destination) {
        const auto* s =
            g.control.get_sa({*ipsec::address::parse(destination), wire::be32(spi), 50});
        EXPECT_NE(s, nullptr);
        return *s;
    }

    const tunnel_options o{};
    lab one{1}, two{2};
    std::vector<frame> esp;
    std::vector<std::uint32_t> arrived;
};

TEST_F(Migrating, LosesNoPacketAndRepeatsNoIv) {
    send(0, 20);
    arrive(0);
    migrate(one, to_ipv6);
    migrate(two, to_ipv6);
    send(20, 20);
    arrive(20);
    ASSERT_EQ(esp.size(), 40u);
    EXPECT_EQ(esp[19][0] >> 4, 4);
    EXPECT_EQ(esp[20][0] >> 4, 6);
    ASSERT_EQ(arrived.size(), 40u);
    EXPECT_TRUE(std::is_sorted(arrived.begin(), arrived.end()));
    std::set<std::uint64_t> ivs;
    for (std::size_t i = 0; i < esp.size(); ++i) {
        EXPECT_TRUE(ivs.insert(iv_of(esp[i])).second);
        if (i != 0) {
            EXPECT_GT(sequence_of(esp[i]), sequence_of(esp[i - 1]));
        }
    }
}

TEST_F(Migrating, CountsOn) {
    send(0, 20);
    arrive(0);
    migrate(one, to_ipv6);
    migrate(two, to_ipv6);
    send(20, 5);
    arrive(20);
    EXPECT_EQ(sa_at(one, 0x1000, "fd77::2").current.packets, 25u);
    EXPECT_EQ(sa_at(two, 0x1000, "fd77::2").current.packets, 25u);
    EXPECT_EQ(one.control.sa_count(), 2u);
    EXPECT_EQ(two.control.sa_count(), 2u);
}

TEST_F(Migrating, LeavesTheWindowWhereItWas) {
    send(0, 20);
    arrive(0);
    migrate(two, site_1_elsewhere);
    arrive(0); // all of it again
    EXPECT_EQ(arrived.size(), 20u);
    EXPECT_EQ(two.drops(drop_reason::replay_duplicate), 20u);
    EXPECT_EQ(sa_at(two, 0x1000, "192.168.77.2").replay.received, 20u);
}

TEST_F(Migrating, EndsTheSaAtItsOldPlace) {
    send(0, 3);
    migrate(two, to_ipv6);
    arrive(0);
    EXPECT_TRUE(arrived.empty());
    EXPECT_EQ(two.drops(drop_reason::sa_unknown), 3u);
}

TEST_F(Migrating, KeepsTheNumberOfAnSaThatSendsNothing) {
    const ipsec::sa_id id = one.sa_of(o, true);
    ipsec::sa s = one.control.get_sa(id)->clone();
    s.algs = make_algorithms(o.run, o.key_seed * 2);
    s.replay.sent = 1000;
    ASSERT_TRUE(one.control.delete_sa(id, {}));
    ASSERT_TRUE(one.control.add_sa(std::move(s), {}, one.clock));
    migrate(one, to_ipv6);
    EXPECT_EQ(sa_at(one, 0x1000, "fd77::2").replay.sent, 1000u);
    send(0, 1);
    EXPECT_EQ(sequence_of(esp.at(0)), 1001u);
}

TEST_F(Migrating, PutsTunnelsIntoUdpAndTheirPortsAreKnown) {
    ipsec::migration m;
    const ipsec::address from = *ipsec::address::parse("192.168.77.1");
    const ipsec::address to = *ipsec::address::parse("192.168.77.2");
    m.selected.dir = ipsec::policy_direction::fwd;
    control::cursor c;
    while (const ipsec::policy* p = two.control.next_policy(c))
        if (p->dir == m.selected.dir && p->sel.fam == ipsec::family::ipv4) m.selected.sel = p->sel;
    m.moves.push_back({from, to, from, to, 50, ipsec::mode::tunnel, o.reqid});
    m.encap = ipsec::udp_encapsulation{wire::be16(4500), wire::be16(4500), {}};
    EXPECT_TRUE(two.backend.encap_ports().empty());
    ASSERT_TRUE(two.control.migrate(m, {}, two.clock));
    EXPECT_EQ(two.backend.encap_ports(), std::vector<wire::be16>{wire::be16(4500)});
    send(0, 1);
    arrive(0);
    EXPECT_EQ(two.drops(drop_reason::sa_encapsulation), 1u) << "plain ESP is not its any more";
}

} // namespace
} // namespace esplane::tests

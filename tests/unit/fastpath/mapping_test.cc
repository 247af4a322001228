// SPDX-License-Identifier: Apache-2.0
//
// A NAT on the way whose mapping changes: who hears of it, and what it takes.
#include <gtest/gtest.h>

#include <algorithm>

#include "lib/wire/checksum.h"
#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using gateway_ports::plain;
using gateway_ports::secure;
constexpr std::uint64_t second = 1'000'000'000;

struct heard final : ipsec::listener {
    void on_event(const ipsec::event& e) override {
        if (const auto* m = std::get_if<ipsec::sa_mapping>(&e))
            all.push_back(m->source.to_string() + " " + std::to_string(m->port.host()));
    }
    std::vector<std::string> all;
};

struct Mapping : testing::TestWithParam<ipsec::family> {
    Mapping() { start(0); }
    ~Mapping() override { two->control.unsubscribe(&log); }

    void start(std::uint32_t threshold) {
        one = std::make_unique<lab>(1u);
        two = std::make_unique<lab>(2u);
        one->add_tunnel(o);
        two->add_tunnel(o);
        ipsec::sa s = two->control.get_sa(two->sa_of(o, false))->clone();
        s.algs = make_algorithms(o.run, o.key_seed * 2 + 1);
        s.mapping_threshold = threshold;
        (void)two->control.delete_sa(s.id, {});
        (void)two->control.add_sa(std::move(s), {}, two->clock);
        two->control.subscribe(&log);
    }
    frame esp() {
        one->push(plain, {make_packet({.family = ipsec::family::ipv4})});
        return one->sent(secure).at(0);
    }
    bool v4() const { return GetParam() == ipsec::family::ipv4; }
    /// As a NAT passes it on that gives it that UDP port.
    frame natted(frame f, std::uint16_t port) const {
        const std::size_t udp = v4() ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
        const auto before = wire::load<wire::be16>(f.data() + udp);
        wire::store(f.data() + udp, wire::be16(port));
        auto check = wire::load<wire::be16>(f.data() + udp + 6);
        if (check != wire::be16()) {
            check = wire::checksum_update(check, before, wire::be16(port));
            wire::store(f.data() + udp + 6, check);
        }
        return f;
    }
    void arrive(const frame& f) {
        two->push(secure, {f});
        two->poll_events();
        arrived += two->sent(plain).size();
    }
    std::string from(std::uint16_t port) const {
        return two->control.get_sa(two->sa_of(o, false))->source.to_string() + " " +
               std::to_string(port);
    }

    const tunnel_options o{.outer = GetParam(), .encapsulated = true};
    std::unique_ptr<lab> one, two;
    heard log;
    std::size_t arrived = 0;
};

TEST_P(Mapping, APeerThatStaysWhereItWasIsNoNews) {
    for (int i = 0; i < 3; ++i)
        arrive(esp());
    EXPECT_EQ(arrived, 3u);
    EXPECT_TRUE(log.all.empty());
}

TEST_P(Mapping, AnAuthenticPacketFromElsewhereIsTakenAndTold) {
    arrive(natted(esp(), 4501));
    EXPECT_EQ(arrived, 1u);
    EXPECT_EQ(log.all, std::vector{from(4501)});
    EXPECT_EQ(two->control.get_sa(two->sa_of(o, false))->encap->source_port, wire::be16(4500))
        << "nothing changes until the client updates the SA";
}

TEST_P(Mapping, AForgedOrAReplayedOneIsNot) {
    const frame good = esp();
    frame forged = natted(good, 4501);
    forged.back() ^= 1;
    arrive(forged);
    EXPECT_TRUE(log.all.empty());
    arrive(good);
    arrive(natted(good, 4501));
    EXPECT_EQ(arrived, 1u);
    EXPECT_TRUE(log.all.empty());
}

TEST_P(Mapping, IsToldOnceASecondWhereTheClientSaysNothing) {
    for (int i = 0; i < 5; ++i)
        arrive(natted(esp(), 4501));
    arrive(natted(esp(), 4502));
    EXPECT_EQ(log.all.size(), 1u) << "whoever is on the path chooses ports";
    two->advance(second + 1);
    arrive(natted(esp(), 4502));
    EXPECT_EQ(log.all, (std::vector{from(4501), from(4502)}));
}

TEST_P(Mapping, IsToldAgainOnlyAfterTheThreshold) {
    two->control.unsubscribe(&log);
    start(60);
    arrive(natted(esp(), 4501));
    two->advance(59 * second);
    arrive(natted(esp(), 4501));
    EXPECT_EQ(log.all.size(), 1u);
    arrive(natted(esp(), 4502));
    EXPECT_EQ(log.all.size(), 2u) << "another mapping is";
    two->advance(61 * second);
    arrive(natted(esp(), 4502));
    EXPECT_EQ(log.all.size(), 3u);
}

TEST_P(Mapping, IsNoNewsAnyMoreOnceTheSaSaysSo) {
    arrive(natted(esp(), 4501));
    ipsec::sa s = two->control.get_sa(two->sa_of(o, false))->clone();
    s.encap->source_port = wire::be16(4501);
    ASSERT_TRUE(two->control.update_sa(std::move(s), {}, two->clock));
    two->advance(2 * second);
    arrive(natted(esp(), 4501));
    EXPECT_EQ(arrived, 2u);
    EXPECT_EQ(log.all.size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Over, Mapping, testing::Values(ipsec::family::ipv4, ipsec::family::ipv6),
                         [](const auto& one) {
                             return one.param == ipsec::family::ipv4 ? "IPv4" : "IPv6";
                         });

} // namespace
} // namespace esplane::tests

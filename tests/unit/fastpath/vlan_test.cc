// SPDX-License-Identifier: Apache-2.0
//
// VLANs on the ports of a gateway in memory, tags on and off.
//
//   plain    untagged  10.1.0.0/16, as in every lab
//            v5        172.16.5.0/24, VLAN 5
//            q         172.16.6.0/24, VLAN 6 in 802.1ad 7
//   secure   untagged  the peer; site 2 behind it
#include <gtest/gtest.h>

#include <algorithm>

#include "lib/wire/checksum.h"
#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using ipsec::address;
using ipsec::family;

using gateway_ports::plain;
using gateway_ports::secure;
constexpr int v5 = 105, v7 = 107, q = 106;
constexpr wire::mac_address v5_mac{2, 0, 0, 0, 5, 1};
constexpr wire::mac_address host_mac{2, 0, 0, 0, 9, 9};
constexpr std::size_t addresses_at = 12; ///< bytes of a frame before tags or type

using tags = std::vector<std::pair<std::uint16_t, std::uint16_t>>; ///< TPID, TCI
const tags in_v5{{0x8100, 5}};
const tags in_q{{0x88a8, 7}, {0x8100, 6}};

/// As it leaves a host of the VLAN, for a station.
frame tagged(const frame& ip_packet, const tags& with, const wire::mac_address& to = v5_mac) {
    frame f = with_ethernet(ip_packet);
    std::copy(to.begin(), to.end(), f.begin());
    frame between;
    for (const auto& [tpid, tci] : with)
        for (const std::uint16_t word : {tpid, tci}) {
            between.push_back(static_cast<std::uint8_t>(word >> 8));
            between.push_back(static_cast<std::uint8_t>(word));
        }
    f.insert(f.begin() + addresses_at, between.begin(), between.end());
    return f;
}

/// A packet of make_packet() between other addresses.
frame between(const char* source, const char* destination, const packet_spec& spec = {}) {
    frame f = make_packet(spec);
    auto ip = wire::load<wire::ipv4_header>(f.data());
    ip.source = address::parse(source)->as_v4();
    ip.destination = address::parse(destination)->as_v4();
    ip.checksum = {};
    ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
    wire::store(f.data(), ip);
    wire::store(f.data() + sizeof ip + 6, wire::be16()); // UDP: no checksum
    return f;
}

frame older(frame ip_packet) {
    auto ip = wire::load<wire::ipv4_header>(ip_packet.data());
    --ip.ttl;
    ip.checksum = {};
    ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
    wire::store(ip_packet.data(), ip);
    return ip_packet;
}

control::link vlan(int ifindex, int parent, std::uint16_t protocol, std::uint16_t id) {
    control::link l{ifindex, "vlan" + std::to_string(id), v5_mac, 1496, true};
    l.kind = control::link_kind::vlan;
    l.parent = parent;
    l.vlan_protocol = protocol;
    l.vlan_id = id;
    return l;
}

struct Vlan : testing::Test {
    lab l{1, 256};

    Vlan() {
        const int port = l.network.links[0].ifindex;
        l.network.links.push_back(vlan(v5, port, 0x8100, 5));
        l.network.links.push_back(vlan(q, v7, 0x8100, 6)); // before the link it stands on
        l.network.links.push_back(vlan(v7, port, 0x88a8, 7));
        connect(v5, "172.16.5.1", "172.16.5.2");
        connect(q, "172.16.6.1", "172.16.6.2");
        l.publish_network();
    }

    void connect(int ifindex, const char* own, const char* host) {
        const auto add = [&](const address& to, std::uint8_t prefix, control::route_kind kind) {
            control::route r;
            r.destination = to;
            r.prefix = prefix;
            r.kind = kind;
            r.ifindex = ifindex;
            l.network.routes.push_back(r);
        };
        const address a = *address::parse(own);
        l.network.addresses.push_back({ifindex, a, 24});
        add(a, 32, control::route_kind::local);
        add(ipsec::masked(a, 24), 24, control::route_kind::unicast);
        l.network.neighbours.push_back({ifindex, *address::parse(host), host_mac, true});
    }

    /// What leaves by a port after a frame came in by one.
    std::vector<frame> pass(std::uint16_t from, const frame& f, std::uint16_t to) {
        (void)l.ports[from]->inject(f);
        while (l.worker->run_once(l.clock) != 0) {
        }
        EXPECT_TRUE(l.worker->counters().balanced());
        return l.ports[to]->take_sent();
    }
};

TEST_F(Vlan, TakesTagsOffAndPutsThemOn) {
    const frame there = between("172.16.5.2", "172.16.6.2");
    const auto out = pass(plain, tagged(there, in_v5), plain);
    ASSERT_EQ(out.size(), 1u);
    frame want = tagged(older(there), in_q, host_mac);
    std::copy(v5_mac.begin(), v5_mac.end(), want.begin() + 6);
    EXPECT_EQ(out[0], want);

    const frame back = between("172.16.6.2", "172.16.5.2");
    const auto returned = pass(plain, tagged(back, in_q), plain);
    ASSERT_EQ(returned.size(), 1u);
    want = tagged(older(back), in_v5, host_mac);
    std::copy(v5_mac.begin(), v5_mac.end(), want.begin() + 6);
    EXPECT_EQ(returned[0], want);
}

TEST_F(Vlan, ATagOfPriorityAloneIsNone) {
    const frame ip = make_packet({.number = 3});
    const wire::mac_address port = l.network.links[0].mac;
    EXPECT_EQ(pass(plain, tagged(ip, {{0x8100, 0x6000}}, port), secure).size(), 1u);
    EXPECT_EQ(pass(plain, tagged(between("172.16.5.2", "172.16.6.2"), {{0x8100, 0xa000}, in_v5[0]}),
                   plain)
                  .size(),
              1u);
    // Priority and the drop bit beside a VID do not matter either.
    EXPECT_EQ(
        pass(plain, tagged(between("172.16.5.2", "172.16.6.2"), {{0x8100, 0xf005}}), plain).size(),
        1u);
}

TEST_F(Vlan, DropsByNameWhatNoInterfaceTakes) {
    const frame ip = between("172.16.5.2", "172.16.6.2");
    const tags unknown[] = {{{0x8100, 9}},
                            {{0x88a8, 5}},              // another TPID
                            {{0x88a8, 7}, {0x8100, 9}}, // the outer one alone is known
                            {{0x8100, 5}, {0x8100, 6}},
                            {{0x88a8, 7}, {0x8100, 6}, {0x8100, 5}}};
    for (const tags& t : unknown)
        EXPECT_TRUE(pass(plain, tagged(ip, t), plain).empty());
    EXPECT_EQ(l.drops(drop_reason::vlan_unknown), std::size(unknown));
    EXPECT_TRUE(pass(secure, tagged(ip, in_v5), plain).empty()) << "a VLAN of another port";
    EXPECT_EQ(l.drops(drop_reason::vlan_unknown), std::size(unknown) + 1);
}

TEST_F(Vlan, AVlanThatIsSwitchedOffReceivesNothing) {
    const frame there = between("172.16.5.2", "172.16.6.2");
    for (control::link& link : l.network.links)
        if (link.ifindex == v5) link.up = false;
    l.publish_network();
    EXPECT_TRUE(pass(plain, tagged(there, in_v5), plain).empty());
    EXPECT_EQ(l.drops(drop_reason::vlan_unknown), 1u);
    const frame other = between("172.16.6.2", "10.2.0.1");
    EXPECT_EQ(pass(plain, tagged(other, in_q), secure).size(), 1u) << "the other one does";
    for (control::link& link : l.network.links)
        link.up = true;
    l.publish_network();
    EXPECT_EQ(pass(plain, tagged(there, in_v5), plain).size(), 1u);
}

TEST_F(Vlan, NamesEveryTruncation) {
    const frame whole = tagged(between("172.16.5.2", "172.16.6.2"), in_q);
    for (std::size_t n = 0; n < whole.size(); ++n)
        EXPECT_TRUE(pass(plain, frame(whole.begin(), whole.begin() + n), plain).empty()) << n;
    EXPECT_EQ(l.drops(drop_reason::frame_malformed) + l.drops(drop_reason::ip_malformed),
              whole.size());
}

TEST_F(Vlan, PuntsWithTheTagsItCameWith) {
    const frame f = tagged(between("172.16.6.2", "172.16.6.1"), in_q);
    EXPECT_TRUE(pass(plain, f, plain).empty());
    const auto up = l.ports[plain]->take_punted();
    ASSERT_EQ(up.size(), 1u);
    EXPECT_EQ(up[0], f);
}

TEST_F(Vlan, AnErrorGoesBackIntoTheVlanFromItsAddress) {
    const auto out =
        pass(plain, tagged(between("172.16.5.2", "10.2.0.1", {.ttl = 1}), in_v5), plain);
    ASSERT_EQ(out.size(), 1u);
    const frame head(out[0].begin() + addresses_at, out[0].begin() + addresses_at + 4);
    EXPECT_EQ(head, (frame{0x81, 0x00, 0x00, 0x05}));
    const auto ip = wire::load<wire::ipv4_header>(out[0].data() + addresses_at + 6);
    EXPECT_EQ(address::v4(ip.source), *address::parse("172.16.5.1"));
    EXPECT_EQ(ip.protocol, wire::proto_icmp);
}

TEST_F(Vlan, TellsTheVlansMtu) {
    const frame big = between("10.1.0.10", "172.16.5.2", {.length = 1500});
    const wire::mac_address port = l.network.links[0].mac;
    const auto out = pass(plain, tagged(big, {}, port), plain);
    ASSERT_EQ(out.size(), 1u); // "fragmentation needed", untagged: where it came from
    const std::uint8_t* icmp = out[0].data() + addresses_at + 2 + sizeof(wire::ipv4_header);
    EXPECT_EQ(icmp[0], 3);
    EXPECT_EQ(wire::load<wire::be16>(icmp + 6).host(), 1496);
}

/// From VLAN 5 through a tunnel and back out of it.
TEST_F(Vlan, CarriesProtectedTrafficOfAVlan) {
    lab far{2, 256};
    l.add_tunnel({});
    far.add_tunnel({});
    control::route r;
    r.destination = *address::parse("10.1.0.0");
    r.prefix = 16;
    r.ifindex = v5;
    r.gateway = *address::parse("172.16.5.2");
    std::erase_if(l.network.routes, [&](const control::route& one) {
        return one.destination == r.destination && one.prefix == r.prefix;
    });
    l.network.routes.push_back(r);
    l.publish_network();

    const frame there = make_packet({.number = 1});
    auto esp = pass(plain, tagged(there, in_v5), secure);
    ASSERT_EQ(esp.size(), 1u);
    far.push(secure, {without_ethernet(esp[0])});
    EXPECT_EQ(far.sent(plain).size(), 1u);

    far.push(plain, {make_packet({.from = 2, .to = 1, .number = 2})});
    esp = far.ports[secure]->take_sent();
    ASSERT_EQ(esp.size(), 1u);
    const auto clear = pass(secure, with_ethernet(without_ethernet(esp[0])), plain);
    ASSERT_EQ(clear.size(), 1u);
    const frame inner(clear[0].begin() + addresses_at + 6, clear[0].end());
    EXPECT_EQ(number_of(inner), 2u);
    EXPECT_EQ(clear[0][addresses_at + 3], 5);
}

/// What was inside is addressed to the interface that the ESP came in by.
TEST_F(Vlan, HandsUpWhatWasInsideWithTheTagsOfItsInterface) {
    lab far{2, 256};
    l.add_tunnel({});
    far.add_tunnel({});
    far.push(plain, {make_packet({.from = 2, .to = 1, .host = 1, .number = 2})});
    const auto esp = far.sent(secure);
    ASSERT_EQ(esp.size(), 1u);
    (void)pass(plain, tagged(esp[0], in_q), plain);
    const auto up = l.ports[plain]->take_punted();
    ASSERT_EQ(up.size(), 1u);
    const frame want =
        tagged(make_packet({.from = 2, .to = 1, .host = 1, .number = 2, .ttl = 63}), in_q);
    EXPECT_EQ(frame(up[0].begin() + addresses_at, up[0].end()),
              frame(want.begin() + addresses_at, want.end()));
    EXPECT_TRUE(std::equal(v5_mac.begin(), v5_mac.end(), up[0].begin()));
}

/// A port whose frames the stack receives by itself has another way up, for IP packets.
TEST_F(Vlan, HandsUpWhatWasInsideBareWhereTheStackHasTheFrames) {
    lab far{2, 256};
    l.add_tunnel({});
    far.add_tunnel({});
    l.ports[plain]->let_stack_listen();
    far.push(plain, {make_packet({.from = 2, .to = 1, .host = 1, .number = 2})});
    const auto esp = far.sent(secure);
    ASSERT_EQ(esp.size(), 1u);
    (void)pass(plain, tagged(esp[0], in_q), plain);
    const auto up = l.ports[plain]->take_punted();
    ASSERT_EQ(up.size(), 1u);
    EXPECT_EQ(up[0], make_packet({.from = 2, .to = 1, .host = 1, .number = 2, .ttl = 63}));

    (void)pass(plain, tagged(between("172.16.6.2", "172.16.6.1"), in_q), plain);
    EXPECT_TRUE(l.ports[plain]->take_punted().empty()) << "the stack has that frame";
}

} // namespace
} // namespace esplane::tests

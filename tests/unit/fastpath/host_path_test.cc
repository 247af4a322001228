// SPDX-License-Identifier: Apache-2.0
//
// A host's own traffic through the path: two hosts, each with the machine as one port and the
// network that its kernel reaches as the other.
#include <gtest/gtest.h>

#include "lib/wire/checksum.h"
#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using ipsec::family;

using host_ports::machine;
using host_ports::network;
constexpr std::uint16_t itself = 1; ///< the host number that is the machine

struct two_hosts : testing::TestWithParam<family> {
    two_hosts()
        : near(1, 1024, 1, 0, lab_kind::host)
        , far(2, 1024, 1, 0, lab_kind::host) {}

    void protect(const tunnel_options& o = {}) {
        near.add_tunnel(o);
        far.add_tunnel(o);
    }
    /// What comes up at the far host of what the near one's stack sends.
    std::vector<frame> carry(const std::vector<frame>& packets) {
        near.push(machine, packets);
        far.push(network, near.sent(network));
        return far.punted(machine);
    }
    frame packet(std::uint16_t host, std::uint32_t length = 100) const {
        return make_packet({.family = GetParam(), .host = host, .length = length});
    }

    lab near, far;
};

TEST_P(two_hosts, CarryWhatTheMachinesSendEachOtherUnchanged) {
    protect();
    const frame sent = packet(itself);
    EXPECT_EQ(carry({sent}), std::vector<frame>{sent}) << "no hop is counted";
}

TEST_P(two_hosts, CarryWhatTheirKernelsForwardUnchanged) {
    protect();
    const frame sent = packet(10);
    EXPECT_EQ(carry({sent}), std::vector<frame>{sent}) << "each kernel counts its hop itself";
}

TEST_P(two_hosts, HoldForwardedPacketsAgainstFwdAndTheMachinesOwnNot) {
    protect();
    ipsec::policy block;
    block.dir = ipsec::policy_direction::fwd;
    block.sel.fam = GetParam();
    block.action = ipsec::policy_action::block;
    near.add_policy(block);
    EXPECT_EQ(carry({packet(10)}), std::vector<frame>{});
    EXPECT_EQ(near.drops(drop_reason::policy_block), 1u);
    EXPECT_EQ(carry({packet(itself)}).size(), 1u);
}

TEST_P(two_hosts, SendWhatNoPolicyProtectsAsItIsWhereTheKernelRoutesIt) {
    const frame sent = packet(itself);
    near.push(machine, {sent});
    EXPECT_EQ(near.sent(network), std::vector<frame>{sent});
}

TEST_P(two_hosts, BlockWhatAPolicyProtectsWhileNoSaIsThere) {
    near.add_policies({});
    EXPECT_EQ(carry({packet(itself)}), std::vector<frame>{});
}

TEST_P(two_hosts, SendNothingIntoTheMachineAgain) {
    near.network.routes.insert(near.network.routes.begin(), [] {
        control::route r;
        r.destination = *ipsec::address::parse("10.2.0.0");
        r.prefix = 16;
        r.ifindex = 13;
        return r;
    }());
    near.publish_network();
    if (GetParam() != family::ipv4) return;
    near.push(machine, {packet(itself)});
    EXPECT_TRUE(near.sent(machine).empty());
    EXPECT_TRUE(near.sent(network).empty());
    EXPECT_EQ(near.drops(drop_reason::route_denied), 1u);
}

TEST_P(two_hosts, TellTheMachineInTheNameOfTheDestinationWhatDoesNotFit) {
    protect();
    near.push(machine, {packet(itself, 1480)});
    EXPECT_TRUE(near.sent(network).empty());
    const std::vector<frame> up = near.punted(machine);
    ASSERT_EQ(up.size(), 1u);
    const frame asked = packet(itself);
    if (GetParam() == family::ipv4) {
        EXPECT_TRUE(std::equal(&up[0][12], &up[0][16], &asked[16])) << "from its destination";
        EXPECT_TRUE(std::equal(&up[0][16], &up[0][20], &asked[12])) << "to its source";
        EXPECT_EQ(up[0][20], 3) << "destination unreachable";
        EXPECT_EQ(up[0][21], 4) << "fragmentation needed";
        EXPECT_LT(wire::load<wire::be16>(&up[0][26]).host(), 1480);
        EXPECT_EQ(wire::checksum_finish(wire::checksum_add(0, &up[0][20], up[0].size() - 20)),
                  wire::be16());
    } else {
        EXPECT_TRUE(std::equal(&up[0][8], &up[0][24], &asked[24])) << "from its destination";
        EXPECT_TRUE(std::equal(&up[0][24], &up[0][40], &asked[8])) << "to its source";
        EXPECT_EQ(up[0][40], 2) << "packet too big";
        EXPECT_LT(wire::load<wire::be32>(&up[0][44]).host(), 1480u);
    }
}

/// Of IPv4, not the first: no ports.
frame later_fragment(std::uint16_t host = itself) {
    frame fragment = make_packet({.host = host, .dont_fragment = false});
    auto& ip = *reinterpret_cast<wire::ipv4_header*>(fragment.data());
    ip.fragment.set(100);
    ip.checksum = {};
    ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
    return fragment;
}

TEST_P(two_hosts, CarryFragmentsByPoliciesWithoutPorts) {
    if (GetParam() != family::ipv4) return;
    protect();
    const frame fragment = later_fragment();
    EXPECT_EQ(carry({fragment}), std::vector<frame>{fragment});
}

TEST_P(two_hosts, LetNoFragmentOutInClearThatAPolicyWithPortsMayMean) {
    if (GetParam() != family::ipv4) return;
    const frame fragment = later_fragment();
    near.push(machine, {fragment});
    EXPECT_EQ(near.sent(network), std::vector<frame>{fragment}) << "no policy";
    ipsec::policy one_port;
    one_port.sel.fam = family::ipv4;
    one_port.sel.protocol = wire::proto_udp;
    one_port.sel.destination_port = wire::be16(5000);
    one_port.sel.destination_port_mask = wire::be16(0xffff);
    one_port.action = ipsec::policy_action::block;
    near.add_policy(one_port);
    near.push(machine, {fragment});
    EXPECT_TRUE(near.sent(network).empty());
    EXPECT_EQ(near.drops(drop_reason::fragment), 1u);
}

TEST_P(two_hosts, ForwardFragmentsThatCameProtectedWhateverPoliciesWithPortsSay) {
    if (GetParam() != family::ipv4) return;
    protect();
    ipsec::policy port;
    port.dir = ipsec::policy_direction::out;
    port.sel.fam = family::ipv4;
    port.sel.protocol = wire::proto_udp;
    port.sel.destination_port = wire::be16(7);
    port.sel.destination_port_mask = wire::be16(0xffff);
    port.action = ipsec::policy_action::block;
    far.add_policy(port);
    const frame fragment = later_fragment(10);
    EXPECT_EQ(carry({fragment}), std::vector<frame>{fragment});
}

INSTANTIATE_TEST_SUITE_P(Families, two_hosts, testing::Values(family::ipv4, family::ipv6),
                         [](const auto& f) {
                             return std::string(f.param == family::ipv4 ? "IPv4" : "IPv6");
                         });

} // namespace
} // namespace esplane::tests

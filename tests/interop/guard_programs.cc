// SPDX-License-Identifier: Apache-2.0
//
// The two BPF programs themselves, packet by packet (BPF_PROG_TEST_RUN), and who may have a device:
// in a network namespace and with a /run of the test's own.  Needs root; skips (77) without it.
#include <cstdio>
#include <cstdlib>
#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <linux/pkt_cls.h>

#include "fastpath/xdp/port_xdp.h"
#include "lib/wire/headers.h"
#include "tests/interop/guard_bed.h"
#include "tests/unit/fastpath/xdp_rules_model.h"

namespace esplane::fastpath {
namespace {

// Nobody holds a socket here: what is for esplane is dropped.
constexpr auto taken = esplane_dropped_nobody_holds;

TEST_F(GuardPrograms, TransitIsNeverPassed) {
    EXPECT_EQ(ingress({.to = "10.2.0.10"}), taken);
    EXPECT_EQ(ingress({.to = "fd02::10", .from = "fd09::9"}), taken);
    EXPECT_EQ(ingress({.to = "10.2.0.10", .payload = udp(500, 500, bytes(64, 1))}), taken);
    EXPECT_EQ(ingress({.to = "fe80::77", .from = "fd09::9"}), taken);
    EXPECT_EQ(ingress({.to = "10.2.0.10", .fragment = 100}), taken);
}

TEST_F(GuardPrograms, EspForTheMachineIsTakenInEveryShape) {
    EXPECT_EQ(ingress({.protocol = wire::proto_esp}), taken);
    EXPECT_EQ(ingress({.protocol = wire::proto_esp, .fragment = 100}), taken);
    EXPECT_EQ(ingress({.to = "fd01::1", .from = "fd09::9", .protocol = wire::proto_esp}), taken);
    EXPECT_EQ(ingress({.to = "fd01::1",
                       .from = "fd09::9",
                       .protocol = wire::proto_esp,
                       .extension = {wire::proto_dstopts, 0, 1, 4, 0, 0, 0, 0}}),
              taken);
    EXPECT_EQ(ingress({.payload = udp(4500, 4500, bytes(64, 1))}), taken);
}

TEST_F(GuardPrograms, IkeAndKeepalivesArePassed) {
    EXPECT_EQ(ingress({.payload = udp(500, 500, bytes(64, 1))}), esplane_passed_ike);
    EXPECT_EQ(ingress({.payload = udp(4500, 4500, bytes(64, 0))}), esplane_passed_ike);
    EXPECT_EQ(ingress({.payload = udp(4500, 4500, {0xff})}), esplane_passed_ike);
    EXPECT_EQ(ingress({.to = "fd01::1", .from = "fd09::9", .payload = udp(1, 500, bytes(64, 1))}),
              esplane_passed_ike);
    ASSERT_TRUE(guard_->set_take_local(true));
    EXPECT_EQ(ingress({.payload = udp(500, 500, bytes(64, 1))}), esplane_passed_ike);
    EXPECT_EQ(ingress({.fragment = 100}), esplane_passed_fragment);
}

TEST_F(GuardPrograms, LaterFragmentsGoWhereTheFirstOfTheirPacketWent) {
    constexpr std::uint16_t more = 0x2000, later = 100;
    const auto esp = udp(4500, 4500, bytes(64, 1)), ike = udp(4500, 4500, bytes(64, 0));
    EXPECT_EQ(ingress({.from = "10.9.9.1", .payload = ike, .fragment = more}), esplane_passed_ike);
    EXPECT_EQ(ingress({.from = "10.9.9.1", .fragment = later}), esplane_passed_fragment);
    EXPECT_EQ(ingress({.from = "10.9.9.2", .payload = esp, .fragment = more}), taken);
    EXPECT_EQ(ingress({.from = "10.9.9.2", .fragment = later}), taken);
    EXPECT_EQ(ingress({.from = "10.9.9.3", .fragment = later}), esplane_passed_fragment);
}

TEST_F(GuardPrograms, AnEncapsulationPortThatIsGoneIsNoLongerTaken) {
    ASSERT_TRUE(guard_->set_encap_ports({}));
    EXPECT_EQ(ingress({.payload = udp(4500, 4500, bytes(64, 1))}), esplane_passed_ike);
}

TEST_F(GuardPrograms, LocalTrafficIsTakenOnlyWhereItIsAskedFor) {
    const shape tcp{.protocol = wire::proto_tcp};
    const shape tcp6{.to = "fd01::1", .from = "fd09::9", .protocol = wire::proto_tcp};
    EXPECT_EQ(ingress(tcp), esplane_passed_local);
    EXPECT_EQ(ingress(tcp6), esplane_passed_local);
    ASSERT_TRUE(guard_->set_take_local(true));
    EXPECT_EQ(ingress(tcp), taken);
    EXPECT_EQ(ingress(tcp6), taken);
    EXPECT_EQ(ingress({.protocol = wire::proto_icmp, .fragment = 100}), taken);
    EXPECT_EQ(ingress({.payload = udp(9, 9, bytes(64, 1))}), taken);
}

TEST_F(GuardPrograms, AnAddressThatIsGoneIsTransit) {
    ASSERT_TRUE(guard_->set_local_addresses(std::vector{*ipsec::address::parse("fd01::1")}));
    EXPECT_EQ(ingress({.to = "10.1.0.1"}), taken);
    EXPECT_EQ(ingress({.to = "fd01::1", .from = "fd09::9"}), esplane_passed_local);
}

TEST_F(GuardPrograms, GroupsAndNeighbourDiscoveryArePassed) {
    const bytes solicitation{135, 0, 0, 0, 0, 0, 0, 0};
    ASSERT_TRUE(guard_->set_take_local(true));
    EXPECT_EQ(ingress({.to = "224.0.0.1"}), esplane_passed_group);
    EXPECT_EQ(ingress({.to = "255.255.255.255"}), esplane_passed_group);
    EXPECT_EQ(ingress({.to = "10.1.0.255", .mac = {255, 255, 255, 255, 255, 255}}),
              esplane_passed_group);
    EXPECT_EQ(ingress({.to = "ff02::1", .from = "fe80::2"}), esplane_passed_group);
    shape nd{.to = "fd01::1",
             .from = "fe80::2",
             .protocol = wire::proto_icmpv6,
             .payload = solicitation,
             .hop_limit = 255};
    EXPECT_EQ(ingress(nd), esplane_passed_nd);
    nd.hop_limit = 64; // it came through a router: no neighbour's
    EXPECT_EQ(ingress(nd), taken);
    EXPECT_EQ(ingress({.to = "10.1.0.1", .mac = {255, 255, 255, 255, 255, 255}}), taken);
}

TEST_F(GuardPrograms, FramesThatEndTooSoonAreNeverPassedAsIp) {
    for (const bytes& whole : {frame({.to = "10.2.0.10"}), frame({.payload = udp(1, 2, bytes(9))}),
                               frame({.to = "fd02::10", .from = "fd09::9"})})
        for (std::size_t n = 14; n < 34; ++n)
            EXPECT_EQ(ingress_frame(bytes(whole.begin(), whole.begin() + static_cast<long>(n))),
                      taken);
}

bytes arp_frame() {
    bytes b = frame({});
    b[12] = 8;
    b[13] = 6;
    return b;
}

TEST_F(GuardPrograms, OtherProtocolsArePassed) {
    EXPECT_EQ(ingress_frame(arp_frame()), esplane_passed_not_ip);
}

/// The frame behind one more VLAN tag.
bytes tagged(bytes b, std::uint16_t id, std::uint16_t type = 0x8100) {
    bytes tag;
    append(tag, wire::be16(type));
    append(tag, wire::be16(id));
    b.insert(b.begin() + 12, tag.begin(), tag.end());
    return b;
}

TEST_F(GuardPrograms, UpToTwoVlanTagsChangeNothing) {
    const shape solicitation{.to = "fd01::1",
                             .from = "fe80::2",
                             .protocol = wire::proto_icmpv6,
                             .payload = {135, 0, 0, 0, 0, 0, 0, 0},
                             .hop_limit = 255};
    for (const bool take_local : {false, true}) {
        ASSERT_TRUE(guard_->set_take_local(take_local));
        for (const bytes& plain :
             {frame({}), frame({.to = "10.2.0.10"}), frame({.to = "224.0.0.1"}),
              frame({.protocol = wire::proto_esp}), frame({.payload = udp(9, 500, bytes(64, 1))}),
              frame({.payload = udp(9, 4500, bytes(64, 1))}), frame(solicitation),
              frame({.to = "fd01::1", .from = "fd09::9"}),
              frame({.to = "fd02::1", .from = "fd09::9"}), arp_frame()}) {
            const auto expected = ingress_frame(plain);
            for (const auto id : std::array<std::uint16_t, 3>{0, 7, 0xe000}) {
                const bytes one = tagged(plain, id);
                EXPECT_EQ(ingress_frame(one), expected) << id;
                EXPECT_EQ(ingress_frame(tagged(one, 0)), expected) << id;
                EXPECT_EQ(ingress_frame(tagged(one, 5, 0x88a8)), expected) << id;
            }
        }
    }
}

TEST_F(GuardPrograms, WhatLiesBehindMoreTagsOrNoEndOfThemIsDropped) {
    for (const bytes& plain : {frame({}), frame({.to = "10.2.0.10"}), arp_frame()}) {
        const bytes three = tagged(tagged(tagged(plain, 0), 5, 0x88a8), 0);
        EXPECT_EQ(ingress_frame(three), esplane_dropped_tagged);
        EXPECT_EQ(run(ingress_.get(), three), XDP_DROP);
        for (const long cut : {15, 17, 19, 21})
            EXPECT_EQ(ingress_frame(bytes(three.begin(), three.begin() + cut)),
                      esplane_dropped_tagged);
    }
}

/// Frame of a packet of the rules model.
shape shape_of(const test::outgoing& p) {
    const bool v6 = p.flow.source.fam == ipsec::family::ipv6;
    shape s{.to = p.flow.destination.to_string(),
            .from = p.flow.source.to_string(),
            .protocol = p.flow.protocol,
            .payload =
                udp(p.flow.source_port.host(), p.flow.destination_port.host(), bytes(32, 1))};
    if (!p.later_fragment) return s;
    if (v6)
        s.extension = {wire::proto_fragment, 0, 0x10, 0, 0, 0, 0, 1};
    else
        s.fragment = 100;
    s.payload = bytes(64, 0xcc);
    return s;
}

TEST_F(GuardPrograms, TheEgressProgramDecidesAsThePoliciesOneByOne) {
    int denied = 0;
    for (unsigned seed = 100; seed < 130; ++seed) {
        test::rules_model model(seed);
        const auto rules = model.rules(1 + seed % 12);
        ASSERT_TRUE(guard_->set_out_policies(rules));
        for (int i = 0; i < 200; ++i) {
            const auto p = model.packet();
            const bool allowed = test::rules_model::allows(rules, p);
            ASSERT_EQ(leaves(shape_of(p)), allowed) << "seed " << seed << " packet " << i;
            denied += !allowed;
        }
    }
    EXPECT_GT(denied, 500);
}

TEST_F(GuardPrograms, PoliciesThatComeAndGoOneByOneDecideAsTheListOfThem) {
    test::rules_model model(7);
    std::vector<egress_rule> there;
    for (const egress_rule& r : model.rules(40)) {
        there.push_back(r);
        ASSERT_TRUE(guard_->add_out_policy(r));
        if (r.position % 3 == 2) {
            ASSERT_TRUE(guard_->remove_out_policy(there.front()));
            there.erase(there.begin());
        }
        for (int i = 0; i < 30; ++i) {
            const auto p = model.packet();
            ASSERT_EQ(leaves(shape_of(p)), test::rules_model::allows(there, p)) << r.position;
        }
    }
    ASSERT_TRUE(guard_->deny_all());
    ASSERT_TRUE(guard_->remove_out_policy(there.back()));
    there.pop_back();
    EXPECT_FALSE(leaves({.protocol = wire::proto_tcp}));
    ASSERT_TRUE(guard_->obey_policies());
    for (int i = 0; i < 200; ++i) {
        const auto p = model.packet();
        ASSERT_EQ(leaves(shape_of(p)), test::rules_model::allows(there, p));
    }
}

std::vector<egress_rule> protect_all() {
    std::vector<egress_rule> rules(2);
    rules[0].sel.fam = ipsec::family::ipv4;
    rules[1].sel.fam = ipsec::family::ipv6;
    return rules;
}

TEST_F(GuardPrograms, ThoseOfADaemonThatIsGoneHoldUntilTheNextAttaches) {
    ASSERT_TRUE(guard_->set_out_policies(protect_all()));
    guard_.reset();
    auto next = guard::open("x0");
    ASSERT_TRUE(next) << next.error().text;
    EXPECT_TRUE((*next)->is_covered());
    EXPECT_EQ((*next)->mode(), xdp_mode::native);
    EXPECT_FALSE(leaves({.from = "10.1.0.1"}));
    guard_ = std::move(*next);
    ASSERT_TRUE(guard_->obey_policies());
    ASSERT_TRUE(guard_->set_take_local(false));
    attach();
    EXPECT_TRUE(leaves({.from = "10.1.0.1"}));
    EXPECT_EQ(ingress({}), esplane_passed_local);
}

TEST_F(GuardPrograms, WhereADaemonWasBeforeTheyBeginClosed) {
    ASSERT_TRUE(guard_->set_out_policies({}));
    guard_.reset();
    ASSERT_EQ(std::system("ip link set x0 xdp off"), 0);
    auto next = guard::open("x0");
    ASSERT_TRUE(next) << next.error().text;
    guard_ = std::move(*next);
    EXPECT_TRUE(guard_->was_guarded());
    EXPECT_FALSE(guard_->is_covered()) << "one of the two is missing";
    attach();
    EXPECT_FALSE(leaves({.from = "10.1.0.1"}));
    EXPECT_EQ(ingress({}), taken);
}

TEST_F(GuardPrograms, IkeEspAndNeighbourDiscoveryLeaveWhateverThePolicies) {
    const shape advertisement{.to = "fe80::2",
                              .from = "fd01::1",
                              .protocol = wire::proto_icmpv6,
                              .payload = {136, 0, 0, 0, 0, 0, 0, 0},
                              .hop_limit = 255};
    shape off_link = advertisement;
    off_link.hop_limit = 64;
    ASSERT_TRUE(guard_->set_out_policies(protect_all()));
    EXPECT_TRUE(leaves({.payload = udp(500, 500, bytes(9))}));
    EXPECT_TRUE(leaves({.payload = udp(4500, 7, bytes(9))}));
    EXPECT_TRUE(leaves({.protocol = wire::proto_esp}));
    EXPECT_TRUE(leaves(advertisement));
    EXPECT_FALSE(leaves(off_link));
    EXPECT_FALSE(leaves({.payload = udp(7, 7, bytes(9))}));
    EXPECT_FALSE(leaves({.protocol = wire::proto_tcp, .payload = udp(500, 500, bytes(9))}));
}

TEST_F(GuardPrograms, HeadersThatCannotBeReadDoNotLeaveWherePoliciesAre) {
    const shape cut{.protocol = wire::proto_tcp, .payload = {1}};
    EXPECT_TRUE(leaves(cut));
    ASSERT_TRUE(guard_->set_out_policies(protect_all()));
    EXPECT_FALSE(leaves(cut));
}

/// Protects one protocol with these ports.
egress_rule protect_ports(ipsec::family f, std::uint8_t protocol, std::uint16_t source,
                          std::uint16_t destination) {
    egress_rule r;
    r.sel.fam = f;
    r.sel.protocol = protocol;
    r.sel.source_port = wire::be16(source);
    r.sel.destination_port = wire::be16(destination);
    r.sel.source_port_mask = r.sel.destination_port_mask = wire::be16(0xffff);
    return r;
}

TEST_F(GuardPrograms, AMobilityHeaderLeavesByItsType) {
    const std::vector rules{protect_ports(ipsec::family::ipv6, wire::proto_mobility, 5, 0)};
    ASSERT_TRUE(guard_->set_out_policies(rules));
    shape update{.to = "fd01::1",
                 .from = "fd09::9",
                 .protocol = wire::proto_mobility,
                 .payload = {59, 1, 5, 0, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0}};
    EXPECT_FALSE(leaves(update));
    update.payload[2] = 6;
    EXPECT_TRUE(leaves(update));
    update.payload.resize(2);
    EXPECT_FALSE(leaves(update));
}

TEST_F(GuardPrograms, GreLeavesByItsKey) {
    const std::vector rules{protect_ports(ipsec::family::ipv4, wire::proto_gre, 0x1234, 0x5678)};
    ASSERT_TRUE(guard_->set_out_policies(rules));
    const auto gre = [](bytes payload) {
        return shape{.protocol = wire::proto_gre, .payload = std::move(payload)};
    };
    EXPECT_FALSE(leaves(gre({0x20, 0, 8, 0, 0x12, 0x34, 0x56, 0x78})));
    EXPECT_TRUE(leaves(gre({0x20, 0, 8, 0, 0x12, 0x34, 0x56, 0x79})));
    EXPECT_FALSE(leaves(gre({0xa0, 0, 8, 0, 9, 9, 0, 0, 0x12, 0x34, 0x56, 0x78})));
    EXPECT_TRUE(leaves(gre({0x80, 0, 8, 0, 0x12, 0x34, 0x56, 0x78})));
    EXPECT_TRUE(leaves(gre({0, 0, 8, 0, 0x12, 0x34, 0x56, 0x78})));
    EXPECT_FALSE(leaves(gre({0x20, 0, 8, 0, 0x12, 0x34})));
}

TEST_F(GuardPrograms, VlanTagsHideNothingOnTheWayOut) {
    ASSERT_TRUE(guard_->set_out_policies(protect_all()));
    for (bytes b : {frame({}), frame({.to = "fd01::1", .from = "fd09::9"})})
        for (int tags = 0; tags < 5; ++tags, b = tagged(b, 0))
            EXPECT_EQ(run(egress_.get(), b), TC_ACT_SHOT) << tags;
    EXPECT_NE(run(egress_.get(), tagged(tagged(arp_frame(), 7), 8)), TC_ACT_SHOT);
}

TEST_F(GuardPrograms, APolicyForAVlanDeviceHoldsForItsTagsAlone) {
    std::vector<egress_rule> rules = protect_all();
    rules[0].sel.ifindex = 77;
    ASSERT_TRUE(guard_->set_out_policies(rules));
    const auto leaves_tagged = [&](std::uint16_t id, std::uint16_t type) {
        return run(egress_.get(), tagged(frame({}), id, type)) != TC_ACT_SHOT;
    };
    EXPECT_TRUE(leaves_tagged(7, 0x8100));
    const std::vector vlan{egress_device{77, {ESPLANE_TAG | 7, 0}}};
    ASSERT_TRUE(guard_->set_vlan_devices(vlan));
    EXPECT_FALSE(leaves_tagged(7, 0x8100));
    EXPECT_FALSE(leaves_tagged(0xe007, 0x8100)); // a priority is no part of it
    EXPECT_TRUE(leaves_tagged(8, 0x8100));
    EXPECT_TRUE(leaves_tagged(7, 0x88a8));
    EXPECT_TRUE(leaves({}));
    EXPECT_TRUE(run(egress_.get(), tagged(tagged(frame({}), 7), 7)) != TC_ACT_SHOT);
    ASSERT_TRUE(guard_->set_vlan_devices({}));
    EXPECT_TRUE(leaves_tagged(7, 0x8100));
}

TEST_F(GuardPrograms, PoliciesThatDoNotFitCloseTheMachine) {
    std::vector<egress_rule> rules;
    for (std::uint8_t prefix = 0; prefix < ESPLANE_MAX_MASKS + 1; ++prefix) {
        rules.emplace_back().sel.fam = ipsec::family::ipv6;
        rules.back().sel.source_prefix = prefix;
        rules.back().allow = true;
    }
    EXPECT_TRUE(leaves({.protocol = wire::proto_tcp}));
    const auto refused = guard_->set_out_policies(rules);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, E2BIG);
    EXPECT_FALSE(leaves({.protocol = wire::proto_tcp}));
    EXPECT_TRUE(leaves({.payload = udp(500, 500, bytes(9))}));
    rules.pop_back();
    ASSERT_TRUE(guard_->set_out_policies(rules));
    EXPECT_TRUE(leaves({.protocol = wire::proto_tcp}));
}

TEST_F(GuardPrograms, TenThousandPoliciesOfOneShapeAreHeld) {
    std::vector<egress_rule> rules(10000);
    for (std::size_t i = 0; i < rules.size(); ++i) {
        rules[i].sel.fam = rules[i].sel.destination.fam = ipsec::family::ipv4;
        rules[i].sel.destination.bytes = {10, 2, static_cast<std::uint8_t>(i >> 8),
                                          static_cast<std::uint8_t>(i)};
        rules[i].sel.destination_prefix = 32;
    }
    for (int again = 0; again < 15; ++again) // no replaced rule stays behind
        ASSERT_TRUE(guard_->set_out_policies(rules));
    EXPECT_FALSE(leaves({.to = "10.2.39.15"})); // the last
    EXPECT_TRUE(leaves({.to = "10.2.39.16"}));
}

TEST_F(GuardPrograms, ASecondDaemonIsRefusedUntilTheFirstIsGone) {
    EXPECT_EQ(guard::open("x0").error().code, EBUSY);
    EXPECT_EQ(guard::release("x0").error().code, EBUSY);
    guard_.reset();
    EXPECT_TRUE(guard::open("x0"));
    EXPECT_TRUE(guard::release("x0"));
}

TEST_F(GuardPrograms, AnUnprivilegedUserCannotKeepADeviceFromUs) {
    const int ifindex = guard_->ifindex();
    guard_.reset();
    EXPECT_TRUE(in_child([&] { // whatever it binds or locks, it still has when root comes
        const unique_fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        sockaddr_un name{};
        name.sun_family = AF_UNIX;
        const std::string text = "esplane-port-" + std::to_string(ifindex);
        text.copy(name.sun_path + 1, sizeof name.sun_path - 1);
        const auto length = offsetof(sockaddr_un, sun_path) + 1 + text.size();
        if (::seteuid(65534) != 0 ||
            ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name),
                   static_cast<socklen_t>(length)) != 0 ||
            ::eaccess("/run/esplane-locks", R_OK) == 0 || guard::open("x0"))
            return false;
        return ::seteuid(0) == 0 && guard::open("x0").has_value();
    }));
}

/// Attaches a program of that name to x0, in the place of ours.
void attach_foreign(const char* name, int ifindex) {
    const std::array<bpf_insn, 2> pass{{{BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, XDP_PASS},
                                        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}}};
    const unique_fd program(
        bpf_prog_load(BPF_PROG_TYPE_XDP, name, "GPL", pass.data(), pass.size(), nullptr));
    ASSERT_TRUE(program.valid());
    ASSERT_EQ(bpf_xdp_attach(ifindex, program.get(), 0, nullptr), 0);
}

TEST_F(GuardPrograms, AForeignProgramIsNamedAndLeftAlone) {
    ASSERT_EQ(std::system("ip link set dev x0 xdp off"), 0);
    attach_foreign("filter", guard_->ifindex());
    const auto refused = guard_->attach();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EBUSY);
    EXPECT_NE(refused.error().text.find("another XDP program (filter)"), std::string::npos);
    EXPECT_FALSE(find_attachments(guard_->ifindex()).ingress);
}

TEST_F(GuardPrograms, ADispatcherThatDoesNotTakeUsIsRefused) {
    ASSERT_EQ(std::system("ip link set dev x0 xdp off"), 0);
    attach_foreign("xdp_dispatcher", guard_->ifindex());
    const auto refused = guard_->attach();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EBUSY);
    EXPECT_NE(refused.error().text.find("libxdp's dispatcher"), std::string::npos);
    EXPECT_FALSE(find_attachments(guard_->ifindex()).ingress);
}

TEST_F(GuardPrograms, ADeviceWithoutEthernetIsRefused) {
    const auto refused = guard::open("lo");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EOPNOTSUPP);
    EXPECT_EQ(refused.error().text, "lo: not an Ethernet device; AF_XDP ports need one");
}

} // namespace
} // namespace esplane::fastpath

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    if (::geteuid() != 0 || ::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 ||
        !esplane::fastpath::hide_run()) {
        std::puts("skipped: needs root (network namespaces, BPF): run it with sudo");
        return 77;
    }
    return RUN_ALL_TESTS();
}

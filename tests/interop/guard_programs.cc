// SPDX-License-Identifier: Apache-2.0
//
// The two BPF programs themselves, packet by packet (BPF_PROG_TEST_RUN), and who may have a device:
// in a network namespace and with a /run of the test's own.  Needs root; skips (77) without it.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <net/if.h>

#include "fastpath/xdp/port_xdp.h"
#include "lib/wire/headers.h"
#include "tests/unit/fastpath/xdp_rules_model.h"

namespace esplane::fastpath {
namespace {

using bytes = std::vector<std::uint8_t>;

constexpr std::array<std::uint8_t, 6> own_mac{2, 0, 0, 0, 0, 1};

template <typename T>
void append(bytes& to, const T& value) {
    const auto* at = reinterpret_cast<const std::uint8_t*>(&value);
    to.insert(to.end(), at, at + sizeof value);
}

/// What a frame is made of.
struct shape {
    std::string to = "10.1.0.1";
    std::string from = "10.9.9.9";
    std::uint8_t protocol = wire::proto_udp;
    bytes payload = bytes(64, 0xab); ///< from the upper-layer header on
    std::uint8_t hop_limit = 64;
    std::uint16_t fragment = 0; ///< IPv4: the field; IPv6: offset, in a fragment header
    bytes extension{};          ///< IPv6: header before the upper layer, its type first
    std::array<std::uint8_t, 6> mac = own_mac;
};

void append_ipv4(bytes& b, const shape& s) {
    wire::ipv4_header ip{};
    ip.version_ihl = 0x45;
    ip.total_length.set(static_cast<std::uint16_t>(sizeof ip + s.payload.size()));
    ip.fragment.set(s.fragment);
    ip.ttl = s.hop_limit;
    ip.protocol = s.protocol;
    ip.source = ipsec::address::parse(s.from)->as_v4();
    ip.destination = ipsec::address::parse(s.to)->as_v4();
    append(b, ip);
}

void append_ipv6(bytes& b, const shape& s) {
    wire::ipv6_header ip{};
    ip.version_class_flow.set(0x60000000);
    ip.payload_length.set(static_cast<std::uint16_t>(s.extension.size() + s.payload.size()));
    ip.next_header = s.extension.empty() ? s.protocol : s.extension[0];
    ip.hop_limit = s.hop_limit;
    ip.source = ipsec::address::parse(s.from)->bytes;
    ip.destination = ipsec::address::parse(s.to)->bytes;
    append(b, ip);
    if (s.extension.empty()) return;
    b.push_back(s.protocol);
    b.insert(b.end(), s.extension.begin() + 1, s.extension.end());
}

bytes frame(const shape& s) {
    const bool v6 = s.to.find(':') != std::string::npos;
    bytes b(s.mac.begin(), s.mac.end());
    b.insert(b.end(), {2, 0, 0, 0, 0, 2});
    append(b, wire::be16(v6 ? wire::ethertype_ipv6 : wire::ethertype_ipv4));
    v6 ? append_ipv6(b, s) : append_ipv4(b, s);
    b.insert(b.end(), s.payload.begin(), s.payload.end());
    return b;
}

/// A UDP packet's upper layer.
bytes udp(std::uint16_t source, std::uint16_t destination, const bytes& payload) {
    bytes b;
    append(b, wire::be16(source));
    append(b, wire::be16(destination));
    append(b, wire::be16(static_cast<std::uint16_t>(8 + payload.size())));
    append(b, wire::be16(0));
    b.insert(b.end(), payload.begin(), payload.end());
    return b;
}

unique_fd ingress_program(int ifindex) {
    std::uint32_t id = 0;
    EXPECT_EQ(bpf_xdp_query_id(ifindex, 0, &id), 0);
    return unique_fd(bpf_prog_get_fd_by_id(id));
}

/// The guard made the qdisc, so its filter has handle 2.
unique_fd egress_program(int ifindex) {
    bpf_tc_hook hook;
    clear(hook);
    hook.ifindex = ifindex;
    hook.attach_point = BPF_TC_EGRESS;
    bpf_tc_opts filter;
    clear(filter);
    filter.handle = 2;
    filter.priority = 1;
    EXPECT_EQ(bpf_tc_query(&hook, &filter), 0);
    return unique_fd(bpf_prog_get_fd_by_id(filter.prog_id));
}

/// Puts an empty /run over the machine's, in this mount namespace alone.
bool hide_run() {
    return ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           ::mount("tmpfs", "/run", "tmpfs", 0, "mode=0755") == 0;
}

class GuardPrograms : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_EQ(std::system("ip link add x0 type veth peer name x1 && ip link set x0 up"), 0);
        auto opened = guard::open("x0");
        ASSERT_TRUE(opened) << opened.error().text;
        guard_ = std::move(*opened);
        ASSERT_TRUE(guard_->set_local_addresses(
            std::vector{*ipsec::address::parse("10.1.0.1"), *ipsec::address::parse("fd01::1")}));
        ASSERT_TRUE(guard_->set_encap_ports(std::vector{wire::be16(4500)}));
        ASSERT_TRUE(guard_->attach());
        ingress_ = ingress_program(guard_->ifindex());
        egress_ = egress_program(guard_->ifindex());
    }
    void TearDown() override {
        guard_.reset();
        ASSERT_EQ(std::system("ip link del x0"), 0);
    }

    /// The counter that the packet moved.
    esplane_ingress_counter ingress_frame(const bytes& packet) {
        const auto before = guard_->counters().ingress;
        run(ingress_.get(), packet);
        const auto after = guard_->counters().ingress;
        for (int i = 0; i < esplane_ingress_counters; ++i)
            if (after[static_cast<std::size_t>(i)] != before[static_cast<std::size_t>(i)])
                return static_cast<esplane_ingress_counter>(i);
        return esplane_ingress_counters;
    }
    esplane_ingress_counter ingress(const shape& s) { return ingress_frame(frame(s)); }

    /// Whether the packet may leave.
    bool leaves(const shape& s) { return run(egress_.get(), frame(s)) != TC_ACT_SHOT; }

    static std::uint32_t run(int program, const bytes& packet) {
        bytes out(packet.size() + 256);
        bpf_test_run_opts options;
        clear(options);
        options.data_in = packet.data();
        options.data_size_in = static_cast<std::uint32_t>(packet.size());
        options.data_out = out.data();
        options.data_size_out = static_cast<std::uint32_t>(out.size());
        options.repeat = 1;
        EXPECT_EQ(bpf_prog_test_run_opts(program, &options), 0) << std::strerror(errno);
        return options.retval;
    }

    std::unique_ptr<guard> guard_;
    unique_fd ingress_;
    unique_fd egress_;
};

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

std::vector<egress_rule> protect_all() {
    std::vector<egress_rule> rules(2);
    rules[0].sel.fam = ipsec::family::ipv4;
    rules[1].sel.fam = ipsec::family::ipv6;
    return rules;
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

/// Runs `body` in a process of its own; whether it returned true.
template <typename Body>
bool in_child(Body body) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(body() ? 0 : 1);
    int status = 1;
    return ::waitpid(child, &status, 0) == child && status == 0;
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

class GuardedPort : public GuardPrograms {
  protected:
    void SetUp() override {
        GuardPrograms::SetUp();
        pool_ = std::move(*buffer_pool::make(4096));
    }
    void TearDown() override {
        port_.reset();
        GuardPrograms::TearDown();
    }
    result<void> open_port(xdp_port_options options = {}) {
        options.name = options.device = "x0";
        auto opened = xdp_port::open(options, *pool_, *guard_);
        if (!opened) return tl::unexpected(opened.error());
        port_ = std::move(*opened);
        return {};
    }
    /// Asks for a second.
    std::size_t receive_within(std::span<packet> burst) {
        for (int i = 0; i < 100; ++i) {
            if (const std::size_t n = port_->receive(0, burst); n != 0) return n;
            ::usleep(10'000);
        }
        return 0;
    }
    /// A socket that gets what the port sends, for a second.
    static unique_fd listen_at_peer() {
        unique_fd socket(::socket(AF_PACKET, SOCK_RAW, 0));
        sockaddr_ll at{};
        at.sll_family = AF_PACKET;
        at.sll_protocol = wire::be16(wire::ethertype_ipv4).network();
        at.sll_ifindex = static_cast<int>(::if_nametoindex("x1"));
        const timeval second{1, 0};
        EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
        (void)::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
        return socket;
    }

    std::unique_ptr<buffer_pool> pool_;
    std::unique_ptr<xdp_port> port_;
};

TEST_F(GuardedPort, ADaemonThatSeesAnotherRunIsRefusedTooWhileThePortIsOpen) {
    const auto refused_elsewhere = [] {
        return ::unshare(CLONE_NEWNS) == 0 && hide_run() && !guard::open("x0") &&
               guard::release("x0").error().code == EBUSY;
    };
    EXPECT_FALSE(in_child(refused_elsewhere));
    ASSERT_TRUE(guard_->attach()); // released just now
    ASSERT_TRUE(open_port());
    EXPECT_TRUE(in_child(refused_elsewhere));
}

int set_mtu(std::size_t mtu) {
    const std::string n = std::to_string(mtu);
    return std::system(("ip link set x0 mtu " + n + " && ip link set x1 mtu " + n + " up").c_str());
}

TEST_F(GuardedPort, TheLargestMtuOfOneBufferFitsTheWayUp) {
    ASSERT_EQ(set_mtu(xdp_port::largest_mtu), 0);
    ASSERT_TRUE(open_port());
    EXPECT_FALSE(port_->bound().multi_buffer);
    const bytes largest(xdp_port::largest_mtu + sizeof(wire::ethernet_header), 0xff);
    punt_queue queue(guard_->punt_program(), guard_->ifindex(), {});
    EXPECT_TRUE(queue.push(largest, false));
    EXPECT_EQ(queue.hand_up().taken, 1U);
}

TEST_F(GuardedPort, AnMtuAboveTheLargestIsRefused) {
    ASSERT_EQ(set_mtu(xdp_port::largest_multi_buffer_mtu + 1), 0);
    const auto refused = open_port();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EMSGSIZE);
}

/// A frame as the other end of the veth sends it.
void send_from_peer(const bytes& frame) {
    const unique_fd socket(::socket(AF_PACKET, SOCK_RAW, 0));
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_ifindex = static_cast<int>(::if_nametoindex("x1"));
    EXPECT_EQ(::sendto(socket.get(), frame.data(), frame.size(), 0,
                       reinterpret_cast<const sockaddr*>(&to), sizeof to),
              static_cast<ssize_t>(frame.size()))
        << std::strerror(errno);
}

/// A frame whose every byte behind the headers says where it stands.
bytes counting_frame(std::size_t payload) {
    bytes content(payload);
    for (std::size_t i = 0; i < payload; ++i)
        content[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
    return frame({.to = "10.2.0.10", .payload = content});
}

TEST_F(GuardedPort, FramesInSeveralBuffersArriveAndLeaveWhole) {
    ASSERT_EQ(set_mtu(9000), 0);
    ASSERT_TRUE(open_port());
    EXPECT_EQ(port_->mode(), "copy, multi-buffer");
    std::uint64_t linearised = 0;
    for (const std::size_t payload : {64, 3000, 3500, 3700, 3900, 7700, 8980}) {
        const bytes sent = counting_frame(payload);
        std::array<packet, 8> burst;
        (void)port_->receive(0, burst); // fills the ring
        send_from_peer(sent);
        ASSERT_EQ(receive_within(burst), 1U) << payload;
        const packet& p = burst[0];
        EXPECT_EQ(bytes(p.data, p.data + p.length), sent);
        EXPECT_GE(p.tailroom, 256U);
        linearised += p.owner != pool_.get();

        const unique_fd sniffer = listen_at_peer();
        packet* const back = &burst[0];
        ASSERT_EQ(port_->send(0, {&back, 1}), 1U);
        port_->flush(0);
        bytes seen(20000);
        const ssize_t n = ::recv(sniffer.get(), seen.data(), seen.size(), 0);
        seen.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
        EXPECT_EQ(seen, sent);
    }
    EXPECT_EQ(linearised, 4U);
    EXPECT_EQ(port_->counters().rx_linearised, linearised);
    EXPECT_EQ(port_->counters().tx_copied, linearised);
    port_->flush(0);
    EXPECT_LE(pool_->count() - pool_->free_frames(), xsk::ring_size); // those in the fill ring
}

TEST_F(GuardedPort, WhatTheKernelCountsOfASocketIsTold) {
    ASSERT_EQ(set_mtu(1500), 0);
    ASSERT_TRUE(open_port());
    send_from_peer(frame({.to = "10.2.0.10"})); // nothing is in the fill ring yet
    std::uint64_t empty = 0;
    for (const named_count& c : port_->extended_counters())
        if (c.name == "xdp_rx_fill_ring_empty_descs") empty = c.value;
    EXPECT_GE(empty, 1U);
    EXPECT_EQ(port_->extended_counters().size(), 6U);
}

TEST_F(GuardedPort, AModeThatIsAskedForIsTheOneOrNone) {
    const auto refused = open_port({.wish = xdp_wish::zero_copy}); // no veth has it
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EOPNOTSUPP);
    EXPECT_NE(refused.error().text.find("use mode=auto"), std::string::npos);
    ASSERT_TRUE(open_port({.wish = xdp_wish::copy}));
    EXPECT_EQ(port_->mode(), "copy");
    port_.reset();
    EXPECT_EQ(guard_->attach(xdp_wish::generic).error().code, EBUSY); // it is there in another
}

TEST_F(GuardedPort, ThereAreLanesForTheQueuesAndEachSends) {
    ASSERT_EQ(std::system("ip link set x1 up && ethtool -L x0 rx 2 tx 2"), 0);
    ASSERT_TRUE(open_port({.workers = 4}));
    ASSERT_EQ(port_->lanes(), 2U);
    EXPECT_EQ(port_->queues(), 2U);
    for (unsigned lane = 0; lane < 2; ++lane) {
        std::array<packet, 8> burst;
        (void)port_->receive(lane, burst);
        const unique_fd sniffer = listen_at_peer();
        packet out;
        ASSERT_TRUE(pool_->allocate(out, 100));
        const bytes content = frame({.to = "10.2.0.10"});
        std::memcpy(out.data, content.data(), content.size());
        out.extend(static_cast<int>(content.size()));
        packet* const one = &out;
        EXPECT_EQ(port_->send(lane, {&one, 1}), 1U);
        port_->flush(lane);
        bytes seen(2000);
        EXPECT_EQ(::recv(sniffer.get(), seen.data(), seen.size(), 0),
                  static_cast<ssize_t>(content.size()));
    }
}

TEST_F(GuardedPort, ADeviceThatVanishesAndComesBackIsTakenUpAgain) {
    ASSERT_EQ(set_mtu(1500), 0);
    ASSERT_TRUE(open_port());
    std::array<packet, 8> burst;
    (void)port_->receive(0, burst);
    const std::size_t in_ring = pool_->count() - pool_->free_frames();
    const int before = port_->ifindex();
    for (int again = 0; again < 3; ++again) {
        ASSERT_FALSE(*port_->tend());
        ASSERT_EQ(std::system("ip link del x0"), 0);
        EXPECT_TRUE(*port_->tend());
        EXPECT_FALSE(port_->up());
        EXPECT_FALSE(*port_->tend());
        ASSERT_EQ(std::system("ip link add x0 type veth peer name x1 && ip link set x0 up"), 0);
        EXPECT_FALSE(*port_->tend()) << "the lane has not let its queue be yet";
        EXPECT_TRUE(find_attachments(port_->ifindex()).ingress) << "but the guard is there";
        EXPECT_TRUE(find_attachments(port_->ifindex()).egress);
        ASSERT_EQ(set_mtu(1500), 0);
        EXPECT_EQ(port_->receive(0, burst), 0U);
        const auto back = port_->tend();
        ASSERT_TRUE(back) << back.error().text;
        EXPECT_TRUE(*back);
        EXPECT_TRUE(port_->up());
        EXPECT_NE(port_->ifindex(), before);
        (void)port_->receive(0, burst);
        send_from_peer(frame({.to = "10.2.0.10"}));
        ASSERT_EQ(receive_within(burst), 1U);
        packet* const got = &burst[0];
        pool_->release({&got, 1});
        EXPECT_EQ(pool_->count() - pool_->free_frames(), in_ring) << "no frame is lost";
    }
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

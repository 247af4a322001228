// SPDX-License-Identifier: Apache-2.0
//
// ESP in transport mode between two hosts: their machines' own packets, whose header stays.
//
//   10.1.0.1, fd01::1 --- near === what the test does on the wire === far --- 10.2.0.1, fd02::1
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "lib/ipsec/overhead.h"
#include "lib/wire/checksum.h"
#include "tests/support/esp_peer.h"

namespace esplane::tests::transport_test {
namespace {

using fastpath::drop_reason;
using ipsec::family;
using ipsec::policy_direction;
using ipsec::suite;

using host_ports::machine;
using host_ports::network;

ipsec::address host_of(family f, unsigned site) {
    const std::string n = std::to_string(site);
    return *ipsec::address::parse(f == family::ipv4 ? "10." + n + ".0.1" : "fd0" + n + "::1");
}

struct way {
    family fam = family::ipv4;
    bool encapsulated = false;
    suite run = suite::aes128_gcm16;
};

std::size_t ip_length(family f) {
    return f == family::ipv4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
}

std::uint8_t& protocol_of(frame& f) {
    return f[f[0] >> 4 == 4 ? 9 : 6];
}

/// Whether the checksum of the upper layer, at `at`, covers the packet.
bool sums_up(const frame& f, std::size_t at, std::uint8_t protocol) {
    const bool v4 = f[0] >> 4 == 4;
    const std::size_t address = v4 ? 4 : 16, source = v4 ? 12 : 8;
    const std::uint64_t pseudo =
        wire::checksum_pseudo(&f[source], &f[source + address], address, protocol,
                              static_cast<std::uint32_t>(f.size() - at));
    return wire::checksum_fold(wire::checksum_add(pseudo, &f[at], f.size() - at)) == 0xffff;
}

struct Transport : testing::TestWithParam<way> {
    explicit Transport(way w)
        : path(w)
        , near(1, 1024, 2, 0, lab_kind::host)
        , far(2, 1024, 2, 0, lab_kind::host) {}
    Transport()
        : Transport(GetParam()) {}

    /// From site `from` to the other one.
    [[nodiscard]] ipsec::sa sa_from(unsigned from) const {
        ipsec::sa s;
        s.id = {host_of(path.fam, 3 - from), wire::be32(0x2000 + from), wire::proto_esp};
        s.source = host_of(path.fam, from);
        s.sel.fam = path.fam;
        s.run_mode = ipsec::mode::transport;
        s.reqid = 7;
        s.replay_window = 32;
        s.replay.bitmap.resize(1);
        s.algs = make_algorithms(path.run, from);
        if (path.encapsulated) s.encap = {wire::be16(4500), wire::be16(4500), {}};
        return s;
    }
    [[nodiscard]] ipsec::policy policy(policy_direction dir) const {
        ipsec::policy p;
        p.dir = dir;
        p.sel.fam = path.fam;
        ipsec::template_ t; // without addresses, as IKE daemons write it
        t.fam = path.fam;
        t.id.destination.fam = t.source.fam = path.fam;
        t.run_mode = ipsec::mode::transport;
        t.reqid = 7;
        p.templates = {t};
        return p;
    }
    void add_sas(lab& l) const {
        for (const unsigned from : {1u, 2u})
            ASSERT_TRUE(l.control.add_sa(sa_from(from), {}, l.clock));
    }
    void protect() {
        for (lab* l : {&near, &far}) {
            add_sas(*l);
            l->add_policy(policy(policy_direction::out));
            l->add_policy(policy(policy_direction::in));
        }
    }
    [[nodiscard]] frame packet(std::uint32_t length = 100) const {
        return make_packet({.family = path.fam, .host = 1, .length = length, .number = 5});
    }
    std::vector<frame> on_wire(const std::vector<frame>& packets) {
        near.push(machine, packets);
        return near.sent(network);
    }
    std::vector<frame> arrive(const std::vector<frame>& esp) {
        far.push(network, esp);
        return far.punted(machine);
    }
    [[nodiscard]] std::size_t esp_at() const {
        return ip_length(path.fam) + (path.encapsulated ? sizeof(wire::udp_header) : 0);
    }
    /// The packet with `upper` behind its header, the header made right.
    [[nodiscard]] frame with_upper(frame f, std::uint8_t protocol, const frame& upper) const {
        f.resize(ip_length(path.fam));
        f.insert(f.end(), upper.begin(), upper.end());
        protocol_of(f) = protocol;
        set_length(f);
        return f;
    }
    static void set_length(frame& f) {
        if (f[0] >> 4 == 4)
            wire::store(&f[2], wire::be16(static_cast<std::uint16_t>(f.size())));
        else
            wire::store(&f[4], wire::be16(static_cast<std::uint16_t>(f.size() - 40)));
        fix_header_checksum(f);
    }
    void expect_balance() const {
        for (const lab* l : {&near, &far})
            EXPECT_EQ(l->pool->free_frames(), l->pool->count());
    }

    way path;
    lab near, far;
};

TEST_P(Transport, KeepsThePacketsHeaderAndHidesTheRest) {
    protect();
    for (const std::uint32_t length : {60u, 61u, 62u, 63u, 64u, 1000u, 1300u}) {
        const frame sent = packet(length);
        auto wire = on_wire({sent});
        ASSERT_EQ(wire.size(), 1u);
        frame& esp = wire[0];
        EXPECT_EQ(protocol_of(esp), path.encapsulated ? wire::proto_udp : wire::proto_esp);
        EXPECT_EQ(esp.size(), overhead_of(sa_from(1)).outer_length(length));
        EXPECT_EQ(wire::load<wire::be32>(&esp[esp_at()]).host(), 0x2001u);
        if (path.encapsulated && path.fam == family::ipv6) {
            EXPECT_TRUE(sums_up(esp, 40, wire::proto_udp)) << "IPv6 asks for it";
        }
        frame header = esp;
        header.resize(ip_length(path.fam));
        protocol_of(header) = wire::proto_udp;
        header.resize(sent.size());
        set_length(header);
        EXPECT_TRUE(std::equal(header.begin(), header.begin() + ip_length(path.fam), sent.begin()));
        const auto upper = std::search(esp.begin(), esp.end(), sent.end() - 20, sent.end());
        EXPECT_EQ(upper == esp.end(), path.run != suite::null_sha256_128);
        EXPECT_EQ(arrive(wire), std::vector<frame>{sent});
    }
    expect_balance();
}

TEST_P(Transport, CountsTheBytesBehindTheHeader) {
    protect();
    (void)arrive(on_wire({packet(200), packet(300)}));
    const std::uint64_t behind = 500 - 2 * ip_length(path.fam);
    EXPECT_EQ(near.control.get_sa(sa_from(1).id)->current.bytes, behind);
    EXPECT_EQ(far.control.get_sa(sa_from(1).id)->current.bytes, behind);
    EXPECT_EQ(far.control.get_sa(sa_from(1).id)->current.packets, 2u);
}

TEST_P(Transport, LeavesOptionsAndExtensionHeadersWhereTheyBelong) {
    protect();
    frame sent = packet();
    std::size_t in_front = 4; // bytes of them
    if (path.fam == family::ipv4) {
        sent.insert(sent.begin() + 20, {1, 1, 1, 0});
        sent[0] = 0x46;
    } else {
        const frame upper(sent.begin() + 40, sent.end());
        const auto header = [](std::uint8_t next) { return frame{next, 0, 1, 4, 0, 0, 0, 0}; };
        sent.resize(40);
        sent[6] = wire::proto_hopopts;
        frame routing = header(wire::proto_dstopts);
        routing[2] = 4; // of a type that this host need not know: no segments are left
        routing[3] = 0;
        for (const frame& part : {header(wire::proto_routing), routing, header(wire::proto_udp)})
            sent.insert(sent.end(), part.begin(), part.end());
        sent.insert(sent.end(), upper.begin(), upper.end());
        in_front = 16; // hop-by-hop and routing; the options behind are for the destination
    }
    set_length(sent);
    const auto wire = on_wire({sent});
    ASSERT_EQ(wire.size(), 1u);
    EXPECT_EQ(wire::load<wire::be32>(&wire[0][esp_at() + in_front]).host(), 0x2001u);
    EXPECT_EQ(arrive(wire), std::vector<frame>{sent});
}

TEST_P(Transport, TakesNoFragments) {
    protect();
    frame first = packet();
    if (path.fam == family::ipv4)
        first[6] = 0x20;
    else {
        const frame fragment{wire::proto_udp, 0, 0, 1, 0, 0, 0, 9};
        first.insert(first.begin() + 40, fragment.begin(), fragment.end());
        first[6] = wire::proto_fragment;
    }
    set_length(first);
    EXPECT_TRUE(on_wire({first}).empty());
    EXPECT_EQ(near.drops(drop_reason::transport_fragment), 1u);
    expect_balance();
}

TEST_P(Transport, RenewsChecksumsBehindANat) {
    protect();
    frame tcp(40);
    tcp[12] = 0x50;
    tcp[16] = 0x12; // wrong, as it is once a NAT has changed an address
    frame udp(20);
    udp[5] = 20;
    udp[6] = 0x34;
    frame udp_without = udp;
    udp_without[6] = 0;
    frame ping{128, 0, 0x77, 0, 1, 2, 3, 4};
    const std::vector<frame> sent{with_upper(packet(), wire::proto_tcp, tcp),
                                  with_upper(packet(), wire::proto_udp, udp),
                                  with_upper(packet(), wire::proto_udp, udp_without),
                                  with_upper(packet(), wire::proto_icmpv6, ping)};
    const auto came = arrive(on_wire(sent));
    ASSERT_EQ(came.size(), sent.size());
    if (!path.encapsulated) {
        EXPECT_EQ(came, sent) << "nobody can have changed addresses under ESP alone";
        return;
    }
    const std::size_t at = ip_length(path.fam);
    EXPECT_TRUE(sums_up(came[0], at, wire::proto_tcp));
    EXPECT_TRUE(sums_up(came[1], at, wire::proto_udp));
    EXPECT_EQ(came[2], sent[2]) << "none is none";
    if (path.fam == family::ipv6)
        EXPECT_TRUE(sums_up(came[3], at, wire::proto_icmpv6));
    else
        EXPECT_EQ(came[3], sent[3]);
}

TEST_P(Transport, TellsTheStackWhatFitsThePath) {
    protect();
    const auto most = ipsec::largest_inner(sa_from(1), 1500);
    EXPECT_EQ(on_wire({packet(most)}).size(), 1u);
    EXPECT_TRUE(on_wire({packet(most + 1)}).empty());
    EXPECT_EQ(near.drops(drop_reason::too_big), 1u);
    const auto up = near.punted(machine);
    ASSERT_EQ(up.size(), 1u);
    const std::size_t mtu_at = path.fam == family::ipv4 ? 20 + 6 : 40 + 6;
    EXPECT_EQ(wire::load<wire::be16>(&up[0][mtu_at]).host(), most);
}

TEST_P(Transport, ATemplateTakesItsAddressesFromThePacket) {
    protect();
    ipsec::sa other = sa_from(1);
    other.id.destination.bytes[1] ^= 8; // another peer, added last
    ASSERT_TRUE(near.control.add_sa(other.clone(), {}, near.clock));
    EXPECT_EQ(arrive(on_wire({packet()})), std::vector<frame>{packet()});
    ASSERT_TRUE(near.control.delete_sa(sa_from(1).id, {}));
    EXPECT_TRUE(on_wire({packet()}).empty()) << "the other peer's SA is not for it";
    ASSERT_TRUE(near.control.add_sa(sa_from(1), {}, near.clock));
    EXPECT_EQ(on_wire({packet()}).size(), 1u);
    ASSERT_TRUE(near.control.delete_sa(other.id, {}));
    EXPECT_EQ(on_wire({packet()}).size(), 1u);
}

TEST_P(Transport, AnSaCarriesOnlyWhatItsSelectorAndItsSourceCover) {
    near.add_policy(policy(policy_direction::out));
    ipsec::sa s = sa_from(1);
    s.source.bytes[3] ^= 1;
    s.source.bytes[15] ^= path.fam == family::ipv6 ? 1 : 0;
    ASSERT_TRUE(near.control.add_sa(s.clone(), {}, near.clock));
    EXPECT_TRUE(on_wire({packet()}).empty()) << "from another address";
    near.control.flush_sas(0, {});
    s = sa_from(1);
    s.sel.protocol = wire::proto_tcp;
    ASSERT_TRUE(near.control.add_sa(s.clone(), {}, near.clock));
    EXPECT_TRUE(on_wire({packet()}).empty()) << "of another protocol";
    near.control.flush_sas(0, {});
    s = sa_from(1);
    s.sel.destination = host_of(path.fam, 1);
    s.sel.destination_prefix = ipsec::address_bits(path.fam);
    ASSERT_TRUE(near.control.add_sa(s.clone(), {}, near.clock));
    EXPECT_TRUE(on_wire({packet()}).empty()) << "its selector does not cover its own end";
    near.control.flush_sas(0, {});
    ASSERT_TRUE(near.control.add_sa(sa_from(1), {}, near.clock));
    EXPECT_EQ(on_wire({packet()}).size(), 1u);
}

TEST_P(Transport, WithLevelUseLeavesInClearWhileThereIsNoSa) {
    ipsec::policy p = policy(policy_direction::out);
    p.templates[0].optional = true;
    near.add_policy(p);
    struct asked_for final : ipsec::listener {
        void on_event(const ipsec::event& e) override {
            times += std::holds_alternative<ipsec::acquire>(e) ? 1 : 0;
        }
        int times = 0;
    } asked;
    near.control.subscribe(&asked);
    EXPECT_EQ(on_wire({packet()}), std::vector<frame>{packet()});
    near.poll_events();
    EXPECT_EQ(asked.times, 0) << "nobody makes SAs";
    near.control.answer_acquires(&asked, true);
    EXPECT_EQ(on_wire({packet(), packet()}).size(), 2u);
    near.poll_events();
    EXPECT_EQ(asked.times, 1) << "once, and nothing waits";
    near.control.unsubscribe(&asked);
    ASSERT_TRUE(near.control.add_sa(sa_from(1), {}, near.clock));
    auto wire = on_wire({packet()});
    ASSERT_EQ(wire.size(), 1u);
    EXPECT_EQ(protocol_of(wire[0]), path.encapsulated ? wire::proto_udp : wire::proto_esp);
}

TEST_P(Transport, ComesInByThePoliciesOfTheKernel) {
    near.add_policy(policy(policy_direction::out));
    for (lab* l : {&near, &far})
        add_sas(*l);
    EXPECT_EQ(arrive(on_wire({packet()})).size(), 1u) << "no policy asks for anything";
    ipsec::policy bypass = policy(policy_direction::in);
    bypass.templates.clear();
    bypass.priority = 3;
    far.add_policy(bypass);
    EXPECT_EQ(arrive(on_wire({packet()})).size(), 1u) << "a bypass does not mind";
    ipsec::policy tunnel = policy(policy_direction::in);
    tunnel.sel.protocol = wire::proto_udp;
    tunnel.priority = 2;
    tunnel.templates[0].run_mode = ipsec::mode::tunnel;
    far.add_policy(tunnel);
    EXPECT_TRUE(arrive(on_wire({packet()})).empty()) << "a tunnel is asked for";
    EXPECT_EQ(far.drops(drop_reason::policy_template), 1u);
    ipsec::policy block = policy(policy_direction::in);
    block.sel.source = host_of(path.fam, 1);
    block.sel.source_prefix = ipsec::address_bits(path.fam);
    block.priority = 1;
    block.action = ipsec::policy_action::block;
    far.add_policy(block);
    EXPECT_TRUE(arrive(on_wire({packet()})).empty());
    EXPECT_EQ(far.drops(drop_reason::policy_block), 1u);
    EXPECT_TRUE(arrive({packet()}).empty()) << "nor in clear";
}

TEST_P(Transport, KeepsOneOwnerOnTwoWorkers) {
    protect();
    near.push(machine, {packet(100)}, 0);
    near.push(machine, {packet(101), packet(102)}, 1);
    const auto wire = near.sent(network);
    ASSERT_EQ(wire.size(), 3u);
    far.push(network, {wire[0]}, 0);
    far.push(network, {wire[1], wire[2]}, 1);
    EXPECT_EQ(far.punted(machine), (std::vector<frame>{packet(100), packet(101), packet(102)}));
    EXPECT_GT(near.workers[1]->counters().handed_out.get(), 0u);
    EXPECT_GT(far.workers[1]->counters().handed_out.get(), 0u);
}

TEST_P(Transport, NamesWhatIsWrongBehindEsp) {
    const tunnel_options o{
        .run = path.run, .outer = path.fam, .encapsulated = path.encapsulated, .spi = 0x3000};
    esp_peer peer(o);
    ipsec::sa s = sa_from(1);
    s.id = far.sa_of(o, false);
    s.source = {};
    s.source.fam = path.fam;
    s.algs = make_algorithms(path.run, o.key_seed * 2 + 1);
    ASSERT_TRUE(far.control.add_sa(std::move(s), {}, far.clock));
    frame long_pad = peer.text_of(frame(30), wire::proto_udp);
    long_pad[long_pad.size() - 2] = 255;
    const struct {
        frame text;
        drop_reason why;
    } cases[] = {
        {peer.text_of(frame(30), wire::proto_none), drop_reason::dummy},
        {peer.text_of(frame(6), wire::proto_tcp), drop_reason::ip_malformed},
        {peer.text_of({}, wire::proto_udp), drop_reason::ip_malformed},
        {long_pad, drop_reason::esp_padding},
    };
    std::uint64_t sequence = 0;
    std::map<drop_reason, std::uint64_t> expected;
    for (const auto& c : cases) {
        EXPECT_TRUE(arrive({peer.seal(c.text, ++sequence)}).empty());
        EXPECT_EQ(far.drops(c.why), ++expected[c.why]);
    }
    if (path.fam == family::ipv6) {
        frame fragment(16);
        fragment[0] = wire::proto_udp;
        EXPECT_TRUE(
            arrive({peer.seal(peer.text_of(fragment, wire::proto_fragment), ++sequence)}).empty());
        EXPECT_EQ(far.drops(drop_reason::transport_fragment), 1u);
    }
    EXPECT_EQ(arrive({peer.seal(peer.text_of(frame(9), 200), ++sequence)}).size(), 1u);
    expect_balance();
}

TEST_P(Transport, DoesNotChangeTheFamily) {
    ipsec::sa s = sa_from(1);
    s.sel.fam = path.fam == family::ipv4 ? family::ipv6 : family::ipv4;
    const auto refused = near.control.add_sa(s.clone(), {}, near.clock);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().text, "Only tunnel modes can accommodate a change of family");
    s.sel = {}; // both families: what the SA has, as the kernel takes it
    ASSERT_TRUE(near.control.add_sa(s.clone(), {}, near.clock));
    near.add_policy(policy(policy_direction::out));
    EXPECT_EQ(on_wire({packet()}).size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(EachWay, Transport,
                         testing::Values(way{family::ipv4, false}, way{family::ipv4, true},
                                         way{family::ipv6, false}, way{family::ipv6, true},
                                         way{family::ipv4, true, suite::aes256_cbc_sha256_128},
                                         way{family::ipv6, false, suite::null_sha256_128}),
                         [](const auto& one) {
                             std::string name = one.param.fam == family::ipv4 ? "V4" : "V6";
                             name += one.param.encapsulated ? "InUdp" : "";
                             return name + "Suite" +
                                    std::to_string(static_cast<unsigned>(one.param.run));
                         });

} // namespace
} // namespace esplane::tests::transport_test

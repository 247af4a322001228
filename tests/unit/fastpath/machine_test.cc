// SPDX-License-Identifier: Apache-2.0
//
// Between a port and the machine's own stack: what goes up past the path, and what the machine may
// send.  The lab's network and tables, with ports whose twin is a device apart.
#include <deque>

#include <array>

#include <gtest/gtest.h>

#include "lib/wire/checksum.h"
#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using fastpath::packet;
using ipsec::family;

/// A port like DPDK's: frames of the wire and of the machine come from queues of the test.
class twin_port final : public fastpath::port {
  public:
    explicit twin_port(fastpath::buffer_pool& pool)
        : pool_(pool) {}

    [[nodiscard]] std::size_t receive(unsigned, std::span<packet> into) noexcept override {
        std::size_t n = 0;
        for (; n < into.size() && !arriving.empty(); ++n, arriving.pop_front())
            into[n] = packet_of(arriving.front());
        return n;
    }
    [[nodiscard]] std::size_t send(unsigned, std::span<packet* const> frames) noexcept override {
        for (packet* p : frames) {
            sent.emplace_back(p->data, p->data + p->length);
            pool_.release({&p, 1});
        }
        return frames.size();
    }
    [[nodiscard]] std::size_t punt(unsigned, std::span<packet* const> frames) noexcept override {
        for (const packet* p : frames)
            punted.emplace_back(p->data, p->data + p->length);
        return frames.size();
    }
    void flush(unsigned) noexcept override {}
    [[nodiscard]] bool twin_apart() const noexcept override { return true; }
    void relay(unsigned, fastpath::machine_rules& rules) noexcept override {
        for (; !of_machine.empty(); of_machine.pop_front()) {
            packet p = packet_of(of_machine.front());
            (rules.may_leave(p) ? left : denied).push_back(of_machine.front());
            packet* const one[] = {&p};
            pool_.release(one);
        }
    }
    [[nodiscard]] std::span<const int> descriptors(unsigned) const noexcept override { return {}; }
    [[nodiscard]] fastpath::port_counters counters() const noexcept override { return {}; }
    [[nodiscard]] const std::string& name() const noexcept override { return name_; }
    [[nodiscard]] const std::string& device() const noexcept override { return name_; }
    [[nodiscard]] const char* kind() const noexcept override { return "twin"; }
    [[nodiscard]] int ifindex() const noexcept override { return 0; }
    [[nodiscard]] fastpath::port_role role() const noexcept override {
        return fastpath::port_role::plain;
    }

    std::deque<frame> arriving, of_machine;
    std::vector<frame> sent, punted, left, denied;

  private:
    packet packet_of(const frame& f) {
        packet p;
        EXPECT_TRUE(pool_.allocate(p, 2048));
        std::copy(f.begin(), f.end(), p.data);
        p.extend(static_cast<int>(f.size()));
        return p;
    }
    fastpath::buffer_pool& pool_;
    std::string name_ = "twin";
};

struct Machine : testing::Test {
    lab gateway{1};
    twin_port plain{*gateway.pool};
    twin_port secure{*gateway.pool};
    fastpath::port* const ports[2] = {&plain, &secure};
    std::unique_ptr<fastpath::worker> worker =
        std::move(*fastpath::worker::make(gateway.tables, *gateway.pool, ports, {}));

    void arrives(const frame& f) {
        plain.arriving.push_back(f);
        worker->run_once(gateway.clock);
        EXPECT_TRUE(worker->counters().balanced());
    }
    /// Whether a frame from the wire went up as it came.
    bool goes_up(const frame& f) {
        plain.punted.clear();
        arrives(f);
        return plain.punted == std::vector<frame>{f};
    }
    bool may_leave(const frame& f) {
        plain.left.clear();
        plain.of_machine.push_back(f);
        worker->run_once(gateway.clock);
        return !plain.left.empty();
    }
    std::uint64_t drops(drop_reason r) {
        return worker->counters().dropped[static_cast<unsigned>(r)].get();
    }
};

frame with_type(frame f, std::uint16_t type) {
    wire::store(f.data() + offsetof(wire::ethernet_header, type), wire::be16(type));
    return f;
}

/// From a host of site 2 to the machine's own address in site 1's network.
packet_spec to_machine(family f = family::ipv4) {
    return {.family = f, .from = 2, .to = 1, .host = 1};
}
/// From the machine itself into site 2's network, which the lab's policies protect.
packet_spec from_machine(family f = family::ipv4) {
    return {.family = f, .from = 1, .to = 2, .host = 1};
}

/// Writes the IPv4 fragment field, checksum right.
frame as_fragment(frame ip, std::uint16_t field, std::uint16_t id = 7) {
    auto& header = *reinterpret_cast<wire::ipv4_header*>(ip.data());
    header.fragment.set(field);
    header.id.set(id);
    header.checksum = {};
    header.checksum = wire::checksum_finish(wire::checksum_add(0, ip.data(), sizeof header));
    return ip;
}
constexpr std::uint16_t more_fragments = 0x2000;

frame icmpv6(packet_spec spec, std::uint8_t type) {
    frame f = make_packet(spec);
    f[6] = wire::proto_icmpv6;
    f[sizeof(wire::ipv6_header)] = type;
    return f;
}

TEST_F(Machine, TakesWhatIsNotIpEvenWhileNothingMayPass) {
    gateway.tables.close(true);
    EXPECT_TRUE(goes_up(with_type(with_ethernet(make_packet({})), wire::ethertype_arp)));
    EXPECT_FALSE(goes_up(with_ethernet(make_packet({}))));
    EXPECT_EQ(drops(drop_reason::closed), 1u);
}

TEST_F(Machine, LeavesWhatPassesThroughToThePath) {
    for (const family f : {family::ipv4, family::ipv6})
        for (const auto port : std::array<std::uint16_t, 3>{500, 4500, 2000}) {
            secure.sent.clear();
            EXPECT_FALSE(
                goes_up(with_ethernet(make_packet({.family = f, .destination_port = port}))));
            EXPECT_EQ(secure.sent.size(), 1u) << "UDP port " << port;
        }
}

TEST_F(Machine, TakesNothingOfAnotherStation) {
    frame f = with_ethernet(make_packet({}));
    f[5] ^= 0x40;
    arrives(f);
    EXPECT_TRUE(plain.punted.empty() && secure.sent.empty());
    EXPECT_EQ(drops(drop_reason::frame_other_station), 1u);
}

/// The stack would drop them: a TAP does not say that the checksum is unfinished.
TEST_F(Machine, CompletesChecksumsOfWhatItTakes) {
    for (const family f : {family::ipv4, family::ipv6}) {
        packet_spec ike = to_machine(f);
        ike.destination_port = 500;
        const frame whole = make_packet(ike);
        const std::size_t header =
            f == family::ipv4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
        const std::size_t addresses = f == family::ipv4 ? 4 : 16;
        frame unfinished = whole;
        wire::store(&unfinished[header + 6],
                    wire::checksum_fold(wire::checksum_pseudo(
                        &whole[header - 2 * addresses], &whole[header - addresses], addresses,
                        wire::proto_udp, static_cast<std::uint32_t>(whole.size() - header))));
        plain.punted.clear();
        arrives(with_ethernet(unfinished));
        EXPECT_EQ(plain.punted, std::vector<frame>{with_ethernet(whole)});
    }
}

TEST_F(Machine, TakesIkeAndNeighbourDiscoveryPastAnInPolicy) {
    gateway.add_tunnel({});
    for (const family f : {family::ipv4, family::ipv6}) {
        for (const auto port : std::array<std::uint16_t, 2>{500, 4500}) {
            packet_spec ike = to_machine(f);
            ike.destination_port = port;
            EXPECT_TRUE(goes_up(with_ethernet(make_packet(ike))));
        }
        EXPECT_FALSE(goes_up(with_ethernet(make_packet(to_machine(f))))) << "a policy protects it";
    }
    packet_spec nd = to_machine(family::ipv6);
    nd.ttl = 255;
    EXPECT_TRUE(goes_up(with_ethernet(icmpv6(nd, 135))));
    nd.ttl = 254;
    EXPECT_FALSE(goes_up(with_ethernet(icmpv6(nd, 135))));
    EXPECT_EQ(drops(drop_reason::policy_template), 3u);
}

TEST_F(Machine, LeavesEspInUdpToThePath) {
    tunnel_options o;
    o.encapsulated = true;
    gateway.add_sas(o);
    packet_spec esp = to_machine();
    esp.destination_port = 4500;
    esp.number = 0x9999; // where the SPI stands
    EXPECT_FALSE(goes_up(with_ethernet(make_packet(esp))));
    EXPECT_EQ(drops(drop_reason::sa_unknown), 1u);
    esp.number = 0; // the marker: IKE
    EXPECT_TRUE(goes_up(with_ethernet(make_packet(esp))));
}

TEST_F(Machine, TakesGroupsAndBroadcasts) {
    frame f = with_ethernet(make_packet({}));
    f[0] |= 1;
    EXPECT_TRUE(goes_up(f)) << "a broadcast of some subnet";
    frame to_group = make_packet({});
    to_group[16] = 224;
    EXPECT_TRUE(goes_up(with_ethernet(to_group)));
    frame v6 = make_packet({.family = family::ipv6});
    v6[24] = 0xff;
    EXPECT_TRUE(goes_up(with_ethernet(v6)));
}

TEST_F(Machine, TakesFragmentsOnlyWhileNoInPolicyIsThere) {
    const frame first = with_ethernet(as_fragment(make_packet(to_machine()), more_fragments));
    frame tcp = make_packet(to_machine());
    tcp[9] = wire::proto_tcp;
    const frame later_of_tcp = with_ethernet(as_fragment(tcp, 100));
    EXPECT_TRUE(goes_up(first));
    EXPECT_TRUE(goes_up(later_of_tcp));
    gateway.add_tunnel({});
    EXPECT_FALSE(goes_up(first));
    EXPECT_FALSE(goes_up(later_of_tcp));
    EXPECT_EQ(drops(drop_reason::fragment), 2u);
    EXPECT_TRUE(goes_up(with_ethernet(as_fragment(make_packet(to_machine()), 100))))
        << "of UDP: without its first fragment it is nothing";
}

TEST_F(Machine, SendsWhatItLikesWhileNoPolicyIsThere) {
    EXPECT_TRUE(may_leave(with_ethernet(make_packet(from_machine()))));
    EXPECT_TRUE(may_leave(with_type(with_ethernet(make_packet({})), wire::ethertype_arp)));
    frame cut = with_ethernet(make_packet(from_machine()));
    cut.resize(14 + 22); // no ports
    EXPECT_TRUE(may_leave(cut));
}

TEST_F(Machine, SendsNothingThatItsKernelForwards) {
    for (const family f : {family::ipv4, family::ipv6})
        for (const auto host : std::array<std::uint16_t, 2>{10, 1})
            EXPECT_EQ(may_leave(with_ethernet(make_packet({.family = f, .host = host}))),
                      host == 1);
}

TEST_F(Machine, SendsNothingInClearThatAPolicyProtects) {
    gateway.add_tunnel({});
    for (const family f : {family::ipv4, family::ipv6}) {
        EXPECT_FALSE(may_leave(with_ethernet(make_packet(from_machine(f)))));
        packet_spec ike = from_machine(f);
        ike.destination_port = 500;
        EXPECT_TRUE(may_leave(with_ethernet(make_packet(ike))));
        ike.destination_port = 2000;
        ike.source_port = 4500;
        EXPECT_TRUE(may_leave(with_ethernet(make_packet(ike))));
        frame esp = make_packet(from_machine(f));
        esp[f == family::ipv4 ? 9 : 6] = wire::proto_esp;
        EXPECT_TRUE(may_leave(with_ethernet(esp)));
    }
    packet_spec elsewhere = from_machine();
    elsewhere.to = 3;
    EXPECT_TRUE(may_leave(with_ethernet(make_packet(elsewhere))));
    frame cut = with_ethernet(make_packet(from_machine()));
    cut.resize(14 + 22);
    EXPECT_FALSE(may_leave(cut));
}

TEST_F(Machine, SendsNeighbourDiscoveryAndListenerReportsOfThisLinkAlone) {
    gateway.add_tunnel({});
    packet_spec spec = from_machine(family::ipv6);
    for (const auto& [type, hop_limit, leaves] :
         {std::tuple{135, 255, true}, std::tuple{135, 64, false}, std::tuple{143, 1, true},
          std::tuple{143, 255, false}, std::tuple{128, 255, false}}) {
        spec.ttl = static_cast<std::uint8_t>(hop_limit);
        EXPECT_EQ(may_leave(with_ethernet(icmpv6(spec, static_cast<std::uint8_t>(type)))), leaves)
            << "type " << type << ", hop limit " << hop_limit;
    }
}

TEST_F(Machine, SendsALaterFragmentAsTheFirstOfItsPacket) {
    gateway.add_tunnel({});
    packet_spec free = from_machine();
    free.to = 3;
    const frame allowed = make_packet(free), denied = make_packet(from_machine());
    EXPECT_FALSE(may_leave(with_ethernet(as_fragment(allowed, 100, 1)))) << "no first was seen";
    EXPECT_TRUE(may_leave(with_ethernet(as_fragment(allowed, more_fragments, 1))));
    EXPECT_TRUE(may_leave(with_ethernet(as_fragment(allowed, 100, 1))));
    EXPECT_FALSE(may_leave(with_ethernet(as_fragment(allowed, 100, 2)))) << "another packet's";
    EXPECT_FALSE(may_leave(with_ethernet(as_fragment(denied, more_fragments, 1))));
    EXPECT_FALSE(may_leave(with_ethernet(as_fragment(denied, 100, 1))));
}

TEST_F(Machine, SendsOnlyWhatIsExemptWhileNothingIsProgrammed) {
    gateway.tables.close(true);
    packet_spec spec = from_machine();
    EXPECT_FALSE(may_leave(with_ethernet(make_packet(spec))));
    spec.destination_port = 500;
    EXPECT_TRUE(may_leave(with_ethernet(make_packet(spec))));
}

TEST_F(Machine, IsJudgedBehindTwoTagsAndNotBehindThree) {
    gateway.add_tunnel({});
    packet_spec free = from_machine();
    free.to = 3;
    frame open = with_ethernet(make_packet(free)),
          closed = with_ethernet(make_packet(from_machine()));
    const frame tag{0x81, 0x00, 0x00, 0x05};
    for (unsigned tags = 1; tags <= 3; ++tags) {
        open.insert(open.begin() + 12, tag.begin(), tag.end());
        closed.insert(closed.begin() + 12, tag.begin(), tag.end());
        EXPECT_EQ(may_leave(open), tags <= 2) << tags;
        EXPECT_FALSE(may_leave(closed)) << tags;
    }
}

} // namespace
} // namespace esplane::tests

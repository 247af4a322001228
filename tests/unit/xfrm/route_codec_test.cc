// SPDX-License-Identifier: Apache-2.0
//
// Messages as Linux 6.12 wrote them, and bonds as messages built by hand: not verified against a
// peer.
#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "xfrm/route_codec.h"

namespace esplane::xfrm {
namespace {

using bytes = std::vector<std::uint8_t>;

bytes from_hex(const std::string& text) {
    bytes all;
    for (std::size_t i = 0; i + 1 < text.size(); i += 2)
        all.push_back(static_cast<std::uint8_t>(std::stoul(text.substr(i, 2), nullptr, 16)));
    return all;
}

/// By name; several of one name are in their order.
std::multimap<std::string, bytes> recorded() {
    std::multimap<std::string, bytes> all;
    std::ifstream file(ESPLANE_RTNETLINK "/linux_6.12.txt");
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string name;
        std::string hex;
        words >> name >> hex;
        if (name != "#" && !hex.empty()) all.emplace(name, from_hex(hex));
    }
    return all;
}

/// nlmsghdr, a struct, attributes.
class message_builder {
  public:
    template <typename Header>
    message_builder(int type, const Header& header) {
        nlmsghdr h{};
        h.nlmsg_type = static_cast<std::uint16_t>(type);
        put(&h, sizeof h);
        put(&header, sizeof header);
    }
    message_builder& attribute(int type, const void* data, std::size_t length) {
        const rtattr a{static_cast<unsigned short>(RTA_LENGTH(length)),
                       static_cast<unsigned short>(type)};
        put(&a, sizeof a);
        put(data, length);
        return *this;
    }
    template <typename T>
    message_builder& number(int type, T value) {
        return attribute(type, &value, sizeof value);
    }
    message_builder& text(int type, const std::string& s) {
        return attribute(type, s.c_str(), s.size() + 1);
    }
    template <typename Fill>
    message_builder& nested(int type, Fill fill) {
        const std::size_t at = message_.size();
        attribute(type, nullptr, 0);
        fill(*this);
        wire::store(message_.data() + at, static_cast<std::uint16_t>(message_.size() - at));
        return *this;
    }
    [[nodiscard]] const nlmsghdr& done() {
        wire::store(message_.data(), static_cast<std::uint32_t>(message_.size()));
        return *reinterpret_cast<const nlmsghdr*>(message_.data());
    }

  private:
    void put(const void* data, std::size_t length) {
        const auto* first = static_cast<const std::uint8_t*>(data);
        message_.insert(message_.end(), first, first + length);
        message_.resize((message_.size() + 3) & ~std::size_t{3});
    }
    bytes message_;
};

control::link link_named(const std::string& name) {
    const auto all = recorded();
    const auto at = all.find(name);
    EXPECT_NE(at, all.end()) << name;
    const auto said = parse_link(*reinterpret_cast<const nlmsghdr*>(at->second.data()));
    EXPECT_TRUE(said) << name;
    return said ? said->link : control::link{};
}

TEST(RouteCodec, AVlanNamesItsParentItsTagAndItsMaster) {
    const control::link port = link_named("vec0");
    const control::link vlan = link_named("vec0.10");
    EXPECT_EQ(port.kind, control::link_kind::other);
    EXPECT_EQ(vlan.kind, control::link_kind::vlan);
    EXPECT_EQ(vlan.parent, port.ifindex);
    EXPECT_EQ(vlan.vlan_id, 10);
    EXPECT_EQ(vlan.vlan_protocol, 0x8100);
    EXPECT_EQ(vlan.master, link_named("red").ifindex);
    EXPECT_TRUE(vlan.up);
    EXPECT_EQ(vlan.mac, port.mac);
}

TEST(RouteCodec, StackedVlansAreVlansOnVlans) {
    const control::link outer = link_named("svc");
    const control::link inner = link_named("svc.5");
    EXPECT_EQ(outer.vlan_protocol, 0x88a8);
    EXPECT_EQ(outer.vlan_id, 100);
    EXPECT_EQ(inner.parent, outer.ifindex);
    EXPECT_EQ(inner.vlan_protocol, 0x8100);
    EXPECT_EQ(inner.vlan_id, 5);
    EXPECT_FALSE(inner.up);
}

TEST(RouteCodec, AVrfSaysItsTableAndATunWhatItIs) {
    EXPECT_EQ(link_named("red").kind, control::link_kind::vrf);
    EXPECT_EQ(link_named("red").vrf, 1010U);
    EXPECT_EQ(link_named("ipsec0").kind, control::link_kind::tun);
}

TEST(RouteCodec, TheRuleOfL3mdevHasNoConditions) {
    std::vector<routing_rule> rules;
    const auto all = recorded();
    for (auto [at, end] = all.equal_range("rule2"); at != end; ++at)
        rules.push_back(parse_rule(*reinterpret_cast<const nlmsghdr*>(at->second.data())).value());
    ASSERT_EQ(rules.size(), 4U);
    EXPECT_EQ(rules[0].what, routing_rule::reach::everything);
    EXPECT_EQ(rules[0].table, 255U);
    EXPECT_EQ(rules[1].what, routing_rule::reach::l3mdev);
    EXPECT_EQ(rules[1].priority, 1000U);
    EXPECT_EQ(rules[2].table, 254U);
}

ifinfomsg up_and_running(int ifindex) {
    ifinfomsg header{};
    header.ifi_index = ifindex;
    header.ifi_flags = IFF_UP | IFF_LOWER_UP;
    return header;
}

TEST(RouteCodec, ABondIsABondAndItsSlavesNameIt) {
    message_builder bond(RTM_NEWLINK, up_and_running(7));
    bond.text(IFLA_IFNAME, "bond0").number(IFLA_MTU, 1500U).nested(IFLA_LINKINFO, [](auto& info) {
        info.text(IFLA_INFO_KIND, "bond");
        info.nested(IFLA_INFO_DATA, [](auto& data) {
            data.number(IFLA_BOND_MODE, std::uint8_t{4}).number(IFLA_BOND_ACTIVE_SLAVE, 8U);
        });
    });
    message_builder slave(RTM_NEWLINK, up_and_running(8));
    slave.text(IFLA_IFNAME, "eth0").number(IFLA_MASTER, 7U).nested(IFLA_LINKINFO, [](auto& info) {
        info.text(IFLA_INFO_SLAVE_KIND, "bond");
        info.nested(IFLA_INFO_SLAVE_DATA,
                    [](auto& data) { data.number(IFLA_BOND_SLAVE_STATE, std::uint8_t{0}); });
    });
    const auto bond_said = parse_link(bond.done());
    const auto slave_said = parse_link(slave.done());
    ASSERT_TRUE(bond_said && slave_said);
    EXPECT_EQ(bond_said->link.kind, control::link_kind::bond);
    EXPECT_EQ(bond_said->link.mtu, 1500U);
    EXPECT_EQ(slave_said->link.kind, control::link_kind::other);
    EXPECT_EQ(slave_said->link.master, 7);
}

TEST(RouteCodec, AVlanOnALinkOfAnotherNamespaceHasNoParentHere) {
    message_builder vlan(RTM_NEWLINK, up_and_running(9));
    vlan.text(IFLA_IFNAME, "eth0.5").number(IFLA_LINK, 2U).number(IFLA_LINK_NETNSID, 0U);
    vlan.nested(IFLA_LINKINFO, [](auto& info) {
        info.text(IFLA_INFO_KIND, "vlan");
        info.nested(IFLA_INFO_DATA,
                    [](auto& data) { data.number(IFLA_VLAN_ID, std::uint16_t{5}); });
    });
    const auto said = parse_link(vlan.done());
    ASSERT_TRUE(said);
    EXPECT_EQ(said->link.kind, control::link_kind::vlan);
    EXPECT_EQ(said->link.parent, 0);
}

rtmsg unicast_v4() {
    rtmsg header{};
    header.rtm_family = AF_INET;
    header.rtm_dst_len = 16;
    header.rtm_table = RT_TABLE_MAIN;
    header.rtm_type = RTN_UNICAST;
    return header;
}

TEST(RouteCodec, AHopThatWrapsPacketsLeavesByNoLinkOfOurs) {
    message_builder m(RTM_NEWROUTE, unicast_v4());
    m.number(RTA_DST, wire::be32(0x0a020000)).number(RTA_OIF, 3U);
    route_message plain;
    ASSERT_TRUE(parse_route(m.done(), plain));
    EXPECT_EQ(plain.path.hops.at(0).ifindex, 3);
    m.number(RTA_ENCAP_TYPE, std::uint16_t{1}); // MPLS
    route_message wrapped;
    ASSERT_TRUE(parse_route(m.done(), wrapped));
    EXPECT_EQ(wrapped.path.hops.at(0).ifindex, 0);
}

TEST(RouteCodec, AMultipathListThatLiesAboutItsLengthIsNoRoute) {
    rtnexthop hop{};
    hop.rtnh_len = 200;
    message_builder m(RTM_NEWROUTE, unicast_v4());
    m.attribute(RTA_MULTIPATH, &hop, sizeof hop);
    route_message r;
    EXPECT_FALSE(parse_route(m.done(), r));
}

TEST(RouteCodec, NoMessageCutOrBentIsReadPastItsEnd) {
    for (const auto& [name, whole] : recorded()) {
        const auto read = [](const bytes& m) {
            const auto& header = *reinterpret_cast<const nlmsghdr*>(m.data());
            (void)parse_link(header);
            (void)parse_rule(header);
        };
        for (std::size_t length = sizeof(nlmsghdr); length < whole.size(); ++length) {
            bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
            wire::store(cut.data(), static_cast<std::uint32_t>(length));
            read(cut);
        }
        for (std::size_t i = sizeof(nlmsghdr); i < whole.size(); ++i)
            for (const std::uint8_t bent : std::array<std::uint8_t, 4>{0x00, 0x01, 0x7f, 0xff}) {
                bytes m = whole;
                m[i] = bent;
                read(m);
            }
    }
}

} // namespace
} // namespace esplane::xfrm

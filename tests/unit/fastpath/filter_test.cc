// SPDX-License-Identifier: Apache-2.0
//
// The filter inside the tunnels: its rules as text, what they match, and where packets meet them.
#include "fastpath/filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <set>

#include "tests/support/lab.h"

namespace esplane::tests {
namespace {

using fastpath::drop_reason;
using fastpath::filter_direction;
using fastpath::filter_rule;
using fastpath::parse_filter_rule;
using fastpath::rule_filter;
using ipsec::address;
using ipsec::family;
using testing::HasSubstr;

TEST(FilterRule, SaysWhatItsWordsSay) {
    const auto r =
        parse_filter_rule("deny out proto tcp src 10.0.0.0/8 dst any sport 1000-2000 dport 25");
    ASSERT_TRUE(r) << r.error().text;
    EXPECT_TRUE(r->deny && r->out && !r->in && !r->any_protocol);
    EXPECT_EQ(r->protocol, wire::proto_tcp);
    EXPECT_EQ(r->source.address, *address::parse("10.0.0.0"));
    EXPECT_EQ(r->source.length, 8);
    EXPECT_EQ(r->destination.address.fam, family::unspecified);
    EXPECT_EQ(r->source_ports.first, 1000);
    EXPECT_EQ(r->source_ports.last, 2000);
    EXPECT_EQ(r->destination_ports.first, 25);
    EXPECT_EQ(r->destination_ports.last, 25);
}

TEST(FilterRule, WithoutADirectionIsForBoth) {
    for (const char* text : {"allow", "allow both", "allow src any dst any proto any dport any"}) {
        const auto r = parse_filter_rule(text);
        ASSERT_TRUE(r) << r.error().text;
        EXPECT_TRUE(r->in && r->out && !r->deny && r->any_protocol) << text;
    }
}

TEST(FilterRule, TakesAnAddressWithoutAPrefixWhole) {
    EXPECT_EQ(parse_filter_rule("deny src fd00::1")->source.length, 128);
    EXPECT_EQ(parse_filter_rule("deny dst 192.0.2.1")->destination.length, 32);
}

TEST(FilterRule, AMistakeIsNamedWithItsRuleAndWord) {
    const std::pair<const char*, const char*> mistakes[] = {
        {"", "allow or deny"},
        {"drop out", "\"drop\""},
        {"deny sideways", "\"sideways\""},
        {"deny out proto tpc", "\"tpc\""},
        {"deny out proto 256", "\"256\""},
        {"deny out proto", "\"proto\" has no value"},
        {"deny out src 10.0.0.0/33", "0 to 32"},
        {"deny out src 10.0.0.0/", "\"10.0.0.0/\""},
        {"deny out src 10.0.0.1/8", "10.0.0.0/8"},
        {"deny out src fd00::/129", "0 to 128"},
        {"deny out dst nowhere", "\"nowhere\""},
        {"deny dport 65536", "\"65536\""},
        {"deny dport 20-10", "\"20-10\""},
        {"deny dport 20-", "\"20-\""},
        {"deny dport -20", "\"-20\""},
        {"deny dport 1 dport 2", "\"dport\" is there twice"},
        {"deny proto icmp dport 25", "protocol 1 has no ports"},
        {"deny src 10.0.0.0/8 dst fd00::/16", "different families"},
    };
    for (const auto& [text, what] : mistakes) {
        const auto r = parse_filter_rule(text);
        ASSERT_FALSE(r) << text;
        EXPECT_EQ(r.error().code, EINVAL);
        EXPECT_THAT(r.error().text, HasSubstr(what));
        EXPECT_THAT(r.error().text, HasSubstr("--filter \"" + std::string(text) + "\""));
        EXPECT_EQ(r.error().text.find('\n'), std::string::npos);
    }
}

std::unique_ptr<rule_filter> filter_of(const std::vector<std::string>& texts, unsigned lanes = 1) {
    std::vector<filter_rule> rules;
    for (const std::string& text : texts)
        rules.push_back(parse_filter_rule(text).value());
    return std::make_unique<rule_filter>(std::move(rules), lanes);
}

// The model: a rule as the choices it was made of, held against a packet bit by bit.

struct model_packet {
    address source, destination;
    std::uint8_t protocol = 0;
    std::uint16_t source_port = 0, destination_port = 0;
    frame bytes;
};

struct model_rule {
    bool deny = false;
    int direction = 0; ///< 0 in, 1 out, 2 both
    std::optional<std::pair<address, unsigned>> source, destination;
    std::optional<std::uint8_t> protocol;
    std::optional<std::pair<std::uint16_t, std::uint16_t>> source_ports, destination_ports;

    [[nodiscard]] std::string text() const {
        static const char* const directions[] = {"in", "out", "both"};
        std::string s = std::string(deny ? "deny " : "allow ") + directions[direction];
        const auto prefix = [&](const char* name, const auto& p) {
            if (p) s += name + p->first.to_string() + "/" + std::to_string(p->second);
        };
        const auto range = [&](const char* name, const auto& r) {
            if (r) s += name + std::to_string(r->first) + "-" + std::to_string(r->second);
        };
        if (protocol) s += " proto " + std::to_string(*protocol);
        prefix(" src ", source);
        prefix(" dst ", destination);
        range(" sport ", source_ports);
        range(" dport ", destination_ports);
        return s;
    }
    [[nodiscard]] bool matches(filter_direction d, const model_packet& p) const {
        if (direction != 2 && direction != (d == filter_direction::out ? 1 : 0)) return false;
        if (protocol && *protocol != p.protocol) return false;
        const auto inside = [](const address& a, const auto& within) {
            if (!within) return true;
            if (a.fam != within->first.fam) return false;
            for (unsigned bit = 0; bit < within->second; ++bit)
                if (((a.bytes[bit / 8] ^ within->first.bytes[bit / 8]) >> (7 - bit % 8) & 1) != 0)
                    return false;
            return true;
        };
        const auto among = [&](std::uint16_t port, const auto& range) {
            static const std::set<int> with_ports{6, 17, 33, 132, 136};
            if (!range || (range->first == 0 && range->second == 65535)) return true;
            return with_ports.count(p.protocol) != 0 && port >= range->first &&
                   port <= range->second;
        };
        return inside(p.source, source) && inside(p.destination, destination) &&
               among(p.source_port, source_ports) && among(p.destination_port, destination_ports);
    }
};

/// Values from few, so that rules and packets meet.
struct generator {
    std::mt19937 engine{20261121};

    unsigned below(unsigned n) { return static_cast<unsigned>(engine() % n); }

    address any_address(family f) {
        address a;
        a.fam = f;
        for (unsigned i = 0; i < ipsec::address_length(f); ++i)
            a.bytes[i] = static_cast<std::uint8_t>(below(2) << below(8));
        return a;
    }
    std::uint8_t any_protocol() {
        static constexpr std::uint8_t some[] = {1, 6, 17, 33, 47, 58, 132, 136, 200};
        return some[below(std::size(some))];
    }
    std::uint16_t any_port() { return static_cast<std::uint16_t>(below(3) == 0 ? 0 : below(8)); }

    model_packet any_packet() {
        const family f = below(2) == 0 ? family::ipv4 : family::ipv6;
        model_packet p{any_address(f), any_address(f), any_protocol(), any_port(), any_port(), {}};
        p.bytes.resize(40 + below(60));
        if (f == family::ipv4) {
            wire::ipv4_header ip{};
            ip.source = p.source.as_v4();
            ip.destination = p.destination.as_v4();
            wire::store(p.bytes.data(), ip);
        } else {
            wire::ipv6_header ip{};
            ip.source = p.source.bytes;
            ip.destination = p.destination.bytes;
            wire::store(p.bytes.data(), ip);
        }
        return p;
    }
    model_rule any_rule() {
        model_rule r;
        r.deny = below(2) == 0;
        r.direction = static_cast<int>(below(3));
        const family f = below(2) == 0 ? family::ipv4 : family::ipv6;
        const auto prefix = [&]() -> std::optional<std::pair<address, unsigned>> {
            if (below(2) == 0) return std::nullopt;
            const unsigned length = below(ipsec::address_bits(f) / (below(2) + 1) + 1);
            return std::pair{ipsec::masked(any_address(f), length), length};
        };
        const auto range = [&]() -> std::optional<std::pair<std::uint16_t, std::uint16_t>> {
            if (below(3) != 0) return std::nullopt;
            const std::uint16_t first = any_port();
            return std::pair{first,
                             static_cast<std::uint16_t>(below(5) == 0 ? 65535u : first + below(4))};
        };
        r.source = prefix();
        r.destination = prefix();
        if (below(2) == 0) r.protocol = any_protocol();
        if (!r.protocol || fastpath::has_ports(*r.protocol)) {
            r.source_ports = range();
            r.destination_ports = range();
        }
        return r;
    }
};

fastpath::packet descriptor_of(model_packet& m) {
    fastpath::packet p;
    p.data = m.bytes.data();
    p.length = static_cast<std::uint32_t>(m.bytes.size());
    p.family = m.source.fam;
    p.protocol = m.protocol;
    p.source_port = wire::be16(m.source_port);
    p.destination_port = wire::be16(m.destination_port);
    return p;
}

TEST(RuleFilter, TakesAFragmentForWhatIsDeniedAndNotForWhatIsAllowed) {
    generator g;
    model_packet m = g.any_packet();
    m.protocol = wire::proto_tcp;
    fastpath::packet p = descriptor_of(m);
    p.source_port = p.destination_port = {};
    fastpath::packet* const one[] = {&p};
    const auto denies = [&](std::vector<std::string> rules) {
        return filter_of(rules)->deny(filter_direction::out, 0, one) != 0;
    };
    EXPECT_FALSE(denies({"deny proto tcp dport 25"}));
    p.flags |= fastpath::packet_flag::fragment;
    EXPECT_TRUE(denies({"deny proto tcp dport 25"}));
    EXPECT_TRUE(denies({"allow dport 0", "deny"}));
    EXPECT_FALSE(denies({"deny proto udp dport 25"}));
}

TEST(RuleFilter, DecidesAndCountsAsTheNaiveMatcherDoes) {
    generator g;
    std::uint64_t denied_in_all = 0;
    for (unsigned round = 0; round < 300; ++round) {
        std::vector<model_rule> model(g.below(12));
        std::vector<std::string> texts;
        for (model_rule& r : model) {
            r = g.any_rule();
            texts.push_back(r.text());
        }
        const auto filter = filter_of(texts, 2);
        std::vector<rule_filter::hits> expected(model.size());
        for (unsigned burst = 0; burst < 8; ++burst) {
            const auto d = g.below(2) == 0 ? filter_direction::in : filter_direction::out;
            std::vector<model_packet> packets(1 + g.below(fastpath::max_burst));
            std::vector<fastpath::packet> descriptors;
            for (model_packet& p : packets)
                descriptors.push_back(descriptor_of(p = g.any_packet()));
            std::vector<fastpath::packet*> span;
            for (fastpath::packet& p : descriptors)
                span.push_back(&p);
            const std::uint64_t denied = filter->deny(d, burst % 2, span);
            for (std::size_t i = 0; i < packets.size(); ++i) {
                std::size_t rule = 0;
                while (rule < model.size() && !model[rule].matches(d, packets[i]))
                    ++rule;
                const bool deny = rule < model.size() && model[rule].deny;
                ASSERT_EQ((denied >> i & 1) != 0, deny)
                    << (rule < texts.size() ? texts[rule] : "no rule") << " for "
                    << packets[i].source.to_string() << " > " << packets[i].destination.to_string()
                    << " protocol " << int{packets[i].protocol} << " " << packets[i].source_port
                    << " > " << packets[i].destination_port;
                denied_in_all += deny ? 1 : 0;
                if (rule == model.size()) continue;
                ++expected[rule].packets;
                expected[rule].bytes += packets[i].bytes.size();
            }
            ASSERT_EQ(denied & ~std::uint64_t{0} << 1 << (packets.size() - 1), 0u);
        }
        const auto counted = filter->count();
        for (std::size_t i = 0; i < model.size(); ++i) {
            ASSERT_EQ(counted[i].packets, expected[i].packets);
            ASSERT_EQ(counted[i].bytes, expected[i].bytes);
        }
    }
    EXPECT_GT(denied_in_all, 1000u) << "the rules met hardly a packet";
}

struct FilteredGateway : testing::Test {
    lab one{1}, two{2};

    void SetUp() override {
        one.add_tunnel({});
        two.add_tunnel({});
    }
    std::vector<std::uint32_t> cross(const std::vector<frame>& packets) {
        one.push(lab::plain, packets);
        two.push(lab::secure, one.sent(lab::secure));
        std::vector<std::uint32_t> numbers;
        for (const frame& f : two.sent(lab::plain))
            numbers.push_back(number_of(f));
        return numbers;
    }
    void expect_balance() {
        for (lab* l : {&one, &two}) {
            EXPECT_TRUE(l->worker->counters().balanced());
            EXPECT_EQ(l->pool->free_frames(), l->pool->count());
        }
    }
    static std::vector<frame> three_ports() {
        std::vector<frame> packets;
        for (std::uint32_t i = 0; i < 30; ++i)
            packets.push_back(make_packet({.family = i % 2 ? family::ipv4 : family::ipv6,
                                           .destination_port = static_cast<std::uint16_t>(i % 3),
                                           .number = i}));
        return packets;
    }
    static std::vector<std::uint32_t> without_port(std::uint32_t port) {
        std::vector<std::uint32_t> numbers;
        for (std::uint32_t i = 0; i < 30; ++i)
            if (i % 3 != port) numbers.push_back(i);
        return numbers;
    }
};

TEST_F(FilteredGateway, WhatIsDeniedOutIsNotEncryptedAndBurnsNoSequenceNumber) {
    one.tables.set_filter(filter_of({"deny out dport 1"}));
    EXPECT_EQ(cross(three_ports()), without_port(1));
    EXPECT_EQ(one.drops(drop_reason::filter_denied), 10u);
    EXPECT_EQ(one.worker->counters().encrypted.get(), 20u);
    control::cursor at;
    std::uint64_t sent = 0;
    while (const auto* s = one.control.next_sa(at))
        sent = std::max<std::uint64_t>(sent, s->replay.sent);
    EXPECT_EQ(sent, 20u);
    expect_balance();
}

TEST_F(FilteredGateway, WhatIsDeniedInIsDecryptedAndGoesNoFurther) {
    two.tables.set_filter(filter_of(
        {"deny in proto udp src 10.1.0.0/16 dport 2", "deny in proto udp src fd01::/32 dport 2"}));
    EXPECT_EQ(cross(three_ports()), without_port(2));
    EXPECT_EQ(two.drops(drop_reason::filter_denied), 10u);
    EXPECT_EQ(two.worker->counters().decrypted.get(), 30u);
    expect_balance();
}

TEST_F(FilteredGateway, TheFirstRuleThatMatchesDecides) {
    one.tables.set_filter(filter_of({"allow out dport 0-1", "deny", "allow dport 2"}));
    EXPECT_EQ(cross(three_ports()), without_port(2));
}

TEST_F(FilteredGateway, ARuleForOneDirectionLeavesTheOtherAlone) {
    one.tables.set_filter(filter_of({"deny in"}));
    two.tables.set_filter(filter_of({"deny out"}));
    EXPECT_EQ(cross(three_ports()).size(), 30u);
}

TEST_F(FilteredGateway, AFilterIsReplacedAndTakenOutBetweenPackets) {
    one.tables.set_filter(filter_of({"deny"}));
    EXPECT_TRUE(cross(three_ports()).empty());
    one.tables.set_filter(filter_of({"deny dport 0"}));
    EXPECT_EQ(cross(three_ports()), without_port(0));
    one.tables.set_filter(nullptr);
    EXPECT_EQ(cross(three_ports()).size(), 30u);
    expect_balance();
}

TEST(Filter, WhatIsNotInATunnelIsNotItsBusiness) {
    lab one{1};
    one.tables.set_filter(filter_of({"deny"}));
    one.push(lab::plain, {make_packet({})});
    EXPECT_EQ(one.sent(lab::secure).size(), 1u);
}

/// An embedder's own: sees every packet parsed, in clear, in the order of the burst.
struct recorder final : fastpath::packet_filter {
    explicit recorder(std::vector<std::uint32_t>& to)
        : seen(to) {}
    std::uint64_t deny(filter_direction, unsigned lane,
                       std::span<fastpath::packet* const> packets) noexcept override {
        EXPECT_EQ(lane, 0u);
        for (const fastpath::packet* p : packets)
            seen.push_back(number_of({p->data, p->data + p->length}));
        return ~std::uint64_t{0};
    }
    std::vector<std::uint32_t>& seen;
};

TEST_F(FilteredGateway, AnEmbeddersOwnFilterSeesBurstsInOrderAndMayDenyThemAll) {
    std::vector<std::uint32_t> seen, all;
    two.tables.set_filter(std::make_unique<recorder>(seen));
    for (std::uint32_t i = 0; i < 30; ++i)
        all.push_back(i);
    EXPECT_TRUE(cross(three_ports()).empty());
    EXPECT_EQ(seen, all);
    EXPECT_EQ(two.drops(drop_reason::filter_denied), 30u);
    expect_balance();
}

} // namespace
} // namespace esplane::tests

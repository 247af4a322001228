// SPDX-License-Identifier: Apache-2.0
#include "bench/rulesets/rulesets.h"

#include <array>
#include <cstddef>
#include <random>
#include <set>
#include <tuple>

namespace esplane::bench {

namespace {

using ipsec::address;
using ipsec::policy;
using ipsec::selector;
using wire::be16;
using wire::be32;

constexpr std::uint32_t near_network = 0x14000000; ///< 20.0.0.0/8
constexpr std::uint32_t far_network = 0x1e000000;  ///< 30.0.0.0/8
constexpr std::uint32_t host_bits = 24;
constexpr std::uint8_t site_prefix = 26;
constexpr unsigned priorities = 1000;

/// The standard's distributions differ between libraries; this one does not.
class dice {
  public:
    explicit dice(std::uint64_t seed)
        : engine_(seed) {}
    [[nodiscard]] std::uint32_t below(std::uint32_t n) {
        return static_cast<std::uint32_t>((engine_() >> 32) * n >> 32);
    }
    [[nodiscard]] std::uint32_t bits() { return static_cast<std::uint32_t>(engine_() >> 32); }

  private:
    std::mt19937_64 engine_;
};

std::uint32_t mask_of(std::uint8_t prefix) noexcept {
    return prefix == 0 ? 0 : ~std::uint32_t{0} << (32 - prefix);
}

address host_in(std::uint32_t network, std::uint32_t host) noexcept {
    return address::v4(be32(network | (host & ((1u << host_bits) - 1))));
}

selector between(const address& near, std::uint8_t near_prefix, const address& far,
                 std::uint8_t far_prefix) {
    selector s;
    s.fam = ipsec::family::ipv4;
    s.source = ipsec::masked(near, near_prefix);
    s.destination = ipsec::masked(far, far_prefix);
    s.source_prefix = near_prefix;
    s.destination_prefix = far_prefix;
    return s;
}

selector site(unsigned n) {
    return between(host_in(near_network, 0), 32 - host_bits,
                   host_in(far_network, n << (32 - site_prefix)), site_prefix);
}

/// Neighbours in number are no neighbours in address.
selector host_pair(unsigned n) {
    constexpr std::uint32_t odd = 0x9e3779b1;
    return between(host_in(near_network, n * odd), 32, host_in(far_network, n * odd + n), 32);
}

/// Most rules are about hosts and small networks, as in access lists; some are about all of a side.
std::uint8_t some_prefix(dice& d) {
    struct share {
        std::uint8_t prefix;
        unsigned of_64;
    };
    constexpr std::array<share, 8> shares{
        {{8, 1}, {16, 3}, {20, 3}, {24, 22}, {26, 2}, {28, 3}, {30, 2}, {32, 28}}};
    std::uint32_t at = d.below(64);
    for (const share& one : shares) {
        if (at < one.of_64) return one.prefix;
        at -= one.of_64;
    }
    return 32;
}

selector address_pair(dice& d) {
    const address near = host_in(near_network, d.bits());
    const std::uint8_t near_prefix = some_prefix(d);
    return between(near, near_prefix, host_in(far_network, d.bits()), some_prefix(d));
}

/// Well-known ports come more often than others.
be16 some_port(dice& d) {
    constexpr std::array<std::uint16_t, 8> known{22, 25, 53, 80, 123, 443, 3306, 8080};
    return be16(d.below(2) == 0 ? known[d.below(known.size())]
                                : static_cast<std::uint16_t>(d.below(65536)));
}

/// Those from 1024 up, of which each mask of theirs is a policy.
void set_high_range(selector& s, dice& d) {
    const unsigned bit = 10 + d.below(6);
    s.destination_port = be16(static_cast<std::uint16_t>(1u << bit));
    s.destination_port_mask = be16(static_cast<std::uint16_t>(0xffffu << bit));
}

void set_ports(selector& s, dice& d) {
    constexpr std::uint8_t tcp = 6, udp = 17;
    const bool broad = s.source_prefix + s.destination_prefix < 40;
    const unsigned kind = d.below(16);
    if (kind < 4 && !broad) return;
    s.protocol = d.below(3) == 0 ? udp : tcp;
    if (kind < 6 && !broad) return;
    if (kind < 8) {
        set_high_range(s, d);
        return;
    }
    s.destination_port = some_port(d);
    s.destination_port_mask = be16(0xffff);
    if (kind != 15) return;
    s.source_port = some_port(d);
    s.source_port_mask = be16(0xffff);
}

class access_list {
  public:
    selector next() {
        for (;;) {
            selector s = d_.below(4) == 0 && !pairs_.empty()
                             ? pairs_[d_.below(static_cast<std::uint32_t>(pairs_.size()))]
                             : pairs_.emplace_back(address_pair(d_));
            set_ports(s, d_);
            if (seen_.insert(name_of(s)).second) return s;
        }
    }
    std::uint32_t priority() { return 1 + d_.below(priorities); }

  private:
    using name = std::tuple<std::uint32_t, std::uint32_t, unsigned, unsigned, std::uint64_t>;
    static name name_of(const selector& s) {
        const std::uint64_t ports = s.source_port.host() |
                                    std::uint64_t{s.source_port_mask.host()} << 16 |
                                    std::uint64_t{s.destination_port.host()} << 32 |
                                    std::uint64_t{s.destination_port_mask.host()} << 48;
        return {s.source.as_v4().host(), s.destination.as_v4().host(),
                s.source_prefix << 8 | s.destination_prefix, s.protocol, ports};
    }

    dice d_{2026};
    std::vector<selector> pairs_;
    std::set<name> seen_;
};

policy protecting(const selector& s, std::uint32_t priority, const rule_peers& peers, unsigned n) {
    policy p;
    p.sel = s;
    p.priority = priority;
    ipsec::template_ t;
    t.id.destination = peers.far;
    t.source = peers.near;
    t.fam = peers.far.fam;
    t.reqid = n % peers.reqids + 1;
    p.templates = {t};
    return p;
}

address host_under(const address& network, std::uint8_t prefix, dice& d) {
    return address::v4(be32(network.as_v4().host() | (d.bits() & ~mask_of(prefix))));
}

be16 port_under(be16 port, be16 mask, dice& d) {
    const auto any = static_cast<std::uint16_t>(d.bits());
    return be16(static_cast<std::uint16_t>(port.host() | (any & ~mask.host())));
}

ipsec::flow flow_under(const selector& s, dice& d) {
    constexpr std::array<std::uint8_t, 2> protocols{6, 17};
    return {host_under(s.source, s.source_prefix, d),
            host_under(s.destination, s.destination_prefix, d),
            port_under(s.source_port, s.source_port_mask, d),
            port_under(s.destination_port, s.destination_port_mask, d),
            s.protocol != 0 ? s.protocol : protocols[d.below(protocols.size())]};
}

} // namespace

std::string_view name_of(rule_kind k) noexcept {
    switch (k) {
    case rule_kind::hub:
        return "hub";
    case rule_kind::acl:
        return "acl";
    case rule_kind::host_pairs:
        return "host_pairs";
    }
    return {};
}

std::vector<policy> make_rules(rule_kind k, unsigned count, const rule_peers& peers) {
    constexpr std::uint32_t same_priority = 1000;
    std::vector<policy> rules;
    rules.reserve(count);
    access_list acl;
    for (unsigned n = 0; n < count; ++n)
        if (k == rule_kind::acl) {
            const selector s = acl.next();
            rules.push_back(protecting(s, acl.priority(), peers, n));
        } else
            rules.push_back(
                protecting(k == rule_kind::hub ? site(n) : host_pair(n), same_priority, peers, n));
    return rules;
}

policy reversed(const policy& rule, ipsec::policy_direction dir) {
    policy p = rule;
    p.dir = dir;
    std::swap(p.sel.source, p.sel.destination);
    std::swap(p.sel.source_prefix, p.sel.destination_prefix);
    std::swap(p.sel.source_port, p.sel.destination_port);
    std::swap(p.sel.source_port_mask, p.sel.destination_port_mask);
    for (ipsec::template_& t : p.templates)
        std::swap(t.source, t.id.destination);
    return p;
}

std::vector<ipsec::flow> make_flows(std::span<const policy> rules, unsigned count,
                                    std::uint64_t seed) {
    dice d(seed);
    std::vector<ipsec::flow> flows;
    flows.reserve(count);
    for (unsigned n = 0; n < count; ++n)
        flows.push_back(
            flow_under(rules[d.below(static_cast<std::uint32_t>(rules.size()))].sel, d));
    return flows;
}

std::size_t count_shapes(std::span<const policy> rules) {
    std::set<std::tuple<unsigned, unsigned, unsigned, unsigned, bool>> shapes;
    for (const policy& p : rules)
        shapes.insert({p.sel.source_prefix, p.sel.destination_prefix, p.sel.source_port_mask.host(),
                       p.sel.destination_port_mask.host(), p.sel.protocol != 0});
    return shapes.size();
}

} // namespace esplane::bench

// SPDX-License-Identifier: Apache-2.0
//
// Random `out` policies and packets, and the dumbest judge of them: the policies one by one.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <random>
#include <vector>

#include "fastpath/xdp/egress_rules.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath::test {

/// A packet as policies see it.
struct outgoing {
    ipsec::flow flow;
    bool later_fragment = false; ///< its ports cannot be seen
};

class rules_model {
  public:
    explicit rules_model(unsigned seed)
        : random_(seed) {}

    std::vector<egress_rule> rules(std::size_t count) {
        std::vector<egress_rule> all(count);
        for (std::uint32_t position = 0; egress_rule & r : all) {
            r.position = position++;
            r.sel.fam = family();
            r.sel.source = address(r.sel.fam);
            r.sel.destination = address(r.sel.fam);
            r.sel.source_prefix = prefix(r.sel.fam);
            r.sel.destination_prefix = prefix(r.sel.fam);
            r.sel.protocol = one_in(2) ? protocol() : std::uint8_t{0};
            if (r.sel.protocol != 0 && one_in(3)) r.sel.destination_port_mask = wire::be16(0xffff);
            r.sel.destination_port = port();
            r.priority = below(4);
            r.allow = one_in(2);
        }
        return all;
    }

    outgoing packet() {
        outgoing p;
        const ipsec::family fam = family();
        p.flow.source = address(fam);
        p.flow.destination = address(fam);
        p.flow.protocol = protocol();
        p.later_fragment = one_in(4);
        if (!p.later_fragment) {
            p.flow.source_port = port();
            p.flow.destination_port = port();
        }
        return p;
    }

    /// Whether the packet may leave in clear.
    static bool allows(std::span<const egress_rule> rules, const outgoing& p) {
        const egress_rule* best = nullptr;
        for (const egress_rule& r : rules)
            if (matches(r, p) && (best == nullptr || r.priority < best->priority)) best = &r;
        return best == nullptr || best->allow;
    }

  private:
    static bool matches(const egress_rule& r, const outgoing& p) {
        if (!p.later_fragment) return r.sel.matches(p.flow);
        egress_rule portless = r;
        portless.sel.source_port_mask = portless.sel.destination_port_mask = {};
        return (!r.allow || r.sel == portless.sel) && portless.sel.matches(p.flow);
    }

    std::uint32_t below(std::uint32_t n) {
        return std::uniform_int_distribution<std::uint32_t>(0, n - 1)(random_);
    }
    bool one_in(std::uint32_t n) { return below(n) == 0; }
    ipsec::family family() { return one_in(2) ? ipsec::family::ipv4 : ipsec::family::ipv6; }
    std::uint8_t protocol() { return one_in(2) ? wire::proto_tcp : wire::proto_udp; }
    wire::be16 port() { return wire::be16(static_cast<std::uint16_t>(1000 + below(3))); }
    std::uint8_t prefix(ipsec::family fam) {
        constexpr std::array<std::uint8_t, 4> from_the_end{0, 1, 2, 255};
        const int bits = ipsec::address_bits(fam);
        return static_cast<std::uint8_t>(std::max(0, bits - from_the_end[below(4)]));
    }
    /// One of eight, so that rules and packets meet.
    ipsec::address address(ipsec::family fam) {
        ipsec::address a;
        a.fam = fam;
        a.bytes[0] = 10;
        a.bytes[ipsec::address_length(fam) - 1U] = static_cast<std::uint8_t>(below(8));
        return a;
    }

    std::mt19937 random_;
};

} // namespace esplane::fastpath::test

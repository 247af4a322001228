// SPDX-License-Identifier: Apache-2.0
//
// A rule of the built-in filter, and how it is written.
#pragma once

#include <cstdint>
#include <string>

#include "lib/base/result.h"
#include "lib/ipsec/address.h"

namespace esplane::fastpath {

/// Numbers from first to last.
struct port_range {
    std::uint16_t first = 0;
    std::uint16_t last = 0xffff;

    [[nodiscard]] bool all() const noexcept { return first == 0 && last == 0xffff; }
    [[nodiscard]] bool contains(std::uint16_t port) const noexcept {
        return first <= port && port <= last;
    }
};

/// An address and how many of its bits count.
struct address_prefix {
    ipsec::address address; ///< family unspecified: every address
    std::uint8_t length = 0;
};

/// One line of a rule_filter.
struct filter_rule {
    std::string text; ///< as it was given
    bool deny = false;
    bool in = true;
    bool out = true;
    address_prefix source;
    address_prefix destination;
    bool any_protocol = true;
    std::uint8_t protocol = 0;
    port_range source_ports; ///< a range that is not all ports matches only what has_ports()
    port_range destination_ports;
};

/// Whether selectors compare ports of packets of this protocol: TCP, UDP, UDP-Lite, SCTP, DCCP.
[[nodiscard]] bool has_ports(std::uint8_t protocol) noexcept;

/// From "deny out proto tcp src 10.0.0.0/8 dst any dport 25":
///
///   allow|deny [in|out|both] [proto NAME|NUMBER|any] [src CIDR|any] [dst CIDR|any]
///   [sport PORT[-PORT]|any] [dport PORT[-PORT]|any]
///
/// Errors: EINVAL, a line that names the rule and the word at fault.
[[nodiscard]] result<filter_rule> parse_filter_rule(const std::string& text);

} // namespace esplane::fastpath

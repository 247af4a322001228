// SPDX-License-Identifier: Apache-2.0
//
// ESP frames as they lie on the wire between two gateways.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "tests/support/lab.h"

namespace esplane::tests {

inline constexpr std::uint8_t ecn_ce = 3;

/// What an ESP packet shows of its outer headers, but for the SPI, addresses, IPv4's ID and what
/// follows from it.
struct outer_header {
    std::uint32_t first_word = 0; ///< IPv6: class and flow label; IPv4: traffic class
    std::uint32_t length = 0;
    std::uint8_t ttl = 0;
    std::uint8_t protocol = 0;
    bool dont_fragment = false;
    std::array<std::uint8_t, 8> udp{};
    friend bool operator==(const outer_header&, const outer_header&) = default;
};

struct esp_view {
    outer_header outer;
    std::uint32_t sequence = 0;
};

/// Whether a frame is an IP packet of `protocol`; `to_port` of UDP, 0 = any.
[[nodiscard]] bool is_packet(const frame& f, std::uint8_t protocol, std::uint16_t to_port);
/// In IP or in UDP.
[[nodiscard]] bool is_esp(const frame& f);

/// Of a frame that is_esp.  Throws std::runtime_error where the checksum of IPv4, or of UDP over
/// IPv6 is wrong.
[[nodiscard]] esp_view view_of(const frame& f);
[[nodiscard]] std::string text_of(const outer_header& h);

/// As a congested router marks a packet: CE in the outer header.
void mark_ce(frame& f);

} // namespace esplane::tests

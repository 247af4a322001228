// SPDX-License-Identifier: Apache-2.0
//
// The site 1 end of a tunnel that encrypts whatever text it is given, well-formed or not.
#pragma once

#include <memory>
#include <span>

#include "lib/crypto/engine.h"
#include "tests/support/lab.h"

namespace esplane::tests {

class esp_peer {
  public:
    /// Has the keys of the SA from site 1 to site 2 that lab::add_sas makes of `o`.
    explicit esp_peer(const tunnel_options& o);

    /// The packet on the wire to gateway 2.
    ///
    /// text   inner packet, padding, pad length, next header; what does not fill a block is cut off
    [[nodiscard]] frame seal(std::span<const std::uint8_t> text, std::uint64_t sequence,
                             std::uint8_t outer_tos = 0);

    /// A packet with ESP's trailer behind it.
    [[nodiscard]] frame text_of(const frame& inner, std::uint8_t next_header) const;

  private:
    tunnel_options o_;
    ipsec::suite_layout layout_;
    std::shared_ptr<const crypto::key> key_;
    std::unique_ptr<crypto::engine> engine_;
};

/// Sets the header checksum of an IPv4 packet; leaves alone what is none.
void fix_header_checksum(frame& ip_packet);

} // namespace esplane::tests

// SPDX-License-Identifier: Apache-2.0
//
// ESP in: RFC 4303 section 3.4.
//
//   tunnel mode
//   before   [ outer IP ][ UDP? ][ SPI, seq ][ IV ][ inner packet ][ pad, len, nh ][ ICV ]
//   after                                          [ inner packet ]
//   transport mode
//   before   [ IP ][ UDP? ][ SPI, seq ][ IV ][ upper layer ][ pad, len, nh ][ ICV ]
//   after                              [ IP ][ upper layer ]
#pragma once

#include "fastpath/sa.h"
#include "fastpath/stage.h"

namespace esplane::fastpath {

/// Decrypts what is authentic, in place, and appends the inner packets, parsed, to `clear` with
/// `inbound_sa` set.  Until a packet's ICV is verified nothing of its SA has changed.
///
/// esp   packets that parse() put there: ESP or ESP in UDP, for the machine
void inbound(stage& s, const packet_list& esp, packet_list& clear) noexcept;

/// Where the ESP header of a packet that parse() took for ESP begins, from its data.
[[nodiscard]] inline std::uint32_t esp_offset(const packet& p) noexcept {
    return p.protocol == wire::proto_udp
               ? p.l4_offset + static_cast<std::uint32_t>(sizeof(wire::udp_header))
               : p.l4_offset;
}

/// What the ESP packets of an SA are checked and stripped by.
[[nodiscard]] esp_form form_of(const ipsec::sa& s) noexcept;

/// The work for the engine; of `sequence` only the upper half is asked for.
[[nodiscard]] crypto::job decryption_of(const inbound_item& c) noexcept;

/// What has been decrypted for a spread SA of this worker, in order: goes on as in inbound().
void release_inbound(stage& s, const spread_in& all, std::span<packet* const> ready,
                     packet_list& clear) noexcept;

} // namespace esplane::fastpath

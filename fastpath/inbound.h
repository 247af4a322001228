// SPDX-License-Identifier: Apache-2.0
//
// ESP in: RFC 4303 section 3.4, tunnel mode.
//
//   before   [ outer IP ][ UDP? ][ SPI, seq ][ IV ][ inner packet ][ pad, len, nh ][ ICV ]
//   after                                          [ inner packet ]
#pragma once

#include "fastpath/stage.h"

namespace esplane::fastpath {

/// Decrypts what is authentic, in place, and appends the inner packets, parsed, to `clear` with
/// `inbound_sa` set.  Until a packet's ICV is verified nothing of its SA has changed.
///
/// esp   packets that parse() put there: ESP or ESP in UDP, for the machine
void inbound(stage& s, const packet_list& esp, packet_list& clear) noexcept;

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// ICMP errors that the path itself must send: "fragmentation needed" (RFC 1191), "packet too big"
// (RFC 8201), "time exceeded".
//
// They quote the offending packet, so they go only where that packet's clear text may go: not
// through a policy that protects or blocks, and not about a packet that came out of an SA.  Limited
// to a rate; no error about an error (RFC 1812 section 4.3.2.7).
#pragma once

#include "fastpath/stage.h"

namespace esplane::fastpath {

/// Tells p's source that at most `mtu` bytes get through.  The caller drops `p`.
void report_too_big(stage& s, const packet& p, std::uint32_t mtu) noexcept;

/// Tells p's source that its TTL or hop limit was used up.
void report_ttl_exceeded(stage& s, const packet& p) noexcept;

} // namespace esplane::fastpath

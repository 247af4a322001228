// SPDX-License-Identifier: Apache-2.0
//
// Lowers the MSS that TCP connections through tunnels announce, for networks that lose the ICMP
// errors that path MTU discovery lives by.
//
// Both ways: what leaves says what the peer may send, what arrives says what may be sent to it.
// SYN and SYN-ACK alone are looked at.
#pragma once

#include "fastpath/stage.h"

namespace esplane::fastpath {

/// tables::mss_clamp(): as large as each SA's path takes.
inline constexpr std::uint32_t mss_by_path = ~0u;

/// Lowers the option of a parsed SYN so that the segments it asks for are IP packets of at most
/// `mtu` bytes, and corrects the checksum.  False: it was low enough, or is not there.
bool clamp_mss(packet& p, std::uint32_t mtu) noexcept;

/// What is about to be encrypted.
void clamp_outbound(stage& s, std::span<const protect_item> items) noexcept;

/// What was decrypted: clear[first] and what follows.
void clamp_inbound(stage& s, const packet_list& clear, unsigned first) noexcept;

} // namespace esplane::fastpath

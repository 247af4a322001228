// SPDX-License-Identifier: Apache-2.0
//
// ESP out: RFC 4303 section 3.3.
//
//   tunnel mode
//   before   ......................................[ inner packet ]........................
//   after    [ outer IP ][ UDP? ][ SPI, seq ][ IV ][ inner packet ][ pad, len, nh ][ ICV ]
//                                                  '--------- encrypted ---------'
//   transport mode
//   before   ..................................[ IP ][ upper layer ]........................
//   after    [ IP ][ UDP? ][ SPI, seq ][ IV ]........[ upper layer ][ pad, len, nh ][ ICV ]
#pragma once

#include "fastpath/stage.h"

namespace esplane::fastpath {

/// Encrypts in place and appends the outer packets to `out`, their route in `next`.
void outbound(stage& s, std::span<const protect_item> items, packet_list& out) noexcept;

/// Hands over what falls under another worker's SA and puts what falls under a spread one into
/// s.scratch.spread; returns how many of `items` remain, at the front.  What outbound() gets has
/// been through this.
[[nodiscard]] std::size_t keep_own(stage& s, std::span<protect_item> items) noexcept;

/// The largest packet that fits a path of `mtu` bytes through this SA; as the kernel's
/// xfrm_state_mtu.  In transport mode one without IP options or extension headers.
[[nodiscard]] std::uint32_t inner_mtu(const sa_out& sa, std::uint32_t mtu) noexcept;

} // namespace esplane::fastpath

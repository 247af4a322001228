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

/// Leaves a packet to the worker that has its SA, or puts it into s.scratch.spread.
void give_away(stage& s, const protect_item& item, unsigned owner) noexcept;

/// Whether a packet falls under an SA of this worker; what does not is given away.  Fetches the
/// lines of the SA and of its keys that outbound() will touch: what outbound() gets has been
/// through this.
[[nodiscard, gnu::always_inline]] inline bool is_own(stage& s, const protect_item& item) noexcept {
    __builtin_prefetch(item.sa->header.data());
    __builtin_prefetch(&item.sa->account, 1);
    __builtin_prefetch(item.sa->keys);
    const unsigned owner = s.owner_of(item.sa->owner);
    if (owner == s.self) [[likely]]
        return true;
    give_away(s, item, owner);
    return false;
}

/// The same of many; returns how many of `items` remain, at the front.
[[nodiscard]] std::size_t keep_own(stage& s, std::span<protect_item> items) noexcept;

/// The largest packet that fits a path of `mtu` bytes through this SA; as the kernel's
/// xfrm_state_mtu.  In transport mode one without IP options or extension headers.
[[nodiscard]] std::uint32_t inner_mtu(const sa_out& sa, std::uint32_t mtu) noexcept;

} // namespace esplane::fastpath

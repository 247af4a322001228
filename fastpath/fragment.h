// SPDX-License-Identifier: Apache-2.0
//
// Cuts IP packets that are longer than their way takes: RFC 791 section 2.3, RFC 8200 section 4.5.
//
//   packet    [ IP ][ ............................. ]
//   pieces    [ IP ][ step bytes ] [ IP ][ step bytes ] [ IP ][ the rest ]
//
// ESP that may be fragmented is cut after encryption, as the kernel does it: the peer puts it
// together before it decrypts.  The first piece stays in the packet's buffer, the others are
// copies.
//
// Does not: sort IPv4 options by their copied flag; all pieces carry all options.
#pragma once

#include "fastpath/stage.h"

namespace esplane::fastpath {

/// RFC 8200 section 4.5.
struct ipv6_fragment_header {
    std::uint8_t next_header;
    std::uint8_t reserved;
    wire::be16 offset; ///< in units of 8 bytes, shifted left by 3; the lowest bit: more follow
    wire::be32 id;
};
static_assert(sizeof(ipv6_fragment_header) == 8);

inline constexpr std::uint32_t ipv6_minimum_mtu = 1280; ///< every link takes it: RFC 8200 section 5

/// Cuts `p`, whose flag `split` is set, into pieces of at most p.split_at bytes and appends them
/// all, the first of them `p` itself, to `pieces`.  False: there is no room, in a buffer, in
/// `pieces` or for descriptors; nothing has changed.
[[nodiscard]] bool fragment(stage& s, packet& p, packet_list& pieces) noexcept;

} // namespace esplane::fastpath

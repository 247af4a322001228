// SPDX-License-Identifier: Apache-2.0
//
// The last stage before tx: TTL, path MTU, next hop, Ethernet header.
#pragma once

#include "fastpath/stage.h"

namespace esplane::fastpath {

/// Counts a hop (TTL, hop limit) of a packet that passes through.  False: that was the last one;
/// it is dropped and its source told.
[[nodiscard]] bool age(stage& s, packet& p) noexcept;

/// Why nothing can leave by a route; none where something can.
[[nodiscard]] drop_reason refusal(const adjacency& route) noexcept;

/// False: the packet's route leads nowhere, or does not take its size; it is dropped.
[[nodiscard]] bool check_route(stage& s, packet& p) noexcept;

/// Writes the Ethernet header and moves `p` to the port it leaves by.  False: the next hop has no
/// MAC address yet; nothing has changed.
[[nodiscard]] bool address_frame(packet& p) noexcept;

/// Puts an Ethernet header before a packet that came out of an SA and is for the machine, as if the
/// port it came in on had received it.
void address_host_frame(packet& p, const fib& routes) noexcept;

/// The address whose MAC `p` waits for.
[[nodiscard]] ipsec::address next_hop_of(const packet& p) noexcept;

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// Makes the kernel look for a neighbour without the right to ask it for that.
#pragma once

#include "lib/base/result.h"
#include "lib/ipsec/address.h"

namespace esplane::tools {

/// Sends an empty datagram to the neighbour's discard port (RFC 863), which the kernel cannot do
/// without the MAC address.  For where CAP_NET_ADMIN is missing; rtnetlink tells what came of it.
/// Errors: what the socket gives.
[[nodiscard]] result<void> solicit(int ifindex, const ipsec::address& neighbour);

} // namespace esplane::tools

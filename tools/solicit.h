// SPDX-License-Identifier: Apache-2.0
//
// Makes the kernel look for a neighbour without the right to ask it for that.
#pragma once

#include "lib/base/result.h"
#include "lib/ipsec/address.h"

namespace esplane::tools {

/// Sends it an ICMP echo reply, which it ignores, but which the kernel cannot send without its MAC
/// address.  For where CAP_NET_ADMIN is missing; rtnetlink tells what came of it.
/// Errors: EPERM without CAP_NET_RAW; what the socket gives.
[[nodiscard]] result<void> solicit(int ifindex, const ipsec::address& neighbour);

} // namespace esplane::tools

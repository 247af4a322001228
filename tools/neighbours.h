// SPDX-License-Identifier: Apache-2.0
//
// Threads: control.
#pragma once

#include "lib/base/result.h"
#include "lib/ipsec/address.h"
#include "xfrm/route.h"

namespace esplane::tools {

/// Has the kernel resolve a neighbour; `routes` will tell.  It takes CAP_NET_ADMIN: the helper's,
/// where this process was started under one; without either the neighbour is solicited.
[[nodiscard]] result<void> resolve_neighbour(xfrm::route_monitor& routes, int ifindex,
                                             const ipsec::address& neighbour);

} // namespace esplane::tools

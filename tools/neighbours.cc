// SPDX-License-Identifier: Apache-2.0
#include "tools/neighbours.h"

#include "tools/solicit.h"

#ifdef ESPLANE_HAVE_XDP
#include "tools/xdp_helper.h"
#endif

namespace esplane::tools {

result<void> resolve_neighbour(xfrm::route_monitor& routes, int ifindex,
                               const ipsec::address& neighbour) {
#ifdef ESPLANE_HAVE_XDP
    if (const auto helper = xdp_helper::of_this_process(); helper && *helper)
        return (*helper)->resolve(ifindex, neighbour);
#endif
    if (routes.resolve(ifindex, neighbour)) return {};
    return solicit(ifindex, neighbour);
}

} // namespace esplane::tools

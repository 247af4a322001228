// SPDX-License-Identifier: Apache-2.0
//
// Ports of kind `tun`: the machine itself, NAME=tun:DEVICE[,mtu=BYTES][,coalesce=on|off]
// [,mark=VALUE[/MASK]].
//
//   mark   of what a routing rule sends into it (fwmark), and so of its packets: policies with
//          that mark are for them.  What comes out of an SA with that mark goes up by it.
#pragma once

#include "tools/ports.h"

namespace esplane::tools {

/// Reserves a TUN port; the device is made when the port is opened, or is there.
[[nodiscard]] std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
tun_openers(const port_surroundings& around);

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// Ports of kind `tun`: the machine itself, NAME=tun:DEVICE[,mtu=BYTES][,coalesce=on|off].
#pragma once

#include "tools/ports.h"

namespace esplane::tools {

/// Reserves a TUN port; the device is made when the port is opened, or is there.
[[nodiscard]] std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
tun_openers(const port_surroundings& around);

} // namespace esplane::tools

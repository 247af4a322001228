// SPDX-License-Identifier: Apache-2.0
//
// AF_XDP ports: a guard on the device, then sockets on its queues.
//
//   --port NAME=xdp:DEVICE[,mode=auto|zero-copy|copy|generic][,busy-poll=MICROSECONDS]
#pragma once

#include <functional>

#include "tools/ports.h"

namespace esplane::tools {

/// Reserves one device after the other.
[[nodiscard]] std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
xdp_openers(const port_surroundings& around);

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// AF_XDP ports, `--port NAME=xdp:DEVICE`: a guard on the device, then sockets on its queues.
#pragma once

#include <functional>

#include "tools/ports.h"

namespace esplane::tools {

/// Reserves one device after the other; they share a umem over the pool.
[[nodiscard]] std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
xdp_openers(const port_surroundings& around);

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// DPDK ports, `--port NAME=dpdk:DEVICE[,...]`: EAL, the mbufs of all of them, an ethdev each.
#pragma once

#include <functional>

#include "tools/ports.h"

namespace esplane::tools {

/// Reserves one device after the other; the first starts EAL.
[[nodiscard]] std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
dpdk_openers(const port_surroundings& around);

} // namespace esplane::tools

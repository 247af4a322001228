// SPDX-License-Identifier: Apache-2.0
//
// AF_PACKET ports, `--port NAME=packet:DEVICE[,qdisc=keep|bypass]`.
#pragma once

#include <functional>

#include "tools/ports.h"

namespace esplane::tools {

[[nodiscard]] std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
packet_openers(const port_surroundings& around);

} // namespace esplane::tools

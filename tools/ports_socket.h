// SPDX-License-Identifier: Apache-2.0
//
// Ports of sockets: `--port NAME=socket:UDP-PORT[,mark=MARK][,super-packets=on|off]`.
//
//   UDP-PORT        of ESP in UDP, 4500 nearly always; shared with an IKE daemon
//   mark            of all that is sent, by which a routing rule knows it (fwmark)
//   super-packets   off: UDP_SEGMENT and UDP_GRO are left alone
#pragma once

#include <functional>

#include "tools/ports.h"

namespace esplane::tools {

[[nodiscard]] std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
socket_openers(const port_surroundings& around);

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// Ports of sockets: `--port NAME=socket:UDP-PORT[,mark=MARK][,super-packets=on|off]`.
//
//   UDP-PORT        of ESP in UDP, 4500 nearly always; shared with an IKE daemon
//   mark            of all that is sent, by which a routing rule knows it (fwmark); 0xe5 unless
//                   another is given, 0 for none
//   super-packets   off: UDP_SEGMENT and UDP_GRO are left alone
#pragma once

#include <functional>

#include "tools/ports.h"

namespace esplane::tools {

/// What an IKE daemon is to mark what it sends past esplane with: as the first socket port does all
/// it sends, or, where a port is the machine itself, by what routing knows it; 0: with nothing.
[[nodiscard]] std::uint32_t exempt_mark(const std::vector<port_spec>& specs,
                                        const routing_options& routing);

[[nodiscard]] std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
socket_openers(const port_surroundings& around);

} // namespace esplane::tools

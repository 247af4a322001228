// SPDX-License-Identifier: Apache-2.0
//
// What `tools/bench gateway` measures: figures of ports and tables; see rows.h.
#pragma once

#include "bench/rows.h"

namespace esplane::bench {

using gateway_row = figure_row;
using gateway_rows = figure_rows;

/// gateway_dpdk.cc.  `dpdk_port_cost`: ns a packet that receive() and send() of a port take above
/// rx_burst and tx_burst on the same ring, as testpmd forwards.  `memif_esp_64`, `memif_esp_1400`:
/// packets a second encrypted over packets a second forwarded in clear, over one memif,
/// zero-copy on our side, the generator in a process of its own.
gateway_rows measure_dpdk();
/// gateway_routes.cc.  `routes_load`: from the kernel's rtnetlink to the path's table; needs root.
gateway_rows measure_routes();
/// gateway_fib.cc.  `fib_lookup`: a lookup among 1,000,000 routes over reading a prefetched line.
gateway_rows measure_fib();
/// gateway_xdp.cc.  `xdp_esp_cost`: thread time a packet as ESP over that in clear, on veths; needs
/// root.
gateway_rows measure_xdp();
gateway_rows measure_overload(); ///< gateway_overload.cc; starts esplaned, needs root

} // namespace esplane::bench

// SPDX-License-Identifier: Apache-2.0
//
// What `tools/bench gateway` measures: figures of ports and tables, each beside its peer of the
// same run.
//
// A row function measures, bounded in time, and returns its rows; gateway.cc has the table of them
// and prints.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace esplane::bench {

struct gateway_row {
    enum class bound { at_most, at_least };

    std::string name; ///< "dpdk_port_cost": stable, for machines
    double measured = 0;
    std::string unit; ///< "ns", "x", "s": follows the number
    bound limit_is = bound::at_most;
    double limit = 0;
    std::string note;  ///< the figures behind it, for people
    bool there = true; ///< false: could not be measured; `note` says why

    [[nodiscard]] bool ok() const noexcept {
        return there && (limit_is == bound::at_most ? measured <= limit : measured >= limit);
    }
};

/// A row for what this machine or this build cannot measure.
[[nodiscard]] inline gateway_row not_measured(std::string name, std::string why) {
    gateway_row r;
    r.name = std::move(name);
    r.note = std::move(why);
    r.there = false;
    return r;
}

using gateway_rows = std::vector<gateway_row>;

/// gateway_dpdk.cc.  `dpdk_port_cost`: ns a packet that receive() and send() of a port take above
/// rx_burst and tx_burst on the same ring, as testpmd forwards.
gateway_rows measure_dpdk_port();
/// gateway_dpdk.cc.  `memif_esp_64`, `memif_esp_1400`: packets a second encrypted over packets a
/// second forwarded in clear, between two memifs, zero-copy on our side.
gateway_rows measure_dpdk_memif();
/// gateway_routes.cc.  `routes_load`: from the kernel's rtnetlink to the path's table; needs root.
gateway_rows measure_routes();
/// gateway_fib.cc.  `fib_lookup`: a lookup among 1,000,000 routes over reading a prefetched line.
gateway_rows measure_fib();
gateway_rows measure_overload(); ///< gateway_overload.cc; starts esplaned, needs root

} // namespace esplane::bench

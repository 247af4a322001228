// SPDX-License-Identifier: Apache-2.0
//
// How the machine's traffic is routed into its TUN device: `--routing NAME=VALUE[,...]`, or a table
// [routing] in the configuration file.  The names are charon's; values are `yes` or `no`, numbers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/result.h"
#include "lib/ipsec/mark.h"

namespace esplane::tools {

struct routing_options {
    bool install_routes = true;
    std::uint32_t table = 219;    ///< routing_table
    std::uint32_t priority = 219; ///< routing_table_prio: of its rule, two more before, one behind
    ipsec::mark_mask mark{0xe5, 0xffffffff}; ///< fwmark; mask 0: whatever the mark
    bool unless_marked = true;               ///< fwmark=!...: for what does not carry it
    std::uint32_t mtu = 0;                   ///< of routes; 0 = what the SAs and their paths allow
    std::uint32_t mss = 0;                   ///< that TCP announces by routes; 0 = by the MTU
    bool allow_peer_ts = true;               ///< no: peers' own addresses stay outside of tunnels
    bool install_routes_xfrmi = false;       ///< for policies with an if_id, by their interfaces
    bool roam_events = true;                 ///< ways past follow changes of routes

    friend bool operator==(const routing_options&, const routing_options&) = default;
};

/// Sets one of them.  Errors: EINVAL, with a line that says what there is.
[[nodiscard]] result<void> set_routing_option(routing_options& o, std::string_view name,
                                              std::string_view value);
/// "mtu=1300,roam_events=no".  Errors: EINVAL.
[[nodiscard]] result<void> set_routing_options(routing_options& o, std::string_view text);

} // namespace esplane::tools

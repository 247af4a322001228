// SPDX-License-Identifier: Apache-2.0
//
// `esplane pcap`: the engine of esplaned inside this process, with a capture for a network.
//
//   1. An XFRM server in a directory of its own; COMMAND runs under the shim against it.
//   2. A route to everywhere.  Inbound, the destinations of all SAs are the machine.
//   3. The capture goes through the pipeline in bursts; what leaves is written down.
//
// Needs no privileges and touches no network.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "lib/base/result.h"

namespace esplane::tools {

enum class offline_direction : unsigned char { outbound, inbound };

struct offline_request {
    std::string setup; ///< for sh -c
    offline_direction direction = offline_direction::outbound;
    std::string input;
    std::string output;
};

/// {"packets", "drops", "unread": {"not_ip", "too_long", "cut_short"}, "trouble"}: the reports of
/// that name, frames that never became packets, and why reading ended early, or null.
///
/// Errors: ECHILD where COMMAND failed; EINTR; EINVAL about the files; what the engine says.
[[nodiscard]] result<nlohmann::json> run_offline(const offline_request& request);

} // namespace esplane::tools

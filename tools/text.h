// SPDX-License-Identifier: Apache-2.0
//
// The reports as text for people: aligned tables, a dash where nothing applies.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace esplane::tools {

/// `reply` is what the daemon answered to `command`: status, sa, policy, ports, drops or
/// filter.
[[nodiscard]] std::string text_of_reply(const std::string& command, const nlohmann::json& reply);

/// What each port's kind or device counts beside what all count; "" where none does.
[[nodiscard]] std::string text_of_port_details(const nlohmann::json& reply);

/// "received 10, sent 8, dropped 2": the accounts of report_packets, without what is 0.
[[nodiscard]] std::string text_of_packets(const nlohmann::json& packets);
/// The drops that happened, the most frequent first; "" where there was none.
[[nodiscard]] std::string text_of_drops(const nlohmann::json& drops);

} // namespace esplane::tools

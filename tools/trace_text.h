// SPDX-License-Identifier: Apache-2.0
//
// What `esplane trace` and `esplane monitor` print for people.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace esplane::tools {

/// A block of lines: when, who, which message; then its fields and attributes, one structure a
/// line.  What is zero, empty or without limit is left out.  {"lost": N} is a line that says so.
[[nodiscard]] std::string text_of_message(const nlohmann::ordered_json& message);

/// One line.
[[nodiscard]] std::string text_of_event(const nlohmann::ordered_json& event);

} // namespace esplane::tools

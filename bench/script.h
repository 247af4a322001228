// SPDX-License-Identifier: Apache-2.0
//
// Measurements that a script makes, and the words that tell of them.
#pragma once

#include <array>
#include <cstdio>
#include <string>

#include <nlohmann/json.hpp>

namespace esplane::bench {

/// What a shell command prints, as JSON; not an object where it failed.
inline nlohmann::json json_of(const std::string& command) {
    std::FILE* pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) return {};
    std::string all;
    std::array<char, 4096> some;
    for (std::size_t n; (n = std::fread(some.data(), 1, some.size(), pipe)) != 0;)
        all.append(some.data(), n);
    const int status = ::pclose(pipe);
    return status == 0 ? nlohmann::json::parse(all, nullptr, false) : nlohmann::json{};
}

/// printf's, at most 159 characters.
template <typename... Arguments>
std::string text(const char* format, Arguments... arguments) {
    std::array<char, 160> line;
    std::snprintf(line.data(), line.size(), format, arguments...);
    return line.data();
}

} // namespace esplane::bench

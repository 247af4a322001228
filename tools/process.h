// SPDX-License-Identifier: Apache-2.0
//
// What a process that holds keys and serves many asks of its system.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace esplane::tools {

/// Keys live in this process: no core file, no ptrace by others of the same user.  False where that
/// cannot be had.
[[nodiscard]] bool keep_memory_private();

/// As many descriptors as the system allows: every client has one, and one for each of its
/// processes.
void raise_descriptor_limit();

inline constexpr const char* sysctl_folder = "/proc/sys/net/core/";

/// The text of a sysctl's file; nullopt where this kernel has none of that name.
[[nodiscard]] std::optional<std::string> read_sysctl(std::string_view name,
                                                     const std::string& folder = sysctl_folder);

} // namespace esplane::tools

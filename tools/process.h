// SPDX-License-Identifier: Apache-2.0
//
// What a process that holds keys and serves many asks of its system.
#pragma once

#include <cstdint>
#include <string>

namespace esplane::tools {

/// Keys live in this process: no core file, no ptrace by others of the same user.  False where that
/// cannot be had.
[[nodiscard]] bool keep_memory_private();

/// As many descriptors as the system allows: every client has one, and one for each of its
/// processes.
void raise_descriptor_limit();

inline constexpr const char* acquire_expires_path = "/proc/sys/net/core/xfrm_acq_expires";

/// Seconds that an SPI without an SA is held: IKE daemons set this sysctl.  The kernel's default
/// where there is no such number.
[[nodiscard]] std::uint32_t read_acquire_expires(const std::string& path = acquire_expires_path);

} // namespace esplane::tools

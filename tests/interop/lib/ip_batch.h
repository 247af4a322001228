// SPDX-License-Identifier: Apache-2.0
//
// `ip` as a client of the XFRM server of a gateway in this process.
#pragma once

#include <string>

#include "tests/support/lab.h"

namespace esplane::tests {

/// Runs `ip -batch` under the shim.  False where it fails.
///
/// batch    a file of its commands
/// socket   path that the server listens on meanwhile
/// Throws std::runtime_error where there is no preload library, or no server.
[[nodiscard]] bool run_ip(const std::string& batch, const std::string& preload,
                          const std::string& socket, lab& gateway);

} // namespace esplane::tests

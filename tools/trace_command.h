// SPDX-License-Identifier: Apache-2.0
//
// `esplane trace xfrm` and `esplane monitor`: print a stream until its reader or the daemon ends.
#pragma once

#include <string>

#include "lib/base/result.h"

namespace esplane::tools {

/// Prints on standard output, each message at once.
///
/// command   "trace" or "monitor"
/// Errors: those of control_client; EPIPE where the daemon ended.
[[nodiscard]] result<void> follow(const std::string& run_dir, const std::string& command,
                                  bool as_json);

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// Which system calls of a supervised client its supervisor answers.
#pragma once

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::tools {

/// The descriptors that are injected.
inline constexpr int first_injected = 900;
inline constexpr int last_injected = 1023;

/// Puts this thread, and all that descends from it, under the filter.  Returns what its calls are
/// reported on.
/// Errors: EINVAL where the kernel is older than Linux 5.19; EBUSY where another supervisor's
/// filter is in place.
[[nodiscard]] result<unique_fd> install_filter();

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// A known answer for each suite, asked of every engine before it touches a packet.
#pragma once

#include <string>

#include "lib/base/result.h"
#include "lib/crypto/engine.h"

namespace esplane::crypto {

/// Errors: ENOTSUP where an answer was wrong, naming the suite and, for the user, the library and
/// the package that has it; what key::make returns.
[[nodiscard]] result<void> power_up_test(engine& tested, const std::string& library,
                                         const std::string& package);

} // namespace esplane::crypto

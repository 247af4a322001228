// SPDX-License-Identifier: Apache-2.0
//
// A known answer for each suite, asked of every engine before it touches a packet.
#pragma once

#include "lib/base/result.h"
#include "lib/crypto/engine.h"
#include "lib/crypto/gcm_small.h"

namespace esplane::crypto {

/// Errors: ENOTSUP where an answer was wrong, naming the suite; what key::make returns.
[[nodiscard]] result<void> power_up_test(engine& tested);

/// Says whether a kernel of small packets gives the right answers.  Needs small_gcm::supported().
[[nodiscard]] bool power_up_test(const small_gcm::kernel& tested);

} // namespace esplane::crypto

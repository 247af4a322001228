// SPDX-License-Identifier: Apache-2.0
//
// The two who are asked: esplane in this process, the kernel inside a guest.
#pragma once

#include <string>

#include "tests/interop/xfrm_oracle_session.h"

namespace esplane::tests::oracle {

/// Dispatcher, control layer and the backend of user space; where the session is timed with a
/// worker and a virtual clock, else without.
[[nodiscard]] answers ask_esplane(const session& s);

/// The part that runs inside the guest: asks its kernel, each session in a network namespace of its
/// own, and writes the answers down.  The guest's time is virtual: it passes while nobody works.
/// Throws std::runtime_error.
void serve_guest(const std::string& sessions_file, const std::string& answers_file);

} // namespace esplane::tests::oracle

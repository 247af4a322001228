// SPDX-License-Identifier: Apache-2.0
//
// Sessions in which time passes and packets go: lifetimes of SAs and policies, larval SAs,
// ACQUIREs.
#pragma once

#include "tests/interop/xfrm_oracle_session.h"

namespace esplane::tests::oracle {

/// The session of that number: the same one each time.
[[nodiscard]] session make_timed_session(std::uint64_t seed, std::uint32_t number);

} // namespace esplane::tests::oracle

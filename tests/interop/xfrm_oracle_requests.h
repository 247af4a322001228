// SPDX-License-Identifier: Apache-2.0
//
// Random sessions of XFRM requests: built as a client would build them, then, some of them, with
// one thing broken.  Addresses, SPIs, marks and the like come from small pools, so that requests
// meet what earlier ones left.
#pragma once

#include "tests/interop/xfrm_oracle_session.h"

namespace esplane::tests::oracle {

/// The session of that number: the same one each time.
///
/// datagrams   of the session; most have one request
[[nodiscard]] session make_session(std::uint64_t seed, std::uint32_t number, unsigned datagrams);

} // namespace esplane::tests::oracle

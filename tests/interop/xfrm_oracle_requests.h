// SPDX-License-Identifier: Apache-2.0
//
// Random sessions of XFRM requests: built as a client would build them, then, some of them, with
// one thing broken.  Addresses, SPIs, marks and the like come from small pools, so that requests
// meet what earlier ones left.
#pragma once

#include "tests/interop/xfrm_oracle_session.h"

namespace esplane::tests::oracle {

/// What the kernel that judges knows.
struct kernel_age {
    bool has_directions = true; ///< 6.10 and later: XFRMA_SA_DIR and what follows it
};

/// The session of that number: the same one each time.
///
/// datagrams   of the session; most have one request
[[nodiscard]] session make_session(std::uint64_t seed, std::uint32_t number, unsigned datagrams,
                                   const kernel_age& age);

} // namespace esplane::tests::oracle

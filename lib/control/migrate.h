// SPDX-License-Identifier: Apache-2.0
//
// XFRM_MSG_MIGRATE: what a policy protects goes between other addresses from now on, its SAs with
// everything they have counted (xfrm_migrate()).
//
// Threads: control.  Does not: tell listeners.
#pragma once

#include <deque>
#include <vector>

#include "lib/control/policy_keeper.h"
#include "lib/control/sa_keeper.h"

namespace esplane::control {

struct migrated {
    ipsec::policy selected;               ///< as it is now
    std::deque<ipsec::sa> now;            ///< the SAs that were moved, and what they are now
    std::vector<ipsec::relocated_sa> sas; ///< the same
};

/// Moves SAs and templates; where anything fails, all is as it was.  Takes time in the number of
/// SAs and of policies.
///
/// Errors, the kernel's: EINVAL (none or more than 6 moves, to no address, one twice); ENOENT (no
/// such policy); EAFNOSUPPORT; ENODATA (no template is moved, or an SA cannot be: it is larval, or
/// the place is taken); ENOBUFS, the backend's.
[[nodiscard]] result<migrated> migrate(const ipsec::migration& m, sa_keeper& sas,
                                       policy_keeper& policies, moment now);

} // namespace esplane::control

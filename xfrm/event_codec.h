// SPDX-License-Identifier: Apache-2.0
//
// XFRM_MSG_NEWAE, GETAE and MIGRATE: what tells of an SA's replay state and of its moves, both
// ways.
#pragma once

#include <cstdint>

#include "lib/ipsec/event.h"
#include "xfrm/attributes.h"
#include "xfrm/message.h"

namespace esplane::xfrm {

/// The whole of NEWAE: the fixed part with `flags` (XFRM_AE_*), the replay state, what was counted,
/// and the thresholds that `flags` asks for.
void encode_sa_event(message_writer& w, const ipsec::sa& s, std::uint32_t flags);
/// XFRM_AE_* that tell listeners why.
[[nodiscard]] std::uint32_t flags_of(ipsec::sa_moved::cause why) noexcept;

/// From MIGRATE.  Errors: EINVAL with the kernel's text; EAFNOSUPPORT for new addresses of no
/// family.
[[nodiscard]] result<ipsec::migration> decode_migration(const xfrm_userpolicy_id& id,
                                                        const attributes& a);
/// The whole of MIGRATE as listeners hear it.
void encode_migration(message_writer& w, const ipsec::migration& m);

} // namespace esplane::xfrm

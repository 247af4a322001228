// SPDX-License-Identifier: Apache-2.0
//
// XFRM_MSG_NEWAE, GETAE and MIGRATE: what tells of an SA's replay state and of its moves, both
// ways.
#pragma once

#include <cstdint>

#include "lib/ipsec/event.h"
#include "xfrm/message.h"

namespace esplane::xfrm {

/// The whole of NEWAE: the fixed part with `flags` (XFRM_AE_*), the replay state, what was counted.
void encode_sa_event(message_writer& w, const ipsec::sa& s, std::uint32_t flags);
/// XFRM_AE_* that tell listeners why.
[[nodiscard]] std::uint32_t flags_of(ipsec::sa_moved::cause why) noexcept;

/// The whole of MIGRATE as listeners hear it.
void encode_migration(message_writer& w, const ipsec::migration& m);

} // namespace esplane::xfrm

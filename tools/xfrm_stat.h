// SPDX-License-Identifier: Apache-2.0
//
// What esplane counts, in the lines of /proc/net/xfrm_stat: for every packet the one in which the
// kernel would have counted it.
#pragma once

#include <optional>

#include "fastpath/counters.h"
#include "xfrm/proc.h"

namespace esplane::tools {

/// Where the kernel counts what is lost for a reason; nullopt: in none of these lines. policy_block
/// and sa_expired: inbound.
[[nodiscard]] std::optional<xfrm::stat_line> stat_line_of(fastpath::drop_reason why) noexcept;

[[nodiscard]] xfrm::xfrm_counters xfrm_stat_of(const fastpath::worker_counters& counted) noexcept;

} // namespace esplane::tools

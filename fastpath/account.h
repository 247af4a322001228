// SPDX-License-Identifier: Apache-2.0
//
// Lifetimes in packets and bytes, by the kernel's rule (xfrm_state_check_expire): the limits are
// looked at before a packet is counted, so a hard limit of N passes N packets, and the soft event
// comes with the packet after the limit was reached.
#pragma once

#include "fastpath/sa.h"
#include "fastpath/stage.h"

namespace esplane::fastpath {

/// The slow half of admit(): first use, soft and hard limits, when to look next.
[[nodiscard]] bool look_at_limits(stage& s, sa_account& account, sa_limits& limits,
                                  const ipsec::sa_id& id) noexcept;

/// Says whether the SA may take one more packet.  `id` makes the sa_id where an event needs it.
template <typename MakeId>
[[nodiscard]] inline bool admit(stage& s, sa_account& account, sa_limits& limits,
                                MakeId id) noexcept {
    if (account.packets.get() < account.look_at_packets.load(std::memory_order_relaxed) &&
        account.bytes.get() < account.look_at_bytes.load(std::memory_order_relaxed)) [[likely]]
        return true;
    return look_at_limits(s, account, limits, id());
}

/// Counts a packet that passed.  `bytes` of the inner IP packet.
inline void charge(const stage& s, sa_account& account, std::uint64_t bytes) noexcept {
    account.packets.add(1);
    account.bytes.add(bytes);
    account.last_used.set(s.now.realtime_s);
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// Lifetimes in packets and bytes, by the kernel's rule (xfrm_state_check_expire): the limits are
// looked at before a packet is counted, so a hard limit of N passes N packets, and the soft event
// comes with the packet after the limit was reached.
//
// The same look serves what else may be asked of an SA between two of its packets: to go on from a
// state that a client gave, and to tell when its sequence number has come as far as control waits
// for (xfrm_replay_notify).  An SA of which nothing is asked pays two comparisons a packet.
#pragma once

#include "fastpath/sa.h"
#include "fastpath/stage.h"

namespace esplane::fastpath {

/// The slow half of admit(): whatever is asked of the SA.
[[nodiscard]] bool look_at(stage& s, sa_in& sa) noexcept;
[[nodiscard]] bool look_at(stage& s, sa_out& sa) noexcept;

/// Says whether the SA may take one more packet.
template <typename Sa>
[[nodiscard]] inline bool admit(stage& s, Sa& sa) noexcept {
    const sa_account& account = sa.account;
    if (account.packets.get() < account.look_at_packets.load(std::memory_order_relaxed) &&
        account.bytes.get() < account.look_at_bytes.load(std::memory_order_relaxed)) [[likely]]
        return true;
    return look_at(s, sa);
}

/// Goes on from what a client gave.  False: nothing was given.
bool take_given(sa_in& sa) noexcept;

/// At the end of a burst: tells control of the SAs that reached the numbers it waits for.
void tell_watched(stage& s) noexcept;

/// Whether that many packets may come, whatever their length, before the worker has to look.
[[nodiscard]] inline bool is_far_from_limits(const sa_account& account,
                                             std::uint32_t packets) noexcept {
    constexpr std::uint64_t longest = 0x10000;
    return account.packets.get() + packets <=
               account.look_at_packets.load(std::memory_order_relaxed) &&
           account.bytes.get() + packets * longest <
               account.look_at_bytes.load(std::memory_order_relaxed);
}

/// Counts packets that passed.  `bytes` of the inner IP packets.
inline void charge(const stage& s, sa_account& account, std::uint64_t bytes,
                   std::uint32_t packets = 1) noexcept {
    account.packets.add(packets);
    account.bytes.add(bytes);
    account.last_used.set(s.now.realtime_s);
}

[[nodiscard]] inline ipsec::sa_id id_of(const sa_in& sa) noexcept {
    return {sa.destination, sa.spi, wire::proto_esp, sa.mark};
}
[[nodiscard]] inline ipsec::sa_id id_of(const sa_out& sa) noexcept {
    return sa.id;
}

} // namespace esplane::fastpath

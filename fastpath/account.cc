// SPDX-License-Identifier: Apache-2.0
#include "fastpath/account.h"

#include <algorithm>

namespace esplane::fastpath {

namespace {

/// Tells control once; where the ring is full, again with the next packet.
void tell(stage& s, std::atomic<bool>& told, worker_event_kind kind,
          const ipsec::sa_id& id) noexcept {
    if (told.load(std::memory_order_relaxed)) return;
    worker_event e;
    e.kind = kind;
    e.id = id;
    told.store(s.events.push(e), std::memory_order_relaxed);
}

} // namespace

bool look_at_limits(stage& s, sa_account& account, sa_limits& limits,
                    const ipsec::sa_id& id) noexcept {
    constexpr auto relaxed = std::memory_order_relaxed;
    const std::uint32_t version = limits.version.load(std::memory_order_acquire);
    if (limits.use_time.get() == 0) {
        worker_event e;
        e.kind = worker_event_kind::sa_first_use;
        e.id = id;
        if (s.events.push(e)) limits.use_time.set(s.now.realtime_s);
    }
    const std::uint64_t packets = account.packets.get();
    const std::uint64_t bytes = account.bytes.get();
    const std::uint64_t hard_packets = limits.hard_packets.load(relaxed);
    const std::uint64_t hard_bytes = limits.hard_bytes.load(relaxed);
    if (packets >= hard_packets || bytes >= hard_bytes) {
        tell(s, limits.hard_told, worker_event_kind::sa_hard_limit, id);
        return false;
    }
    const std::uint64_t soft_packets = limits.soft_packets.load(relaxed);
    const std::uint64_t soft_bytes = limits.soft_bytes.load(relaxed);
    if (packets >= soft_packets || bytes >= soft_bytes)
        tell(s, limits.soft_told, worker_event_kind::sa_soft_limit, id);
    const bool all_told = limits.use_time.get() != 0;
    const bool soft_done = limits.soft_told.load(relaxed);
    account.look_at_packets.store(!all_told   ? 0
                                  : soft_done ? hard_packets
                                              : std::min(hard_packets, soft_packets),
                                  relaxed);
    account.look_at_bytes.store(!all_told   ? 0
                                : soft_done ? hard_bytes
                                            : std::min(hard_bytes, soft_bytes),
                                relaxed);
    // Limits that changed meanwhile are looked at with the next packet: control's own reset may
    // have come before the two stores above.
    if (limits.version.load(std::memory_order_seq_cst) != version) {
        limits.soft_told.store(false, relaxed);
        account.look_at_packets.store(0, relaxed);
    }
    return true;
}

} // namespace esplane::fastpath

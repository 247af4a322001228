// SPDX-License-Identifier: Apache-2.0
#include "fastpath/account.h"

#include <algorithm>

namespace esplane::fastpath {

namespace {

constexpr auto relaxed = std::memory_order_relaxed;

/// Tells control once; where the ring is full, again with the next packet.
void tell(stage& s, std::atomic<bool>& told, worker_event_kind kind,
          const ipsec::sa_id& id) noexcept {
    if (told.load(relaxed)) return;
    worker_event e;
    e.kind = kind;
    e.id = id;
    told.store(s.events.push(e), relaxed);
}

void tell_first_use(stage& s, sa_limits& limits, const ipsec::sa_id& id) noexcept {
    if (limits.use_time.get() != 0) return;
    worker_event e;
    e.kind = worker_event_kind::sa_first_use;
    e.id = id;
    if (s.events.push(e)) limits.use_time.set(s.now.realtime_s);
}

/// Where there is nothing more to do before that many packets or bytes.  What control asks
/// meanwhile must not be overlooked: either this finds its new version, or its own stores of 0
/// come after these.
void look_again_at(sa_account& account, sa_limits& limits, std::uint32_t version,
                   std::uint64_t packets, std::uint64_t bytes) noexcept {
    account.look_at_packets.store(packets, std::memory_order_seq_cst);
    account.look_at_bytes.store(bytes, std::memory_order_seq_cst);
    if (limits.version.load(std::memory_order_seq_cst) == version) return;
    limits.soft_told.store(false, relaxed);
    account.look_at_packets.store(0, relaxed);
}

/// First use, soft and hard limits, when to look next.
bool look_at_limits(stage& s, sa_account& account, sa_limits& limits, std::uint32_t version,
                    const ipsec::sa_id& id) noexcept {
    tell_first_use(s, limits, id);
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
    const bool soft_done = limits.soft_told.load(relaxed);
    if (limits.use_time.get() == 0 || limits.goal.load(relaxed) != no_goal)
        look_again_at(account, limits, version, 0, 0);
    else
        look_again_at(account, limits, version,
                      soft_done ? hard_packets : std::min(hard_packets, soft_packets),
                      soft_done ? hard_bytes : std::min(hard_bytes, soft_bytes));
    return true;
}

/// The state that both directions have; `rest` takes over the others.
template <typename Sa, typename Rest>
bool take(Sa& sa, Rest rest) noexcept {
    const given_state* given = sa.limits.given.load(std::memory_order_acquire);
    if (given == nullptr) return false;
    if (given->counters) {
        sa.account.packets.set(given->packets);
        sa.account.bytes.set(given->bytes);
        sa.limits.use_time.set(given->use_time);
    }
    rest(*given);
    // Control may have given another one meanwhile: that stays.
    (void)sa.limits.given.compare_exchange_strong(given, nullptr, std::memory_order_acq_rel);
    return true;
}

bool take_given(sa_out& sa) noexcept {
    return take(sa, [&sa](const given_state& given) {
        if (!given.replay) return;
        sa.sequence_sent.set(given.sent);
    });
}

/// Several packets in turn are usually one SA's.
void watch(stage& s, watched_sa one) noexcept {
    auto& all = s.scratch.watched;
    if (s.watched != 0 && all[s.watched - 1].in == one.in && all[s.watched - 1].out == one.out)
        return;
    if (s.watched == all.size()) tell_watched(s);
    all[s.watched++] = one;
}

template <typename Sa>
bool look(stage& s, Sa& sa, watched_sa self) noexcept {
    const std::uint32_t version = sa.limits.version.load(std::memory_order_acquire);
    (void)take_given(sa);
    if (!look_at_limits(s, sa.account, sa.limits, version, id_of(sa))) return false;
    if (sa.limits.goal.load(relaxed) != no_goal) watch(s, self);
    return true;
}

} // namespace

bool take_given(sa_in& sa) noexcept {
    return take(sa, [&sa](const given_state& given) {
        if (given.replay) sa.window.copy(given.window);
        sa.mapping_threshold = given.mapping_threshold;
    });
}

bool look_at(stage& s, sa_in& sa) noexcept {
    return look(s, sa, {&sa, nullptr});
}

bool look_at(stage& s, sa_out& sa) noexcept {
    return look(s, sa, {nullptr, &sa});
}

// The number is there before the goal is looked at, and control sets a goal before it looks at the
// number: one of the two sees that it was reached.
void tell_watched(stage& s) noexcept {
    if (s.watched == 0) return;
    std::atomic_thread_fence(std::memory_order_seq_cst);
    for (unsigned i = 0; i < s.watched; ++i) {
        const auto [in, out] = s.scratch.watched[i];
        sa_limits& limits = in != nullptr ? in->limits : out->limits;
        const std::uint64_t number =
            in != nullptr ? in->window.highest() : out->sequence_sent.get();
        std::uint64_t goal = limits.goal.load(relaxed);
        if (number < goal) continue;
        worker_event e;
        e.kind = worker_event_kind::sa_moved;
        e.id = in != nullptr ? id_of(*in) : id_of(*out);
        if (s.events.push(e))
            (void)limits.goal.compare_exchange_strong(goal, no_goal, std::memory_order_relaxed);
    }
    s.watched = 0;
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// Replay states that clients give to SAs in use, and sequence numbers that control waits for.
#include <algorithm>

#include "fastpath/backend_records.h"
#include "fastpath/barrier.h"

namespace esplane::fastpath {

namespace {

std::shared_ptr<const given_state> state_given_by(const ipsec::sa& s, control::given_parts parts) {
    auto given = std::make_shared<given_state>();
    given->counters = parts.counters;
    given->replay = parts.replay;
    given->packets = s.current.packets;
    given->bytes = s.current.bytes;
    given->use_time = s.current.use_time;
    given->sent = s.replay.sent;
    given->window = ipsec::replay_window(s.replay_window);
    given->window.restore(s.replay.received, s.replay.bitmap);
    given->mapping_threshold = s.mapping_threshold;
    return given;
}

/// Sets a goal; whoever passes it afterwards sees that.
template <typename Sa>
void aim(Sa& sa, std::uint64_t goal) noexcept {
    sa.limits.goal.store(goal, std::memory_order_seq_cst);
    if (goal != no_goal) ask_to_look(sa.limits, sa.account);
}

} // namespace

// 1. An SA that all workers carry becomes one worker's, a window of another size a new object's.
// 2. What was given before, and is still to be taken over, is given again.
// 3. The counts of all objects together are what was given.
// 4. What is given is its worker's to take over, between two packets.  Sequence numbers below those
//    sent come again then, as the client wants; nonces do not: they are the key's, not the SA's.
result<void> user_backend::set_replay(const ipsec::sa& s, control::given_parts parts) {
    sa_record* const found = find(s.id);
    if (found == nullptr) return fail(ESRCH);
    sa_record& r = *found;
    if (r.seldom().is_spread()) unspread(r);
    ipsec::sa now = r.describe();
    if (parts.replay) now.replay = s.replay;
    if (parts.counters) now.current = s.current;
    now.mapping_threshold = s.mapping_threshold;
    now.replay_window = s.replay_window;
    r.keep(now);
    const bool resize = r.in && r.in->window.size() != s.replay_window;
    if (resize) {
        r.in->owner.abandon();
        barrier_on_all_threads();
    }
    for (const sa_limits* l : {r.in ? &r.in->limits : nullptr, r.out ? &r.out->limits : nullptr}) {
        const given_state* const waits = l ? l->given.load(std::memory_order_acquire) : nullptr;
        if (waits == nullptr) continue;
        parts.counters |= waits->counters;
        parts.replay |= waits->replay;
    }
    if (resize) {
        r.in->limits.given.store(nullptr, std::memory_order_relaxed); // its window is as before
        replace_in(r);
        resolve_all(r.where());
    }
    if (parts.counters) r.count_from(now.current);
    auto given = state_given_by(now, parts);
    if (r.in) r.in->limits.given.store(given.get(), std::memory_order_release);
    if (r.out) r.out->limits.given.store(given.get(), std::memory_order_release);
    r.own_seldom().given.swap(given);
    if (given) shared_.graveyard().add([given] {});
    publish_limits(r, now.limits);
    settle();
    return {};
}

bool user_backend::watch_replay(const ipsec::sa_id& id, std::uint64_t sent,
                                std::uint64_t received) {
    sa_record* const found = find(id);
    if (found == nullptr) return false;
    sa_record& r = *found;
    r.own_seldom().goal_sent = sent;
    if (r.in) aim(*r.in, received);
    if (r.out) aim(*r.out, sent);
    std::atomic_thread_fence(std::memory_order_seq_cst); // see tell_watched()
    control::sa_usage now;
    query_sa(id, now);
    return now.replay.sent >= sent || now.replay.received >= received;
}

} // namespace esplane::fastpath

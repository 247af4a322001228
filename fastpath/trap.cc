// SPDX-License-Identifier: Apache-2.0
#include "fastpath/trap.h"

#include <algorithm>

#include "fastpath/classify.h"
#include "fastpath/parse.h"

namespace esplane::fastpath {

namespace {

/// Deadlines are kept to within this.
constexpr std::uint64_t round_ns = 100'000'000;

} // namespace

sa_cause cause_of(const packet& p, const policy_entry& policy) noexcept {
    sa_cause why;
    why.policy = policy.index;
    if (!policy.required.leaves_addresses_open) return why;
    const ipsec::flow f = flow_of(p);
    why.source = f.source;
    why.destination = f.destination;
    return why;
}

bool ask_for_sa(stage& s, const packet& p, const sa_cause& why) noexcept {
    worker_event e;
    e.kind = worker_event_kind::sa_wanted;
    e.policy = why.policy;
    e.flow = flow_of(p);
    e.worker = s.self;
    e.of_cpu = why.of_cpu;
    return s.events.push(e);
}

void sa_requests::ask(stage& s, const packet& p, const sa_cause& why) noexcept {
    const std::uint32_t hash =
        hash_of_spi(wire::be32(why.policy), why.destination.bytes.data(), ipsec::family::ipv6);
    request& r = places_[hash % places_.size()];
    const bool known = r.asked_ns != 0 && r.why == why;
    if (known && s.now.monotonic_ns - r.asked_ns < again_ns) return;
    if (ask_for_sa(s, p, why)) r = {why, s.now.monotonic_ns};
}

void trap::ask_for_own(stage& s, const packet& p, const policy_entry& policy) noexcept {
    if (s.shared.await_ns() == 0) return;
    sa_cause why = cause_of(p, policy);
    why.of_cpu = true;
    requests_.ask(s, p, why);
}

const trap::waiting* trap::first_of(const sa_cause& why) const noexcept {
    for (unsigned i = ahead_; i < count_; ++i)
        if (at(i).why == why) return &at(i);
    return nullptr;
}

// 1. Nobody makes SAs: lost.
// 2. Nothing may wait: lost, and asked for.
// 3. Full, in all or for its policy: lost.
// 4. It waits as long as the first of its cause; that one asks.
void trap::take(stage& s, packet& p, const policy_entry& policy) noexcept {
    const std::uint64_t await_ns = s.shared.await_ns();
    share& mine = share_of(policy.index);
    if (await_ns == 0) {
        s.drop(p, drop_reason::sa_missing);
        return;
    }
    if (!s.shared.holds()) {
        requests_.ask(s, p, cause_of(p, policy));
        s.drop(p, drop_reason::sa_larval);
        return;
    }
    if (count_ == capacity || mine.packets == packets_per_policy ||
        mine.bytes + p.length > bytes_per_policy) {
        s.drop(p, drop_reason::sa_wait_full);
        return;
    }
    const sa_cause why = cause_of(p, policy);
    const waiting* const first = first_of(why);
    waiting& w = at(count_);
    w.p = p;
    w.way = *p.next;
    if (p.inbound_sa != nullptr) {
        w.mark = p.inbound_sa->inner_mark.load(std::memory_order_relaxed);
        w.p.inbound_sa = &stand_in_;
    }
    w.why = why;
    w.asked_ns = 0;
    const waiting* const before = retried_ != nullptr && retried_->why == why ? retried_ : first;
    w.until_ns = before != nullptr ? before->until_ns : s.now.monotonic_ns + await_ns;
    if (first == nullptr) {
        if (before != nullptr) w.asked_ns = before->asked_ns;
        if (s.now.monotonic_ns - w.asked_ns >= sa_requests::again_ns) ask(s, w);
    }
    ++count_;
    ++mine.packets;
    mine.bytes += p.length;
    s.counters.held.add(1);
}

/// Where the ring is full, the next round asks.
void trap::ask(stage& s, waiting& w) noexcept {
    if (ask_for_sa(s, w.p, w.why)) w.asked_ns = s.now.monotonic_ns;
}

bool trap::due(const tables& shared, moment now) const noexcept {
    return count_ != 0 && (shared.sa_changes() != changes_ || now.monotonic_ns >= next_round_ns_);
}

void trap::begin_round(const tables& shared, moment now) noexcept {
    changes_ = shared.sa_changes();
    next_round_ns_ = now.monotonic_ns + round_ns;
    ahead_ = count_;
}

/// Each of a round is taken out in front and, where it must go on waiting, put in behind: after the
/// last of them the order is what it was.
bool trap::retry(stage& s, verdicts& to) noexcept {
    const unsigned n = std::min(ahead_, max_burst);
    for (waiting& w : std::span(leaving_).first(n)) {
        w = at(0);
        first_ = (first_ + 1) % capacity;
        --count_;
        --ahead_;
        share& mine = share_of(w.why.policy);
        --mine.packets;
        mine.bytes -= w.p.length;
        s.counters.held.subtract(1);
        if (s.now.monotonic_ns >= w.until_ns) {
            s.drop(w.p, drop_reason::sa_wait_timeout);
            continue;
        }
        w.p.next = &w.way;
        stand_in_.inner_mark.store(w.mark, std::memory_order_relaxed);
        retried_ = &w;
        direct(s, w.p, to);
        retried_ = nullptr;
    }
    return n != 0;
}

} // namespace esplane::fastpath

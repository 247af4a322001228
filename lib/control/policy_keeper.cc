// SPDX-License-Identifier: Apache-2.0
#include "lib/control/policy_keeper.h"

#include <algorithm>
#include <utility>

#include "lib/control/batch.h"

namespace esplane::control {

namespace {

using ipsec::lifetime_verdict;

constexpr std::int64_t ns_per_s = 1'000'000'000;

/// A soft limit of a policy is announced again so often while it is passed: XFRM_KM_TIMEOUT.
constexpr std::int64_t soft_repeat_ns = 30 * ns_per_s;

/// The kernel hangs "use" on the last use, and on the addition before the first.
ipsec::lifetime_origin origin_of(const ipsec::spd::entry& e, const ipsec::policy& p, moment now) {
    const std::uint64_t used = p.current.use_time;
    return {e.added_ns, used == 0 ? e.added_ns : ipsec::monotonic_of(used, now)};
}

result<void> check_index(const ipsec::policy& p) {
    constexpr std::uint32_t direction_bits = 7;
    if (p.index != 0 && (p.index & direction_bits) != static_cast<std::uint32_t>(p.dir))
        return fail(EINVAL, "Policy index doesn't match direction", "index");
    return {};
}

ipsec::policy_key key_of(const ipsec::policy& p) {
    return {p.dir, p.sel, 0, p.if_id, p.mark, p.type, p.security};
}

/// Where the main policy beside a sub-policy is looked up: __xfrm_policy_check() takes `in` for
/// what passes through, too.
ipsec::policy_direction main_beside(const ipsec::policy& sub) noexcept {
    return sub.dir == ipsec::policy_direction::out ? ipsec::policy_direction::out
                                                   : ipsec::policy_direction::in;
}

/// Whether there may be packets that both ask to protect.
bool both_protect(const ipsec::policy& sub, const ipsec::policy& main) noexcept {
    return sub.protects() && main.protects() && main.dir == main_beside(sub) &&
           sub.if_id == main.if_id && sub.mark.overlaps(main.mark) && sub.sel.overlaps(main.sel);
}

/// The packet of a selector's own addresses; ports are looked at where the protocol is named.
ipsec::flow flow_of(const ipsec::selector& s) noexcept {
    ipsec::flow f{s.source, s.destination, {}, {}, s.protocol};
    if (s.protocol == 0) return f;
    f.source_port = s.source_port;
    f.destination_port = s.destination_port;
    return f;
}

void start_life(ipsec::policy& p, moment now) {
    p.current = {};
    p.current.add_time = now.realtime_s;
    p.dying = false;
}

} // namespace

policy_keeper::policy_keeper(backend& b, const announcer& out)
    : backend_(b)
    , out_(out) {}

result<void> policy_keeper::add(ipsec::policy p, ipsec::originator by, moment now) {
    if (auto r = check_index(p); !r) return r;
    if (spd_.find(key_of(p)) != nullptr) return fail(EEXIST);
    if (auto r = check_beside(p); !r) return r;
    if (auto r = put_new(p, now); !r) return r;
    out_.announce(ipsec::policy_added{p, by});
    return {};
}

result<void> policy_keeper::update(ipsec::policy p, ipsec::originator by, moment now) {
    if (auto r = check_index(p); !r) return r;
    if (auto r = check_beside(p); !r) return r;
    entry* const old = spd_.find(key_of(p));
    if (auto r = old == nullptr ? put_new(p, now) : put_over(*old, p, now); !r) return r;
    out_.announce(ipsec::policy_updated{p, by});
    return {};
}

/// A packet under a sub-policy and a main one must satisfy both (xfrm_expand_policies()); the data
/// path applies one template to a packet.
result<void> policy_keeper::check_beside(const ipsec::policy& p) {
    const auto refuse = [] {
        return fail(EOPNOTSUPP,
                    "XFRMA_TMPL of a sub-policy beside that of a main policy is not carried",
                    "XFRMA_TMPL");
    };
    if (!p.protects()) return {};
    if (p.type == ipsec::policy_type::main) {
        for (const std::uint32_t sub : protecting_subs_)
            if (both_protect(spd_.find_index(sub)->describe(), p)) return refuse();
        return {};
    }
    entry* e = spd_.newest_from(~std::uint64_t{0});
    for (; e != nullptr; e = spd_.newest_from(e->serial - 1))
        if (e->type == ipsec::policy_type::main && both_protect(p, e->describe())) return refuse();
    return {};
}

void policy_keeper::note(const ipsec::policy& p) {
    if (p.type == ipsec::policy_type::sub && p.protects())
        protecting_subs_.insert(p.index);
    else
        protecting_subs_.erase(p.index);
}

/// Index, position and times are its own from here on.
result<void> policy_keeper::put_new(ipsec::policy& p, moment now) {
    const std::uint32_t wanted = std::exchange(p.index, spd_.choose_index(p.dir, p.index));
    const bool chosen = p.index != wanted;
    p.position = spd_.next_position();
    start_life(p, now);
    if (auto r = backend_.add_policy(p); !r) return r;
    entry& e = spd_.insert(p, chosen);
    note(p);
    e.added_ns = static_cast<std::int64_t>(now.monotonic_ns);
    start_timer(e, p, now);
    return {};
}

/// The index stays, whatever the client gave.
result<void> policy_keeper::put_over(entry& e, ipsec::policy& p, moment now) {
    p.index = e.index;
    p.position = spd_.next_position();
    start_life(p, now);
    if (auto r = backend_.update_policy(p); !r) return r;
    timers_.disarm(e.serial);
    spd_.replace(e, p);
    note(p);
    e.added_ns = static_cast<std::int64_t>(now.monotonic_ns);
    start_timer(e, p, now);
    return {};
}

/// As an earlier daemon had it.  Its position, too: the log has it, and the next daemon goes by it.
result<void> policy_keeper::restore(ipsec::policy p, moment now) {
    if (spd_.find(key_of(p)) != nullptr || spd_.find_index(p.index) != nullptr) return fail(EEXIST);
    spd_.go_on_from(p.position);
    p.position = spd_.next_position();
    if (auto r = backend_.add_policy(p); !r) return r;
    entry& e = spd_.insert(p, false);
    note(p);
    e.added_ns = ipsec::monotonic_of(p.current.add_time, now);
    start_timer(e, p, now);
    out_.announce(ipsec::policy_added{p, {}});
    return {};
}

/// As in the kernel the first look at a limit comes a second after it was set.
void policy_keeper::start_timer(const entry& e, const ipsec::policy& p, moment now) {
    const auto now_ns = static_cast<std::int64_t>(now.monotonic_ns);
    if (const auto due_ns = ipsec::first_time_limit(p.limits, origin_of(e, p, now)))
        timers_.arm(e.serial, std::max(*due_ns, now_ns + ns_per_s));
}

result<void> policy_keeper::remove(const ipsec::policy_key& k, ipsec::originator by) {
    entry* e = spd_.find(k);
    if (e == nullptr) return fail(ENOENT);
    const ipsec::policy gone = take(*e);
    out_.announce(ipsec::policy_deleted{gone, k.index != 0, by});
    return {};
}

void policy_keeper::flush(ipsec::policy_type type, ipsec::originator by) {
    bool any = false;
    {
        const batch together(backend_);
        entry* e = spd_.newest_from(~std::uint64_t{0});
        while (e != nullptr) {
            const std::uint64_t serial = e->serial;
            if (e->type == type) {
                drop(*e);
                any = true;
            }
            e = spd_.newest_from(serial - 1);
        }
    }
    if (any) out_.announce(ipsec::policy_flushed{type, by});
}

const ipsec::policy* policy_keeper::get(const ipsec::policy_key& k) {
    const entry* e = spd_.find(k);
    return e == nullptr ? nullptr : show(as_it_is(*e));
}

const ipsec::policy* policy_keeper::next(cursor& c) {
    const entry* e = spd_.newest_from(c.next);
    if (e == nullptr) return nullptr;
    c.next = e->serial - 1;
    return show(as_it_is(*e));
}

const ipsec::policy* policy_keeper::show(ipsec::policy p) {
    shown_ = std::move(p);
    return &shown_;
}

std::optional<ipsec::policy> policy_keeper::find_index(std::uint32_t index) {
    const entry* e = spd_.find_index(index);
    if (e == nullptr) return std::nullopt;
    return as_it_is(*e);
}

std::optional<ipsec::policy> policy_keeper::find_covering(const ipsec::policy_key& k) {
    const ipsec::flow f = flow_of(k.sel);
    const auto covers = [&](const ipsec::policy& p) {
        return p.if_id == k.if_id && p.mark.matches(0) && p.sel.fam == k.sel.fam &&
               p.sel.matches(f);
    };
    std::optional<ipsec::policy> best;
    entry* e = spd_.newest_from(~std::uint64_t{0});
    for (; e != nullptr; e = spd_.newest_from(e->serial - 1)) {
        if (e->dir != k.dir || e->type != k.type) continue;
        if (ipsec::policy p = e->describe(); covers(p) && (!best || p.priority <= best->priority))
            best = std::move(p); // from the newest down: among equal priorities the earlier wins
    }
    return best;
}

result<ipsec::policy> policy_keeper::set_templates(std::uint32_t index,
                                                   std::vector<ipsec::template_> templates) {
    entry& e = *spd_.find_index(index);
    ipsec::policy changed = as_it_is(e);
    changed.templates = std::move(templates);
    if (auto r = backend_.update_policy(changed); !r) return tl::unexpected(r.error());
    e.keep(changed);
    return changed;
}

spd_counts policy_keeper::counts() const noexcept {
    using ipsec::policy_direction;
    return {spd_.count(policy_direction::in), spd_.count(policy_direction::out),
            spd_.count(policy_direction::fwd)};
}

ipsec::policy policy_keeper::as_it_is(const entry& e) const {
    ipsec::policy p = e.describe();
    ipsec::lifetime_current counted;
    if (!backend_.query_policy(e.index, counted)) return p;
    counted.add_time = p.current.add_time;
    p.current = counted;
    return p;
}

void policy_keeper::drop(entry& e) {
    backend_.delete_policy(e.index);
    timers_.disarm(e.serial);
    protecting_subs_.erase(e.index);
    spd_.erase(e);
}

ipsec::policy policy_keeper::take(entry& e) {
    ipsec::policy what = as_it_is(e);
    drop(e);
    return what;
}

void policy_keeper::expire(entry& e, bool hard, ipsec::originator by) {
    if (hard) {
        const ipsec::policy gone = take(e);
        out_.announce(ipsec::policy_expired{gone, true, by});
    } else {
        ipsec::policy p = as_it_is(e);
        p.dying = true;
        e.keep(p);
        out_.announce(ipsec::policy_expired{p, false, by});
    }
}

result<void> policy_keeper::expire(const ipsec::policy_key& k, bool hard, ipsec::originator by) {
    entry* e = spd_.find(k);
    if (e == nullptr) return fail(ENOENT);
    expire(*e, hard, by);
    return {};
}

void policy_keeper::tick(moment now) {
    const auto now_ns = static_cast<std::int64_t>(now.monotonic_ns);
    if (const auto first = timers_.next_ns(); !first || *first > now_ns) return;
    const batch together(backend_);
    while (const auto serial = timers_.take_due(now_ns))
        check_time(*spd_.find_serial(*serial), now);
}

/// xfrm_policy_timer()
void policy_keeper::check_time(entry& e, moment now) {
    const auto now_ns = static_cast<std::int64_t>(now.monotonic_ns);
    const ipsec::policy p = as_it_is(e);
    auto check = ipsec::check_time_limits(p.limits, origin_of(e, p, now), false, now_ns);
    if (check.verdict == lifetime_verdict::soft) {
        const std::int64_t repeat_ns = now_ns + soft_repeat_ns;
        check.next_ns = std::min(check.next_ns.value_or(repeat_ns), repeat_ns);
    }
    if (check.next_ns) timers_.arm(e.serial, *check.next_ns);
    if (check.verdict != lifetime_verdict::running)
        expire(e, check.verdict == lifetime_verdict::hard, {});
}

} // namespace esplane::control

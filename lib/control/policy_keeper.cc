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
std::int64_t used_ns(const ipsec::spd::entry& e, moment now) noexcept {
    const std::uint64_t used = e.what.current.use_time;
    return used == 0 ? e.origin.added_ns : ipsec::monotonic_of(used, now);
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
    const auto e = put_new(std::move(p), now);
    if (!e) return tl::unexpected(e.error());
    out_.announce(ipsec::policy_added{(*e)->what, by});
    return {};
}

result<void> policy_keeper::update(ipsec::policy p, ipsec::originator by, moment now) {
    if (auto r = check_index(p); !r) return r;
    if (auto r = check_beside(p); !r) return r;
    entry* old = spd_.find(key_of(p));
    const auto e = old == nullptr ? put_new(std::move(p), now) : put_over(*old, std::move(p), now);
    if (!e) return tl::unexpected(e.error());
    out_.announce(ipsec::policy_updated{(*e)->what, by});
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
            if (both_protect(spd_.find_index(sub)->what, p)) return refuse();
        return {};
    }
    entry* e = spd_.newest_from(~std::uint64_t{0});
    for (; e != nullptr; e = spd_.newest_from(e->serial() - 1))
        if (e->what.type == ipsec::policy_type::main && both_protect(p, e->what)) return refuse();
    return {};
}

void policy_keeper::note(const ipsec::policy& p) {
    if (p.type == ipsec::policy_type::sub && p.protects())
        protecting_subs_.insert(p.index);
    else
        protecting_subs_.erase(p.index);
}

result<policy_keeper::entry*> policy_keeper::put_new(ipsec::policy p, moment now) {
    const std::uint32_t wanted = std::exchange(p.index, spd_.choose_index(p.dir, p.index));
    const bool chosen = p.index != wanted;
    p.position = spd_.next_position();
    start_life(p, now);
    if (auto r = backend_.add_policy(p); !r) return tl::unexpected(r.error());
    entry& e = spd_.insert(std::move(p), chosen);
    note(e.what);
    start_timer(e, now);
    return &e;
}

/// The index stays, whatever the client gave.
result<policy_keeper::entry*> policy_keeper::put_over(entry& e, ipsec::policy p, moment now) {
    p.index = e.what.index;
    p.position = spd_.next_position();
    start_life(p, now);
    if (auto r = backend_.update_policy(p); !r) return tl::unexpected(r.error());
    timers_.disarm(e.serial());
    spd_.replace(e, std::move(p));
    note(e.what);
    start_timer(e, now);
    return &e;
}

/// As an earlier daemon had it, but for its position: they come in order.
result<void> policy_keeper::restore(ipsec::policy p, moment now) {
    if (spd_.find(key_of(p)) != nullptr || spd_.find_index(p.index) != nullptr) return fail(EEXIST);
    p.position = spd_.next_position();
    if (auto r = backend_.add_policy(p); !r) return r;
    entry& e = spd_.insert(std::move(p), false);
    note(e.what);
    e.origin.added_ns = ipsec::monotonic_of(e.what.current.add_time, now);
    e.origin.used_ns = used_ns(e, now);
    arm(e, now);
    out_.announce(ipsec::policy_added{e.what, {}});
    return {};
}

void policy_keeper::start_timer(entry& e, moment now) {
    const auto now_ns = static_cast<std::int64_t>(now.monotonic_ns);
    e.origin = {now_ns, now_ns};
    arm(e, now);
}

/// As in the kernel the first look at a limit comes a second after it was set.
void policy_keeper::arm(const entry& e, moment now) {
    const auto now_ns = static_cast<std::int64_t>(now.monotonic_ns);
    if (const auto due_ns = ipsec::first_time_limit(e.what.limits, e.origin))
        timers_.arm(e.serial(), std::max(*due_ns, now_ns + ns_per_s));
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
            const std::uint64_t serial = e->serial();
            if (e->what.type == type) {
                take(*e);
                any = true;
            }
            e = spd_.newest_from(serial - 1);
        }
    }
    if (any) out_.announce(ipsec::policy_flushed{type, by});
}

const ipsec::policy* policy_keeper::get(const ipsec::policy_key& k) {
    entry* e = spd_.find(k);
    if (e == nullptr) return nullptr;
    refresh(*e);
    return &e->what;
}

const ipsec::policy* policy_keeper::next(cursor& c) {
    entry* e = spd_.newest_from(c.next);
    if (e == nullptr) return nullptr;
    c.next = e->serial() - 1;
    refresh(*e);
    return &e->what;
}

const ipsec::policy* policy_keeper::find_index(std::uint32_t index) {
    entry* e = spd_.find_index(index);
    if (e == nullptr) return nullptr;
    refresh(*e);
    return &e->what;
}

const ipsec::policy* policy_keeper::find_covering(const ipsec::policy_key& k) {
    const ipsec::flow f = flow_of(k.sel);
    const auto covers = [&](const ipsec::policy& p) {
        return p.dir == k.dir && p.type == k.type && p.if_id == k.if_id && p.mark.matches(0) &&
               p.sel.fam == k.sel.fam && p.sel.matches(f);
    };
    const ipsec::policy* best = nullptr;
    entry* e = spd_.newest_from(~std::uint64_t{0});
    for (; e != nullptr; e = spd_.newest_from(e->serial() - 1))
        if (covers(e->what) && (best == nullptr || e->what.priority <= best->priority))
            best = &e->what; // from the newest down: among equal priorities the earlier wins
    return best;
}

result<void> policy_keeper::set_templates(std::uint32_t index,
                                          std::vector<ipsec::template_> templates) {
    entry& e = *spd_.find_index(index);
    refresh(e);
    ipsec::policy changed = e.what;
    changed.templates = std::move(templates);
    if (auto r = backend_.update_policy(changed); !r) return r;
    e.what = std::move(changed);
    return {};
}

spd_counts policy_keeper::counts() const noexcept {
    using ipsec::policy_direction;
    return {spd_.count(policy_direction::in), spd_.count(policy_direction::out),
            spd_.count(policy_direction::fwd)};
}

void policy_keeper::refresh(entry& e) const {
    ipsec::lifetime_current counted;
    if (!backend_.query_policy(e.what.index, counted)) return;
    counted.add_time = e.what.current.add_time;
    e.what.current = counted;
}

ipsec::policy policy_keeper::take(entry& e) {
    refresh(e);
    backend_.delete_policy(e.what);
    timers_.disarm(e.serial());
    protecting_subs_.erase(e.what.index);
    return spd_.take(e);
}

void policy_keeper::expire(entry& e, bool hard, ipsec::originator by) {
    if (hard) {
        const ipsec::policy gone = take(e);
        out_.announce(ipsec::policy_expired{gone, true, by});
    } else {
        e.what.dying = true;
        out_.announce(ipsec::policy_expired{e.what, false, by});
    }
}

result<void> policy_keeper::expire(const ipsec::policy_key& k, bool hard, ipsec::originator by) {
    entry* e = spd_.find(k);
    if (e == nullptr) return fail(ENOENT);
    refresh(*e);
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
    refresh(e);
    e.origin.used_ns = used_ns(e, now);
    auto check = ipsec::check_time_limits(e.what.limits, e.origin, false, now_ns);
    if (check.verdict == lifetime_verdict::soft) {
        const std::int64_t repeat_ns = now_ns + soft_repeat_ns;
        check.next_ns = std::min(check.next_ns.value_or(repeat_ns), repeat_ns);
    }
    if (check.next_ns) timers_.arm(e.serial(), *check.next_ns);
    if (check.verdict != lifetime_verdict::running)
        expire(e, check.verdict == lifetime_verdict::hard, {});
}

} // namespace esplane::control

// SPDX-License-Identifier: Apache-2.0
//
// SAs of the backend between workers: which are whose, those that all carry together, and those
// that are taken from one that is stuck.
#include <algorithm>

#include "fastpath/backend_records.h"
#include "fastpath/barrier.h"

namespace esplane::fastpath {

std::size_t user_backend::take_from(unsigned worker) {
    std::vector<sa_record*> theirs;
    sas_.each([&](sa_record& r) {
        const sa_seldom& seldom = std::as_const(r).seldom();
        // First: from here on nothing is passed on to it.
        if (r.in) r.in->owner.take_back_wish(worker);
        if (r.out) r.out->owner.take_back_wish(worker);
        // What is spread needs all workers.
        const bool has_in = r.in && (r.in->owner.who() == worker || seldom.spread_in_now);
        const bool has_out = r.out && (r.out->owner.who() == worker || seldom.spread_out_now);
        if (has_in) r.in->owner.abandon();
        if (has_out) r.out->owner.abandon();
        if (has_in || has_out) theirs.push_back(&r);
        return true;
    });
    if (theirs.empty()) return 0;
    barrier_on_all_threads();
    for (sa_record* r : theirs) {
        gather(*r);
        if (r->in && r->in->owner.who() == sa_owner::moved) replace_in(*r);
        if (r->out && r->out->owner.who() == sa_owner::moved) replace_out(*r);
    }
    for (sa_record* r : theirs)
        resolve_all(r->where());
    settle();
    return theirs.size();
}

result<void> user_backend::spread_sa(const ipsec::sa_id& id, unsigned workers) {
    sa_record* const found = find(id);
    if (found == nullptr) return fail(ESRCH);
    sa_record& r = *found;
    sa_seldom& seldom = r.own_seldom();
    if (r.of_cpu) return fail(EBUSY, "it is for the traffic of one CPU");
    if (is_near_limit(r)) return fail(EBUSY, "it is near a limit in packets or bytes");
    const auto has_worker = [&](const sa_owner& o) { return o.who() < workers; };
    const bool out = r.out && !seldom.spread_out_now && has_worker(r.out->owner);
    const bool in = r.in && !seldom.spread_in_now && has_worker(r.in->owner);
    if (!out && !in) return fail(EALREADY, "it is spread, or no packet of it has come yet");
    if (out) {
        std::vector<std::unique_ptr<sa_out>> shares;
        for (unsigned i = 0; i < workers; ++i)
            shares.push_back(make_share(r));
        seldom.spread_out_now = spreads_.begin(*r.out, std::move(shares));
    }
    if (in) seldom.spread_in_now = spreads_.begin(*r.in, workers);
    if (!seldom.is_spread()) return fail(ENOSPC, "64 SAs are spread already");
    spread_.insert(id);
    return {};
}

/// Limits are held to within a burst, which shares cannot.
bool user_backend::is_near_limit(const sa_record& r) {
    constexpr std::uint64_t packets = std::uint64_t{1} << 26; // seconds of them
    constexpr std::uint64_t bytes = packets * 1024;
    const ipsec::lifetime_limits l = r.describe().limits;
    const sa_counts counted = r.counts();
    const auto near = [](std::uint64_t limit, std::uint64_t now, std::uint64_t distance) {
        return limit != ipsec::no_limit && (limit <= now || limit - now < distance);
    };
    return near(l.soft_packets, counted.packets, packets) ||
           near(l.hard_packets, counted.packets, packets) ||
           near(l.soft_bytes, counted.bytes, bytes) || near(l.hard_bytes, counted.bytes, bytes);
}

/// Nobody takes another ticket of it: the SA is abandoned, or deleted.
void user_backend::gather(sa_record& r) {
    spread_.erase(r.id);
    if (!std::as_const(r).seldom().is_spread()) return;
    sa_seldom& seldom = r.own_seldom();
    if (seldom.spread_out_now) {
        const spread_out& all = *seldom.spread_out_now;
        const std::uint64_t under_way = all.shares.size() * max_burst;
        r.out->owner.abandon();
        r.out->sequence_sent.set(std::max(r.out->sequence_sent.get(), all.sequence() + under_way));
        for (const auto& share : all.shares)
            r.out->account.last_used.set(
                std::max(r.out->account.last_used.get(), share->account.last_used.get()));
        r.bury_spreads();
        seldom.former_spreads.push_back(seldom.spread_out_now);
        spreads_.end(std::move(seldom.spread_out_now));
    }
    if (seldom.spread_in_now) spreads_.end(std::move(seldom.spread_in_now));
    gathered_.insert(r.id);
}

void user_backend::unspread(sa_record& r) {
    const bool in = r.seldom().spread_in_now != nullptr;
    const bool out = r.seldom().spread_out_now != nullptr;
    if (out) r.out->owner.abandon();
    if (in) r.in->owner.abandon();
    barrier_on_all_threads();
    gather(r);
    if (in) replace_in(r);
    if (out) replace_out(r);
    resolve_all(r.where());
}

void user_backend::tend_spread() {
    for (const ipsec::sa_id& id : std::vector(spread_.begin(), spread_.end())) {
        sa_record& r = *find(id);
        const auto& all = r.seldom().spread_out_now;
        if (is_near_limit(r))
            unspread(r);
        else if (all && all->sequence() >= r.out->limits.goal.load())
            reach(*r.out);
    }
    spreads_.tend();
    std::erase_if(gathered_, [this](const ipsec::sa_id& id) {
        sa_record* const r = find(id);
        if (r == nullptr) return true;
        r->bury_spreads();
        publish_limits(*r, r->describe().limits); // packets under way were counted
        return r->seldom().former_spreads.empty();
    });
}

/// Tells of a number that no worker looks at.
void user_backend::reach(sa_out& out) {
    out.limits.goal.store(no_goal);
    if (listener_ != nullptr) listener_->on_replay(out.id);
}

std::vector<sa_load> user_backend::loads_of(unsigned worker) {
    constexpr std::size_t most = 65536; // control has others to serve
    constexpr std::uint64_t bytes_like_a_packet = 1024;
    std::vector<sa_load> loads;
    sas_.each([&](sa_record& r) {
        const bool is_theirs =
            (r.in && r.in->owner.who() == worker) || (r.out && r.out->owner.who() == worker);
        if (!is_theirs || r.of_cpu) return true;
        const sa_counts c = r.counts();
        const std::uint64_t work = c.packets + c.bytes / bytes_like_a_packet;
        loads.push_back({r.id, work - std::exchange(r.work_known, work)});
        return loads.size() != most;
    });
    return loads;
}

bool user_backend::ask_to_move(const ipsec::sa_id& id, unsigned to) {
    sa_record* const r = find(id);
    if (r == nullptr || r->of_cpu) return false;
    if (r->in && !r->seldom().spread_in_now) r->in->owner.wish(to);
    if (r->out) r->out->owner.wish(to);
    return true;
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// The backend's policies, and the SAs that their templates resolve to.
#include <algorithm>
#include <iterator>
#include <tuple>

#include "fastpath/backend_records.h"

namespace esplane::fastpath {

using ipsec::family;

namespace {

policy_scope scope_of(const ipsec::policy& p) noexcept {
    return {p.if_id, p.mark, p.type};
}

std::uint32_t hash_of_policy_index(std::uint32_t index) noexcept {
    return _mm_crc32_u32(0, index);
}

/// Whether a template leaves it to the packet whose SA it takes.
bool leaves_addresses_open(const ipsec::template_& t) noexcept {
    return t.run_mode == ipsec::mode::transport && (t.id.destination.is_any() || t.source.is_any());
}

sa_requirement requirement_of(const ipsec::template_& t) noexcept {
    return {t.source, t.run_mode, t.id.protocol, leaves_addresses_open(t), t.id.spi, t.reqid};
}

bool asks_for_cpus(const ipsec::policy& p) noexcept {
    return (p.flags & ipsec::policy_flag::cpu_acquire) != 0;
}

} // namespace

std::uint32_t user_backend::hash_of_policy::operator()(const policy_record& p) const noexcept {
    return hash_of_policy_index(p.index);
}

std::uint32_t user_backend::hash_of_group::operator()(const group_record& g) const noexcept {
    return endpoint_hash()(g.where());
}

auto user_backend::find_policy(std::uint32_t index) const -> policy_record* {
    return policies_.find(hash_of_policy_index(index),
                          [&](const policy_record& p) { return p.index == index; });
}

auto user_backend::first_group(const endpoint& e) const -> group_record* {
    return groups_.find(endpoint_hash()(e), [&](const group_record& g) { return g.where() == e; });
}

void user_backend::resolve_all(const endpoint& e) {
    for (group_record* g = first_group(e); g != nullptr; g = g->next)
        resolve(*g);
    resolve_transport(e);
}

void user_backend::resolve_transport(const endpoint& e) {
    if (transport_groups_ == 0) return;
    for (group_record* g = first_group({{}, e.reqid}); g != nullptr; g = g->next)
        if (g->is_transport()) resolve_peer(*g, e.destination);
}

/// As resolve_all(), for an SA that was just added: mostly it comes before all others.
void user_backend::resolve_added(sa_record& r, const ipsec::sa& s) {
    for (group_record* g = first_group(r.where()); g != nullptr; g = g->next)
        if (g->takes(s) && !put_first(*g, r, s)) resolve(*g);
    resolve_transport(r.where());
}

/// As resolve_all(), for an SA that is gone.
void user_backend::resolve_gone(const sa_record& r) {
    if (r.out)
        for (group_record* g = first_group(r.where()); g != nullptr; g = g->next)
            if (g->has(r.out.get()) && !take_first(*g, r)) resolve(*g);
    resolve_transport(r.where());
}

/// False: it has to be ranked.
bool user_backend::put_first(group_record& g, sa_record& r, const ipsec::sa& s) {
    if (g.choices() || g.cpu_acquire || r.of_cpu || s.dying ||
        s.current.add_time < g.newest_add_time)
        return false;
    if (!give_out(r, s)) return true;
    g.newest_add_time = s.current.add_time;
    auto outgrown = g.sas.put_first(r.out.get());
    publish_all(g);
    bury(std::move(outgrown));
    return true;
}

bool user_backend::take_first(group_record& g, const sa_record& r) {
    if (g.choices() || g.sas.all().front() != r.out.get()) return false;
    g.sas.take_first();
    publish_all(g);
    return true;
}

void user_backend::publish_all(group_record& g) {
    g.run.best.store(*g.sas.begin(), std::memory_order_release);
    g.run.all.store(g.sas.begin(), std::memory_order_release);
    shared_.note_sa_change();
}

/// Workers may still read it.
template <typename Outgrown>
void user_backend::bury(Outgrown outgrown) {
    if (outgrown) shared_.graveyard().add([old = std::shared_ptr(std::move(outgrown))] {});
}

/// Makes it outbound.  False: there are too many already.
///
/// s   its description
bool user_backend::give_out(sa_record& r, const ipsec::sa& s) {
    if (r.out) return true;
    auto made = make_out(r, s);
    made->in_force.store(true, std::memory_order_release);
    if (!shared_.outbound().add(*made)) return false;
    count_encap(r, s.encap, -1);
    r.out = std::move(made);
    count_encap(r, s.encap, 1);
    publish_limits(r, s.limits);
    return true;
}

/// Of a template in transport mode, what goes to one destination.
void user_backend::resolve_peer(group_record& g, const ipsec::address& destination) {
    const auto ends = transport_ends_.find({g.wanted.reqid, destination});
    auto& known = g.peers().by_destination;
    const auto there = known.find(destination);
    if (ends != transport_ends_.end()) {
        peer_record& p = there != known.end() ? *there->second : add_peer(g, destination);
        resolve(p.group);
    } else if (there != known.end()) {
        g.peers().run.erase(&there->second->entry);
        shared_.graveyard().add([gone = std::move(there->second)] {});
        known.erase(there);
    }
}

auto user_backend::add_peer(group_record& g, const ipsec::address& destination) -> peer_record& {
    auto p = std::make_shared<peer_record>();
    p->group.wanted = g.wanted;
    p->group.wanted.destination = destination;
    p->group.wanted.source = {};
    p->group.scope = g.scope;
    p->group.set_security(g.security());
    p->group.cpu_acquire = g.cpu_acquire;
    p->entry = {hash_of_peer(destination.bytes.data(), destination.fam), destination,
                &p->group.run};
    resolve(p->group); // before it can be found
    g.peers().run.insert(&p->entry);
    return *g.peers().by_destination.emplace(destination, std::move(p)).first->second;
}

/// All destinations to which a template in transport mode may have SAs.
void user_backend::resolve_peers(group_record& g) {
    g.set_peers(std::make_unique<group_record::peer_set>(shared_.graveyard()));
    const std::uint32_t reqid = g.wanted.reqid;
    for (auto end = transport_ends_.lower_bound({reqid, {}});
         end != transport_ends_.end() && end->first.first == reqid; ++end)
        add_peer(g, end->first.second);
}

void user_backend::count_transport(const sa_record& r, int by) {
    if (!r.transport) return;
    const auto end = transport_ends_.try_emplace({r.reqid, r.id.destination}).first;
    end->second += by;
    if (end->second == 0) transport_ends_.erase(end);
}

/// Newest first, those whose soft limit has passed last: xfrm_state_look_at.
void user_backend::resolve(group_record& g) {
    std::vector<candidate> found;
    sa_record* const first = first_at({g.wanted.destination, g.wanted.reqid});
    for (sa_record* r = first; r != nullptr; r = r->next_there == first ? nullptr : r->next_there) {
        const ipsec::sa s = r->describe();
        if (g.takes(s) && give_out(*r, s))
            found.push_back({s.dying, s.current.add_time, r->serial, r, s.pcpu});
    }
    std::sort(found.begin(), found.end());
    std::vector<sa_out*> all;
    for (const candidate& c : found)
        all.push_back(c.sa->out.get());
    if (g.is_published() && std::ranges::equal(all, g.sas.all())) return;
    g.newest_add_time = found.empty() ? 0 : found.front().add_time;
    auto outgrown = g.sas.assign(all);
    // Which of the two pointers a worker goes by: never neither.
    auto choices = choices_among(found, g.cpu_acquire);
    const bool chooses = choices != nullptr;
    if (chooses) g.run.choices.store(choices.get(), std::memory_order_release);
    g.run.best.store(chooses ? nullptr : *g.sas.begin(), std::memory_order_release);
    g.run.all.store(g.sas.begin(), std::memory_order_release);
    if (!chooses) g.run.choices.store(nullptr, std::memory_order_release);
    shared_.note_sa_change();
    bury(std::move(outgrown));
    bury(g.set_choices(std::move(choices)));
}

/// xfrm_state_look_at() with a CPU: the SAs of a worker's own come before those of none; those of
/// others do not count.  nullptr: all workers see the same.
std::shared_ptr<const sa_choices> user_backend::choices_among(const std::vector<candidate>& sas,
                                                              bool cpu_acquire) const {
    const auto is_of_cpu = [](const candidate& c) { return c.sa->of_cpu; };
    if (!cpu_acquire && std::ranges::none_of(sas, is_of_cpu)) return nullptr;
    auto made = std::make_shared<sa_choices>();
    for (const candidate& c : sas) {
        const auto worker = is_of_cpu(c) ? worker_of(*c.cpu) : std::nullopt;
        if (!worker) continue;
        if (made->of_worker.size() <= *worker) made->of_worker.resize(*worker + 1);
        made->of_worker[*worker].sas.push_back(c.sa->out.get());
        ++made->of_worker[*worker].own;
    }
    for (const candidate& c : sas) {
        if (is_of_cpu(c)) continue;
        made->rest.sas.push_back(c.sa->out.get());
        for (sa_choices::list& one : made->of_worker)
            one.sas.push_back(c.sa->out.get());
    }
    return made;
}

std::uint32_t user_backend::cpu_of(unsigned worker) const {
    return worker < cpus_.size() ? cpus_[worker] : worker;
}

std::optional<unsigned> user_backend::worker_of(std::uint32_t cpu) const {
    if (cpus_.empty()) return cpu < max_lanes ? std::optional(cpu) : std::nullopt;
    const auto at = std::ranges::find(cpus_, cpu);
    if (at == cpus_.end()) return std::nullopt;
    return static_cast<unsigned>(at - cpus_.begin());
}

auto user_backend::acquire_group(const ipsec::policy& p) -> group_record* {
    auto made = std::make_unique<group_record>();
    made->wanted = wanted_sa::of(p.templates.front());
    made->scope = scope_of(p);
    made->set_security(p.security);
    made->cpu_acquire = asks_for_cpus(p);
    group_record* const first = first_group(made->where());
    for (group_record* g = first; g != nullptr; g = g->next) {
        if (!g->is_for_the_same(*made)) continue;
        ++g->users;
        return g;
    }
    group_record* const g = made.release();
    g->users = 1;
    transport_groups_ += g->is_transport() ? 1 : 0;
    if (first == nullptr)
        groups_.insert(g);
    else
        g->next = std::exchange(first->next, g);
    if (g->is_transport())
        resolve_peers(*g);
    else
        resolve(*g);
    return g;
}

void user_backend::release_group(group_record* g) {
    if (--g->users != 0) return;
    transport_groups_ -= g->is_transport() ? 1 : 0;
    group_record* before = first_group(g->where());
    if (before == g && g->next != nullptr)
        groups_.replace(g, g->next);
    else if (before == g)
        groups_.erase(g);
    else {
        while (before->next != g)
            before = before->next;
        before->next = g->next;
    }
    shared_.graveyard().add([gone = std::shared_ptr<group_record>(g)] {});
}

auto user_backend::make_policy(const ipsec::policy& p) -> std::unique_ptr<policy_record> {
    std::unique_ptr<policy_record> r;
    if (p.sel.fam == family::ipv6)
        r = std::make_unique<keyed_record<v6_words>>(p);
    else
        r = std::make_unique<keyed_record<v4_words>>(p);
    r->index = p.index;
    policy_entry& e = r->run();
    e.set_rank(p.priority, p.position);
    e.action = p.action;
    e.index = p.index;
    e.protects = p.protects();
    e.use_time.set(p.current.use_time);
    if (!e.protects) return r;
    const ipsec::template_& t = p.templates.front();
    e.required = requirement_of(t);
    e.optional = t.optional;
    if (p.dir == ipsec::policy_direction::out) {
        e.cpu_acquire = asks_for_cpus(p);
        r->group = acquire_group(p);
        e.group = &r->group->run;
    }
    return r;
}

void user_backend::enter(policy_record& p, const ipsec::selector& s) {
    p.enter(shared_, s);
    p.is_in = true;
    if (p.dir == ipsec::policy_direction::out) shared_.note_sa_change();
}

void user_backend::leave(policy_record& p) {
    p.leave(shared_);
    p.is_in = false;
    if (p.dir == ipsec::policy_direction::out) shared_.note_sa_change();
}

void user_backend::set_defaults(const ipsec::default_actions& actions) {
    shared_.set_defaults(actions);
}

void user_backend::await_sas(std::uint32_t seconds, bool hold) {
    shared_.await_sas(seconds * std::uint64_t{1'000'000'000}, hold);
    shared_.note_sa_change();
}

/// Whether what a worker missed is missing still: an SA may have come since it said so.
bool user_backend::is_wanted(const worker_event& e) const {
    const policy_record* const found = find_policy(e.policy);
    if (found == nullptr || found->group == nullptr) return false;
    const group_record* g = found->group;
    if (g->is_transport()) {
        const auto peer = g->peers().by_destination.find(e.flow.destination);
        if (peer == g->peers().by_destination.end()) return true;
        g = &peer->second->group;
    }
    const auto carries = [&](const sa_out* sa) {
        return (sa->inner_family == family::unspecified || sa->inner_family == e.flow.source.fam) &&
               (!sa->has_selector || sa->selector.matches(e.flow));
    };
    if (!g->choices()) return std::ranges::none_of(g->sas.all(), carries);
    const sa_choices::list& theirs = g->choices()->of(e.worker);
    const std::size_t count = e.of_cpu ? theirs.own : theirs.sas.size();
    return std::ranges::none_of(std::span(theirs.sas).first(count), carries);
}

/// Takes a policy from the workers and frees it once none sees it, unless that is under way.
void user_backend::take_out(const std::shared_ptr<policy_record>& p) {
    if (!p->is_in) return;
    leave(*p);
    if (p->group != nullptr) release_group(p->group);
    shared_.graveyard().add([gone = p] {});
}

/// The former first: none of them comes into force again.
void user_backend::take_out_with_former(policy_record* p) {
    for (const auto& one : p->former)
        if (const auto still_there = one.lock()) take_out(still_there);
    take_out(std::shared_ptr<policy_record>(p));
}

/// Takes out what `next` stands in the place of, both in one chain of the policy table.
///
///   reader   loads C .................................... C's next: what is behind it
///   control  ........ C - before     ->     next - C - before     ->     next - C
///
/// One that is no better than before stands behind it: whoever would have come to `before` comes
/// to `next`.  A better one may stand in front of where a worker is: for it `before` stays, and
/// counts for nobody else, until a grace period is over; at the end of the batch, or later where a
/// worker is stuck.  With `before` go those that waited already and would now be better than
/// `next`.
void user_backend::succeed(const std::shared_ptr<policy_record>& before, policy_record& next) {
    auto all = std::exchange(before->former, {});
    all.push_back(before);
    for (const auto& waiting : all) {
        const auto one = waiting.lock();
        if (one == nullptr || !one->is_in) continue;
        if (precedes(next.run(), one->run()))
            next.former.push_back(one);
        else
            take_out(one);
    }
    if (before->is_in) shared_.graveyard().add([this, before] { take_out(before); });
}

/// A worker that searched where a policy was added before it came in has to find what that one is
/// to relieve, until it goes or counts for less.  Of a worker that is stuck there is no waiting:
/// what is deleted is out of force.
void user_backend::show_entered() {
    if (!std::exchange(may_be_unseen_, false)) return;
    shared_.graveyard().add([] {});
    (void)shared_.graveyard().reclaim();
}

result<void> user_backend::add_policy(const ipsec::policy& p) {
    if (auto room = check_memory(); !room) return room;
    if (p.templates.size() > 1)
        return fail(EOPNOTSUPP, "only one template is carried", "XFRMA_TMPL");
    auto r = make_policy(p);
    enter(*r, p.sel);
    policies_.insert(r.release());
    may_be_unseen_ = true;
    settle_later();
    return {};
}

result<void> user_backend::update_policy(const ipsec::policy& p) {
    policy_record* const before = find_policy(p.index);
    if (before == nullptr) return add_policy(p);
    if (auto room = check_memory(); !room) return room;
    if (p.templates.size() > 1)
        return fail(EOPNOTSUPP, "only one template is carried", "XFRMA_TMPL");
    auto next = make_policy(p);
    if (precedes(before->run(), next->run())) show_entered();
    enter(*next, p.sel);
    may_be_unseen_ = true;
    policies_.replace(before, next.get());
    succeed(std::shared_ptr<policy_record>(before), *next.release());
    settle();
    return {};
}

void user_backend::delete_policy(std::uint32_t index) {
    policy_record* const found = find_policy(index);
    if (found == nullptr) return;
    show_entered();
    policies_.erase(found);
    take_out_with_former(found);
    settle();
}

bool user_backend::query_policy(std::uint32_t index, ipsec::lifetime_current& into) {
    policy_record* const found = find_policy(index);
    if (found == nullptr) return false;
    into.use_time = found->run().use_time.get();
    return true;
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "lib/control/layer.h"

#include <algorithm>
#include <set>
#include <utility>

#include "lib/control/batch.h"
#include "lib/control/migrate.h"
#include "lib/control/policy_keeper.h"
#include "lib/control/sa_keeper.h"

namespace esplane::control {

struct layer::state {
    state(backend& b, random_source random)
        : work(b)
        , sas(b, out, std::move(random))
        , policies(b, out) {}

    /// Remembers `now` for the backend's events, which come without a time.
    moment note(moment now) { return latest = now; }
    void tell_wait() {
        work.await_sas(answering.empty() ? 0 : std::max(settings.acq_expires, 1u),
                       settings.larval_drop == 0);
    }

    backend& work;
    announcer out;
    sa_keeper sas;
    policy_keeper policies;
    spd_hash_thresholds thresholds;
    ipsec::default_actions defaults{};
    std::set<const ipsec::listener*> answering; ///< who makes SAs on ACQUIRE
    std::set<const ipsec::listener*> hearing;   ///< who wants sa_moved
    sysctls settings;
    moment latest;
};

layer::layer(backend& b, random_source random)
    : state_(std::make_unique<state>(b, std::move(random))) {
    b.set_listener(this);
}

layer::~layer() {
    state_->work.set_listener(nullptr);
}

void layer::subscribe(ipsec::listener* l) {
    state_->out.subscribe(l);
}

void layer::unsubscribe(ipsec::listener* l) {
    answer_acquires(l, false);
    hear_replays(l, false);
    state_->out.unsubscribe(l);
}

void layer::answer_acquires(const ipsec::listener* l, bool answers) {
    const bool before = state_->answering.empty();
    if (answers)
        state_->answering.insert(l);
    else
        state_->answering.erase(l);
    if (before != state_->answering.empty()) state_->tell_wait();
}

void layer::set_sysctls(const sysctls& s) {
    if (std::exchange(state_->settings, s) == s) return;
    state_->sas.set_acquire_expires(s.acq_expires);
    if (!state_->answering.empty()) state_->tell_wait();
}

const sysctls& layer::current_sysctls() const noexcept {
    return state_->settings;
}

void layer::set_acquire_expires(std::uint32_t seconds) {
    sysctls all = state_->settings;
    all.acq_expires = seconds;
    set_sysctls(all);
}

result<void> layer::add_sa(ipsec::sa s, ipsec::originator by, moment now) {
    return state_->sas.add(std::move(s), by, state_->note(now));
}

result<void> layer::update_sa(ipsec::sa s, ipsec::originator by, moment now) {
    return state_->sas.update(std::move(s), by, state_->note(now));
}

void layer::hear_replays(const ipsec::listener* l, bool hears) {
    if (hears)
        state_->hearing.insert(l);
    else
        state_->hearing.erase(l);
    state_->sas.hear_replays(!state_->hearing.empty());
}

result<void> layer::give_replay(const ipsec::sa_id& id, const replay_gift& g, ipsec::originator by,
                                moment now) {
    return state_->sas.give_replay(id, g, by, state_->note(now));
}

result<void> layer::expire_sa(const ipsec::sa_id& id, bool hard, ipsec::originator by) {
    return state_->sas.expire_now(id, hard, by);
}

result<void> layer::delete_sa(const ipsec::sa_id& id, ipsec::originator by) {
    return state_->sas.remove(id, by);
}

void layer::flush_sas(std::uint8_t protocol, ipsec::originator by) {
    state_->sas.flush(protocol, by);
}

result<std::reference_wrapper<const ipsec::sa>> layer::allocate_spi(const spi_request& r,
                                                                    moment now) {
    return state_->sas.allocate_spi(r, state_->note(now));
}

const ipsec::sa* layer::get_sa(const ipsec::sa_id& id) {
    return state_->sas.get(id);
}

const ipsec::sa* layer::next_sa(cursor& c) {
    return state_->sas.next(c);
}

std::size_t layer::sa_count() const noexcept {
    return state_->sas.count();
}

result<void> layer::add_policy(ipsec::policy p, ipsec::originator by, moment now) {
    return state_->policies.add(std::move(p), by, state_->note(now));
}

result<void> layer::update_policy(ipsec::policy p, ipsec::originator by, moment now) {
    return state_->policies.update(std::move(p), by, state_->note(now));
}

result<void> layer::delete_policy(const ipsec::policy_key& k, ipsec::originator by) {
    return state_->policies.remove(k, by);
}

void layer::flush_policies(ipsec::policy_type type, ipsec::originator by) {
    state_->policies.flush(type, by);
}

result<void> layer::expire_policy(const ipsec::policy_key& k, bool hard, ipsec::originator by) {
    return state_->policies.expire(k, hard, by);
}

const ipsec::policy* layer::get_policy(const ipsec::policy_key& k) {
    return state_->policies.get(k);
}

const ipsec::policy* layer::next_policy(cursor& c) {
    return state_->policies.next(c);
}

spd_counts layer::policy_counts() const noexcept {
    return state_->policies.counts();
}

spd_hash_thresholds& layer::hash_thresholds() noexcept {
    return state_->thresholds;
}

void layer::set_defaults(const ipsec::default_actions& actions) {
    state_->defaults = actions;
    state_->work.set_defaults(actions);
    state_->out.announce(ipsec::defaults_changed{state_->defaults});
}

const ipsec::default_actions& layer::defaults() const noexcept {
    return state_->defaults;
}

result<void> layer::migrate(const ipsec::migration& m, ipsec::originator by, moment now) {
    const auto done = [&] {
        const batch together(state_->work); // nothing to wait for between an SA and its policy
        return control::migrate(m, state_->sas, state_->policies, state_->note(now));
    }();
    if (!done) return tl::unexpected(done.error());
    state_->out.announce(ipsec::policies_migrated{m, by, &done->selected, done->sas});
    return {};
}

void layer::announce_acquire(ipsec::sa wanted, const ipsec::policy& p) {
    state_->sas.announce_acquire(std::move(wanted), p);
}

void layer::report_packet(const ipsec::packet_reported& r) {
    state_->out.announce(r);
}

result<void> layer::restore_sa(ipsec::sa s, moment now) {
    return state_->sas.restore(std::move(s), state_->note(now));
}

result<void> layer::restore_again(ipsec::sa s, moment now) {
    return state_->sas.restore_again(std::move(s), state_->note(now));
}

void layer::withdraw_sa(const ipsec::sa_id& id) {
    state_->sas.withdraw(id);
}

void layer::begin_from(const ipsec::sa_id& id, const sa_usage& n, moment now) {
    state_->sas.begin_from(id, n, state_->note(now));
}

result<void> layer::restore_policy(ipsec::policy p, moment now) {
    return state_->policies.restore(std::move(p), state_->note(now));
}

void layer::tick(moment now) {
    state_->note(now);
    state_->sas.tick(now);
    state_->policies.tick(now);
}

std::optional<std::uint64_t> layer::next_deadline_ns() const {
    const auto sa = state_->sas.next_deadline_ns();
    const auto policy = state_->policies.next_deadline_ns();
    if (!sa && !policy) return std::nullopt;
    const auto first = std::min(sa.value_or(INT64_MAX), policy.value_or(INT64_MAX));
    return static_cast<std::uint64_t>(std::max<std::int64_t>(first, 0));
}

void layer::on_lifetime(const ipsec::sa_id& id, bool hard) {
    state_->sas.on_lifetime(id, hard);
}

void layer::on_first_use(const ipsec::sa_id& id) {
    state_->sas.on_first_use(id, state_->latest);
}
void layer::on_mapping(const ipsec::sa_id& id, const ipsec::address& source, wire::be16 port) {
    state_->sas.on_mapping(id, source, port);
}

void layer::on_replay(const ipsec::sa_id& id) {
    state_->sas.on_replay(id, state_->latest);
}

void layer::on_sa_wanted(std::uint32_t index, const ipsec::flow& f,
                         std::optional<std::uint32_t> cpu) {
    if (state_->answering.empty()) return;
    const auto p = state_->policies.find_index(index);
    if (p && p->dir == ipsec::policy_direction::out && p->protects())
        state_->sas.acquire(*p, f, cpu, state_->latest);
}

} // namespace esplane::control

// SPDX-License-Identifier: Apache-2.0
#include "lib/control/replay_watch.h"

#include <algorithm>
#include <utility>

namespace esplane::control {

namespace {

using ipsec::sa_moved;

constexpr std::int64_t ns_per_tenth = 100'000'000;
constexpr std::uint64_t never = ~std::uint64_t{0};

/// SAs that are looked at in one go when somebody begins to listen.
constexpr unsigned most_at_once = 4096;

std::int64_t period_of(const ipsec::sa& s) noexcept {
    return s.replay_timer * ns_per_tenth;
}

/// How far from `told` the next event is; not where it is already.
std::uint64_t goal_from(std::uint64_t told, std::uint64_t distance, std::uint64_t now) noexcept {
    return std::max(told + distance, now + 1);
}

} // namespace

replay_watch::replay_watch(backend& b, const announcer& out, ipsec::sad& sad, describer describe)
    : backend_(b)
    , out_(out)
    , sad_(sad)
    , describe_(std::move(describe)) {}

void replay_watch::listen(bool somebody) {
    if (std::exchange(listening_, somebody) == somebody) return;
    watched_.clear();
    timers_ = {};
    reached_.clear();
    const entry* newest = sad_.newest_from(never);
    to_begin_ = somebody && newest != nullptr ? newest->serial : 0;
}

void replay_watch::begin(const entry& e, const ipsec::sa& s, moment now) {
    if (!listening_ || (s.replay_threshold == 0 && s.replay_timer == 0)) return;
    const watched& w = watched_[e.serial] = {s.replay, false};
    if (s.replay_timer != 0)
        timers_.arm(e.serial, static_cast<std::int64_t>(now.monotonic_ns) + period_of(s));
    aim(e, s, w);
}

/// An SA that ran while nobody listened: its first timer may be over.
void replay_watch::begin_running(const entry& e, moment now) {
    if (e.state != ipsec::sa_state::valid || watched_.contains(e.serial)) return;
    const ipsec::sa s = describe_(e);
    if (s.replay_threshold == 0 && s.replay_timer == 0) return;
    watched& w = watched_[e.serial];
    const std::int64_t due = e.origin().added_ns + period_of(s);
    if (s.replay_timer != 0 && due > static_cast<std::int64_t>(now.monotonic_ns))
        timers_.arm(e.serial, due);
    else
        w.deferred = s.replay_timer != 0;
    aim(e, s, w);
}

void replay_watch::begin_some(moment now) {
    for (unsigned i = 0; i < most_at_once && to_begin_ != 0; ++i) {
        const entry* e = sad_.newest_from(to_begin_);
        to_begin_ = e == nullptr ? 0 : e->serial - 1;
        if (e == nullptr) return;
        begin_running(*e, now);
    }
}

void replay_watch::change(const entry& e, const ipsec::sa& s, bool replay) {
    if (!listening_) return;
    watched& w = watched_[e.serial];
    if (replay) w.told = s.replay;
    aim(e, s, w);
}

void replay_watch::end(const entry& e) {
    if (!listening_) return;
    watched_.erase(e.serial);
    timers_.disarm(e.serial);
}

void replay_watch::aim(const entry& e, const ipsec::sa& s, const watched& w) {
    const std::uint64_t distance = w.deferred ? 1 : s.replay_threshold;
    const bool reached =
        distance == 0
            ? backend_.watch_replay(e.id, never, never)
            : backend_.watch_replay(e.id, goal_from(w.told.sent, distance, s.replay.sent),
                                    goal_from(w.told.received, distance, s.replay.received));
    if (reached) reached_.push_back(e.serial);
}

void replay_watch::announce(const entry& e, const ipsec::sa& s, watched& w, sa_moved::cause why,
                            moment now) {
    w.told = s.replay;
    out_.announce(sa_moved{s, why, {}});
    if (s.replay_timer != 0) {
        w.deferred = false;
        timers_.arm(e.serial, static_cast<std::int64_t>(now.monotonic_ns) + period_of(s));
    }
    aim(e, s, w);
}

void replay_watch::on_reached(const entry& e, moment now) {
    const auto found = watched_.find(e.serial);
    if (found == watched_.end()) return;
    watched& w = found->second;
    const ipsec::sa s = describe_(e);
    const std::uint64_t threshold = s.replay_threshold;
    const bool far = s.replay.sent - w.told.sent >= threshold ||
                     s.replay.received - w.told.received >= threshold;
    if (threshold != 0 && far)
        announce(e, s, w, sa_moved::cause::threshold, now);
    else if (w.deferred && s.replay != w.told)
        announce(e, s, w, sa_moved::cause::timer, now);
    else
        aim(e, s, w);
}

void replay_watch::on_timer(const entry& e, moment now) {
    const auto found = watched_.find(e.serial);
    if (found == watched_.end()) return;
    watched& w = found->second;
    const ipsec::sa s = describe_(e);
    if (s.replay != w.told) {
        announce(e, s, w, sa_moved::cause::timer, now);
        return;
    }
    w.deferred = true;
    aim(e, s, w);
}

void replay_watch::tick(moment now) {
    if (!listening_) return;
    begin_some(now);
    for (const std::uint64_t serial : std::exchange(reached_, {}))
        if (const entry* e = sad_.find_serial(serial)) on_reached(*e, now);
    while (const auto serial = timers_.take_due(static_cast<std::int64_t>(now.monotonic_ns)))
        if (const entry* e = sad_.find_serial(*serial)) on_timer(*e, now);
}

std::optional<std::int64_t> replay_watch::next_ns() const {
    if (to_begin_ != 0 || !reached_.empty()) return 0;
    return timers_.next_ns();
}

} // namespace esplane::control

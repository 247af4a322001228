// SPDX-License-Identifier: Apache-2.0
#include "lib/control/sa_keeper.h"

#include <algorithm>
#include <array>
#include <utility>

#include "lib/control/batch.h"

namespace esplane::control {

namespace {

using ipsec::lifetime_verdict;
using ipsec::sa_state;

constexpr std::int64_t ns_per_s = 1'000'000'000;

constexpr std::uint8_t protocol_any = 255; ///< IPSEC_PROTO_ANY

/// ACQUIREs under way at a time.  A wide transport-mode policy wants an SA for each pair of hosts,
/// and whoever sends chooses those.
constexpr std::size_t max_acquiring = 4096;

/// xfrm_id_proto_match()
bool protocol_matches(std::uint8_t protocol, std::uint8_t wanted) noexcept {
    return wanted == 0 || wanted == protocol_any || wanted == protocol;
}

/// The first look at a limit comes a second after it was set, even at one that has passed: the
/// client hears of its SA before it hears that the SA is gone.
std::int64_t first_check_ns(std::int64_t due_ns, moment now) noexcept {
    return std::max(due_ns, static_cast<std::int64_t>(now.monotonic_ns) + ns_per_s);
}

/// A selector for the pair of hosts, without a family, as the kernel's __find_acq_core() makes it.
ipsec::selector host_pair(const ipsec::address& source, const ipsec::address& destination) {
    ipsec::selector sel;
    sel.source = source;
    sel.destination = destination;
    sel.source_prefix = ipsec::address_bits(source.fam);
    sel.destination_prefix = ipsec::address_bits(destination.fam);
    return sel;
}

ipsec::sa make_larval(const spi_request& r, wire::be32 spi, std::uint32_t expires_s) {
    ipsec::sa s;
    s.id = {r.destination, spi, r.protocol, r.mark};
    s.source = r.source;
    s.sel = host_pair(r.source, r.destination);
    s.run_mode = r.run_mode;
    s.reqid = r.reqid;
    s.if_id = r.if_id;
    s.dir = r.dir;
    s.pcpu = r.pcpu;
    s.state = sa_state::larval;
    s.limits.hard_add_s = expires_s;
    return s;
}

/// __xfrm4_init_tempsel(): this flow alone.  The kernel names the interface it leaves by, too.
ipsec::selector selector_of(const ipsec::flow& f) {
    ipsec::selector sel = host_pair(f.source, f.destination);
    sel.fam = f.source.fam;
    sel.protocol = f.protocol;
    sel.source_port = f.source_port;
    sel.destination_port = f.destination_port;
    sel.source_port_mask = sel.destination_port_mask = wire::be16(0xffff);
    return sel;
}

/// xfrm_init_tempstate(): addresses that the template leaves open are the flow's.
ipsec::sa make_wanted(const ipsec::policy& p, const ipsec::flow& f,
                      std::optional<std::uint32_t> cpu, std::uint32_t expires_s) {
    const ipsec::template_& wanted = p.templates.front();
    ipsec::sa s;
    s.id = wanted.id;
    s.id.mark = p.mark;
    s.source = wanted.source;
    if (wanted.run_mode == ipsec::mode::transport) {
        if (s.id.destination.is_any()) s.id.destination = f.destination;
        if (s.source.is_any()) s.source = f.source;
    }
    s.sel = selector_of(f);
    s.run_mode = wanted.run_mode;
    s.reqid = wanted.reqid;
    s.if_id = p.if_id;
    s.pcpu = cpu;
    s.dir = ipsec::direction::out;
    s.state = sa_state::larval;
    s.limits.hard_add_s = expires_s;
    return s;
}

/// What an update may change of a valid SA.
void merge(ipsec::sa& into, const ipsec::sa& from) {
    into.encap = from.encap;
    if (from.if_id != 0) into.if_id = from.if_id;
    if (from.output_mark.given()) into.output_mark = from.output_mark;
    if (into.care_of && from.care_of) into.care_of = from.care_of;
    into.limits = from.limits;
    into.dying = false;
}

} // namespace

sa_place place_of(const ipsec::sa& s) {
    return {s.id, s.source, s.encap, s.dying};
}

sa_keeper::sa_keeper(backend& b, const announcer& out, random_source random)
    : backend_(b)
    , out_(out)
    , random_(std::move(random))
    , replays_(b, out, sad_, [this](const entry& e) { return as_it_is(e); }) {}

result<void> sa_keeper::add(ipsec::sa s, ipsec::originator by, moment now) {
    if (sad_.find(s.id) != nullptr) return fail(EEXIST);
    auto packed = admit(s, now);
    if (!packed) return tl::unexpected(std::move(packed.error()));
    insert(s, std::move(*packed), now);
    end_acquire(s);
    out_.announce(ipsec::sa_added{s, by});
    return {};
}

result<void> sa_keeper::restore(ipsec::sa s, moment now) {
    if (sad_.find_exact(s.id) != nullptr) return fail(EEXIST);
    const bool dying = s.dying;
    auto packed = admit(s, now);
    if (!packed) return tl::unexpected(std::move(packed.error()));
    s.dying = dying;
    entry& e = insert(s, std::move(*packed), now);
    if (dying) keep_dying(e, s);
    out_.announce(ipsec::sa_added{s, {}});
    return {};
}

/// The data path has not seen it yet: there it may go and come.
result<void> sa_keeper::restore_again(ipsec::sa s, moment now) {
    entry* const e = sad_.find_exact(s.id);
    if (e == nullptr) return fail(ESRCH);
    const bool dying = s.dying;
    backend_.delete_sa(s.id);
    auto packed = admit(s, now);
    if (!packed) {
        drop(*e);
        return tl::unexpected(std::move(packed.error()));
    }
    s.dying = dying;
    timers_.disarm(e->serial);
    begin_life(*e, s, now);
    e->keep(s, std::move(*packed));
    if (dying) keep_dying(*e, s);
    out_.announce(ipsec::sa_updated{s, {}});
    return {};
}

void sa_keeper::keep_dying(entry& e, const ipsec::sa& s) {
    e.keep(s);
    (void)backend_.update_sa(s); // a template takes another one, if it can
}

/// Not remove(): what a mark stands for does not matter here.
void sa_keeper::withdraw(const ipsec::sa_id& id) {
    if (entry* const e = sad_.find_exact(id)) remove(*e, {});
}

void sa_keeper::begin_from(const ipsec::sa_id& id, const sa_usage& n, moment now) {
    entry* const e = sad_.find_exact(id);
    if (e == nullptr) return;
    backend_.begin_from(id, n);
    if (e->was_used() || n.current.use_time == 0) return;
    e->set_origin({e->origin().added_ns, ipsec::monotonic_of(n.current.use_time, now)});
    timers_.disarm(e->serial);
    start_timer(*e, e->describe().limits, now);
}

/// Makes `s` a valid SA of the backend.  Returns what both keep of it.
result<ipsec::packed_sa> sa_keeper::admit(ipsec::sa& s, moment now) const {
    s.state = sa_state::valid;
    s.dying = false;
    if (s.current.add_time == 0) s.current.add_time = now.realtime_s;
    ipsec::packed_sa packed(s);
    if (auto r = backend_.add_sa(s, packed); !r) return tl::unexpected(std::move(r.error()));
    return packed;
}

sa_keeper::entry& sa_keeper::insert(const ipsec::sa& s, ipsec::packed_sa packed, moment now) {
    entry& e = sad_.insert(s, std::move(packed));
    begin_life(e, s, now);
    if (s.state == sa_state::valid) replays_.begin(e, s, now);
    return e;
}

void sa_keeper::begin_life(entry& e, const ipsec::sa& s, moment now) {
    redate(e, s.current, now);
    start_timer(e, s.limits, now);
}

/// Its limits in time count from the times that a client gave.
void sa_keeper::redate(entry& e, const ipsec::lifetime_current& times, moment now) {
    ipsec::lifetime_origin origin{ipsec::monotonic_of(times.add_time, now), {}};
    if (times.use_time != 0) origin.used_ns = ipsec::monotonic_of(times.use_time, now);
    e.set_origin(origin);
}

void sa_keeper::start_timer(const entry& e, const ipsec::lifetime_limits& limits, moment now) {
    if (const auto due_ns = ipsec::first_time_limit(limits, e.origin()))
        timers_.arm(e.serial, first_check_ns(*due_ns, now));
}

result<void> sa_keeper::update(ipsec::sa s, ipsec::originator by, moment now) {
    entry* e = sad_.find(s.id);
    if (e == nullptr) return fail(ESRCH);
    if (e->state == sa_state::larval) return fill_larval(*e, std::move(s), by, now);
    return change_valid(*e, std::move(s), by, now);
}

result<void> sa_keeper::fill_larval(entry& larval, ipsec::sa s, ipsec::originator by, moment now) {
    if (s.dir != ipsec::direction::unknown && s.dir != larval.describe().dir) return fail(ESRCH);
    auto packed = admit(s, now);
    if (!packed) return tl::unexpected(std::move(packed.error()));
    drop(larval);
    insert(s, std::move(*packed), now);
    out_.announce(ipsec::sa_updated{s, by});
    return {};
}

/// The event carries what the client sent, not what came of it: so does the kernel's.
result<void> sa_keeper::change_valid(entry& e, ipsec::sa s, ipsec::originator by, moment now) {
    ipsec::sa merged = as_it_is(e);
    if (s.dir != merged.dir) return fail(ESRCH);
    if (s.encap.has_value() != merged.encap.has_value())
        return fail(EINVAL); // it cannot be added to or taken from an SA in use
    merge(merged, s);
    if (auto r = backend_.update_sa(merged); !r) return r;
    e.keep(merged);
    timers_.disarm(e.serial);
    start_timer(e, merged.limits, now);
    if (s.current.add_time == 0) s.current.add_time = now.realtime_s;
    auto verdict = lifetime_verdict::running;
    if (merged.current.use_time != 0) // the kernel does not look at an SA that nobody has used
        verdict = ipsec::check_count_limits(merged.limits, merged.current, merged.dying);
    if (verdict == lifetime_verdict::soft) expire(e, verdict); // at once; a hard one by the timer
    out_.announce(ipsec::sa_updated{s, by});
    if (verdict == lifetime_verdict::hard) {
        spent_.insert(e.serial);
        timers_.arm(e.serial, static_cast<std::int64_t>(now.monotonic_ns));
    }
    return {};
}

result<void> sa_keeper::remove(const ipsec::sa_id& id, ipsec::originator by) {
    entry* e = sad_.find(id);
    if (e == nullptr) return fail(ESRCH);
    remove(*e, by);
    return {};
}

void sa_keeper::flush(std::uint8_t protocol, ipsec::originator by) {
    const auto newest_from = [&](std::uint64_t serial) {
        entry* e = sad_.newest_from(serial);
        while (e != nullptr && !protocol_matches(e->id.protocol, protocol))
            e = sad_.newest_from(e->serial - 1);
        return e;
    };
    entry* e = newest_from(~std::uint64_t{0});
    if (e == nullptr) return;
    out_.announce(ipsec::sa_flushed{protocol, by});
    const batch together(backend_);
    while (e != nullptr) {
        const std::uint64_t serial = e->serial;
        drop(*e);
        e = newest_from(serial - 1);
    }
}

/// xfrm_state_add(): by `seq` where that names one, else by what it was for.  Nobody is told.
void sa_keeper::end_acquire(const ipsec::sa& answer) {
    entry* larval = sad_.find_acquiring(answer.seq);
    if (larval != nullptr &&
        (larval->id.protocol != answer.id.protocol ||
         larval->id.destination != answer.id.destination || larval->describe().pcpu != answer.pcpu))
        larval = nullptr;
    if (larval == nullptr) {
        larval = sad_.find_acquiring(ipsec::acquire_key_of(answer));
        if (larval != nullptr && larval->id.spi != wire::be32()) larval = nullptr;
    }
    if (larval != nullptr) drop(*larval);
}

void sa_keeper::acquire(const ipsec::policy& p, const ipsec::flow& f,
                        std::optional<std::uint32_t> cpu, moment now) {
    ipsec::sa wanted = make_wanted(p, f, cpu, acquire_expires_s_);
    if (sad_.acquiring() >= max_acquiring) return;
    if (sad_.find_acquiring(ipsec::acquire_key_of(wanted)) != nullptr) return;
    if (sad_.find(wanted.id) != nullptr) return; // another template's, or it has a selector
    if (++acquire_seq_ == 0) ++acquire_seq_;
    wanted.seq = acquire_seq_;
    wanted.current.add_time = now.realtime_s;
    begin_life(sad_.insert_acquiring(wanted), wanted, now);
    out_.announce(ipsec::acquire{wanted, p, p.templates.front()});
}

/// xfrm_add_acquire(): km_query() for each template.
void sa_keeper::announce_acquire(ipsec::sa wanted, const ipsec::policy& p) {
    for (const ipsec::template_& t : p.templates) {
        if (++acquire_seq_ == 0) ++acquire_seq_;
        wanted.seq = acquire_seq_;
        wanted.id = t.id;
        wanted.run_mode = t.run_mode;
        wanted.reqid = t.reqid;
        out_.announce(ipsec::acquire{wanted, p, t});
    }
}

const ipsec::sa* sa_keeper::find_between(const ipsec::sa_move& m, std::uint32_t if_id) {
    const auto is_about = [&](const ipsec::sa& s) {
        return s.run_mode == m.run_mode && (m.reqid == 0 || s.reqid == m.reqid) &&
               (if_id == 0 || s.if_id == if_id) && s.source == m.old_source;
    };
    for (entry* e = sad_.newest_from(~std::uint64_t{0}); e != nullptr;
         e = sad_.newest_from(e->serial - 1)) {
        if (e->id.protocol != m.protocol || e->id.destination != m.old_destination) continue;
        if (ipsec::sa s = e->describe(); is_about(s)) return &show(std::move(s));
    }
    return nullptr;
}

result<void> sa_keeper::may_relocate(const ipsec::sa_id& id, const ipsec::sa_id& to) {
    const entry* e = sad_.find_exact(id);
    if (e == nullptr || e->state == sa_state::larval) return fail(EINVAL);
    if (to != id && sad_.find(to) != nullptr) return fail(EEXIST);
    return {};
}

result<void> sa_keeper::relocate(const ipsec::sa_id& id, const sa_place& to, moment now) {
    if (auto ok = may_relocate(id, to.id); !ok) return ok;
    entry* e = sad_.find_exact(id);
    ipsec::sa s = as_it_is(*e);
    s.id = to.id;
    s.source = to.source;
    s.encap = to.encap;
    s.dying = to.dying;
    if (auto r = backend_.move_sa(id, s); !r) return r;
    timers_.disarm(e->serial);
    replays_.end(*e);
    sad_.erase(*e);
    insert(s, ipsec::packed_sa(s), now);
    if (to.id != id) end_acquire(s);
    return {};
}

/// xfrm_update_ae_params(): limits that have passed are looked at by the timer, not now.
result<void> sa_keeper::give_replay(const ipsec::sa_id& id, const replay_gift& g,
                                    ipsec::originator by, moment now) {
    entry* e = sad_.find(id);
    if (e == nullptr) return fail(ESRCH);
    if (e->state != sa_state::valid) return fail(EINVAL, "SA must be in VALID state");
    ipsec::sa s = as_it_is(*e);
    if (g.replay) s.replay = *g.replay;
    if (g.replay_window) s.replay_window = *g.replay_window;
    if (g.current) s.current = *g.current;
    if (g.replay_threshold) s.replay_threshold = *g.replay_threshold;
    if (g.replay_timer) s.replay_timer = *g.replay_timer;
    if (g.mapping_threshold) s.mapping_threshold = *g.mapping_threshold;
    const given_parts parts{g.replay.has_value(), g.current.has_value()};
    if (parts.replay || parts.counters || g.mapping_threshold)
        if (auto r = backend_.set_replay(s, parts); !r) return r;
    e->keep(s);
    if (g.current) begin_life(*e, s, now);
    replays_.change(*e, s, parts.replay);
    out_.announce(ipsec::sa_moved{s, ipsec::sa_moved::cause::given, by});
    return {};
}

/// xfrm_add_sa_expire(): the SA is not what it says, but listeners are to believe that.
result<void> sa_keeper::expire_now(const ipsec::sa_id& id, bool hard, ipsec::originator by) {
    entry* e = sad_.find(id);
    if (e == nullptr) return fail(ENOENT);
    if (e->state != sa_state::valid) return fail(EINVAL, "SA must be in VALID state");
    out_.announce(ipsec::sa_expired{as_it_is(*e), hard, by});
    if (hard) drop(*e);
    return {};
}

/// The larval SA of an ACQUIRE that a request for an SPI is about: xfrm_alloc_userspi().
sa_keeper::entry* sa_keeper::asked_for(const spi_request& r) {
    entry* larval = sad_.find_acquiring(r.seq);
    if (larval != nullptr && larval->id.destination == r.destination &&
        larval->describe().pcpu == r.pcpu)
        return larval;
    larval = sad_.find_acquiring(ipsec::acquire_key{r.destination, r.source, r.protocol, r.run_mode,
                                                    r.reqid, r.if_id, r.mark, r.pcpu});
    return larval != nullptr && larval->id.spi == wire::be32() ? larval : nullptr;
}

/// A request's `seq` finds the larval SA of an ACQUIRE and is not kept otherwise, as in the kernel.
result<std::reference_wrapper<const ipsec::sa>> sa_keeper::allocate_spi(const spi_request& r,
                                                                        moment now) {
    if (r.min > r.max) return fail(EINVAL, "Invalid SPI range: min > max");
    entry* const asked = asked_for(r);
    if (asked != nullptr && asked->id.spi != wire::be32()) return show(asked->describe());
    const auto spi = free_spi(r);
    if (!spi) return fail(ENOENT, "No SPI available in the requested range");
    if (asked != nullptr) {
        sad_.give_spi(*asked, *spi);
        return show(asked->describe());
    }
    ipsec::sa larval = make_larval(r, *spi, acquire_expires_s_);
    larval.current.add_time = now.realtime_s;
    insert(larval, ipsec::packed_sa(larval), now);
    return show(std::move(larval));
}

/// From a random start upwards.  Of more candidates than there are SAs one is free.
std::optional<wire::be32> sa_keeper::free_spi(const spi_request& r) {
    std::array<std::uint8_t, 8> bytes{};
    random_(bytes);
    const std::uint64_t span = std::uint64_t{r.max} - r.min + 1;
    const std::uint64_t start = wire::load<std::uint64_t>(bytes.data()) % span;
    const std::uint64_t candidates = std::min<std::uint64_t>(span, sad_.size() + 2); // 0 is none
    for (std::uint64_t i = 0; i < candidates; ++i) {
        const auto value = static_cast<std::uint32_t>(r.min + (start + i) % span);
        const wire::be32 spi(value);
        if (value != 0 && !sad_.knows_spi(spi, r.protocol)) return spi;
    }
    return std::nullopt;
}

const ipsec::sa* sa_keeper::get(const ipsec::sa_id& id) {
    const entry* e = sad_.find(id);
    return e == nullptr ? nullptr : &show(as_it_is(*e));
}

const ipsec::sa* sa_keeper::next(cursor& c) {
    const entry* e = sad_.newest_from(c.next);
    if (e == nullptr) return nullptr;
    c.next = e->serial - 1;
    return &show(as_it_is(*e));
}

ipsec::sa sa_keeper::as_it_is(const entry& e) const {
    ipsec::sa s = e.describe();
    sa_usage usage;
    if (e.state == sa_state::larval || !backend_.query_sa(e.id, usage)) return s;
    usage.current.add_time = s.current.add_time;
    s.current = usage.current;
    s.last_used = usage.last_used;
    const std::size_t words = s.replay.bitmap.size(); // a client's may be longer than needed
    s.replay = std::move(usage.replay);
    if (s.replay.bitmap.size() < words) s.replay.bitmap.resize(words);
    s.statistics = usage.statistics;
    return s;
}

const ipsec::sa& sa_keeper::show(ipsec::sa s) {
    shown_ = std::move(s);
    return shown_;
}

void sa_keeper::drop(entry& e) {
    if (e.state != sa_state::larval) backend_.delete_sa(e.id);
    timers_.disarm(e.serial);
    spent_.erase(e.serial);
    replays_.end(e);
    sad_.erase(e);
    shown_.algs = {}; // it may be this one's description that was asked for last: keys end with it
}

void sa_keeper::remove(entry& e, ipsec::originator by) {
    out_.announce(ipsec::sa_deleted{as_it_is(e), by});
    drop(e);
}

void sa_keeper::expire(entry& e, lifetime_verdict verdict) {
    if (verdict == lifetime_verdict::hard) {
        out_.announce(ipsec::sa_expired{as_it_is(e), true, {}});
        drop(e);
    } else if (verdict == lifetime_verdict::soft) {
        ipsec::sa s = as_it_is(e);
        s.dying = true;
        keep_dying(e, s);
        out_.announce(ipsec::sa_expired{s, false, {}});
    }
}

void sa_keeper::tick(moment now) {
    replays_.tick(now);
    const auto now_ns = static_cast<std::int64_t>(now.monotonic_ns);
    if (const auto first = timers_.next_ns(); !first || *first > now_ns) return;
    const batch together(backend_);
    while (const auto serial = timers_.take_due(now_ns))
        check_time(*sad_.find_serial(*serial), now_ns);
}

std::optional<std::int64_t> sa_keeper::next_deadline_ns() const {
    const auto limit = timers_.next_ns();
    const auto replay = replays_.next_ns();
    return limit && replay ? std::min(*limit, *replay) : limit ? limit : replay;
}

void sa_keeper::check_time(entry& e, std::int64_t now_ns) {
    if (spent_.contains(e.serial)) {
        expire(e, lifetime_verdict::hard);
        return;
    }
    const ipsec::sa s = e.describe();
    const auto check = ipsec::check_time_limits(s.limits, e.origin(), s.dying, now_ns);
    if (check.next_ns) timers_.arm(e.serial, *check.next_ns);
    expire(e, check.verdict);
}

void sa_keeper::on_lifetime(const ipsec::sa_id& id, bool hard) {
    entry* e = sad_.find_exact(id);
    if (e == nullptr || (!hard && e->describe().dying)) return;
    expire(*e, hard ? lifetime_verdict::hard : lifetime_verdict::soft);
}

void sa_keeper::on_mapping(const ipsec::sa_id& id, const ipsec::address& source, wire::be16 port) {
    const entry* e = sad_.find_exact(id);
    if (e == nullptr) return;
    const ipsec::sa s = e->describe();
    if (!s.encap || (s.source == source && s.encap->source_port == port)) return; // it knows by now
    out_.announce(ipsec::sa_mapping{s, source, port});
}

void sa_keeper::on_replay(const ipsec::sa_id& id, moment now) {
    if (entry* e = sad_.find_exact(id)) replays_.on_reached(*e, now);
}

void sa_keeper::on_first_use(const ipsec::sa_id& id, moment now) {
    entry* e = sad_.find_exact(id);
    if (e == nullptr || e->was_used()) return;
    const ipsec::sa s = as_it_is(*e);
    const std::uint64_t used = s.current.use_time;
    e->set_origin(
        {e->origin().added_ns, ipsec::monotonic_of(used != 0 ? used : now.realtime_s, now)});
    if (s.limits.soft_use_s != 0 || s.limits.hard_use_s != 0) // others have their time already
        check_time(*e, static_cast<std::int64_t>(now.monotonic_ns));
}

} // namespace esplane::control

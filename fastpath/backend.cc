// SPDX-License-Identifier: Apache-2.0
#include "fastpath/backend.h"

#include <algorithm>

#include "fastpath/backend_records.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

/// Whether its worker has yet to go on from the replay state that a client gave and that is
/// described.
bool waits_for_worker(const sa_limits& l) noexcept {
    const given_state* const waits = l.given.load(std::memory_order_acquire);
    return waits != nullptr && waits->replay;
}

} // namespace

/// The kernel's words.
result<void> check_transport(const ipsec::sa& s) {
    if (s.run_mode != ipsec::mode::transport || s.sel.fam == family::unspecified ||
        s.sel.fam == s.id.destination.fam)
        return {};
    return fail(EPROTONOSUPPORT, "Only tunnel modes can accommodate a change of family", "sel");
}

user_backend::user_backend(tables& shared, control::random_source random)
    : shared_(shared)
    , nonces_(std::move(random))
    , spreads_(shared) {}

user_backend::~user_backend() {
    begin_batch();
    policies_.each([this](policy_record& p) {
        take_out_with_former(&p);
        return true;
    });
    std::vector<ipsec::sa_id> ids;
    sas_.each([&](const sa_record& r) {
        ids.push_back(r.id);
        return true;
    });
    for (const ipsec::sa_id& id : ids)
        delete_sa(id);
    end_batch();
}

/// While a worker is stuck nothing that is deleted can be freed, so not more than this is added.
result<void> user_backend::check_memory() const {
    if (!shared_.graveyard().full()) return {};
    return fail(ENOBUFS, "a worker is stuck and too much waits for it to be freed: see `esplane "
                         "workers`");
}

result<void> user_backend::add_sa(const ipsec::sa& s, const ipsec::packed_sa& packed) {
    if (auto room = check_memory(); !room) return room;
    if (s.id.protocol != wire::proto_esp)
        return fail(EOPNOTSUPP, "only ESP is carried", "id.proto");
    if (auto ok = check_transport(s); !ok) return ok;
    auto key = crypto::key::make(s.algs);
    if (!key) return tl::unexpected(key.error());
    nonce_lease nonces;
    if (ipsec::is_aead(s.algs.run)) { // a counter mode
        auto space = nonces_.space_for(s.algs.aead.key);
        if (!space) return tl::unexpected(space.error());
        nonces = std::move(*space);
    }
    auto made = std::make_unique<sa_record>();
    sa_record& r = *made;
    r.id = s.id;
    r.serial = ++serial_;
    r.share(s, packed);
    r.key = std::move(*key);
    r.nonces = std::move(nonces);
    if (s.dir != ipsec::direction::out) {
        r.in = make_in(r, s);
        r.in->in_force.store(true, std::memory_order_release);
        shared_.inbound().insert(r.in.get());
    }
    file(r, 1);
    sas_.insert(made.release());
    resolve_added(r, s);
    settle_later();
    return {};
}

auto user_backend::find(const ipsec::sa_id& id) const -> sa_record* {
    return sas_.find(by_id{}(id), [&](const sa_record& r) { return r.id == id; });
}

result<void> user_backend::update_sa(const ipsec::sa& s) {
    sa_record* const found = find(s.id);
    if (found == nullptr) return fail(ESRCH);
    sa_record& r = *found;
    if (r.seldom().is_spread()) unspread(r); // its shares are made anew
    ipsec::sa now = r.describe();
    const bool tell_again = now.limits != s.limits || (now.dying && !s.dying);
    now.limits = s.limits;
    now.dying = s.dying;
    now.if_id = s.if_id;
    now.output_mark = s.output_mark;
    r.keep(now);
    write_marks(r, now);
    if (r.in) r.in->if_id.store(s.if_id, std::memory_order_relaxed);
    if (r.out) r.out->if_id.store(s.if_id, std::memory_order_relaxed);
    if (tell_again) publish_limits(r, now.limits);
    result<void> done;
    if (s.encap != now.encap && s.encap && now.encap) done = change_encap(r, std::move(now), s);
    resolve_all(r.where());
    settle();
    return done;
}

void user_backend::delete_sa(const ipsec::sa_id& id) {
    sa_record* const found = find(id);
    if (found == nullptr) return;
    const std::shared_ptr<sa_record> r(found);
    sas_.erase(found);
    r->end_force();
    file(*r, -1);
    if (r->in) shared_.inbound().erase(r->in.get());
    if (r->out) shared_.outbound().remove(*r->out);
    gather(*r);
    resolve_gone(*r);
    shared_.graveyard().add([r] {});
    settle();
}

bool user_backend::query_sa(const ipsec::sa_id& id, control::sa_usage& into) {
    const sa_record* const found = find(id);
    if (found == nullptr) return false;
    const sa_record& r = *found;
    const ipsec::sa described = r.describe();
    const bool has_worker = r.in || r.out; // until then all is as a client gave it
    into.current = {};
    into.current.use_time = has_worker ? 0 : described.current.use_time;
    into.last_used = has_worker ? 0 : described.last_used;
    into.replay = described.replay;
    into.statistics = described.statistics;
    const sa_counts counted = r.counts();
    into.current.packets = counted.packets;
    into.current.bytes = counted.bytes;
    into.statistics.integrity_failed += static_cast<std::uint32_t>(counted.integrity_failed);
    into.statistics.replay += static_cast<std::uint32_t>(counted.replay);
    into.statistics.replay_window += static_cast<std::uint32_t>(counted.replay_too_old);
    const auto add = [&](const sa_account& a, const sa_limits& l) {
        into.last_used = std::max(into.last_used, a.last_used.get());
        const given_state* const waits = l.given.load(std::memory_order_acquire);
        const std::uint64_t first =
            waits != nullptr && waits->counters ? waits->use_time : l.use_time.get();
        if (first != 0 && (into.current.use_time == 0 || first < into.current.use_time))
            into.current.use_time = first;
    };
    if (r.in) {
        add(r.in->account, r.in->limits);
        if (!waits_for_worker(r.in->limits) && r.in->window.size() != 0) {
            into.replay.received = r.in->window.highest();
            into.replay.bitmap = r.in->window.snapshot();
        }
    }
    if (r.out) {
        add(r.out->account, r.out->limits);
        if (!waits_for_worker(r.out->limits)) into.replay.sent = r.out->sequence_sent.get();
        if (const auto& all = r.seldom().spread_out_now) {
            into.replay.sent = std::max(into.replay.sent, all->sequence());
            for (const auto& share : all->shares)
                add(share->account, share->limits);
        }
    }
    return true;
}

void user_backend::set_path_mtu(const ipsec::sa_id& id, std::uint32_t mtu) {
    sa_record* const r = find(id);
    if (r == nullptr) return;
    r->path_mtu = mtu;
    if (r->out) r->out->path_mtu.store(mtu, std::memory_order_relaxed);
    const auto& all = r->seldom().spread_out_now;
    if (!all) return;
    for (const auto& share : all->shares)
        share->path_mtu.store(mtu, std::memory_order_relaxed);
}

/// The port a peer sends ESP to: ours, of an SA that may be inbound; the source port of one that is
/// outbound.
void user_backend::count_encap(const sa_record& r,
                               const std::optional<ipsec::udp_encapsulation>& encap, int by) {
    if (!encap) return;
    const wire::be16 port = r.out ? encap->source_port : encap->destination_port;
    int& users = encap_users_[port];
    const bool before = users != 0;
    users += by;
    if (before == (users != 0)) return;
    shared_.set_encap_port(port, users != 0);
    if (users == 0) encap_users_.erase(port);
    if (encap_changed_) encap_changed_();
}

std::vector<wire::be16> user_backend::encap_ports() const {
    std::vector<wire::be16> ports;
    for (const auto& [port, users] : encap_users_)
        ports.push_back(port);
    return ports;
}

/// What was added is there already: what it took the place of may wait.
void user_backend::settle_later() {
    constexpr std::size_t enough = 256;
    if (shared_.graveyard().fresh() >= enough) settle();
}

/// The effect of a call is there when it returns: what was taken out is out of every worker's
/// sight.
void user_backend::settle() {
    if (!in_batch_) shared_.graveyard().reclaim();
}

void user_backend::end_batch() {
    in_batch_ = false;
    settle();
}

void user_backend::deliver(const worker_event& e) {
    if (listener_ == nullptr) return;
    switch (e.kind) {
    case worker_event_kind::sa_first_use:
        listener_->on_first_use(e.id);
        break;
    case worker_event_kind::sa_soft_limit:
        listener_->on_lifetime(e.id, false);
        break;
    case worker_event_kind::sa_hard_limit:
        listener_->on_lifetime(e.id, true);
        break;
    case worker_event_kind::sa_moved:
        listener_->on_replay(e.id);
        break;
    case worker_event_kind::sa_wanted:
        if (is_wanted(e))
            listener_->on_sa_wanted(e.policy, e.flow,
                                    e.of_cpu ? std::optional(cpu_of(e.worker)) : std::nullopt);
        break;
    case worker_event_kind::sa_mapping:
        listener_->on_mapping(e.id, e.source, e.port);
        break;
    case worker_event_kind::neighbour_wanted:
    case worker_event_kind::path_limit:
        break; // not about an SA: whoever polls the ring knows
    }
}

} // namespace esplane::fastpath

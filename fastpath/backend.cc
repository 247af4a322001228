// SPDX-License-Identifier: Apache-2.0
#include "fastpath/backend.h"

#include <algorithm>

#include "fastpath/backend_records.h"
#include "fastpath/barrier.h"
#include "fastpath/succession.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

constexpr std::uint8_t outer_hop_limit = 64;

bool narrows(const ipsec::selector& s) noexcept {
    return s.source_prefix != 0 || s.destination_prefix != 0 || s.protocol != 0 ||
           s.source_port_mask != wire::be16() || s.destination_port_mask != wire::be16();
}

/// Of a limit, what is left when some was counted elsewhere.
std::uint64_t left_of(std::uint64_t limit, std::uint64_t elsewhere) noexcept {
    const auto counted = static_cast<std::int64_t>(elsewhere);
    if (limit == ipsec::no_limit || counted <= 0) return limit;
    return limit - std::min(limit, elsewhere);
}

/// `elsewhere` was counted for the SA, but not in this account.
void write_limits(sa_limits& to, sa_account& account, const ipsec::lifetime_limits& from,
                  const sa_counts& elsewhere = {}) noexcept {
    constexpr auto relaxed = std::memory_order_relaxed;
    to.soft_packets.store(left_of(from.soft_packets, elsewhere.packets), relaxed);
    to.hard_packets.store(left_of(from.hard_packets, elsewhere.packets), relaxed);
    to.soft_bytes.store(left_of(from.soft_bytes, elsewhere.bytes), relaxed);
    to.hard_bytes.store(left_of(from.hard_bytes, elsewhere.bytes), relaxed);
    to.soft_told.store(false, relaxed);
    to.hard_told.store(false, relaxed);
    ask_to_look(to, account);
}

/// Whether its worker has yet to go on from the replay state that a client gave and that is
/// described.
bool waits_for_worker(const sa_limits& l) noexcept {
    const given_state* const waits = l.given.load(std::memory_order_acquire);
    return waits != nullptr && waits->replay;
}

/// What an SA in transport mode carries: packets from its source to its destination (the kernel's
/// xfrm_state_find), of those what its selector covers.
ipsec::selector selector_between(const ipsec::sa& s) noexcept {
    ipsec::selector sel = s.sel;
    sel.fam = s.id.destination.fam;
    sel.destination = s.id.destination;
    sel.destination_prefix = ipsec::address_bits(s.id.destination.fam);
    if (s.source.is_any()) return sel;
    sel.source = s.source;
    sel.source_prefix = ipsec::address_bits(s.source.fam);
    return sel;
}

/// The outer header of a tunnel.  Returns its length.
std::size_t write_outer(std::uint8_t* at, const ipsec::sa& s) noexcept {
    const std::uint8_t protocol = s.encap ? wire::proto_udp : wire::proto_esp;
    if (s.id.destination.fam == family::ipv4) {
        wire::ipv4_header ip{};
        ip.version_ihl = 0x45;
        ip.ttl = outer_hop_limit;
        ip.protocol = protocol;
        ip.source = s.source.as_v4();
        ip.destination = s.id.destination.as_v4();
        ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
        wire::store(at, ip);
        return sizeof ip;
    }
    wire::ipv6_header ip{};
    ip.next_header = protocol;
    ip.hop_limit = outer_hop_limit;
    ip.source = s.source.bytes;
    ip.destination = s.id.destination.bytes;
    wire::store(at, ip);
    return sizeof ip;
}

std::size_t template_length(const ipsec::sa& s) noexcept {
    const std::size_t ip = s.id.destination.fam == family::ipv4 ? sizeof(wire::ipv4_header)
                                                                : sizeof(wire::ipv6_header);
    return (s.run_mode == ipsec::mode::tunnel ? ip : 0) + (s.encap ? sizeof(wire::udp_header) : 0) +
           sizeof(wire::esp_header);
}

/// Outer header (tunnel mode), UDP header and ESP header with everything that never changes, at the
/// end of `into`.  Returns their length.
std::uint8_t write_template(std::array<std::uint8_t, sa_out::template_size>& into,
                            const ipsec::sa& s) noexcept {
    const std::size_t length = template_length(s);
    into.fill(0);
    std::size_t at = into.size() - length;
    if (s.run_mode == ipsec::mode::tunnel) at += write_outer(into.data() + at, s);
    if (s.encap) {
        wire::udp_header udp{};
        udp.source = s.encap->source_port;
        udp.destination = s.encap->destination_port;
        wire::store(into.data() + at, udp);
        at += sizeof udp;
    }
    wire::esp_header esp{};
    esp.spi = s.id.spi;
    wire::store(into.data() + at, esp);
    return static_cast<std::uint8_t>(length);
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
        leave(p);
        retire(std::unique_ptr<policy_record>(&p));
        return true;
    });
    while (!sas_.empty())
        delete_sa(ipsec::sa_id(sas_.begin()->first));
    end_batch();
}

/// While a worker is stuck nothing that is deleted can be freed, so not more than this is added.
result<void> user_backend::check_memory() const {
    if (!shared_.graveyard().full()) return {};
    return fail(ENOBUFS, "a worker is stuck and too much waits for it to be freed: see `esplane "
                         "workers`");
}

result<void> user_backend::add_sa(const ipsec::sa& s) {
    if (auto room = check_memory(); !room) return room;
    if (s.id.protocol != wire::proto_esp)
        return fail(EOPNOTSUPP, "only ESP is carried", "id.proto");
    if (auto ok = check_transport(s); !ok) return ok;
    auto key = crypto::key::make(s.algs);
    if (!key) return tl::unexpected(key.error());
    auto r = std::make_unique<sa_record>();
    r->described = s.clone();
    r->serial = ++serial_;
    r->key = std::move(*key);
    if (ipsec::is_aead(s.algs.run)) { // a counter mode
        auto space = nonces_.space_for(s.algs.aead.key);
        if (!space) return tl::unexpected(space.error());
        r->nonces = std::move(*space);
    }
    r->described.algs = {}; // keys live in the schedule alone
    r->described.algs.run = s.algs.run;
    if (s.dir != ipsec::direction::out) {
        r->in = make_in(*r);
        shared_.inbound().insert(r->in.get());
    }
    file(*r, 1);
    const endpoint where = r->where();
    sas_.emplace(s.id, std::move(r));
    resolve_all(where);
    settle_later();
    return {};
}

std::unique_ptr<sa_in> user_backend::make_in(const sa_record& r) const {
    const ipsec::sa& s = r.described;
    std::unique_ptr<sa_in> in(new (*memory_) sa_in);
    in->spi = s.id.spi;
    in->hash = hash_of_spi(s.id.spi, s.id.destination.bytes.data(), s.id.destination.fam);
    in->destination = s.id.destination;
    in->flags = s.flags;
    in->layout = layout_of(s.algs.run);
    in->inner_family = s.sel.fam;
    in->has_selector = narrows(s.sel);
    in->selector = s.sel;
    in->encapsulated = s.encap.has_value();
    in->run_mode = s.run_mode;
    in->key = r.key;
    in->keys = &r.key->get();
    in->window = ipsec::replay_window(s.replay_window);
    in->window.restore(s.replay.received, s.replay.bitmap);
    in->source = s.source;
    if (s.encap) in->peer_port.store(s.encap->source_port.network(), std::memory_order_relaxed);
    in->mark = s.id.mark;
    in->mapping_threshold = s.mapping_threshold;
    write_marks(*in, s);
    in->reqid = s.reqid;
    in->if_id.store(s.if_id, std::memory_order_relaxed);
    in->account.packets.set(s.current.packets);
    in->account.bytes.set(s.current.bytes);
    in->account.last_used.set(s.last_used);
    in->limits.use_time.set(s.current.use_time);
    write_limits(in->limits, in->account, s.limits);
    in->in_force.store(true, std::memory_order_release);
    return in;
}

/// ESP arrives with no mark that we see: what comes out of an inbound SA with one is taken for
/// marked, as if netfilter had marked its ESP.
void user_backend::write_marks(sa_in& in, const ipsec::sa& s) const {
    in.inner_mark.store(s.output_mark.put_on(s.id.mark.value & s.id.mark.mask),
                        std::memory_order_relaxed);
}

void user_backend::write_marks(sa_out& out, const ipsec::sa& s) const {
    constexpr std::uint64_t has_one = std::uint64_t{1} << 32;
    out.output_mark.store(s.output_mark.given() ? has_one | s.output_mark.put_on(esp_mark_) : 0,
                          std::memory_order_relaxed);
}

void user_backend::write_marks(const sa_record& r) const {
    if (r.in) write_marks(*r.in, r.described);
    if (r.out) write_marks(*r.out, r.described);
}

/// Each of the two directions is held against what is left for it.
void user_backend::publish_limits(sa_record& r) const {
    const auto publish = [&r](auto& sa, const auto& other) {
        sa_counts elsewhere = r.late;
        elsewhere += r.counts_of_others();
        if (other) elsewhere += sa_record::counts_as_given(*other);
        write_limits(sa.limits, sa.account, r.described.limits, elsewhere);
    };
    if (r.in) publish(*r.in, r.out);
    if (r.out) publish(*r.out, r.in);
}

std::unique_ptr<sa_out> user_backend::make_out(const sa_record& r) const {
    const ipsec::sa& s = r.described;
    std::unique_ptr<sa_out> out(new (*memory_) sa_out);
    out->header_length = write_template(out->header, s);
    out->key = r.key;
    out->keys = &r.key->get();
    out->sequence = s.replay.sent;
    out->sequence_sent.set(s.replay.sent);
    if (s.esn() || (s.extra_flags & ipsec::sa_extra_flag::oseq_may_wrap) != 0)
        out->last_sequence = ~std::uint64_t{0};
    out->nonce_owner = r.nonces;
    out->nonces = r.nonces.get();
    out->counter_mode = r.nonces != nullptr;
    out->flags = s.flags;
    out->layout = layout_of(s.algs.run);
    out->outer_family = s.id.destination.fam;
    out->run_mode = s.run_mode;
    out->selector = s.run_mode == ipsec::mode::transport ? selector_between(s) : s.sel;
    out->inner_family = out->selector.fam;
    out->has_selector = narrows(out->selector);
    out->encapsulated = s.encap.has_value();
    out->dont_copy_dscp = (s.extra_flags & ipsec::sa_extra_flag::dont_encap_dscp) != 0;
    out->id = s.id;
    if (s.run_mode == ipsec::mode::tunnel)
        out->tfc_pad = static_cast<std::uint16_t>(std::min(s.tfc_pad, 0xffffu));
    out->limits.goal.store(r.goal_sent, std::memory_order_relaxed);
    write_marks(*out, s);
    out->path_mtu.store(r.path_mtu, std::memory_order_relaxed);
    out->if_id.store(s.if_id, std::memory_order_relaxed);
    out->account.last_used.set(s.last_used);
    out->limits.use_time.set(s.current.use_time);
    write_limits(out->limits, out->account, s.limits);
    if (r.in == nullptr) { // what was counted before goes on in one of the two
        out->account.packets.set(s.current.packets);
        out->account.bytes.set(s.current.bytes);
    }
    out->in_force.store(true, std::memory_order_release);
    return out;
}

result<void> user_backend::update_sa(const ipsec::sa& s) {
    const auto found = sas_.find(s.id);
    if (found == sas_.end()) return fail(ESRCH);
    sa_record& r = *found->second;
    if (r.spread_out_now || r.spread_in_now) unspread(r); // its shares are made anew
    const bool tell_again = r.described.limits != s.limits || (r.described.dying && !s.dying);
    r.described.limits = s.limits;
    r.described.dying = s.dying;
    r.described.if_id = s.if_id;
    r.described.output_mark = s.output_mark;
    write_marks(r);
    if (r.in) r.in->if_id.store(s.if_id, std::memory_order_relaxed);
    if (r.out) r.out->if_id.store(s.if_id, std::memory_order_relaxed);
    if (tell_again) publish_limits(r);
    result<void> done;
    if (s.encap != r.described.encap && s.encap && r.described.encap) done = change_encap(r, s);
    resolve_all(r.where());
    settle();
    return done;
}

/// Workers must not see half a header: the SA rests until none of them can.
result<void> user_backend::change_encap(sa_record& r, const ipsec::sa& s) {
    count_encap(r, -1);
    r.described.dir = ipsec::direction::in; // not to be chosen
    resolve_all(r.where());
    if (r.out) shared_.outbound().hide(*r.out);
    shared_.graveyard().add([] {});
    const bool rests = shared_.graveyard().reclaim();
    if (rests) r.described.encap = s.encap;
    if (rests && r.out) (void)write_template(r.out->header, r.described);
    if (rests && r.in)
        r.in->peer_port.store(s.encap->source_port.network(), std::memory_order_relaxed);
    if (r.out) shared_.outbound().replace(*r.out);
    r.described.dir = s.dir;
    count_encap(r, 1);
    if (!rests) return fail(EAGAIN, "a worker is stuck: try again", "XFRMA_ENCAP");
    return {};
}

void user_backend::delete_sa(const ipsec::sa_id& id) {
    const auto found = sas_.find(id);
    if (found == sas_.end()) return;
    std::shared_ptr<sa_record> r = std::move(found->second);
    sas_.erase(found);
    r->end_force();
    leave_endpoint(*r);
    count_transport(*r, -1);
    if (r->in) shared_.inbound().erase(r->in.get());
    if (r->out) shared_.outbound().remove(*r->out);
    gather(*r);
    resolve_all(r->where());
    count_encap(*r, -1);
    shared_.graveyard().add([r] {});
    settle();
}

bool user_backend::query_sa(const ipsec::sa_id& id, control::sa_usage& into) {
    const auto found = sas_.find(id);
    if (found == sas_.end()) return false;
    const sa_record& r = *found->second;
    const bool has_worker = r.in || r.out; // until then all is as a client gave it
    into.current = {};
    into.current.use_time = has_worker ? 0 : r.described.current.use_time;
    into.last_used = has_worker ? 0 : r.described.last_used;
    into.replay = r.described.replay;
    into.statistics = r.described.statistics;
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
        if (r.spread_out_now) {
            into.replay.sent = std::max(into.replay.sent, r.spread_out_now->sequence());
            for (const auto& share : r.spread_out_now->shares)
                add(share->account, share->limits);
        }
    }
    return true;
}

void user_backend::set_path_mtu(const ipsec::sa_id& id, std::uint32_t mtu) {
    const auto found = sas_.find(id);
    if (found == sas_.end()) return;
    sa_record& r = *found->second;
    r.path_mtu = mtu;
    if (r.out) r.out->path_mtu.store(mtu, std::memory_order_relaxed);
    if (!r.spread_out_now) return;
    for (const auto& share : r.spread_out_now->shares)
        share->path_mtu.store(mtu, std::memory_order_relaxed);
}

std::size_t user_backend::take_from(unsigned worker) {
    std::vector<sa_record*> theirs;
    for (const auto& [id, r] : sas_) {
        // First: from here on nothing is passed on to it.
        if (r->in) r->in->owner.take_back_wish(worker);
        if (r->out) r->out->owner.take_back_wish(worker);
        // What is spread needs all workers.
        const bool has_in = r->in && (r->in->owner.who() == worker || r->spread_in_now);
        const bool has_out = r->out && (r->out->owner.who() == worker || r->spread_out_now);
        if (has_in) r->in->owner.abandon();
        if (has_out) r->out->owner.abandon();
        if (has_in || has_out) theirs.push_back(r.get());
    }
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
    const auto found = sas_.find(id);
    if (found == sas_.end()) return fail(ESRCH);
    sa_record& r = *found->second;
    if (is_of_cpu(&r)) return fail(EBUSY, "it is for the traffic of one CPU");
    if (is_near_limit(r)) return fail(EBUSY, "it is near a limit in packets or bytes");
    const auto has_worker = [&](const sa_owner& o) { return o.who() < workers; };
    const bool out = r.out && !r.spread_out_now && has_worker(r.out->owner);
    const bool in = r.in && !r.spread_in_now && has_worker(r.in->owner);
    if (!out && !in) return fail(EALREADY, "it is spread, or no packet of it has come yet");
    if (out) {
        std::vector<std::unique_ptr<sa_out>> shares;
        for (unsigned i = 0; i < workers; ++i)
            shares.push_back(make_share(r));
        r.spread_out_now = spreads_.begin(*r.out, std::move(shares));
    }
    if (in) r.spread_in_now = spreads_.begin(*r.in, workers);
    if (!r.spread_out_now && !r.spread_in_now) return fail(ENOSPC, "64 SAs are spread already");
    spread_.insert(id);
    return {};
}

/// Counts for itself; limits are the whole SA's, and far away while it is spread.
std::unique_ptr<sa_out> user_backend::make_share(const sa_record& r) const {
    auto share = make_out(r);
    share->account.packets.set(0);
    share->account.bytes.set(0);
    write_limits(share->limits, share->account, {});
    share->limits.use_time.set(r.out->limits.use_time.get());
    return share;
}

/// Limits are held to within a burst, which shares cannot.
bool user_backend::is_near_limit(const sa_record& r) {
    constexpr std::uint64_t packets = std::uint64_t{1} << 26; // seconds of them
    constexpr std::uint64_t bytes = packets * 1024;
    const ipsec::lifetime_limits& l = r.described.limits;
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
    if (r.spread_out_now) {
        const std::uint64_t under_way = r.spread_out_now->shares.size() * max_burst;
        r.out->owner.abandon();
        r.out->sequence_sent.set(
            std::max(r.out->sequence_sent.get(), r.spread_out_now->sequence() + under_way));
        for (const auto& share : r.spread_out_now->shares)
            r.out->account.last_used.set(
                std::max(r.out->account.last_used.get(), share->account.last_used.get()));
        r.bury_spreads();
        r.former_spreads.push_back(r.spread_out_now);
        spreads_.end(std::move(r.spread_out_now));
    }
    if (r.spread_in_now) spreads_.end(std::move(r.spread_in_now));
    spread_.erase(r.described.id);
    gathered_.insert(r.described.id);
}

void user_backend::unspread(sa_record& r) {
    if (r.spread_out_now) r.out->owner.abandon();
    if (r.spread_in_now) r.in->owner.abandon();
    barrier_on_all_threads();
    const bool in = r.spread_in_now != nullptr, out = r.spread_out_now != nullptr;
    gather(r);
    if (in) replace_in(r);
    if (out) replace_out(r);
    resolve_all(r.where());
}

void user_backend::tend_spread() {
    for (const ipsec::sa_id& id : std::vector(spread_.begin(), spread_.end()))
        if (sa_record& r = *sas_.at(id); is_near_limit(r))
            unspread(r);
        else if (r.spread_out_now && r.spread_out_now->sequence() >= r.out->limits.goal.load())
            reach(*r.out);
    spreads_.tend();
    std::erase_if(gathered_, [this](const ipsec::sa_id& id) {
        const auto found = sas_.find(id);
        if (found == sas_.end()) return true;
        sa_record& r = *found->second;
        r.bury_spreads();
        publish_limits(r); // packets under way were counted
        return r.former_spreads.empty();
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
    for (const auto& [id, r] : sas_) {
        const bool is_theirs =
            (r->in && r->in->owner.who() == worker) || (r->out && r->out->owner.who() == worker);
        if (!is_theirs || is_of_cpu(r.get())) continue;
        const sa_counts c = r->counts();
        const std::uint64_t work = c.packets + c.bytes / bytes_like_a_packet;
        loads.push_back({id, work - std::exchange(r->work_known, work)});
        if (loads.size() == most) break;
    }
    return loads;
}

bool user_backend::ask_to_move(const ipsec::sa_id& id, unsigned to) {
    const auto found = sas_.find(id);
    if (found == sas_.end() || is_of_cpu(found->second.get())) return false;
    if (found->second->in && !found->second->spread_in_now) found->second->in->owner.wish(to);
    if (found->second->out) found->second->out->owner.wish(to);
    return true;
}

void user_backend::replace_in(sa_record& r) {
    auto next = make_in(r);
    const sa_counts handed_on = continue_from(*next, *r.in);
    if (next->spi == r.in->spi && next->destination == r.in->destination) {
        shared_.inbound().replace(r.in.get(), next.get());
    } else {
        shared_.inbound().insert(next.get());
        shared_.inbound().erase(r.in.get());
    }
    r.in.swap(next);
    r.former_in.push_back({std::move(next), handed_on});
    publish_limits(r);
    shared_.graveyard().add([&r] { r.bury_oldest(r.former_in); });
}

void user_backend::replace_out(sa_record& r, std::uint64_t margin) {
    auto next = make_out(r);
    const sa_counts handed_on = continue_from(*next, *r.out, margin);
    shared_.outbound().replace(*next);
    r.out.swap(next);
    r.former_out.push_back({std::move(next), handed_on});
    publish_limits(r);
    shared_.graveyard().add([&r] { r.bury_oldest(r.former_out); });
}

/// The port a peer sends ESP to: ours, of an SA that may be inbound; the source port of one that is
/// outbound.
void user_backend::count_encap(const sa_record& r, int by) {
    if (!r.described.encap) return;
    const wire::be16 port =
        r.out ? r.described.encap->source_port : r.described.encap->destination_port;
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

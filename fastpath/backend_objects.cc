// SPDX-License-Identifier: Apache-2.0
//
// The objects of SAs that workers run: made of descriptions, and put in each other's place.
#include <algorithm>

#include "fastpath/backend_records.h"
#include "fastpath/inbound.h"
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

/// Where a new one goes on from.
void write_numbers(sa_in& in, const ipsec::sa& s) {
    in.window.restore(s.replay.received, s.replay.bitmap);
    in.account.packets.set(s.current.packets);
    in.account.bytes.set(s.current.bytes);
    in.account.last_used.set(s.last_used);
    in.limits.use_time.set(s.current.use_time);
}

/// counts   what was counted before goes on in it, and not in the other direction
void write_numbers(sa_out& out, const ipsec::sa& s, bool counts) {
    out.sequence_sent.set(s.replay.sent);
    out.account.last_used.set(s.last_used);
    out.limits.use_time.set(s.current.use_time);
    if (!counts) return;
    out.account.packets.set(s.current.packets);
    out.account.bytes.set(s.current.bytes);
}

} // namespace

/// No worker has seen it: what is written here is what one begins with.
void user_backend::begin_from(const ipsec::sa_id& id, const control::sa_usage& n) {
    sa_record* const r = find(id);
    if (r == nullptr) return;
    ipsec::sa now = r->describe();
    now.replay.sent = n.replay.sent;
    now.replay.received = n.replay.received;
    now.replay.bitmap.assign((now.replay_window + 31) / 32, ~0u); // the client may have given none
    now.current.packets = n.current.packets;
    now.current.bytes = n.current.bytes;
    now.current.use_time = n.current.use_time;
    now.last_used = n.last_used;
    r->keep(now);
    if (r->in) write_numbers(*r->in, now);
    if (r->out) write_numbers(*r->out, now, r->in == nullptr);
    publish_limits(*r, now.limits);
}

std::unique_ptr<sa_in> user_backend::make_in(const sa_record& r, const ipsec::sa& s) const {
    std::unique_ptr<sa_in> in(new (*memory_) sa_in);
    in->spi = s.id.spi;
    in->hash = hash_of_spi(s.id.spi, s.id.destination.bytes.data(), s.id.destination.fam);
    in->destination = s.id.destination;
    in->flags = s.flags;
    in->form = form_of(s);
    in->inner_family = s.sel.fam;
    in->has_selector = narrows(s.sel);
    if (in->has_selector) in->selector.set(s.sel);
    if (s.encap) in->mapping_told = std::make_unique<mapping_report>();
    in->run_mode = s.run_mode;
    in->key = r.key;
    in->keys = &r.key->get();
    in->window = ipsec::replay_window(s.replay_window);
    in->source = s.source;
    if (s.encap) in->peer_port.store(s.encap->source_port.network(), std::memory_order_relaxed);
    in->mark = s.id.mark;
    in->mapping_threshold = s.mapping_threshold;
    write_marks(*in, s);
    in->reqid = s.reqid;
    in->if_id.store(s.if_id, std::memory_order_relaxed);
    write_numbers(*in, s);
    write_limits(in->limits, in->account, s.limits);
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

void user_backend::write_marks(const sa_record& r, const ipsec::sa& s) const {
    if (r.in) write_marks(*r.in, s);
    if (r.out) write_marks(*r.out, s);
}

/// Each of the two directions is held against what is left for it.
void user_backend::publish_limits(sa_record& r, const ipsec::lifetime_limits& limits) const {
    const auto publish = [&](auto& sa, const auto& other) {
        sa_counts elsewhere = r.seldom().late;
        elsewhere += r.counts_of_others();
        if (other) elsewhere += sa_record::counts_as_given(*other);
        write_limits(sa.limits, sa.account, limits, elsewhere);
    };
    if (r.in) publish(*r.in, r.out);
    if (r.out) publish(*r.out, r.in);
}

std::unique_ptr<sa_out> user_backend::make_out(const sa_record& r, const ipsec::sa& s) const {
    std::unique_ptr<sa_out> out(new (*memory_) sa_out);
    out->header_length = write_template(out->header, s);
    out->key = r.key;
    out->keys = &r.key->get();
    if (s.esn() || (s.extra_flags & ipsec::sa_extra_flag::oseq_may_wrap) != 0)
        out->last_sequence = ~std::uint64_t{0};
    out->nonce_owner = r.nonces;
    out->nonces = r.nonces.get();
    out->counter_mode = r.nonces.get() != nullptr;
    out->flags = s.flags;
    out->layout = layout_of(s.algs.run);
    out->outer_family = s.id.destination.fam;
    out->run_mode = s.run_mode;
    const ipsec::selector sel = s.run_mode == ipsec::mode::transport ? selector_between(s) : s.sel;
    out->inner_family = sel.fam;
    out->has_selector = narrows(sel);
    if (out->has_selector) out->selector.set(sel);
    out->encapsulated = s.encap.has_value();
    out->dont_copy_dscp = (s.extra_flags & ipsec::sa_extra_flag::dont_encap_dscp) != 0;
    out->id = s.id;
    if (s.run_mode == ipsec::mode::tunnel)
        out->tfc_pad = static_cast<std::uint16_t>(std::min(s.tfc_pad, 0xffffu));
    out->limits.goal.store(r.seldom().goal_sent, std::memory_order_relaxed);
    write_marks(*out, s);
    out->path_mtu.store(r.path_mtu, std::memory_order_relaxed);
    out->if_id.store(s.if_id, std::memory_order_relaxed);
    write_numbers(*out, s, r.in == nullptr);
    write_limits(out->limits, out->account, s.limits);
    return out;
}

/// Workers must not see half a header: the SA rests until none of them can.
result<void> user_backend::change_encap(sa_record& r, ipsec::sa now, const ipsec::sa& s) {
    count_encap(r, now.encap, -1);
    now.dir = ipsec::direction::in; // not to be chosen
    r.keep(now);
    resolve_all(r.where());
    if (r.out) shared_.outbound().hide(*r.out);
    shared_.graveyard().add([] {});
    const bool rests = shared_.graveyard().reclaim();
    if (rests) now.encap = s.encap;
    if (rests && r.out) (void)write_template(r.out->header, now);
    if (rests && r.in)
        r.in->peer_port.store(s.encap->source_port.network(), std::memory_order_relaxed);
    if (r.out) shared_.outbound().replace(*r.out);
    now.dir = s.dir;
    r.keep(now);
    count_encap(r, now.encap, 1);
    if (!rests) return fail(EAGAIN, "a worker is stuck: try again", "XFRMA_ENCAP");
    return {};
}

/// Counts for itself; limits are the whole SA's, and far away while it is spread.
std::unique_ptr<sa_out> user_backend::make_share(const sa_record& r) const {
    auto share = make_out(r, r.describe());
    share->in_force.store(true, std::memory_order_release);
    share->account.packets.set(0);
    share->account.bytes.set(0);
    write_limits(share->limits, share->account, {});
    share->limits.use_time.set(r.out->limits.use_time.get());
    return share;
}

/// In force once it has all the numbers: who finds them after a crash goes by them.
void user_backend::replace_in(sa_record& r) {
    const ipsec::sa s = r.describe();
    auto next = make_in(r, s);
    const sa_counts handed_on = continue_from(*next, *r.in);
    next->in_force.store(true, std::memory_order_release);
    if (next->spi == r.in->spi && next->destination == r.in->destination) {
        shared_.inbound().replace(r.in.get(), next.get());
    } else {
        shared_.inbound().insert(next.get());
        shared_.inbound().erase(r.in.get());
    }
    r.in.swap(next);
    r.own_seldom().former_in.push_back({std::move(next), handed_on});
    publish_limits(r, s.limits);
    shared_.graveyard().add([&r] { r.bury_oldest(r.own_seldom().former_in); });
}

void user_backend::replace_out(sa_record& r, std::uint64_t margin) {
    const ipsec::sa s = r.describe();
    auto next = make_out(r, s);
    const sa_counts handed_on = continue_from(*next, *r.out, margin);
    next->in_force.store(true, std::memory_order_release);
    shared_.outbound().replace(*next);
    r.out.swap(next);
    r.own_seldom().former_out.push_back({std::move(next), handed_on});
    publish_limits(r, s.limits);
    shared_.graveyard().add([&r] { r.bury_oldest(r.own_seldom().former_out); });
}

} // namespace esplane::fastpath

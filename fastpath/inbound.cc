// SPDX-License-Identifier: Apache-2.0
#include "fastpath/inbound.h"

#include "fastpath/account.h"
#include "fastpath/ip_front.h"
#include "fastpath/parse.h"
#include "fastpath/plain.h"
#include "fastpath/spread.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

constexpr std::uint8_t ecn_mask = 3;
constexpr std::uint8_t ecn_ce = 3;
constexpr std::uint32_t trailer_length = 2; ///< without padding

/// Packets that follow each other and name one SA.
struct esp_run {
    inbound_item* items;
    std::uint32_t count;
    std::uint32_t spi;  ///< network order
    std::uint32_t hash; ///< hash_of_spi
    sa_in* sa;

    [[nodiscard]] std::span<inbound_item> all() const noexcept { return {items, count}; }
};
using esp_runs = std::array<esp_run, max_burst>;

const std::uint8_t* source_bytes(const packet& p) noexcept {
    return p.family == family::ipv4 ? reinterpret_cast<const std::uint8_t*>(&p.ipv4().source)
                                    : p.ipv6().source.data();
}

const std::uint8_t* destination_bytes(const packet& p) noexcept {
    return p.family == family::ipv4 ? reinterpret_cast<const std::uint8_t*>(&p.ipv4().destination)
                                    : p.ipv6().destination.data();
}

bool equal_addresses(family f, const std::uint8_t* a, const std::uint8_t* b) noexcept {
    if (f == family::ipv4) return wire::load<std::uint32_t>(a) == wire::load<std::uint32_t>(b);
    return wire::load<std::uint64_t>(a) == wire::load<std::uint64_t>(b) &&
           wire::load<std::uint64_t>(a + 8) == wire::load<std::uint64_t>(b + 8);
}

bool have_one_destination(const packet& a, const packet& b) noexcept {
    return a.family == b.family &&
           equal_addresses(a.family, destination_bytes(a), destination_bytes(b));
}

bool owns(const sa_in& sa, const packet& p) noexcept {
    return sa.destination.fam == p.family &&
           equal_addresses(p.family, sa.destination.bytes.data(), destination_bytes(p));
}

/// Sorts a burst into runs of one SPI and destination; the slots of their SAs are on the way then.
/// Returns how many there are.
[[gnu::noinline]] std::size_t find_runs(const stage& s, const packet_list& esp, inbound_item* items,
                                        esp_runs& runs) noexcept {
    std::size_t n = 0;
    esp_run* run = nullptr;
    const packet* before = nullptr;
    for (packet* p : esp) {
        // A packet too short for an SPI finds no SA: 0 is never one.
        const std::uint32_t offset = esp_offset(*p);
        const bool whole = p->length >= offset + sizeof(wire::esp_header);
        const std::uint32_t spi = whole ? wire::load<std::uint32_t>(p->data + offset) : 0;
        items->p = p;
        items->offset = offset;
        if (run != nullptr && run->spi == spi && have_one_destination(*p, *before)) {
            ++run->count;
        } else {
            run = &runs[n++];
            run->items = items;
            run->count = 1;
            run->spi = spi;
            run->hash =
                hash_of_spi(wire::be32::from_network(spi), destination_bytes(*p), p->family);
            s.shared.inbound().prefetch(run->hash);
        }
        before = p;
        ++items;
    }
    return n;
}

/// Finds the SAs of runs; their other lines and their keys are on the way then.  Returns how many
/// are left; the packets of the others are dropped.
[[gnu::noinline]] std::size_t find_sas(stage& s, std::span<esp_run> runs) noexcept {
    for (const esp_run& run : runs)
        s.shared.inbound().prefetch_entry(run.hash);
    esp_run* kept = runs.data();
    for (const esp_run& run : runs) {
        sa_in* const sa = s.shared.inbound().find(run.hash, [&](const sa_in& one) {
            return one.spi.network() == run.spi && owns(one, *run.items->p);
        });
        if (sa == nullptr) [[unlikely]] {
            for (const inbound_item& c : run.all())
                s.drop(*c.p, drop_reason::sa_unknown);
            continue;
        }
        __builtin_prefetch(&sa->account, 1);
        __builtin_prefetch(&sa->source, 1);
        __builtin_prefetch(sa->keys);
        if (kept != &run) *kept = run;
        kept++->sa = sa;
    }
    return static_cast<std::size_t>(kept - runs.data());
}

/// Counts a number that the window does not take.
drop_reason refuse(sa_in& sa, ipsec::replay_verdict verdict) noexcept {
    if (verdict == ipsec::replay_verdict::duplicate) {
        sa.replay.add(1);
        return drop_reason::replay_duplicate;
    }
    sa.replay_too_old.add(1);
    return drop_reason::replay_too_old;
}

std::uint32_t low_sequence_of(const inbound_item& c) noexcept {
    return wire::load<wire::esp_header>(c.p->data + c.offset).sequence.host();
}

std::uint64_t full_sequence_of(const sa_in& sa, const inbound_item& c) noexcept {
    const std::uint32_t low = low_sequence_of(c);
    if (!sa.form.esn) return low;
    return ipsec::infer_esn(low, sa.window.highest(), sa.window.size());
}

/// What the window does not take a client's state may let in that has not been looked at yet.
[[gnu::cold, gnu::noinline]] drop_reason reconsider(sa_in& sa, inbound_item& c,
                                                    ipsec::replay_verdict verdict) noexcept {
    if (take_given(sa)) {
        c.sequence = full_sequence_of(sa, c);
        verdict = sa.window.check(c.sequence);
    }
    return verdict == ipsec::replay_verdict::fresh ? drop_reason::none : refuse(sa, verdict);
}

/// From the packet's data to the text.
std::uint32_t text_at(const esp_form& form, const inbound_item& c) noexcept {
    return c.offset + form.front;
}

/// With its trailer, which is there once check() let the packet pass.
std::uint32_t text_length(const esp_form& form, const inbound_item& c) noexcept {
    return c.p->length - text_at(form, c) - form.icv;
}

/// Everything that can be said before the ICV: const for the SA but for error counts.
[[gnu::always_inline]] inline drop_reason check(sa_in& sa, inbound_item& c) noexcept {
    const packet& p = *c.p;
    const esp_form& form = sa.form;
    if (p.protocol != form.carrier) return drop_reason::sa_encapsulation;
    if (p.length < text_at(form, c) + form.icv + trailer_length) return drop_reason::esp_malformed;
    if ((text_length(form, c) & form.within_block) != 0) return drop_reason::esp_malformed;
    c.sequence = full_sequence_of(sa, c);
    const auto verdict = sa.window.check(c.sequence);
    return verdict == ipsec::replay_verdict::fresh ? drop_reason::none : reconsider(sa, c, verdict);
}

/// Where it is: a job is not copied on the way to the engine.
[[gnu::always_inline]] inline void write_job(crypto::job& j, const sa_in& sa,
                                             const inbound_item& c) noexcept {
    j.keys = sa.keys;
    j.esp = c.p->data + c.offset;
    j.text_length = text_length(sa.form, c);
    j.esn = sa.form.esn;
    j.seq_high = static_cast<std::uint32_t>(c.sequence >> 32);
}

/// Whether a run is this worker's.  Another one's is handed over.
[[gnu::always_inline]] inline bool is_own(stage& s, const esp_run& run) noexcept {
    const unsigned who = s.owner_of(run.sa->owner);
    if (who == s.self) [[likely]]
        return true;
    for (const inbound_item& c : run.all())
        s.hand_over(*c.p, who, handover_phase::inbound);
    return false;
}

/// What is left of a burst: runs, and their packets' jobs in the same order; what belongs to spread
/// SAs is in scratch.spread_in.
struct checked_burst {
    std::size_t runs = 0;
    std::size_t jobs = 0;
    std::size_t spread = 0;
};

/// Puts those packets of a spread SA aside that may go to the engine.
[[gnu::noinline]] void put_aside(stage& s, const esp_run& run, checked_burst& left) noexcept {
    for (inbound_item& c : run.all()) {
        c.sa = run.sa;
        if (const drop_reason why = check(*run.sa, c); why != drop_reason::none)
            s.drop(*c.p, why);
        else
            s.scratch.spread_in[left.spread++] = c;
    }
}

/// Writes jobs for those packets of a run that may go to the engine.  Returns how many those are;
/// they are the run's first then.
[[gnu::always_inline]] inline std::uint32_t write_jobs(stage& s, const esp_run& run,
                                                       crypto::job* next) noexcept {
    inbound_item* kept = run.items;
    for (inbound_item& c : run.all()) {
        if (const drop_reason why = check(*run.sa, c); why != drop_reason::none) {
            s.drop(*c.p, why);
            continue;
        }
        write_job(*next++, *run.sa, c);
        if (kept != &c) *kept = c;
        ++kept;
    }
    return static_cast<std::uint32_t>(kept - run.items);
}

[[gnu::noinline]] checked_burst check_runs(stage& s, std::span<esp_run> runs) noexcept {
    checked_burst left;
    for (const esp_run& run : runs) {
        if (!is_own(s, run)) continue;
        if (run.sa->spread.load(std::memory_order_relaxed) != nullptr) [[unlikely]] {
            put_aside(s, run, left);
            continue;
        }
        const std::uint32_t count = write_jobs(s, run, &s.scratch.jobs[left.jobs]);
        if (count == 0) continue;
        esp_run& kept = runs[left.runs++];
        if (&kept != &run) kept = run;
        kept.count = count;
        left.jobs += count;
    }
    return left;
}

/// Outer DSCP and ECN into the inner header, as the kernel does (ip_ecn: RFC 6040 for what
/// congested routers mark; DSCP only where the SA asks for it).
void copy_traffic_class(const sa_in& sa, std::uint8_t outer_tos, std::uint8_t* inner) noexcept {
    const bool v4 = (inner[0] >> 4) == 4;
    const std::uint8_t before =
        v4 ? inner[1] : static_cast<std::uint8_t>((inner[0] << 4) | (inner[1] >> 4));
    std::uint8_t tos = before;
    if ((sa.flags & ipsec::sa_flag::decap_dscp) != 0)
        tos = static_cast<std::uint8_t>((outer_tos & ~ecn_mask) | (tos & ecn_mask));
    if ((sa.flags & ipsec::sa_flag::no_ecn) == 0 && (outer_tos & ecn_mask) == ecn_ce &&
        (tos & ecn_mask) != 0)
        tos |= ecn_ce;
    if (tos == before) return;
    if (!v4) {
        inner[0] = static_cast<std::uint8_t>((inner[0] & 0xf0) | (tos >> 4));
        inner[1] = static_cast<std::uint8_t>((inner[1] & 0x0f) | (tos << 4));
        return;
    }
    auto& ip = *reinterpret_cast<wire::ipv4_header*>(inner);
    const auto word = wire::load<wire::be16>(inner);
    ip.tos = tos;
    ip.checksum = wire::checksum_update(ip.checksum, word, wire::load<wire::be16>(inner));
}

/// From here on the inner packet is one that came in by the interface that its SA names: it is
/// looked up in that interface's VRF, held against its policies.
void enter_interface_of(const fib& routes, const sa_in& sa, packet& p) noexcept {
    const std::uint32_t if_id = sa.if_id.load(std::memory_order_relaxed);
    if (if_id == 0) [[likely]]
        return;
    const std::uint16_t index = routes.interfaces().find_tunnel(if_id);
    if (index != interface_table::none) p.interface = index;
}

/// What decryption has brought to light.
struct clear_text {
    std::uint32_t at;     ///< from the packet's data
    std::uint32_t length; ///< without its trailer
    std::uint8_t next;    ///< what it is
};

drop_reason read_trailer(const esp_form& form, const inbound_item& c, clear_text& t) noexcept {
    t.at = text_at(form, c);
    const std::uint32_t whole = text_length(form, c);
    const std::uint8_t* const trailer = c.p->data + t.at + whole - trailer_length;
    const std::uint32_t pad = trailer[0];
    t.next = trailer[1];
    t.length = whole - trailer_length - pad;
    if (pad + trailer_length > whole) return drop_reason::esp_padding;
    return t.next == wire::proto_none ? drop_reason::dummy : drop_reason::none;
}

/// Leaves nothing of the packet but the text.
void cut_out(packet& p, const clear_text& t) noexcept {
    p.pull(static_cast<int>(t.at));
    p.extend(static_cast<int>(t.length) - static_cast<int>(p.length));
}

/// Tunnel mode: strips an authentic packet to its inner one and parses that.
drop_reason decapsulate(stage& s, const sa_in& sa, inbound_item& c) noexcept {
    packet& p = *c.p;
    clear_text t;
    if (const drop_reason why = read_trailer(sa.form, c, t); why != drop_reason::none) return why;
    const family inner = t.next == wire::proto_ipip   ? family::ipv4
                         : t.next == wire::proto_ipv6 ? family::ipv6
                                                      : family::unspecified;
    if (inner == family::unspecified) return drop_reason::inner_malformed;
    if (sa.inner_family != family::unspecified && sa.inner_family != inner)
        return drop_reason::inner_family;
    const std::uint32_t minimum =
        inner == family::ipv4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
    if (t.length < minimum) return drop_reason::inner_malformed;
    const std::uint8_t outer_tos = p.tos;
    cut_out(p, t);
    if ((p.data[0] >> 4) != static_cast<unsigned>(inner)) return drop_reason::inner_malformed;
    copy_traffic_class(sa, outer_tos, p.data);
    p.l2_length = 0;
    enter_interface_of(s.routes, sa, p);
    return parse_ip(p, s.routes, false);
}

/// Transport mode: takes ESP out from behind the packet's own header and parses what remains.  As
/// the kernel, it counts the bytes behind the header.
drop_reason take_out_esp(stage& s, const sa_in& sa, inbound_item& c,
                         std::uint64_t& bytes) noexcept {
    packet& p = *c.p;
    const ip_front front = front_of(p);
    clear_text t;
    drop_reason why = read_trailer(sa.form, c, t);
    if (why == drop_reason::none) {
        t.at -= front.length;
        t.length += front.length;
        std::memmove(p.data + t.at, p.data, front.length);
        cut_out(p, t);
        rewrite_front(p, front, t.next);
        p.l2_length = 0;
        enter_interface_of(s.routes, sa, p);
    }
    bytes += p.length - front.length;
    if (why == drop_reason::none) why = parse_ip(p, s.routes, false);
    if (why != drop_reason::none) return why;
    if ((p.flags & packet_flag::fragment) != 0) return drop_reason::transport_fragment;
    if (sa.form.carrier == wire::proto_udp) renew_checksum(p);
    return drop_reason::none;
}

/// An authentic packet that strip_plain() does not take.
[[gnu::noinline]] drop_reason strip(stage& s, const sa_in& sa, inbound_item& c,
                                    std::uint64_t& bytes) noexcept {
    if (sa.run_mode == ipsec::mode::transport) return take_out_esp(s, sa, c, bytes);
    const drop_reason why = decapsulate(s, sa, c);
    bytes += c.p->length;
    return why;
}

/// Tunnel mode, a plain inner packet that nothing of the outer header is copied to, of an SA whose
/// form is plain, too.  False: it is another one, or there is something wrong; nothing has changed.
[[gnu::always_inline]] inline bool strip_plain(const fib::reader_v4& routes, const esp_form& form,
                                               inbound_item& c) noexcept {
    packet& p = *c.p;
    const std::uint32_t whole = text_length(form, c);
    const std::uint8_t* const trailer = p.data + text_at(form, c) + whole - trailer_length;
    const std::uint32_t padded = trailer[0] + trailer_length;
    if (trailer[1] != wire::proto_ipip || padded > whole || (p.tos & ecn_mask) == ecn_ce)
        return false;
    const int behind = static_cast<int>(padded + form.icv);
    p.extend(-behind);
    if (!open_plain(p, text_at(form, c), false)) [[unlikely]] {
        p.extend(behind);
        return false;
    }
    p.l2_length = 0;
    route_plain(p, routes.find(p.interface, p.data + offsetof(wire::ipv4_header, destination)));
    return true;
}

/// Tells control, though not at every packet: each new mapping once in a threshold, and not more
/// than one in a second, since whoever is on the path chooses what the packets show.
[[gnu::cold, gnu::noinline]] void report_mapping(stage& s, sa_in& sa, const ipsec::address& source,
                                                 wire::be16 port) noexcept {
    constexpr std::uint64_t ns_per_s = 1'000'000'000;
    const std::uint64_t now_s = s.now.monotonic_ns / ns_per_s;
    mapping_report& told = *sa.mapping_told;
    const bool same = told.source == source && told.port == port;
    if (told.at_s != 0 && now_s - told.at_s <= (same ? sa.mapping_threshold : 0)) return;
    worker_event e{.kind = worker_event_kind::sa_mapping, .id = id_of(sa)};
    e.source = source;
    e.port = port;
    if (s.events.push(e)) told = {source, port, now_s};
}

/// Whether an authentic packet in UDP has come from where its SA says (esp_input_done2).
void check_mapping(stage& s, sa_in& sa, const inbound_item& c) noexcept {
    const packet& p = *c.p;
    const auto port =
        wire::load<wire::be16>(p.data + c.offset - std::uint32_t{sizeof(wire::udp_header)});
    if (port.network() != sa.peer_port.load(std::memory_order_relaxed) ||
        p.family != sa.source.fam ||
        !equal_addresses(p.family, source_bytes(p), sa.source.bytes.data()))
        report_mapping(s, sa, source_of(p), port);
}

/// Whether strip_plain() may take packets of an SA.
bool may_be_plain(const sa_in& sa) noexcept {
    return sa.form.is_plain && sa.if_id.load(std::memory_order_relaxed) == 0;
}

/// What opening takes beside a packet and its SA.
struct opening {
    opening(stage& of, packet_list& into) noexcept
        : s(of)
        , clear(into)
        , routes(of.routes) {}

    stage& s;
    packet_list& clear;
    const fib::reader_v4 routes;
};

/// What an authentic packet gives up once its number is taken.
///
/// plain   may_be_plain()
/// bytes   grows by those that its SA counts
[[gnu::always_inline]] inline void open(const opening& o, sa_in& sa, inbound_item& c, bool plain,
                                        std::uint64_t& bytes) noexcept {
    packet& p = *c.p;
    drop_reason why = drop_reason::none;
    if (sa.form.carrier == wire::proto_udp) check_mapping(o.s, sa, c);
    if (plain && strip_plain(o.routes, sa.form, c)) [[likely]]
        bytes += p.length;
    else
        why = strip(o.s, sa, c, bytes);
    if (why == drop_reason::none && sa.has_selector && !sa.selector.matches(flow_of(p)))
        why = drop_reason::sa_selector;
    if (why != drop_reason::none) [[unlikely]] {
        o.s.drop(p, why);
        return;
    }
    p.inbound_sa = &sa;
    o.clear.push(p);
}

/// Of an SA, once numbers of it were taken: control may have copied the window just before they
/// were in it.
bool has_moved(const sa_in& sa) noexcept {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return sa.owner.who() == sa_owner::moved;
}

/// Or no forgery: with a client's state its number means another one (ESN), and the next packet's
/// is taken for that.
[[gnu::cold, gnu::noinline]] drop_reason refuse_forgery(sa_in& sa) noexcept {
    sa.integrity_failed.add(1);
    (void)take_given(sa);
    return drop_reason::icv_mismatch;
}

/// Takes the number of one packet.  Limits are looked at here, so that a forgery is no first use
/// and a burst does not pass more than a limit allows.
[[gnu::always_inline]] inline drop_reason take_number(stage& s, sa_in& sa, std::uint64_t sequence,
                                                      bool authentic) noexcept {
    if (!authentic) return refuse_forgery(sa);
    if (!admit(s, sa)) return drop_reason::sa_expired;
    if (const auto verdict = sa.window.commit(sequence); verdict != ipsec::replay_verdict::fresh)
        return refuse(sa, verdict);
    return has_moved(sa) ? drop_reason::sa_moved : drop_reason::none;
}

/// One packet by itself, whatever was before it.
[[gnu::always_inline]] inline void open_alone(const opening& o, sa_in& sa, inbound_item& c,
                                              bool authentic) noexcept {
    if (const drop_reason why = take_number(o.s, sa, c.sequence, authentic);
        why != drop_reason::none) {
        o.s.drop(*c.p, why);
        return;
    }
    std::uint64_t bytes = 0;
    open(o, sa, c, may_be_plain(sa), bytes);
    charge(o.s, sa.account, bytes);
}

/// Takes the numbers of a run at once, if nothing can come between its packets: all are authentic,
/// their numbers follow one another above all that were, no limit is near.  False: nothing has
/// changed.
///
/// jobs   as the engine left them
bool take_numbers(sa_in& sa, const esp_run& run, const crypto::job* jobs) noexcept {
    const std::uint64_t first = run.items->sequence;
    if (!is_far_from_limits(sa.account, run.count) || first <= sa.window.highest()) return false;
    for (std::uint32_t i = 0; i < run.count; ++i)
        if (!jobs[i].ok || run.items[i].sequence != first + i) return false;
    sa.window.commit_run(first, run.count);
    return true;
}

/// A run whose numbers were taken.
[[gnu::noinline]] void open_together(const opening& o, const esp_run& run) noexcept {
    sa_in& sa = *run.sa;
    if (has_moved(sa)) [[unlikely]] {
        for (const inbound_item& c : run.all())
            o.s.drop(*c.p, drop_reason::sa_moved);
        return;
    }
    const bool plain = may_be_plain(sa);
    std::uint64_t bytes = 0;
    for (inbound_item& c : run.all())
        open(o, sa, c, plain, bytes);
    charge(o.s, sa.account, bytes, run.count);
}

/// Takes numbers, strips the packets, hands on what was inside.
///
/// jobs   of all runs, in order, as the engine left them
[[gnu::noinline]] void open_runs(stage& s, std::span<const esp_run> runs, const crypto::job* jobs,
                                 packet_list& clear) noexcept {
    const opening o(s, clear);
    for (const esp_run& run : runs) {
        if (run.count > 1 && take_numbers(*run.sa, run, jobs))
            open_together(o, run);
        else
            for (std::uint32_t i = 0; i < run.count; ++i)
                open_alone(o, *run.sa, run.items[i], jobs[i].ok);
        jobs += run.count;
    }
}

void decrypt_spread(stage& s, std::span<inbound_item> items) noexcept {
    while (!items.empty()) {
        std::size_t n = 1;
        while (n < items.size() && items[n].sa == items[0].sa)
            ++n;
        spread_inbound(s, *items[0].sa->spread.load(std::memory_order_acquire), items.first(n));
        items = items.subspan(n);
    }
}

} // namespace

esp_form form_of(const ipsec::sa& s) noexcept {
    const ipsec::suite_layout layout = layout_of(s.algs.run);
    return {
        .front = static_cast<std::uint8_t>(sizeof(wire::esp_header) + layout.iv_length),
        .icv = layout.icv_length,
        .within_block = static_cast<std::uint8_t>(layout.block_length - 1),
        .carrier = s.encap ? wire::proto_udp : wire::proto_esp,
        .esn = (s.flags & ipsec::sa_flag::esn) != 0,
        .is_plain = s.run_mode == ipsec::mode::tunnel && s.sel.fam != family::ipv6 &&
                    (s.flags & ipsec::sa_flag::decap_dscp) == 0,
    };
}

crypto::job decryption_of(const inbound_item& c) noexcept {
    crypto::job j{};
    write_job(j, *c.sa, c);
    return j;
}

// 1. Find the SA of each run of packets.  What is touched next is fetched a step ahead: the slot,
//    the SA's first line, then its others and its keys.
// 2. Another worker's SA: hand over.  Check lengths and window; nothing has changed so far.
// 3. Verify and decrypt them all.
// 4. Hold the authentic ones against the lifetime, commit them to their windows, strip them, hand
//    on what was inside.
void inbound(stage& s, const packet_list& esp, packet_list& clear) noexcept {
    esp_runs storage;
    std::span<esp_run> runs(storage);
    runs = runs.first(find_runs(s, esp, s.scratch.inbound.data(), storage));
    runs = runs.first(find_sas(s, runs));
    const checked_burst left = check_runs(s, runs);
    s.crypto.decrypt(std::span(s.scratch.jobs).first(left.jobs));

    const unsigned before = clear.size();
    open_runs(s, runs.first(left.runs), s.scratch.jobs.data(), clear);
    s.counters.decrypted.add(clear.size() - before);
    decrypt_spread(s, std::span(s.scratch.spread_in).first(left.spread));
}

void release_inbound(stage& s, const spread_in& all, std::span<packet* const> ready,
                     packet_list& clear) noexcept {
    sa_in* const sa = all.sa.load(std::memory_order_acquire);
    const unsigned before = clear.size();
    const opening o(s, clear);
    for (packet* p : ready) {
        const bool authentic = p->drop == static_cast<std::uint8_t>(drop_reason::none);
        p->drop = 0;
        if (sa == nullptr) {
            s.drop(*p, drop_reason::sa_unknown);
            continue;
        }
        inbound_item c{.p = p, .sa = sa, .sequence = 0, .offset = esp_offset(*p)};
        // The upper half that was authenticated: the window may have moved on meanwhile, and with
        // it what the lower half alone would be taken for.
        c.sequence = std::uint64_t{p->note.serial} << 32 | low_sequence_of(c);
        if (const auto verdict = sa->window.check(c.sequence);
            verdict != ipsec::replay_verdict::fresh)
            s.drop(*p, refuse(*sa, verdict));
        else
            open_alone(o, *sa, c, authentic);
    }
    s.counters.decrypted.add(clear.size() - before);
}

} // namespace esplane::fastpath

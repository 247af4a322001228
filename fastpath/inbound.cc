// SPDX-License-Identifier: Apache-2.0
#include "fastpath/inbound.h"

#include "fastpath/account.h"
#include "fastpath/ip_front.h"
#include "fastpath/parse.h"
#include "fastpath/spread.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

constexpr std::uint8_t ecn_mask = 3;
constexpr std::uint8_t ecn_ce = 3;

const std::uint8_t* destination_of(const packet& p) noexcept {
    return p.family == family::ipv4 ? reinterpret_cast<const std::uint8_t*>(&p.ipv4().destination)
                                    : p.ipv6().destination.data();
}

bool owns(const sa_in& sa, const packet& p) noexcept {
    const std::uint8_t* own = sa.destination.bytes.data();
    const std::uint8_t* there = destination_of(p);
    if (sa.destination.fam != p.family) return false;
    if (p.family == family::ipv4)
        return wire::load<std::uint32_t>(own) == wire::load<std::uint32_t>(there);
    return wire::load<std::uint64_t>(own) == wire::load<std::uint64_t>(there) &&
           wire::load<std::uint64_t>(own + 8) == wire::load<std::uint64_t>(there + 8);
}

sa_in* find_sa(const stage& s, const packet& p, wire::be32 spi, std::uint32_t hash) noexcept {
    return s.shared.inbound().find(hash,
                                   [&](const sa_in& sa) { return sa.spi == spi && owns(sa, p); });
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

std::uint64_t full_sequence_of(const inbound_item& c) noexcept {
    const sa_in& sa = *c.sa;
    const std::uint32_t low = low_sequence_of(c);
    if ((sa.flags & ipsec::sa_flag::esn) == 0) return low;
    return ipsec::infer_esn(low, sa.window.highest(), sa.window.size());
}

/// What the window does not take a client's state may let in that has not been looked at yet.
[[gnu::cold, gnu::noinline]] drop_reason reconsider(inbound_item& c,
                                                    ipsec::replay_verdict verdict) noexcept {
    if (take_given(*c.sa)) {
        c.sequence = full_sequence_of(c);
        verdict = c.sa->window.check(c.sequence);
    }
    return verdict == ipsec::replay_verdict::fresh ? drop_reason::none : refuse(*c.sa, verdict);
}

/// Everything that can be said before the ICV: const for the SA but for error counts.
[[gnu::always_inline]] inline drop_reason check(inbound_item& c) noexcept {
    const packet& p = *c.p;
    sa_in& sa = *c.sa;
    const std::uint32_t offset = c.offset;
    const std::uint32_t overhead = static_cast<std::uint32_t>(sizeof(wire::esp_header)) +
                                   sa.layout.iv_length + sa.layout.icv_length;
    if (sa.encapsulated != (p.protocol == wire::proto_udp)) return drop_reason::sa_encapsulation;
    if (p.length < offset + overhead + 2) return drop_reason::esp_malformed;
    if (((p.length - offset - overhead) & (sa.layout.block_length - 1u)) != 0)
        return drop_reason::esp_malformed;
    c.sequence = full_sequence_of(c);
    const auto verdict = sa.window.check(c.sequence);
    return verdict == ipsec::replay_verdict::fresh ? drop_reason::none : reconsider(c, verdict);
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
    std::uint32_t length; ///< with its trailer
    std::uint8_t pad;     ///< its trailer has two bytes more
    std::uint8_t next;    ///< what it is
};

[[gnu::always_inline]] inline drop_reason read_trailer(const inbound_item& c,
                                                       clear_text& t) noexcept {
    const packet& p = *c.p;
    t.at = c.offset + static_cast<std::uint32_t>(sizeof(wire::esp_header)) + c.sa->layout.iv_length;
    t.length = p.length - t.at - c.sa->layout.icv_length;
    const std::uint8_t* trailer = p.data + t.at + t.length - 2;
    t.pad = trailer[0];
    t.next = trailer[1];
    if (t.pad + 2u > t.length) return drop_reason::esp_padding;
    return t.next == wire::proto_none ? drop_reason::dummy : drop_reason::none;
}

/// Tunnel mode: strips an authentic packet to its inner one and parses that.
[[gnu::always_inline]] inline drop_reason decapsulate(stage& s, inbound_item& c) noexcept {
    packet& p = *c.p;
    const sa_in& sa = *c.sa;
    clear_text t;
    if (const drop_reason why = read_trailer(c, t); why != drop_reason::none) return why;
    const auto [front, text, pad, next] = t;
    const family inner = next == wire::proto_ipip   ? family::ipv4
                         : next == wire::proto_ipv6 ? family::ipv6
                                                    : family::unspecified;
    if (inner == family::unspecified) return drop_reason::inner_malformed;
    if (sa.inner_family != family::unspecified && sa.inner_family != inner)
        return drop_reason::inner_family;
    const std::uint32_t minimum =
        inner == family::ipv4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
    if (text - 2u - pad < minimum) return drop_reason::inner_malformed;
    const std::uint8_t outer_tos = p.tos;
    p.pull(static_cast<int>(front));
    p.extend(-static_cast<int>(sa.layout.icv_length + 2u + pad));
    if ((p.data[0] >> 4) != static_cast<unsigned>(inner)) return drop_reason::inner_malformed;
    copy_traffic_class(sa, outer_tos, p.data);
    p.l2_length = 0;
    enter_interface_of(s.routes, sa, p);
    return parse_ip(p, s.routes, false);
}

/// Transport mode: takes ESP out from behind the packet's own header and parses what remains.  As
/// the kernel, it counts the bytes behind the header.
[[gnu::noinline]] drop_reason take_out_esp(stage& s, inbound_item& c) noexcept {
    packet& p = *c.p;
    sa_in& sa = *c.sa;
    const ip_front front = front_of(p);
    clear_text t;
    drop_reason why = read_trailer(c, t);
    if (why == drop_reason::none) {
        const std::uint32_t gap = t.at - front.length;
        std::memmove(p.data + gap, p.data, front.length);
        p.pull(static_cast<int>(gap));
        p.extend(-static_cast<int>(sa.layout.icv_length + 2u + t.pad));
        rewrite_front(p, front, t.next);
        p.l2_length = 0;
        enter_interface_of(s.routes, sa, p);
    }
    charge(s, sa.account, p.length - front.length);
    if (why == drop_reason::none) why = parse_ip(p, s.routes, false);
    if (why != drop_reason::none) return why;
    if ((p.flags & packet_flag::fragment) != 0) return drop_reason::transport_fragment;
    if (sa.encapsulated) renew_checksum(p);
    return drop_reason::none;
}

[[gnu::always_inline]] inline drop_reason take_inner(stage& s, inbound_item& c) noexcept {
    const drop_reason why = decapsulate(s, c);
    charge(s, c.sa->account, c.p->length);
    return why;
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
void check_mapping(stage& s, const inbound_item& c) noexcept {
    sa_in& sa = *c.sa;
    const auto port =
        wire::load<wire::be16>(c.p->data + c.offset - std::uint32_t{sizeof(wire::udp_header)});
    const ipsec::address source = source_of(*c.p);
    if (port.network() == sa.peer_port.load(std::memory_order_relaxed) && source == sa.source)
        return;
    report_mapping(s, sa, source, port);
}

/// What an authentic packet does: takes its number, then gives up its inside.  Limits are looked at
/// here, so that a forgery is no first use and a burst does not pass more than a limit allows.
[[gnu::always_inline]] inline drop_reason accept(stage& s, inbound_item& c) noexcept {
    sa_in& sa = *c.sa;
    if (!admit(s, sa)) return drop_reason::sa_expired;
    if (const auto verdict = sa.window.commit(c.sequence); verdict != ipsec::replay_verdict::fresh)
        return refuse(sa, verdict);
    // Control may have copied the window just before this number was in it.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (sa.owner.who() == sa_owner::moved) return drop_reason::sa_moved;
    if (sa.encapsulated) check_mapping(s, c);
    drop_reason why;
    if (sa.run_mode == ipsec::mode::tunnel) [[likely]]
        why = take_inner(s, c);
    else
        why = take_out_esp(s, c);
    if (why != drop_reason::none) return why;
    if (sa.has_selector && !sa.selector.matches(flow_of(*c.p))) return drop_reason::sa_selector;
    return drop_reason::none;
}

/// Or no forgery: with a client's state its number means another one (ESN), and the next packet's
/// is taken for that.
[[gnu::cold]] void refuse_forgery(sa_in& sa) noexcept {
    sa.integrity_failed.add(1);
    (void)take_given(sa);
}

/// What follows the verdict on an ICV.
[[gnu::always_inline]] inline void go_on(stage& s, inbound_item& c, bool authentic,
                                         packet_list& clear) noexcept {
    drop_reason why = drop_reason::icv_mismatch;
    if (authentic)
        why = accept(s, c);
    else
        refuse_forgery(*c.sa);
    if (why != drop_reason::none) {
        s.drop(*c.p, why);
        return;
    }
    c.p->inbound_sa = c.sa;
    clear.push(*c.p);
}

void spread_runs(stage& s, std::span<inbound_item> items) noexcept {
    while (!items.empty()) {
        std::size_t n = 1;
        while (n < items.size() && items[n].sa == items[0].sa)
            ++n;
        spread_inbound(s, *items[0].sa->spread.load(std::memory_order_acquire), items.first(n));
        items = items.subspan(n);
    }
}

} // namespace

namespace {

/// Where it is: a job is not copied on the way to the engine.
[[gnu::always_inline]] inline void write_job(crypto::job& j, const inbound_item& c) noexcept {
    j.keys = c.sa->keys;
    j.esp = c.p->data + c.offset;
    j.text_length = c.p->length - c.offset - static_cast<std::uint32_t>(sizeof(wire::esp_header)) -
                    c.sa->layout.iv_length - c.sa->layout.icv_length;
    j.esn = (c.sa->flags & ipsec::sa_flag::esn) != 0;
    j.seq_high = static_cast<std::uint32_t>(c.sequence >> 32);
}

} // namespace

crypto::job decryption_of(const inbound_item& c) noexcept {
    crypto::job j{};
    write_job(j, c);
    return j;
}

// 1. Find the SA of each packet.  What is touched next is fetched a step ahead: the slot, the SA's
//    first line, then its second and its keys.  Another worker's SA: hand over.
// 2. Check lengths and window; nothing has changed so far.
// 3. Verify and decrypt them all.
// 4. Hold the authentic ones against the lifetime, commit them to their windows, strip them, hand
//    on what was inside.
void inbound(stage& s, const packet_list& esp, packet_list& clear) noexcept {
    std::span<inbound_item> items = s.scratch.inbound;
    for (unsigned i = 0; i < esp.size(); ++i) {
        packet& p = esp[i];
        // A packet too short for an SPI finds no SA: 0 is never one.
        const std::uint32_t offset = esp_offset(p);
        const bool whole = p.length >= offset + sizeof(wire::esp_header);
        items[i].p = &p;
        items[i].offset = offset;
        items[i].spi = whole ? wire::load<wire::be32>(p.data + offset) : wire::be32();
        items[i].hash = hash_of_spi(items[i].spi, destination_of(p), p.family);
        s.shared.inbound().prefetch(items[i].hash);
    }
    for (unsigned i = 0; i < esp.size(); ++i)
        s.shared.inbound().prefetch_entry(items[i].hash);

    unsigned found = 0;
    for (unsigned i = 0; i < esp.size(); ++i) {
        inbound_item& c = items[found];
        if (found != i) c = items[i];
        c.sa = find_sa(s, *c.p, c.spi, c.hash);
        if (c.sa == nullptr) {
            s.drop(*c.p, drop_reason::sa_unknown);
            continue;
        }
        __builtin_prefetch(&c.sa->account, 1);
        __builtin_prefetch(c.sa->keys);
        ++found;
    }

    std::span<crypto::job> jobs = s.scratch.jobs;
    unsigned count = 0, spread = 0;
    for (unsigned i = 0; i < found; ++i) {
        inbound_item& c = items[count];
        if (count != i) c = items[i];
        if (const unsigned who = s.owner_of(c.sa->owner); who != s.self) {
            s.hand_over(*c.p, who, handover_phase::inbound);
            continue;
        }
        if (const drop_reason why = check(c); why != drop_reason::none) {
            s.drop(*c.p, why);
            continue;
        }
        if (c.sa->spread.load(std::memory_order_relaxed) != nullptr) [[unlikely]]
            s.scratch.spread_in[spread++] = c;
        else
            write_job(jobs[count++], c);
    }
    s.crypto.decrypt(jobs.first(count));

    const unsigned before = clear.size();
    for (unsigned i = 0; i < count; ++i)
        go_on(s, items[i], jobs[i].ok, clear);
    s.counters.decrypted.add(clear.size() - before);
    spread_runs(s, std::span(s.scratch.spread_in).first(spread));
}

void release_inbound(stage& s, const spread_in& all, std::span<packet* const> ready,
                     packet_list& clear) noexcept {
    sa_in* sa = all.sa.load(std::memory_order_acquire);
    const unsigned before = clear.size();
    for (packet* p : ready) {
        const bool authentic = p->drop == static_cast<std::uint8_t>(drop_reason::none);
        p->drop = 0;
        if (sa == nullptr) {
            s.drop(*p, drop_reason::sa_unknown);
            continue;
        }
        inbound_item c{
            .p = p, .sa = sa, .sequence = 0, .spi = {}, .hash = 0, .offset = esp_offset(*p)};
        // The upper half that was authenticated: the window may have moved on meanwhile, and with
        // it what the lower half alone would be taken for.
        c.sequence = std::uint64_t{p->note.serial} << 32 | low_sequence_of(c);
        if (const auto verdict = sa->window.check(c.sequence);
            verdict != ipsec::replay_verdict::fresh)
            s.drop(*p, refuse(*sa, verdict));
        else
            go_on(s, c, authentic, clear);
    }
    s.counters.decrypted.add(clear.size() - before);
}

} // namespace esplane::fastpath

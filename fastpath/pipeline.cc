// SPDX-License-Identifier: Apache-2.0
#include "fastpath/pipeline.h"

#include <algorithm>

#include "fastpath/account.h"
#include "fastpath/classify.h"
#include "fastpath/fragment.h"
#include "fastpath/inbound.h"
#include "fastpath/mss.h"
#include "fastpath/next_hop.h"
#include "fastpath/parse.h"
#include "fastpath/spread.h"

namespace esplane::fastpath {

namespace {

/// The port of which `is` says true; or no_port.
std::uint8_t index_of(std::span<port* const> ports, bool (port::*is)() const noexcept) {
    const auto found = std::ranges::find_if(ports, [is](const port* p) { return (p->*is)(); });
    return found == ports.end() ? no_port : static_cast<std::uint8_t>(found - ports.begin());
}

/// What nobody outside knows.
std::array<std::uint64_t, 2> random_seed(crypto::engine& crypto) noexcept {
    std::array<std::uint64_t, 2> seed{};
    crypto.unpredictable_iv(reinterpret_cast<std::uint8_t*>(seed.data()), sizeof seed);
    return seed;
}

} // namespace

pipeline::pipeline(const tables& shared, crypto::engine& crypto, buffer_pool& buffers,
                   std::span<port* const> ports, unsigned lane, handover_sink* others)
    : shared_(shared)
    , crypto_(crypto)
    , buffers_(buffers)
    , ports_(ports.begin(), ports.end())
    , interfaces_(index_of(ports, &port::of_interfaces))
    , machine_(index_of(ports, &port::of_machine))
    , lane_(lane)
    , others_(others)
    , reassembly_(random_seed(crypto)) {}

void pipeline::process(std::span<packet> frames, std::uint8_t from, moment now) noexcept {
    stage s = begin(now);
    counters_.received.add(frames.size());
    for (packet& p : frames)
        p.port = from;

    if (ports_[from]->twin_apart()) frames = hand_up(s, frames);
    if (shared_.closed()) [[unlikely]] {
        for (packet& p : frames)
            s.drop(p, drop_reason::closed);
        finish(s);
        return;
    }
    packet_list esp, clear, leaving;
    if (from == interfaces_)
        parse_own(s, frames, clear);
    else if (ports_[from]->of_machine())
        parse_from_stack(s, frames, clear);
    else
        parse(s, frames, ports_[from]->ethernet(), esp, clear);
    decrypt(s, esp, clear);
    forward(s, clear, leaving);
    finish(s);
}

void pipeline::take_over(std::span<packet* const> handed, moment now) noexcept {
    stage s = begin(now);
    counters_.handed_in.add(handed.size());
    packet_list esp, clear, frames, up, leaving;
    std::size_t known = 0;
    const bool closed = shared_.closed();
    ticket_run numbered(s);
    for (packet* p : handed) {
        const handover_note note = p->note;
        const auto phase = static_cast<handover_phase>(note.phase);
        const bool has_ticket =
            phase == handover_phase::numbered_outbound || phase == handover_phase::numbered_inbound;
        if (closed) {
            if (has_ticket) numbered.refuse(*p);
            s.drop(*p, drop_reason::closed);
            continue;
        }
        if (has_ticket) {
            numbered.add(*p, leaving);
            continue;
        }
        p->next = nullptr;
        switch (phase) {
        case handover_phase::inbound:
            esp.push(*p);
            break;
        case handover_phase::outbound:
            if (sa_out* sa = shared_.outbound().find({note.slot, note.serial}))
                scratch_.protect[known++] = {p, sa};
            else
                s.drop(*p, drop_reason::sa_missing);
            break;
        case handover_phase::transmit:
            frames.push(*p);
            break;
        case handover_phase::punt:
            if (ports_[p->port]->of_machine())
                up.push(*p);
            else
                raise(s, *p);
            break;
        case handover_phase::numbered_outbound:
        case handover_phase::numbered_inbound:
            break;
        }
    }
    numbered.finish(leaving);
    const auto items = std::span(scratch_.protect).first(known);
    encrypt(s, items.first(keep_own(s, items)), leaving);
    decrypt(s, esp, clear);
    forward(s, clear, leaving);
    transmit(s, frames);
    raise_together(s, up);
    finish(s);
}

bool pipeline::release_spread(moment now) noexcept {
    bool some = false;
    std::array<packet*, max_burst> ready;
    shared_.spread_outbound().each([&](spread_out& all) {
        if (all.releaser != lane_) return;
        for (std::size_t n; (n = all.order.peek(ready)) != 0; some = true) {
            stage s = begin(now);
            counters_.handed_in.add(n);
            packet_list frames;
            for (packet* p : std::span(ready).first(n))
                frames.push(*p);
            transmit(s, frames);
            finish(s);
            all.order.release();
        }
        all.order.release(); // tickets that led nowhere
    });
    shared_.spread_inbound().each([&](spread_in& all) {
        if (all.owner != lane_) return;
        for (std::size_t n; (n = all.order.peek(ready)) != 0; some = true) {
            stage s = begin(now);
            counters_.handed_in.add(n);
            packet_list clear, leaving;
            if (shared_.closed()) [[unlikely]]
                s.drop(std::span(ready).first(n), drop_reason::closed);
            else
                release_inbound(s, all, std::span(ready).first(n), clear);
            judge_decrypted(s, clear, 0);
            forward(s, clear, leaving);
            finish(s);
            all.order.release();
        }
        all.order.release();
    });
    return some;
}

bool pipeline::awaits_release() const noexcept {
    bool some = false;
    shared_.spread_outbound().each([&](const spread_out& all) {
        some = some || (all.releaser == lane_ && all.order.ready());
    });
    shared_.spread_inbound().each(
        [&](const spread_in& all) { some = some || (all.owner == lane_ && all.order.ready()); });
    return some;
}

/// What was inside ESP goes on beside what came in clear.
void pipeline::decrypt(stage& s, const packet_list& esp, packet_list& clear) noexcept {
    if (esp.empty()) return;
    const unsigned decrypted = clear.size();
    inbound(s, esp, clear);
    judge_decrypted(s, clear, decrypted);
}

/// What every packet that came out of an SA passes.
void pipeline::judge_decrypted(stage& s, packet_list& clear, unsigned first) noexcept {
    filter_decrypted(s, clear, first);
    if (s.shared.mss_clamp() != 0) clamp_inbound(s, clear, first);
}

/// From the policies on.  `leaving` may hold packets already.
void pipeline::forward(stage& s, const packet_list& clear, packet_list& leaving) noexcept {
    packet_list clear_out, local;
    verdicts to{clear_out, local, scratch_.protect};
    classify(s, clear, to);
    protect(s, to.protect.first(to.protect_count), leaving);
    bypass(s, clear_out, leaving);
    send(s, leaving);
    punt(s, local);
}

/// Takes out of a burst what is the stack's whatever the policies say, and what is another
/// station's; returns the rest, in order.
std::span<packet> pipeline::hand_up(stage& s, std::span<packet> frames) noexcept {
    packet_list up;
    std::size_t kept = 0, taken = 0;
    for (packet& p : frames) {
        const arrival whose = sort_arrival(s, p);
        if (whose == arrival::path) {
            if (taken != 0) frames[kept] = p;
            ++kept;
            continue;
        }
        packet& out = handed_up_[taken++] = p;
        if (whose == arrival::stack)
            up.push(out);
        else
            s.drop(out, drop_reason::frame_other_station);
    }
    if (!up.empty()) punt(s, up);
    return frames.first(kept);
}

void pipeline::relay(port& p, moment now) noexcept {
    const stage s = begin(now);
    machine_rules rules(s, fragments_);
    p.relay(lane_, rules);
}

void pipeline::tend(moment now) noexcept {
    if (!hold_.empty()) tend_held(now);
    if (!reassembly_.empty()) tend_fragments(now);
    if (waiting_.due(shared_, now)) retry_waiting(now);
}

void pipeline::tend_fragments(moment now) noexcept {
    stage s = begin(now);
    reassembly_.tend(s);
}

void pipeline::tend_held(moment now) noexcept {
    stage s = begin(now);
    packet_list ready;
    hold_.retry(s, ready);
    transmit(s, ready);
    send(s, packet_list{}); // what retry() had to report
    finish(s);
}

/// What waited for an SA does not leave in clear, whatever the policies say by now.
void pipeline::retry_waiting(moment now) noexcept {
    waiting_.begin_round(shared_, now);
    for (bool more = true; more;) {
        stage s = begin(now);
        packet_list clear, local, leaving;
        verdicts to{clear, local, scratch_.protect};
        more = waiting_.retry(s, to);
        s.drop(clear.span(), drop_reason::sa_wait_timeout);
        protect(s, to.protect.first(to.protect_count), leaving);
        send(s, leaving);
        finish(s);
    }
}

stage pipeline::begin(moment now) noexcept {
    budget_.refill(now.monotonic_ns);
    stage s{shared_, shared_.routes(), crypto_, counters_, events_, buffers_,
            budget_, scratch_,         now,     lane_,     others_};
    s.may_split = true;
    s.ports = ports_;
    s.fragments = &reassembly_;
    s.seeker = &waiting_;
    return s;
}

/// What a policy protects and the filter lets pass: one hop less, then ESP.
void pipeline::protect(stage& s, std::span<protect_item> items, packet_list& leaving) noexcept {
    items = items.first(filter_protected(s, items));
    if (s.shared.mss_clamp() != 0) clamp_outbound(s, items);
    std::size_t kept = 0;
    for (const protect_item& item : items)
        if (age(s, *item.p) && is_own(s, item)) items[kept++] = item;
    encrypt(s, items.first(kept), leaving);
}

/// Under this worker's SAs; what falls under others' has been given away.
void pipeline::encrypt(stage& s, std::span<protect_item> items, packet_list& leaving) noexcept {
    if (!items.empty()) outbound(s, items, leaving);
    if (s.spread != 0) spread_outbound(s, std::span(s.scratch.spread).first(s.spread), leaving);
    s.spread = 0;
}

/// What leaves as it came.
void pipeline::bypass(stage& s, const packet_list& packets, packet_list& leaving) noexcept {
    packet_list up;
    const bool has_machine = machine_ != no_port;
    const unsigned before = leaving.size();
    for (packet* p : packets) {
        if (has_machine && goes_on_by_machine(s, *p)) {
            up.push(*p);
            continue;
        }
        if (!age(s, *p) || !check_route(s, *p)) continue;
        leaving.push(*p);
    }
    s.counters.bypassed.add(leaving.size() - before);
    raise_by_machine(s, up);
}

/// ESP that the kernel sends for us it fragments itself.
template <typename Address>
void pipeline::split(stage& s, packet& p, const Address& address) noexcept {
    const bool by_kernel = s.routes.interface(p.next->interface).kind == interface_kind::kernel;
    packet_list pieces;
    if (by_kernel && (p.flags & packet_flag::encrypted) != 0) {
        counters_.fragmented.add(1);
        pieces.push(p);
    } else if (!fragment(s, p, pieces)) {
        s.drop(p, drop_reason::too_big_fragment);
    }
    for (packet* piece : pieces)
        address(*piece);
}

/// Writes frames and sends them, ICMP errors of this burst behind; holds what has no next hop yet.
void pipeline::send(stage& s, const packet_list& packets) noexcept {
    packet_list frames;
    const auto address = [&](packet& p) {
        if (frames.room() == 0) [[unlikely]] { // of fragments there may be more than packets
            transmit(s, frames);
            frames.clear();
        }
        if (address_frame(p))
            frames.push(p);
        else if (!hold_.add(s, p))
            s.drop(p, drop_reason::hold_full);
    };
    for (packet* p : packets) {
        if ((p->flags & packet_flag::split) == 0) [[likely]]
            address(*p);
        else
            split(s, *p, address);
    }
    for (packet* p : s.created)
        if (check_route(s, *p)) address(*p);
    transmit(s, frames);
    raise_by_machine(s, s.raised);
}

/// To their ports, in order within each; runs of one port go together.  Where this worker has no
/// lane another one sends.  What has waited, held or in a ring, is too late once all is closed.
void pipeline::transmit(stage& s, const packet_list& frames) noexcept {
    std::span<packet* const> rest = frames.span();
    if (shared_.closed()) [[unlikely]] {
        s.drop(rest, drop_reason::closed);
        return;
    }
    while (!rest.empty()) {
        std::size_t run = 1;
        while (run < rest.size() && rest[run]->port == rest[0]->port)
            ++run;
        port& to = *ports_[rest[0]->port];
        if (lane_ < to.lanes()) [[likely]] {
            const std::size_t sent = to.send(lane_, rest.first(run));
            counters_.sent.add(sent);
            s.drop(rest.subspan(sent, run - sent), drop_reason::tx_full);
        } else
            for (packet* p : rest.first(run))
                s.hand_over(*p, lane_ % to.lanes(), handover_phase::transmit);
        rest = rest.subspan(run);
    }
}

/// To the machine's own stack: out of an SA by the port that is the machine, all together; else as
/// frames addressed to the port they came in on.  Of those IKE before the rest: the way up takes
/// few at a time.
void pipeline::punt(stage& s, const packet_list& packets) noexcept {
    packet_list by_machine, rest;
    for (packet* p : packets) {
        if (goes_up_by_machine(s, *p))
            by_machine.push(*p);
        else if (class_of(*p) == punt_class::ike)
            punt(s, *p, punt_class::ike);
        else
            rest.push(*p);
    }
    for (packet* p : rest)
        punt(s, *p, class_of(*p));
    raise_by_machine(s, by_machine);
}

/// What came out of an SA for the machine goes up by the interface that the SA names.
bool pipeline::goes_up_by_interface(const stage& s, const packet& p) const noexcept {
    return p.inbound_sa != nullptr && interfaces_ != no_port &&
           s.routes.interface(p.interface).kind == interface_kind::tunnel;
}

/// What came out of any other SA for the machine.
bool pipeline::goes_up_by_machine(const stage& s, const packet& p) const noexcept {
    return p.inbound_sa != nullptr && machine_ != no_port && !goes_up_by_interface(s, p);
}

/// What came out of an SA for others whom the machine's stack reaches, by the port that is the
/// machine: it routes and counts the hop.
bool pipeline::goes_on_by_machine(const stage& s, const packet& p) const noexcept {
    if (p.inbound_sa == nullptr) return false;
    return p.next->kind == adjacency_kind::missing || p.next->kind == adjacency_kind::foreign ||
           s.routes.interface(p.next->interface).kind == interface_kind::kernel;
}

void pipeline::punt(stage& s, packet& p, punt_class c) noexcept {
    if (goes_up_by_interface(s, p)) p.port = interfaces_;
    port& from = *ports_[p.port];
    if (p.inbound_sa == nullptr && from.stack_listens()) { // it has the frame already
        counters_.punted.add(1);
        packet* const one[] = {&p};
        p.owner->release(one);
        return;
    }
    if (!from.reaches_stack()) {
        s.drop(p, drop_reason::punt_missing);
        return;
    }
    if (!punts_.admit(c, s.now.monotonic_ns)) {
        s.drop(p, limit_of(c));
        return;
    }
    if (c == punt_class::ike) p.flags |= packet_flag::urgent;
    if (p.inbound_sa != nullptr && from.ethernet() && !from.stack_listens())
        address_host_frame(p, s.routes);
    else
        p.pull(-p.l2_length);
    raise(s, p);
}

void pipeline::raise(stage& s, packet& frame) noexcept {
    port& to = *ports_[frame.port];
    if (lane_ >= to.lanes()) {
        s.hand_over(frame, lane_ % to.lanes(), handover_phase::punt);
        return;
    }
    packet* const one[] = {&frame};
    if (to.punt(lane_, one) == 0) {
        s.drop(frame, drop_reason::punt_full);
        return;
    }
    counters_.punted.add(1);
    frame.owner->release(one);
}

/// Of several ports that are the machine: what came out of an SA goes up by the one whose mark it
/// has, what is about something that came down by the same.
std::uint8_t pipeline::machine_for(const packet& p) const noexcept {
    if (p.inbound_sa == nullptr) return ports_[p.port]->of_machine() ? p.port : machine_;
    const std::uint32_t mark = p.inbound_sa->inner_mark.load(std::memory_order_relaxed);
    if (mark == ports_[machine_]->mark().put_on(0)) [[likely]]
        return machine_;
    const auto found = std::ranges::find_if(ports_, [mark](const port* one) {
        return one->of_machine() && one->mark().given() && one->mark().matches(mark);
    });
    return found == ports_.end() ? machine_ : static_cast<std::uint8_t>(found - ports_.begin());
}

void pipeline::raise_by_machine(stage& s, const packet_list& packets) noexcept {
    for (packet* p : packets)
        p->port = machine_for(*p);
    raise_together(s, packets);
}

/// By their ports, which are the machine; runs of one port at once.  Without a limit: what came out
/// of an SA is what the machine has asked for.  Which packets a port has not taken is all the same,
/// as it keeps none.
void pipeline::raise_together(stage& s, const packet_list& packets) noexcept {
    std::span<packet* const> rest = packets.span();
    while (!rest.empty()) {
        const auto end =
            std::ranges::find_if(rest, [&](const packet* p) { return p->port != rest[0]->port; });
        const auto run = rest.first(static_cast<std::size_t>(end - rest.begin()));
        rest = rest.subspan(run.size());
        port& to = *ports_[run[0]->port];
        if (lane_ >= to.lanes()) {
            for (packet* p : run)
                s.hand_over(*p, lane_ % to.lanes(), handover_phase::punt);
            continue;
        }
        const std::size_t taken = to.punt(lane_, run);
        counters_.punted.add(taken);
        for (packet* p : run.first(taken))
            p->owner->release({&p, 1});
        s.drop(run.subspan(taken), drop_reason::punt_full);
    }
}

/// SAs that others wait for are theirs from here on; buffers of lost packets go home.
void pipeline::finish(stage& s) noexcept {
    tell_watched(s);
    s.pass_on_owners();
    for (packet* p : s.lost)
        p->owner->release({&p, 1});
}

} // namespace esplane::fastpath

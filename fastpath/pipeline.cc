// SPDX-License-Identifier: Apache-2.0
#include "fastpath/pipeline.h"

#include "fastpath/classify.h"
#include "fastpath/inbound.h"
#include "fastpath/next_hop.h"
#include "fastpath/parse.h"

namespace esplane::fastpath {

pipeline::pipeline(const tables& shared, crypto::engine& crypto, buffer_pool& buffers,
                   std::span<port* const> ports, unsigned lane)
    : shared_(shared)
    , crypto_(crypto)
    , buffers_(buffers)
    , ports_(ports.begin(), ports.end())
    , lane_(lane) {}

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
    packet_list esp, clear;
    parse(s, frames, ports_[from]->ethernet(), esp, clear);
    if (!esp.empty()) {
        const unsigned decrypted = clear.size();
        inbound(s, esp, clear);
        filter_decrypted(s, clear, decrypted);
    }

    packet_list clear_out, local, leaving;
    verdicts to{clear_out, local, scratch_.protect};
    classify(s, clear, to);

    protect(s, to.protect.first(to.protect_count), leaving);
    bypass(s, clear_out, leaving);
    send(s, leaving);
    punt(s, local);
    finish(s);
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
    if (hold_.empty()) return;
    stage s = begin(now);
    packet_list ready;
    hold_.retry(s, ready);
    transmit(s, ready);
    send(s, packet_list{}); // what retry() had to report
    finish(s);
}

stage pipeline::begin(moment now) noexcept {
    budget_.refill(now.monotonic_ns);
    return stage{shared_,  shared_.routes(), crypto_,  counters_, events_,
                 buffers_, budget_,          scratch_, now};
}

/// What a policy protects and the filter lets pass: one hop less, then ESP.
void pipeline::protect(stage& s, std::span<protect_item> items, packet_list& leaving) noexcept {
    items = items.first(filter_protected(s, items));
    std::size_t kept = 0;
    for (const protect_item& item : items)
        if (age(s, *item.p)) items[kept++] = item;
    if (kept != 0) outbound(s, items.first(kept), leaving);
}

/// What leaves as it came.
void pipeline::bypass(stage& s, const packet_list& packets, packet_list& leaving) noexcept {
    for (packet* p : packets) {
        if (!age(s, *p) || !check_route(s, *p)) continue;
        s.counters.bypassed.add(1);
        leaving.push(*p);
    }
}

/// Writes frames and sends them, ICMP errors of this burst behind; holds what has no next hop yet.
void pipeline::send(stage& s, const packet_list& packets) noexcept {
    packet_list frames;
    const auto address = [&](packet& p) {
        if (address_frame(p))
            frames.push(p);
        else if (!hold_.add(s, p))
            s.drop(p, drop_reason::hold_full);
    };
    for (packet* p : packets)
        address(*p);
    for (packet* p : s.created)
        if (check_route(s, *p)) address(*p);
    transmit(s, frames);
}

/// To their ports, in order within each; runs of one port go together.
void pipeline::transmit(stage& s, const packet_list& frames) noexcept {
    std::span<packet* const> rest = frames.span();
    while (!rest.empty()) {
        std::size_t run = 1;
        while (run < rest.size() && rest[run]->port == rest[0]->port)
            ++run;
        const std::size_t sent = ports_[rest[0]->port]->send(lane_, rest.first(run));
        counters_.sent.add(sent);
        for (packet* p : rest.subspan(sent, run - sent))
            s.drop(*p, drop_reason::tx_full);
        rest = rest.subspan(run);
    }
}

/// To the machine's own stack, as frames addressed to the port they came in on.  IKE before the
/// rest: the way up takes few at a time.
void pipeline::punt(stage& s, const packet_list& packets) noexcept {
    packet_list rest;
    for (packet* p : packets) {
        if (class_of(*p) == punt_class::ike)
            punt(s, *p, punt_class::ike);
        else
            rest.push(*p);
    }
    for (packet* p : rest)
        punt(s, *p, class_of(*p));
}

void pipeline::punt(stage& s, packet& p, punt_class c) noexcept {
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
    if (p.inbound_sa != nullptr && from.ethernet())
        address_host_frame(p, s.routes);
    else
        p.pull(-p.l2_length);
    packet* const one[] = {&p};
    if (from.punt(lane_, one) == 0) {
        s.drop(p, drop_reason::punt_full);
        return;
    }
    counters_.punted.add(1);
    p.owner->release(one);
}

/// Buffers of lost packets go home.
void pipeline::finish(stage& s) noexcept {
    for (packet* p : s.lost)
        p->owner->release({&p, 1});
}

} // namespace esplane::fastpath

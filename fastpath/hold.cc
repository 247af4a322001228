// SPDX-License-Identifier: Apache-2.0
#include "fastpath/hold.h"

#include "fastpath/next_hop.h"

namespace esplane::fastpath {

bool hold_queue::add(stage& s, const packet& p) noexcept {
    if (count_ == capacity) return false;
    held& h = items_[count_++];
    h.p = p;
    h.since_ns = s.now.monotonic_ns;
    ask(s, h);
    s.counters.held.add(1);
    return true;
}

void hold_queue::ask(stage& s, held& h) noexcept {
    worker_event e;
    e.kind = worker_event_kind::neighbour_wanted;
    e.ifindex = h.p.next->ifindex;
    e.id.destination = next_hop_of(h.p);
    h.asked_ns = s.events.push(e) ? s.now.monotonic_ns : 0;
}

void hold_queue::retry(stage& s, packet_list& ready) noexcept {
    unsigned kept = 0;
    unsigned left = 0;
    for (unsigned i = 0; i < count_; ++i) {
        held& h = items_[i];
        packet& p = h.p;
        // Routes may have changed since: the adjacency is looked up anew.
        p.next = p.family == ipsec::family::ipv4 ? &s.routes.lookup_v4(p.ipv4().destination)
                                                 : &s.routes.lookup_v6(p.ipv6().destination.data());
        const bool waits = p.next->kind == adjacency_kind::unresolved;
        if (waits && s.now.monotonic_ns - h.since_ns < hold_ns) {
            if (s.now.monotonic_ns - h.asked_ns >= ask_ns) ask(s, h);
            if (kept != i) items_[kept] = h;
            ++kept;
            continue;
        }
        s.counters.held.subtract(1);
        packet& out = leaving_[left++] = p;
        if (waits)
            s.drop(out, drop_reason::neighbour_timeout);
        else if (check_route(s, out) && address_frame(out))
            ready.push(out);
    }
    count_ = kept;
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "fastpath/hold.h"

#include "fastpath/next_hop.h"

namespace esplane::fastpath {

namespace {

/// The mark of an SA that a packet came out of is lost when that is gone, and policies ask for it.
bool can_be_judged_again(const packet& p) noexcept {
    return (p.flags & packet_flag::encrypted) != 0 || p.inbound_sa == nullptr ||
           p.inbound_sa->inner_mark.load(std::memory_order_relaxed) == 0;
}

} // namespace

bool hold_queue::add(stage& s, const packet& p) noexcept {
    if (count_ == capacity) return false;
    held& h = items_[count_];
    h.p = p;
    h.next_hop = next_hop_of(p);
    h.ifindex = p.next->ifindex;
    h.vrf = p.next->vrf;
    h.since_ns = h.asked_ns = s.now.monotonic_ns;
    const unsigned others = waiting_with(h, count_);
    if (others == per_next_hop) return false;
    if (others == 0) ask(s, h);
    if (!can_be_judged_again(p)) return false;
    h.p.inbound_sa = nullptr;
    ++count_;
    s.counters.held.add(1);
    return true;
}

unsigned hold_queue::waiting_with(const held& h, unsigned among) const noexcept {
    unsigned n = 0;
    for (unsigned i = 0; i < among; ++i)
        n += items_[i].ifindex == h.ifindex && items_[i].next_hop == h.next_hop;
    return n;
}

void hold_queue::ask(stage& s, held& h) noexcept {
    worker_event e;
    e.kind = worker_event_kind::neighbour_wanted;
    e.ifindex = h.ifindex;
    e.id.destination = h.next_hop;
    if (s.events.push(e)) h.asked_ns = s.now.monotonic_ns;
}

/// Routes may have changed since it came: looked up anew.  Among several hops it stays with its
/// own.
const adjacency& hold_queue::route_of(const stage& s, const held& h) noexcept {
    const packet& p = h.p;
    const route_target to =
        p.family == ipsec::family::ipv4
            ? s.routes.find<4>(h.vrf, reinterpret_cast<const std::uint8_t*>(&p.ipv4().destination))
            : s.routes.find<16>(h.vrf, p.ipv6().destination.data());
    if (!to.is_group()) return to.only();
    return to.group().choose_by(h.ifindex, h.next_hop);
}

namespace {

/// Policies may have come while a packet waited: what is in clear is held against them again.
bool may_leave(const stage& s, const packet& p) noexcept {
    return (p.flags & packet_flag::encrypted) != 0 || may_leave_in_clear(s, p);
}

} // namespace

void hold_queue::retry(stage& s, packet_list& ready) noexcept {
    unsigned kept = 0;
    unsigned left = 0;
    for (unsigned i = 0; i < count_; ++i) {
        held& h = items_[i];
        packet& p = h.p;
        p.next = &route_of(s, h);
        const bool waits = p.next->kind == adjacency_kind::unresolved;
        if (waits && s.now.monotonic_ns - h.since_ns < hold_ns) {
            const bool due = s.now.monotonic_ns - h.asked_ns >= ask_ns;
            if (due && waiting_with(h, kept) == 0) ask(s, h); // the first asks for all
            if (kept != i) items_[kept] = h;
            ++kept;
            continue;
        }
        s.counters.held.subtract(1);
        packet& out = leaving_[left++] = p;
        if (waits)
            s.drop(out, drop_reason::neighbour_timeout);
        else if (!may_leave(s, out)) {
            s.counters.blocked_out.add(1);
            s.drop(out, drop_reason::policy_block);
        } else if (!check_route(s, out))
            continue;
        else if ((out.flags & packet_flag::split) != 0)
            s.drop(out, drop_reason::too_big_fragment);
        else if (address_frame(out))
            ready.push(out);
    }
    count_ = kept;
}

} // namespace esplane::fastpath

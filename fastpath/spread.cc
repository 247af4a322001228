// SPDX-License-Identifier: Apache-2.0
#include "fastpath/spread.h"

#include "fastpath/inbound.h"
#include "fastpath/next_hop.h"
#include "fastpath/outbound.h"
#include "fastpath/stage.h"

namespace esplane::fastpath {

namespace {

/// Fewer are not worth another worker's attention.
constexpr std::size_t least_to_deal = 4;

/// A worker to deal a burst to; handover_sink::none where this one keeps it.
unsigned idle_worker(const stage& s, std::size_t packets) noexcept {
    return packets < least_to_deal || s.others == nullptr ? handover_sink::none : s.others->idle();
}

/// Hands a packet and its ticket to another worker.  False: no room, it remains.
bool deal(stage& s, packet& p, std::uint64_t ticket, unsigned to, handover_phase phase,
          unsigned index, std::uint32_t word) noexcept {
    p.ticket = ticket;
    p.note = {index & 0xffffff, static_cast<std::uint32_t>(phase), word};
    if (s.others->push(to, p)) {
        s.counters.handed_out.add(1);
        return true;
    }
    p.inbound_sa = nullptr;
    p.next = nullptr;
    return false;
}

unsigned releaser_of(const spread_out& all) noexcept {
    return all.releaser;
}
unsigned releaser_of(const spread_in& all) noexcept {
    return all.owner;
}

/// Finishes a run of tickets and wakes the one who releases, who counts its packets as taken over.
/// Where it has none, too: others' may lie behind it.
template <typename Spread>
void finish_run(stage& s, Spread& all, std::uint64_t first, unsigned placed,
                std::size_t n) noexcept {
    s.counters.handed_out.add(placed);
    all.order.finish(first, placed, static_cast<unsigned>(n));
    if (s.others != nullptr) s.others->nudge(releaser_of(all));
}

/// As many packets from the front as belong to one SA.
std::span<protect_item> run_of(std::span<protect_item> items) noexcept {
    std::size_t n = 1;
    while (n < items.size() && items[n].sa == items[0].sa)
        ++n;
    return items.first(n);
}

/// An ICMP error about what came out of an SA has to know that: such packets stay here.
bool all_in_clear(std::span<const protect_item> run) noexcept {
    for (const protect_item& item : run)
        if (item.p->inbound_sa != nullptr) return false;
    return true;
}

// 1. The share's next number is the first ticket's; outbound() burns one for each packet that it
//    takes, none for one that it drops.
// 2. What has a next hop becomes a frame in the ring; what has none waits at this worker, and what
//    is to be fragmented leaves from it.
// 3. Tickets that are left over lead nowhere.
void finish_outbound(stage& s, spread_out& all, std::uint64_t first, std::span<protect_item> items,
                     packet_list& leaving) noexcept {
    if (items.empty()) return;
    sa_out& share = *all.shares[s.self];
    share.sequence_sent.set(all.base.load(std::memory_order_relaxed) + first);
    for (protect_item& item : items)
        item.sa = &share;
    packet_list done;
    outbound(s, items, done);
    unsigned placed = 0;
    for (packet* p : done) {
        if ((p->flags & packet_flag::split) == 0 && address_frame(*p))
            all.order.place(first + placed++, *p);
        else
            leaving.push(*p);
    }
    finish_run(s, all, first, placed, items.size());
}

/// Verifies and decrypts; the owner hears the verdict by `drop`, and of which seq_high by `note`.
void finish_inbound(stage& s, spread_in& all, std::uint64_t first,
                    std::span<const inbound_item> items) noexcept {
    if (items.empty()) return;
    std::span<crypto::job> jobs = std::span(s.scratch.jobs).first(items.size());
    for (std::size_t i = 0; i < items.size(); ++i)
        jobs[i] = decryption_of(items[i]);
    s.crypto.decrypt(jobs);
    for (std::size_t i = 0; i < items.size(); ++i) {
        const auto verdict = jobs[i].ok ? drop_reason::none : drop_reason::icv_mismatch;
        items[i].p->drop = static_cast<std::uint8_t>(verdict);
        items[i].p->note = {0, 0, jobs[i].seq_high};
        all.order.place(first + i, *items[i].p);
    }
    finish_run(s, all, first, static_cast<unsigned>(items.size()), items.size());
}

void number(stage& s, std::span<protect_item> run, packet_list& leaving) noexcept {
    sa_out& sa = *run[0].sa;
    spread_out& all = *sa.spread.load(std::memory_order_acquire);
    const auto first = all.order.take(static_cast<unsigned>(run.size()));
    if (!first) {
        for (const protect_item& item : run)
            s.drop(*item.p, drop_reason::spread_full);
        return;
    }
    if (const std::uint64_t sent = sa.sequence_sent.get();
        all.base.load(std::memory_order_relaxed) != sent)
        all.base.store(sent, std::memory_order_relaxed); // the line is everybody's
    std::size_t dealt = 0;
    if (const unsigned to = idle_worker(s, run.size());
        to != handover_sink::none && all_in_clear(run))
        while (dealt < run.size() && deal(s, *run[dealt].p, *first + dealt, to,
                                          handover_phase::numbered_outbound, all.index, 0))
            ++dealt;
    finish_outbound(s, all, *first + dealt, run.subspan(dealt), leaving);
}

} // namespace

void spread_outbound(stage& s, std::span<protect_item> items, packet_list& leaving) noexcept {
    while (!items.empty()) {
        const auto run = run_of(items);
        number(s, run, leaving);
        items = items.subspan(run.size());
    }
}

void spread_inbound(stage& s, spread_in& all, std::span<inbound_item> items) noexcept {
    const auto first = all.order.take(static_cast<unsigned>(items.size()));
    if (!first) {
        for (const inbound_item& c : items)
            s.drop(*c.p, drop_reason::spread_full);
        return;
    }
    std::size_t dealt = 0;
    if (const unsigned to = idle_worker(s, items.size()); to != handover_sink::none)
        while (dealt < items.size() &&
               deal(s, *items[dealt].p, *first + dealt, to, handover_phase::numbered_inbound,
                    all.index, static_cast<std::uint32_t>(items[dealt].sequence >> 32)))
            ++dealt;
    finish_inbound(s, all, *first + dealt, items.subspan(dealt));
}

bool ticket_run::goes_on(const packet& p) const noexcept {
    return count_ != 0 && count_ < max_burst && p.note.phase == note_.phase &&
           p.note.slot == note_.slot && p.ticket == first_ + count_;
}

void ticket_run::add(packet& p, packet_list& leaving) noexcept {
    if (!goes_on(p)) {
        finish(leaving);
        note_ = p.note;
        first_ = p.ticket;
    }
    const std::uint32_t word = p.note.serial;
    p.inbound_sa = nullptr;
    p.next = nullptr;
    if (static_cast<handover_phase>(note_.phase) == handover_phase::numbered_outbound)
        s_.scratch.spread[count_++] = {&p, nullptr};
    else
        s_.scratch.spread_in[count_++] = {
            .p = &p, .sa = nullptr, .sequence = std::uint64_t{word} << 32, .offset = esp_offset(p)};
}

void ticket_run::refuse(const packet& p) noexcept {
    if (static_cast<handover_phase>(p.note.phase) == handover_phase::numbered_outbound)
        finish_run(s_, *s_.shared.spread_outbound().find(p.note.slot), p.ticket, 0, 1);
    else
        finish_run(s_, *s_.shared.spread_inbound().find(p.note.slot), p.ticket, 0, 1);
}

// An SA that is gone needs no decryption; its owner drops what it releases then.
void ticket_run::finish(packet_list& leaving) noexcept {
    const unsigned n = count_;
    if (n == 0) return;
    count_ = 0;
    if (static_cast<handover_phase>(note_.phase) == handover_phase::numbered_outbound) {
        finish_outbound(s_, *s_.shared.spread_outbound().find(note_.slot), first_,
                        std::span(s_.scratch.spread).first(n), leaving);
        return;
    }
    spread_in& all = *s_.shared.spread_inbound().find(note_.slot);
    const std::span<inbound_item> items = std::span(s_.scratch.spread_in).first(n);
    sa_in* sa = all.sa.load(std::memory_order_acquire);
    for (inbound_item& c : items)
        c.sa = sa;
    if (sa != nullptr)
        finish_inbound(s_, all, first_, items);
    else {
        for (unsigned i = 0; i < n; ++i)
            all.order.place(first_ + i, *items[i].p);
        finish_run(s_, all, first_, n, n);
    }
}

} // namespace esplane::fastpath

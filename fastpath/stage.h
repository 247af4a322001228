// SPDX-License-Identifier: Apache-2.0
//
// What the stages of the pipeline share: the lists between them and the way a packet is lost.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "fastpath/counters.h"
#include "fastpath/event_ring.h"
#include "fastpath/handover.h"
#include "fastpath/packet.h"
#include "fastpath/tables.h"
#include "lib/base/clock.h"
#include "lib/crypto/engine.h"

namespace esplane::fastpath {

/// Packets on their way from one stage to the next, in order.
class packet_list {
  public:
    /// A burst, and what may be created while it is worked on: ICMP errors, and pieces.
    static constexpr unsigned capacity = 3 * max_burst;

    packet_list() noexcept {} // the array stays as it is: most of it is never looked at

    void push(packet& p) noexcept { items_[count_++] = &p; }
    /// Of those from index `first` on, only the ones that `keep` says true of stay, in order.
    template <typename Predicate>
    void keep_if(unsigned first, Predicate keep) noexcept {
        unsigned kept = first;
        for (unsigned i = first; i < count_; ++i)
            if (packet* p = items_[i]; keep(*p)) items_[kept++] = p;
        count_ = kept;
    }
    [[nodiscard]] unsigned size() const noexcept { return count_; }
    void clear() noexcept { count_ = 0; }
    [[nodiscard]] unsigned room() const noexcept { return capacity - count_; }
    [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
    [[nodiscard]] packet& operator[](unsigned i) const noexcept { return *items_[i]; }
    [[nodiscard]] packet* const* begin() const noexcept { return items_.data(); }
    [[nodiscard]] packet* const* end() const noexcept { return items_.data() + count_; }
    [[nodiscard]] std::span<packet* const> span() const noexcept { return {begin(), count_}; }

  private:
    std::array<packet*, capacity> items_;
    unsigned count_ = 0;
};

/// What a worker may create per second: a token bucket, and the descriptors for one burst.
class creation_budget {
  public:
    static constexpr std::uint32_t per_second = 1000;
    static constexpr std::uint32_t depth = 64;

    /// Starts a burst: its descriptors are free again, tokens come with time.
    void refill(std::uint64_t now_ns) noexcept;
    /// A descriptor without a buffer; nullptr where the rate or the burst is used up.
    [[nodiscard]] packet* take() noexcept;
    /// Whether one more ICMP error of others may be told to control: as many as are created.
    [[nodiscard]] bool hear() noexcept {
        if (hears_ == 0) return false;
        --hears_;
        return true;
    }

  private:
    std::array<packet, max_burst> spare_;
    unsigned used_ = 0;
    std::uint32_t tokens_ = depth;
    std::uint32_t hears_ = depth;
    std::uint64_t filled_ns_ = 0;
};

class reassembly;
struct sa_in;
struct sa_out;
struct policy_entry;

/// A packet and the SA that will carry it.
struct protect_item {
    packet* p;
    sa_out* sa;
};

/// An ESP packet and the SA it names, between lookup and decapsulation.
struct inbound_item {
    packet* p;
    sa_in* sa;
    std::uint64_t sequence;
    std::uint32_t offset; ///< of the ESP header from the packet's data
};

/// An SA, in one of its directions, whose sequence number control waits for.
struct watched_sa {
    sa_in* in;
    sa_out* out;
};

/// Arrays that one burst needs and the next one overwrites: never cleared.
struct burst_scratch {
    std::array<protect_item, max_burst> protect;
    std::array<inbound_item, max_burst> inbound;
    std::array<crypto::job, max_burst> jobs;
    std::array<sa_owner*, 2 * max_burst> passing;  ///< SAs whose owner may have to be another
    std::array<protect_item, max_burst> spread;    ///< what falls under SAs that are spread
    std::array<inbound_item, max_burst> spread_in; ///< the same, inbound
    std::array<packet, max_burst> pieces;          ///< fragments beyond the first of their packets
    std::array<watched_sa, max_burst> watched;     ///< which took a number in this burst
};

struct stage;
class port;

/// What becomes of packets that a policy protects and no SA carries yet.
class sa_seeker {
  public:
    virtual ~sa_seeker() = default;
    /// Takes the packet, or drops it.
    virtual void take(stage& s, packet& p, const policy_entry& policy) noexcept = 0;
    /// Asks for an SA for the CPU of this worker, while one for all CPUs carries the packet.
    virtual void ask_for_own(stage& s, const packet& p, const policy_entry& policy) noexcept = 0;
};

/// One burst's surroundings.  `routes` is the same table for the whole burst.
struct stage {
    /// As the members of those names.  (An aggregate's lists would be cleared for every burst.)
    stage(const tables& shared_tables, const fib& forwarding, crypto::engine& engine,
          worker_counters& count, event_ring& tell, buffer_owner& own_buffers,
          creation_budget& may_create, burst_scratch& arrays, moment at, unsigned worker = 0,
          handover_sink* other_workers = nullptr) noexcept
        : shared(shared_tables)
        , routes(forwarding)
        , crypto(engine)
        , counters(count)
        , events(tell)
        , buffers(own_buffers)
        , budget(may_create)
        , scratch(arrays)
        , now(at)
        , self(worker)
        , others(other_workers) {}

    const tables& shared;
    const fib& routes;
    crypto::engine& crypto;
    worker_counters& counters;
    event_ring& events;
    buffer_owner& buffers; ///< for packets we create
    creation_budget& budget;
    burst_scratch& scratch;
    moment now;
    unsigned self;         ///< the worker
    handover_sink* others; ///< nullptr: there are none
    /// Whether what is too long for its way may leave in fragments: see fragment.h.
    bool may_split = false;
    reassembly* fragments = nullptr; ///< where those of ESP are put together; nullptr: nowhere
    /// Whether there is an interface for every if_id, and it is up: an embedder's are his own.
    bool every_interface = false;
    std::span<port* const> ports{}; ///< by the packets' `port`; none where an embedder has them
    sa_seeker* seeker = nullptr; ///< who sees to packets that no SA carries; nullptr: nobody does
    unsigned passing = 0;        ///< how many of scratch.passing are set
    unsigned spread = 0;         ///< of scratch.spread
    unsigned pieces = 0;         ///< of scratch.pieces
    unsigned watched = 0;        ///< of scratch.watched
    packet_list lost;            ///< released at the end of the burst
    packet_list created;         ///< ICMP errors, sent at the end of the burst
    packet_list raised;          ///< the same, about what came down from the machine: up again

    /// Ends a packet.  It stays whole until the burst is over.
    void drop(packet& p, drop_reason why) noexcept {
        p.drop = static_cast<std::uint8_t>(why);
        counters.dropped[p.drop].add(1);
        lost.push(p);
    }

    void drop(std::span<packet* const> packets, drop_reason why) noexcept {
        for (packet* p : packets)
            drop(*p, why);
    }

    /// Who is to work on an SA: `self`, another worker, sa_owner::moved or sa_owner::spread.
    /// Claims an SA that has no owner.
    [[nodiscard]] unsigned owner_of(sa_owner& o) noexcept {
        if (o.is(self)) [[likely]]
            return self;
        const unsigned who = o.claim(self);
        if (who == self) scratch.passing[passing++] = &o;
        return who;
    }
    /// When nothing of the burst touches its SAs any more.
    void pass_on_owners() noexcept {
        for (unsigned i = 0; i < passing; ++i)
            scratch.passing[i]->pass_on();
    }
    /// Leaves the rest to another worker.  Where that one has no room the packet is dropped.
    void hand_over(packet& p, unsigned to, handover_phase phase, const sa_name& sa = {}) noexcept;

    /// An empty packet of our own, counted as created; nullptr (counted) where there is none to
    /// be had.
    [[nodiscard]] packet* make_packet() noexcept;
};

} // namespace esplane::fastpath

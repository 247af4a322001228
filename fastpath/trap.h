// SPDX-License-Identifier: Apache-2.0
//
// Packets that a policy protects and no SA carries yet: few of them wait, for as long as somebody
// may still answer the ACQUIRE that they raise.
//
// They wait as they came, before their hop is counted, and are held against the policies again when
// something has changed: in the order they came, before what comes later.  Where a policy or all
// together have too many, the newest is lost: the oldest is what a connection begins with, and what
// the ACQUIRE was raised for.
// Threads: the worker's.  Does not: look for an SA (classify does), remember what was lost.
#pragma once

#include <array>
#include <cstdint>

#include "fastpath/adjacency.h"
#include "fastpath/sa.h"
#include "fastpath/stage.h"

namespace esplane::fastpath {

struct verdicts;

/// Which SA packets want: of one policy, and where its template leaves addresses open, of one pair
/// of them.
struct sa_cause {
    std::uint32_t policy = 0;
    ipsec::address source;
    ipsec::address destination;
    bool of_cpu = false; ///< for the CPU of this worker alone

    friend bool operator==(const sa_cause&, const sa_cause&) = default;
};
[[nodiscard]] sa_cause cause_of(const packet& p, const policy_entry& policy) noexcept;

/// Tells control that an SA is wanted.  False: not now, its ring is full.
[[nodiscard]] bool ask_for_sa(stage& s, const packet& p, const sa_cause& why) noexcept;

/// What no packet waits for: asked for once a second.  Two SAs may share a place, and are asked for
/// more often then.
class sa_requests {
  public:
    /// Between two requests for one SA: what control has forgotten is asked for again.
    static constexpr std::uint64_t again_ns = 1'000'000'000;

    void ask(stage& s, const packet& p, const sa_cause& why) noexcept;

  private:
    struct request {
        sa_cause why;
        std::uint64_t asked_ns = 0; ///< 0: none
    };
    std::array<request, 256> places_;
};

class trap final : public sa_seeker {
  public:
    static constexpr unsigned capacity = 512;
    static constexpr unsigned packets_per_policy = 100; ///< XFRM_MAX_QUEUE_LEN
    static constexpr std::uint32_t bytes_per_policy = 128 * 1024;
    /// Takes a packet, its policy's or lost: a copy of the descriptor waits, the buffer stays where
    /// it is.  Asks control for an SA, once for all that wait for the same.
    void take(stage& s, packet& p, const policy_entry& policy) noexcept override;
    void ask_for_own(stage& s, const packet& p, const policy_entry& policy) noexcept override;

    /// Whether retry() has something to do.
    [[nodiscard]] bool due(const tables& shared, moment now) const noexcept;
    /// Begins a round over all that wait now.
    void begin_round(const tables& shared, moment now) noexcept;
    /// Holds the next of a round against the policies, at most max_burst of them; false: there are
    /// none.  What is in `to` then is valid until the next call.
    [[nodiscard]] bool retry(stage& s, verdicts& to) noexcept;

    [[nodiscard]] bool empty() const noexcept { return count_ == 0; }

  private:
    struct waiting {
        packet p;
        adjacency way;          ///< what p.next was
        std::uint32_t mark = 0; ///< of the SA that it came out of
        sa_cause why;
        std::uint64_t until_ns = 0;
        std::uint64_t asked_ns = 0; ///< 0: by another that waits
    };
    /// What a policy has here.  Two whose numbers are 1,024 apart share one.
    struct share {
        std::uint32_t packets = 0;
        std::uint32_t bytes = 0;
    };
    static_assert((capacity & (capacity - 1)) == 0);

    [[nodiscard]] share& share_of(std::uint32_t policy) noexcept {
        return shares_[(policy >> 3) % shares_.size()]; // below are the bits of the direction
    }
    [[nodiscard]] const waiting* first_of(const sa_cause& why) const noexcept;
    [[nodiscard]] waiting& at(unsigned i) noexcept { return items_[(first_ + i) % capacity]; }
    [[nodiscard]] const waiting& at(unsigned i) const noexcept {
        return items_[(first_ + i) % capacity];
    }
    static void ask(stage& s, waiting& w) noexcept;

    std::array<waiting, capacity> items_;    ///< a ring
    std::array<waiting, max_burst> leaving_; ///< what retry() is about
    std::array<share, 1024> shares_{};
    sa_requests requests_; ///< of packets that do not wait
    /// In the place of SAs that packets came out of, which may be gone when they leave.
    sa_in stand_in_;
    unsigned first_ = 0;
    unsigned count_ = 0;
    unsigned ahead_ = 0;               ///< of these, in front: to be retried in this round
    const waiting* retried_ = nullptr; ///< the one that is
    std::uint32_t changes_ = 0;        ///< tables::sa_changes() when the last round began
    std::uint64_t next_round_ns_ = 0;  ///< whatever changes
};

} // namespace esplane::fastpath

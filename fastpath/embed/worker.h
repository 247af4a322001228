// SPDX-License-Identifier: Apache-2.0
//
// A worker whose packets somebody else receives and sends: the stages of the pipeline between rx
// and the next hop, over an embedder's buffers.
//
//   inbound    parse -> inbound -> in, fwd
//   outbound   parse -> (in, fwd) -> out -> outbound
//
// Each packet gets its verdict; none is kept, created or released.
// Threads: the one that registered it; counters() and events() are control's.
#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "fastpath/stage.h"
#include "fastpath/trap.h"
#include "lib/api/esplane/esplane.h"

namespace esplane::embed {

/// What an embedder hands in: packets so many bytes apart.
class packet_array {
  public:
    packet_array(esplane_packet* first, std::size_t distance, std::size_t count) noexcept
        : first_(reinterpret_cast<std::uint8_t*>(first))
        , distance_(distance)
        , count_(count) {}

    [[nodiscard]] std::size_t size() const noexcept { return count_; }
    [[nodiscard]] esplane_packet& operator[](std::size_t i) const noexcept {
        return *reinterpret_cast<esplane_packet*>(first_ + i * distance_);
    }
    /// Takes at most `most` from the front.
    [[nodiscard]] packet_array split(std::size_t most) noexcept {
        packet_array front = *this;
        front.count_ = count_ < most ? count_ : most;
        first_ += front.count_ * distance_;
        count_ -= front.count_;
        return front;
    }

  private:
    std::uint8_t* first_;
    std::size_t distance_;
    std::size_t count_;
};

class worker final : private fastpath::handover_sink, private fastpath::sa_seeker {
  public:
    /// index   below fastpath::max_lanes.  Errors: ENOTSUP (crypto::engine).
    [[nodiscard]] static result<std::unique_ptr<worker>>
    make(fastpath::tables& shared, unsigned index, crypto::engine_options options);
    worker(const worker&) = delete;
    worker& operator=(const worker&) = delete;

    void inbound(packet_array packets, moment now) noexcept;
    /// from_outside   hold them against `in` and `fwd` first
    void outbound(packet_array packets, moment now, bool from_outside) noexcept;

    [[nodiscard]] unsigned index() const noexcept { return index_; }
    [[nodiscard]] const fastpath::worker_counters& counters() const noexcept { return counters_; }
    [[nodiscard]] fastpath::event_ring& events() noexcept { return events_; }

  private:
    /// What becomes of one packet of the burst, beside what its descriptor says.
    struct outcome {
        std::uint8_t verdict;
        std::uint8_t other; ///< ESPLANE_OTHER_WORKER: which
        bool awaits_sa;
        std::uint32_t spi; ///< host order
        std::uint32_t if_id;
        const fastpath::sa_out* sa;
    };

    worker(fastpath::tables& shared, unsigned index, std::unique_ptr<crypto::engine> crypto);
    [[nodiscard]] bool push(unsigned to, fastpath::packet& p) noexcept override;
    void take(fastpath::stage& s, fastpath::packet& p,
              const fastpath::policy_entry& policy) noexcept override;
    void ask_for_own(fastpath::stage& s, const fastpath::packet& p,
                     const fastpath::policy_entry& policy) noexcept override;
    [[nodiscard]] fastpath::stage begin(const packet_array& packets, moment now) noexcept;
    void inbound_burst(packet_array packets, moment now) noexcept;
    void outbound_burst(packet_array packets, moment now, bool from_outside) noexcept;
    void admit_all(fastpath::stage& s, const fastpath::packet_list& packets) noexcept;
    void direct_all(fastpath::stage& s, std::size_t count, bool from_outside,
                    fastpath::verdicts& to) noexcept;
    void route(fastpath::packet& p) noexcept;
    void protect(fastpath::stage& s, std::span<fastpath::protect_item> items) noexcept;
    void finish(fastpath::stage& s, packet_array packets) noexcept;
    void report_drop(std::size_t i, esplane_packet& to) noexcept;
    [[nodiscard]] outcome& outcome_of(const fastpath::packet& p) noexcept {
        return outcomes_[static_cast<std::size_t>(&p - packets_.data())];
    }

    fastpath::tables& shared_;
    unsigned index_;
    std::unique_ptr<crypto::engine> crypto_;
    fastpath::worker_counters counters_;
    fastpath::event_ring events_;
    fastpath::creation_budget budget_;
    fastpath::burst_scratch scratch_;
    std::array<fastpath::packet, fastpath::max_burst> packets_;
    std::array<outcome, fastpath::max_burst> outcomes_;
    fastpath::sa_requests requests_;
    /// Ways out of packets that the embedder routed into an interface.
    std::array<fastpath::adjacency, fastpath::max_burst> interfaces_;
};

} // namespace esplane::embed

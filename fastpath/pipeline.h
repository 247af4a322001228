// SPDX-License-Identifier: Apache-2.0
//
// The data path, whole: start reading here.
//
//   rx -> parse -> inbound -> classify -> outbound -> next hop -> tx
//                                 |                      |
//                                 '--> punt              '--> hold
//
// A pipeline belongs to one worker.  It does no I/O of its own: frames come in as packets and go
// out through ports.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "fastpath/buffer_pool.h"
#include "fastpath/hold.h"
#include "fastpath/machine.h"
#include "fastpath/outbound.h"
#include "fastpath/port.h"
#include "fastpath/punt.h"
#include "fastpath/reassembly.h"
#include "fastpath/stage.h"
#include "fastpath/trap.h"

namespace esplane::fastpath {

class pipeline {
  public:
    /// All outlive the pipeline.  ports   at most 64; their index is the packets' `port`
    /// lane     the worker's, of all ports
    /// others   where packets for other workers go; nullptr: there are none
    pipeline(const tables& shared, crypto::engine& crypto, buffer_pool& buffers,
             std::span<port* const> ports, unsigned lane, handover_sink* others = nullptr);

    /// Takes a burst of at most max_burst frames that came in on `from` to their ends.
    void process(std::span<packet> frames, std::uint8_t from, moment now) noexcept;

    /// Goes on with at most max_burst packets that another worker began.
    void take_over(std::span<packet* const> handed, moment now) noexcept;

    /// Goes on with what all workers together have finished for this one.  False: nothing was
    /// there.
    bool release_spread(moment now) noexcept;
    /// Whether release_spread() would find something.
    [[nodiscard]] bool awaits_release() const noexcept;

    /// How much may go to the machine's own stack from now on.
    void limit_punts(const punt_rates& rates) noexcept { punts_ = punt_limiter(rates); }

    /// Lets a port send what the machine's own stack gave its twin.  Once per loop.
    void relay(port& p, moment now) noexcept;

    /// Sends held packets whose next hop is known by now, and what an SA has come for.  Once per
    /// loop.
    void tend(moment now) noexcept;

    [[nodiscard]] const worker_counters& counters() const noexcept { return counters_; }
    [[nodiscard]] worker_counters& counters() noexcept { return counters_; }
    [[nodiscard]] event_ring& events() noexcept { return events_; }
    [[nodiscard]] bool holds_packets() const noexcept { return !hold_.empty(); }
    [[nodiscard]] bool awaits_sas() const noexcept { return !waiting_.empty(); }

  private:
    [[nodiscard]] stage begin(moment now) noexcept;
    void decrypt(stage& s, const packet_list& esp, packet_list& clear) noexcept;
    static void judge_decrypted(stage& s, packet_list& clear, unsigned first) noexcept;
    void forward(stage& s, const packet_list& clear, packet_list& leaving) noexcept;
    static void protect(stage& s, std::span<protect_item> items, packet_list& leaving) noexcept;
    static void encrypt(stage& s, std::span<protect_item> items, packet_list& leaving) noexcept;
    void bypass(stage& s, const packet_list& packets, packet_list& leaving) noexcept;
    void send(stage& s, const packet_list& packets) noexcept;
    /// What is too long for its way, in pieces to `address`.
    template <typename Address>
    void split(stage& s, packet& p, const Address& address) noexcept;
    void transmit(stage& s, const packet_list& frames) noexcept;
    [[nodiscard]] std::span<packet> hand_up(stage& s, std::span<packet> frames) noexcept;
    void punt(stage& s, const packet_list& packets) noexcept;
    void punt(stage& s, packet& p, punt_class c) noexcept;
    [[nodiscard]] bool goes_up_by_interface(const stage& s, const packet& p) const noexcept;
    [[nodiscard]] bool goes_up_by_machine(const stage& s, const packet& p) const noexcept;
    [[nodiscard]] bool goes_on_by_machine(const stage& s, const packet& p) const noexcept;
    [[nodiscard]] std::uint8_t machine_for(const packet& p) const noexcept;
    /// Up, as it is.
    void raise(stage& s, packet& frame) noexcept;
    void raise_by_machine(stage& s, const packet_list& packets) noexcept;
    void raise_together(stage& s, const packet_list& packets) noexcept;
    void tend_held(moment now) noexcept;
    void tend_fragments(moment now) noexcept;
    void retry_waiting(moment now) noexcept;
    void finish(stage& s) noexcept;

    const tables& shared_;
    crypto::engine& crypto_;
    buffer_pool& buffers_;
    std::vector<port*> ports_;
    std::uint8_t interfaces_; ///< the port that is those of tunnels by route; or no_port
    std::uint8_t machine_;    ///< the first port that is the machine itself; or no_port
    unsigned lane_;
    handover_sink* others_;
    worker_counters counters_;
    event_ring events_;
    creation_budget budget_;
    punt_limiter punts_;
    burst_scratch scratch_;
    hold_queue hold_;
    trap waiting_; ///< for an SA
    reassembly reassembly_;
    fragment_memory fragments_;               ///< of what the machine sends
    std::array<packet, max_burst> handed_up_; ///< of one burst
};

} // namespace esplane::fastpath

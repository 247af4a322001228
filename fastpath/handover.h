// SPDX-License-Identifier: Apache-2.0
//
// Packets on their way from one worker to another: to the owner of their SA, or to a worker that
// has a lane of the port they leave by.
//
//   worker 0  --[ring 0>1]-->  worker 1        one ring for each ordered pair: one writer, one
//   worker 0  <--[ring 1>0]--  worker 1        reader, and the order of each SA and flow is kept
//
// Descriptors are copied, buffers stay where they are.  No pointer to anything in the tables
// is followed across: what a note names is looked up again by whoever takes over, so that one grace
// period stays enough to free things; packet::inbound_sa still says that there was one, no more.
// Pushed packets become visible in bursts, once per loop; a ring that is full costs packets,
// counted. Threads: ring(i, j) is written by worker i and read by worker j; the rest says so
// itself.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "fastpath/lane.h"
#include "fastpath/packet.h"

namespace esplane::fastpath {

/// What the next worker does with a packet.
enum class handover_phase : std::uint8_t {
    inbound,           ///< parsed: decrypt it and go on from there
    outbound,          ///< `note` names the sa_out: encrypt, send
    transmit,          ///< a frame, complete: send it by packet::port
    punt,              ///< a frame, complete: up by packet::port
    numbered_outbound, ///< `ticket` of the spread_out `note.slot`: encrypt, put
    numbered_inbound,  ///< `ticket` of the spread_in `note.slot`: decrypt, put; serial: seq_high
};

/// One writer, one reader, no waiting.
class handover_ring {
  public:
    static constexpr std::uint32_t size = 512;

    handover_ring()
        : slots_(std::make_unique<packet[]>(size)) {}

    /// Writer: copies a descriptor in; the reader sees it after publish().  False: full.
    [[nodiscard]] bool push(const packet& p) noexcept {
        if (next_in_ - known_out_ == size) {
            known_out_ = out_.load(std::memory_order_acquire);
            if (next_in_ - known_out_ == size) return false;
        }
        slots_[next_in_++ % size] = p;
        return true;
    }
    /// Writer.  In one order with ring_bell(): a reader that falls asleep sees the packets,
    /// or is seen asleep.
    void publish() noexcept { in_.store(next_in_, std::memory_order_seq_cst); }

    /// Reader: the oldest packets, at most `into.size()`.  They lie in the ring until release().
    [[nodiscard]] std::size_t peek(std::span<packet*> into) noexcept {
        const std::uint32_t in = in_.load(std::memory_order_acquire);
        std::size_t n = 0;
        for (std::uint32_t at = next_out_; n < into.size() && at != in; ++at)
            into[n++] = &slots_[at % size];
        return n;
    }
    /// Reader: the oldest `n` are done with.
    void release(std::size_t n) noexcept {
        next_out_ += static_cast<std::uint32_t>(n);
        out_.store(next_out_, std::memory_order_release);
    }
    /// Writer: how many the reader has not taken yet.
    [[nodiscard]] std::uint32_t waiting() const noexcept {
        return next_in_ - out_.load(std::memory_order_acquire);
    }
    /// Reader, before it falls asleep.
    [[nodiscard]] bool empty() const noexcept {
        return in_.load(std::memory_order_seq_cst) == next_out_;
    }

  private:
    std::unique_ptr<packet[]> slots_;
    // The writer's.
    alignas(64) std::atomic<std::uint32_t> in_{0};
    std::uint32_t next_in_ = 0;   ///< written, not yet published
    std::uint32_t known_out_ = 0; ///< `out_` as last looked at
    // The reader's.
    alignas(64) std::atomic<std::uint32_t> out_{0};
    std::uint32_t next_out_ = 0;
};

/// All rings of an engine, and a bell at each worker's bed.
class handover_mesh {
  public:
    explicit handover_mesh(unsigned workers);

    [[nodiscard]] unsigned workers() const noexcept { return workers_; }
    /// Both have joined, and are not the same.
    [[nodiscard]] handover_ring& ring(unsigned from, unsigned to) noexcept {
        return *rings_[from * workers_ + to];
    }
    /// Before any worker runs: makes the rings that lead to one, on the node of the caller.
    /// eventfd   wakes the worker
    void join(unsigned worker, int eventfd);

    /// The worker itself: from now on it is woken.  False: packets are there; it must not sleep.
    [[nodiscard]] bool lie_down(unsigned worker) noexcept;
    void get_up(unsigned worker) noexcept {
        beds_[worker].asleep.store(false, std::memory_order_relaxed);
    }
    /// The worker itself, each loop: whether its ports had packets.
    void note_arrivals(unsigned worker, bool some) noexcept {
        if (beds_[worker].arrivals.load(std::memory_order_relaxed) != some)
            beds_[worker].arrivals.store(some, std::memory_order_relaxed);
    }
    [[nodiscard]] bool has_arrivals(unsigned worker) const noexcept {
        return beds_[worker].arrivals.load(std::memory_order_relaxed);
    }
    /// After publishing to a worker: wakes it where it sleeps, once per sleep.
    void ring_bell(unsigned worker) noexcept;

  private:
    struct alignas(64) bed {
        std::atomic<bool> asleep{false};
        std::atomic<bool> arrivals{false};
        int bell = -1;
    };
    unsigned workers_;
    std::vector<std::unique_ptr<handover_ring>> rings_; ///< none from a worker to itself
    std::unique_ptr<bed[]> beds_;
};

/// Where a burst puts packets that another worker is to go on with.
class handover_sink {
  public:
    virtual ~handover_sink() = default;
    /// Takes the packet over, its `note` set; false: not now, it remains the caller's.
    [[nodiscard]] virtual bool push(unsigned to, packet& p) noexcept = 0;
    /// Another worker whose ports are quiet and who has done most of what it was given; `none`
    /// where all are busy.
    static constexpr unsigned none = max_lanes;
    [[nodiscard]] virtual unsigned idle() noexcept { return none; }
    /// At the end of the loop that worker is woken: something is there for it.
    virtual void nudge(unsigned) noexcept {}
};

/// One worker's way to all others.
class outbox final : public handover_sink {
  public:
    /// `mesh` outlives it.
    outbox(handover_mesh& mesh, unsigned self)
        : mesh_(mesh)
        , self_(self) {}

    /// False: the ring is full.
    [[nodiscard]] bool push(unsigned to, packet& p) noexcept override {
        if (!mesh_.ring(self_, to).push(p)) return false;
        touched_ |= std::uint64_t{1} << to;
        return true;
    }
    [[nodiscard]] unsigned idle() noexcept override;
    void nudge(unsigned to) noexcept override {
        if (to != self_) nudged_ |= std::uint64_t{1} << to;
    }
    /// The others see what was pushed since the last call.
    void publish() noexcept;

  private:
    handover_mesh& mesh_;
    unsigned self_;
    std::uint64_t touched_ = 0; ///< workers that have something in a ring to see
    std::uint64_t nudged_ = 0;  ///< workers that have something elsewhere
    unsigned last_idle_ = 0;    ///< whom idle() named last
};

} // namespace esplane::fastpath

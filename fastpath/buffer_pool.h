// SPDX-License-Identifier: Apache-2.0
//
// All packet buffers of an engine: one mapping, equal frames, a stack of free ones for each lane.
//
// The mapping is what an AF_XDP port registers as its UMEM, so frames go from port to port, and
// from worker to worker, without a copy.  Everything exists at start: an empty pool costs packets,
// never memory.  Each frame has a home lane, in whose caches it mostly lies, and on whose memory
// node; whoever frees it gives it back to there, in chunks, by a depot.  A lane that has none left
// takes from others' depots.
// Threads: release, allocate, take and give work on the stack of this_lane(); the rest is
// anybody's. Huge pages by madvise where the kernel has them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fastpath/counters.h"
#include "fastpath/frame_depot.h"
#include "fastpath/lane.h"
#include "fastpath/packet.h"
#include "lib/base/result.h"

namespace esplane::fastpath {

class buffer_pool final : public buffer_owner {
  public:
    static constexpr std::uint32_t frame_size = 4096;
    static constexpr std::uint16_t headroom = 256; ///< in front of a received frame
    /// Free frames that a lane keeps to itself: a burst in each direction, and more.
    static constexpr std::uint32_t full_stack = 8 * frame_depot::chunk;

    /// count   frames, at least 64
    /// lanes   1 to max_lanes
    /// nodes   of memory, for each lane the one its frames are to lie on (numa.h); empty: any
    /// Errors: ENOMEM.
    [[nodiscard]] static result<std::unique_ptr<buffer_pool>>
    make(std::uint32_t count, unsigned lanes = 1, std::span<const int> nodes = {});
    ~buffer_pool() override;
    buffer_pool(const buffer_pool&) = delete;
    buffer_pool& operator=(const buffer_pool&) = delete;

    void release(std::span<packet* const> packets) noexcept override;
    [[nodiscard]] bool allocate(packet& into, std::uint32_t room) noexcept override;

    /// Frames by offset from base(), for ports that hand them to a device.  Returns how many.
    [[nodiscard]] std::size_t take(std::span<std::uint64_t> frames) noexcept;
    /// Gives frames back.  Any offset inside a frame will do.
    void give(std::span<const std::uint64_t> frames) noexcept;

    /// Sets every field of `into` for `length` bytes that lie at `offset` from base().
    void describe(packet& into, std::uint64_t offset, std::uint32_t length) noexcept;
    /// Where the data of a packet of this pool lies now, from base().
    [[nodiscard]] std::uint64_t offset_of(const packet& p) const noexcept {
        return static_cast<std::uint64_t>(p.data - base_);
    }

    [[nodiscard]] std::uint8_t* base() const noexcept { return base_; }
    [[nodiscard]] std::uint64_t size() const noexcept { return std::uint64_t{count_} * frame_size; }
    [[nodiscard]] std::uint32_t count() const noexcept { return count_; }
    /// Free frames of all lanes and depots; while workers run, about.
    [[nodiscard]] std::size_t free_frames() const noexcept;
    /// Free frames that this lane can have now: its own and the depots'.
    [[nodiscard]] std::size_t within_reach() const noexcept {
        std::size_t n = mine().size();
        for (unsigned i = 0; i < lanes_; ++i)
            n += depots_[i]->size() * frame_depot::chunk;
        return n;
    }
    /// So many free frames, at most, lie where other lanes cannot have them.
    [[nodiscard]] static constexpr std::uint32_t kept_by_lanes(unsigned lanes) noexcept {
        constexpr auto chunk = static_cast<std::uint32_t>(frame_depot::chunk);
        return lanes == 1 ? 0 : lanes * (full_stack + (lanes - 1) * chunk);
    }
    /// The lane that a frame belongs to.
    [[nodiscard]] unsigned home_of(std::uint64_t frame) const noexcept {
        return static_cast<unsigned>(frame / frame_size * lanes_a_frame_ >> 32);
    }

  private:
    /// A stack with one writer, whose size others may read.
    class alignas(64) stack {
      public:
        void reserve(std::size_t n) { frames_ = std::make_unique<std::uint64_t[]>(n); }
        void push(std::uint64_t frame) noexcept {
            const std::size_t n = size();
            frames_[n] = frame;
            size_.set(n + 1);
        }
        [[nodiscard]] std::uint64_t pop() noexcept {
            const std::size_t n = size() - 1;
            size_.set(n);
            return frames_[n];
        }
        [[nodiscard]] std::size_t size() const noexcept { return size_.get(); }
        /// The newest `frame_depot::chunk`; the caller has checked that there are as many.
        [[nodiscard]] std::span<std::uint64_t, frame_depot::chunk> top() noexcept {
            return std::span<std::uint64_t, frame_depot::chunk>(
                &frames_[size() - frame_depot::chunk], frame_depot::chunk);
        }
        void grow(std::size_t n) noexcept { size_.set(size() + n); }
        void shrink(std::size_t n) noexcept { size_.set(size() - n); }

      private:
        std::unique_ptr<std::uint64_t[]> frames_;
        counter size_;
    };

    buffer_pool(std::uint8_t* base, std::uint32_t count, unsigned lanes);
    [[nodiscard]] stack& mine() noexcept { return stacks_[this_lane()]; }
    [[nodiscard]] const stack& mine() const noexcept { return stacks_[this_lane()]; }
    /// What this lane has freed of another's.
    [[nodiscard]] stack& away(unsigned home) noexcept { return away_[this_lane() * lanes_ + home]; }
    void put(std::uint64_t frame) noexcept;
    [[nodiscard]] bool stock(stack& s) noexcept;

    std::uint8_t* base_;
    std::uint32_t count_;
    unsigned lanes_;
    std::uint64_t lanes_a_frame_; ///< times 2^32, rounded down
    std::unique_ptr<stack[]> stacks_;
    std::unique_ptr<stack[]> away_; ///< by lane and home
    std::vector<std::unique_ptr<frame_depot>> depots_;
};

} // namespace esplane::fastpath

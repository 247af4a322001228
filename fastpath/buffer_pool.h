// SPDX-License-Identifier: Apache-2.0
//
// All packet buffers of a worker: one mapping, equal frames, a stack of free ones.
//
// The mapping is what an AF_XDP port registers as its UMEM, so frames go from port to port without
// a copy.  Everything exists at start: an empty pool costs packets, never memory.
// Threads: the worker's.  Huge pages by madvise where the kernel has them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fastpath/packet.h"
#include "lib/base/result.h"

namespace esplane::fastpath {

class buffer_pool final : public buffer_owner {
  public:
    static constexpr std::uint32_t frame_size = 4096;
    static constexpr std::uint16_t headroom = 256; ///< in front of a received frame

    /// count   frames, at least 64.  Errors: ENOMEM.
    [[nodiscard]] static result<std::unique_ptr<buffer_pool>> make(std::uint32_t count);
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
    [[nodiscard]] std::size_t free_frames() const noexcept { return free_.size(); }

  private:
    buffer_pool(std::uint8_t* base, std::uint32_t count);

    std::uint8_t* base_;
    std::uint32_t count_;
    std::vector<std::uint64_t> free_; ///< offsets of frame starts; reserved for all of them
};

} // namespace esplane::fastpath

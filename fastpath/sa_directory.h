// SPDX-License-Identifier: Apache-2.0
//
// Outbound SAs by a number that stays theirs: how a packet names its SA where no pointer may go.
//
// A name is a slot and a serial.  The slot may be another SA's by the time somebody looks; then the
// serial is not the one that was asked for.  An SA that is taken from a worker by force goes on as
// a new object under the old name.
// Threads: control writes, workers read.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "fastpath/sa.h"
#include "lib/base/slab.h"

namespace esplane::fastpath {

class sa_directory {
  public:
    static constexpr std::uint32_t capacity = 1u << 24;

    sa_directory() = default;
    ~sa_directory() {
        for (auto& c : chunks_)
            delete c.load(std::memory_order_relaxed);
    }
    sa_directory(const sa_directory&) = delete;
    sa_directory& operator=(const sa_directory&) = delete;

    /// Worker: nullptr where that SA is gone.  Valid until the worker is quiescent.
    [[nodiscard]] sa_out* find(const sa_name& name) const noexcept {
        sa_out* sa = cell(name.slot)->load(std::memory_order_acquire);
        return sa != nullptr && sa->name.serial == name.serial ? sa : nullptr;
    }

    /// Gives the SA its name.  False: there are `capacity` already.
    [[nodiscard]] bool add(sa_out& sa);
    /// Puts `after`, which has the same name, into the place of what is there.
    void replace(sa_out& after) noexcept {
        cell(after.name.slot)->store(&after, std::memory_order_release);
    }
    /// For now: replace() brings it back.
    void hide(const sa_out& sa) noexcept {
        cell(sa.name.slot)->store(nullptr, std::memory_order_release);
    }
    void remove(const sa_out& sa) {
        hide(sa);
        free_.push_back(sa.name.slot);
    }

  private:
    static constexpr std::uint32_t chunk_size = 4096;
    struct alignas(64) chunk : on_slab<chunk> {
        std::array<std::atomic<sa_out*>, chunk_size> cells{};
    };

    [[nodiscard]] std::atomic<sa_out*>* cell(std::uint32_t slot) const noexcept {
        chunk* const c = chunks_[slot / chunk_size].load(std::memory_order_acquire);
        return &c->cells[slot % chunk_size];
    }

    std::array<std::atomic<chunk*>, capacity / chunk_size> chunks_{};
    std::uint32_t used_ = 0;          ///< slots that were ever given
    std::vector<std::uint32_t> free_; ///< of these
    std::uint32_t serial_ = 0;
};

inline bool sa_directory::add(sa_out& sa) {
    std::uint32_t slot = used_;
    if (!free_.empty()) {
        slot = free_.back();
        free_.pop_back();
    } else if (used_ == capacity)
        return false;
    else if (used_++ % chunk_size == 0)
        chunks_[slot / chunk_size].store(new chunk, std::memory_order_release);
    sa.name = {slot, ++serial_};
    replace(sa);
    return true;
}

} // namespace esplane::fastpath

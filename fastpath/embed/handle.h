// SPDX-License-Identifier: Apache-2.0
//
// Handles that outlive what they name.
//
// An embedder holds the address of a slot, never of the object: slots are there as long as the
// process, so that a handle that is stale, or never was one, is told from a good one without being
// followed.  A slot is given again as late as possible.
// Threads: any; that an object does not go while it is used is its owner's business.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace esplane::embed {

/// Slot   has `std::atomic<Object*> object`
template <typename Slot, typename Object, std::size_t Size>
class handle_table {
  public:
    /// nullptr where all slots are taken.
    [[nodiscard]] Slot* put(Object& what) noexcept {
        const std::lock_guard lock(mutex_);
        for (std::size_t tried = 0; tried < Size; ++tried) {
            Slot& s = slots_[next_];
            next_ = (next_ + 1) % Size;
            if (s.object.load(std::memory_order_relaxed) != nullptr) continue;
            s.object.store(&what, std::memory_order_release);
            return &s;
        }
        return nullptr;
    }

    void erase(Slot* s) noexcept { s->object.store(nullptr, std::memory_order_release); }

    /// nullptr where the handle names nothing.
    [[nodiscard]] Object* find(const Slot* handle) const noexcept {
        const auto at = reinterpret_cast<std::uintptr_t>(handle);
        const auto first = reinterpret_cast<std::uintptr_t>(slots_.data());
        if (at < first || at >= first + sizeof slots_ || (at - first) % sizeof(Slot) != 0)
            return nullptr;
        return handle->object.load(std::memory_order_acquire);
    }

  private:
    std::mutex mutex_;
    std::array<Slot, Size> slots_{};
    std::size_t next_ = 0;
};

} // namespace esplane::embed

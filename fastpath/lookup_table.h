// SPDX-License-Identifier: Apache-2.0
//
// A hash table of pointers that one thread changes while workers read it, without a lock.
//
// Open addressing with linear probing.  Readers see a consistent table at any moment: a slot is one
// atomic pointer.  What a change takes out (an entry, an outgrown array) is handed to `retire` and
// may be freed only after all workers were quiescent.
//
// Entry has a member `std::uint32_t hash`, fixed while it is in the table.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "fastpath/retired.h"

namespace esplane::fastpath {

template <typename Entry>
class lookup_table {
  public:
    explicit lookup_table(retired& graveyard, std::uint32_t capacity = 16)
        : graveyard_(graveyard)
        , current_(slots::make(capacity)) {}
    ~lookup_table() { slots::free(current_.load(std::memory_order_relaxed)); }
    lookup_table(const lookup_table&) = delete;
    lookup_table& operator=(const lookup_table&) = delete;

    /// Reader.  `match` decides between entries of one hash.
    template <typename Match>
    [[nodiscard]] Entry* find(std::uint32_t hash, Match match) const noexcept {
        const slots* s = current_.load(std::memory_order_acquire);
        for (std::uint32_t i = hash & s->mask;; i = (i + 1) & s->mask) {
            Entry* e = s->cell[i].load(std::memory_order_acquire);
            if (e == nullptr) return nullptr;
            if (e != tombstone() && e->hash == hash && match(*e)) return e;
        }
    }

    /// Reader: brings the slot of a hash nearer.
    void prefetch(std::uint32_t hash) const noexcept {
        const slots* s = current_.load(std::memory_order_acquire);
        __builtin_prefetch(&s->cell[hash & s->mask]);
    }
    /// Reader: brings nearer what the slot of a hash points to first.
    void prefetch_entry(std::uint32_t hash) const noexcept {
        const slots* s = current_.load(std::memory_order_acquire);
        __builtin_prefetch(s->cell[hash & s->mask].load(std::memory_order_relaxed));
    }

    /// Writer.  The entry is the table's to publish, the caller's to own.
    void insert(Entry* e) {
        slots* s = current_.load(std::memory_order_relaxed);
        if ((used_ + 1) * 2 > s->mask + 1) s = grow();
        place(*s, e);
        ++used_;
        ++size_;
    }

    /// Writer.  The entry stays readable until the workers were quiescent.
    void erase(const Entry* e) noexcept {
        slots* s = current_.load(std::memory_order_relaxed);
        for (std::uint32_t i = e->hash & s->mask;; i = (i + 1) & s->mask) {
            Entry* found = s->cell[i].load(std::memory_order_relaxed);
            if (found == nullptr) return;
            if (found != e) continue;
            s->cell[i].store(tombstone(), std::memory_order_release);
            --size_;
            return;
        }
    }

    /// Writer: puts `after` into the slot of `before`; same hash.
    void replace(const Entry* before, Entry* after) noexcept {
        slots* s = current_.load(std::memory_order_relaxed);
        for (std::uint32_t i = before->hash & s->mask;; i = (i + 1) & s->mask) {
            if (s->cell[i].load(std::memory_order_relaxed) != before) continue;
            s->cell[i].store(after, std::memory_order_release);
            return;
        }
    }

    [[nodiscard]] std::size_t size() const noexcept { return size_; }

  private:
    /// Mask and cells in one piece of memory: one pointer less on the way to an entry.
    struct slots {
        std::uint32_t mask;
        std::atomic<Entry*> cell[1]; ///< mask + 1 of them

        static slots* make(std::uint32_t capacity) {
            void* memory =
                ::operator new(offsetof(slots, cell) + capacity * sizeof(std::atomic<Entry*>));
            auto* s = static_cast<slots*>(memory);
            s->mask = capacity - 1;
            for (std::uint32_t i = 0; i < capacity; ++i)
                new (&s->cell[i]) std::atomic<Entry*>(nullptr);
            return s;
        }
        static void free(slots* s) noexcept { ::operator delete(s); }
    };

    static Entry* tombstone() noexcept {
        alignas(Entry) static char grave[1];
        return reinterpret_cast<Entry*>(grave);
    }

    static void place(slots& s, Entry* e) noexcept {
        std::uint32_t i = e->hash & s.mask;
        while (s.cell[i].load(std::memory_order_relaxed) != nullptr)
            i = (i + 1) & s.mask;
        s.cell[i].store(e, std::memory_order_release);
    }

    /// A new array without the tombstones, sized for what lives.
    slots* grow() {
        slots* old = current_.load(std::memory_order_relaxed);
        std::uint32_t capacity = 16;
        while (capacity < (size_ + 1) * 4)
            capacity *= 2;
        slots* next = slots::make(capacity);
        for (std::uint32_t i = 0; i <= old->mask; ++i) {
            Entry* e = old->cell[i].load(std::memory_order_relaxed);
            if (e != nullptr && e != tombstone()) place(*next, e);
        }
        current_.store(next, std::memory_order_release);
        graveyard_.add([old] { slots::free(old); });
        used_ = size_;
        return next;
    }

    retired& graveyard_;
    std::atomic<slots*> current_;
    std::size_t size_ = 0; ///< living entries
    std::size_t used_ = 0; ///< slots that are not empty, tombstones included
};

} // namespace esplane::fastpath

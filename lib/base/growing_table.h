// SPDX-License-Identifier: Apache-2.0
//
// A hash table of pointers that grows a little with each insertion, and that one thread may change
// while others read it, without a lock.
//
//   current   [ . e . . e . . . ]   what is new; what has been moved already
//   previous  [ e . e ]             everything that was there when it was outgrown, until all is
//                                   moved; then it is given away
//
// Open addressing with linear probing, at most half full.  A cell is one atomic word: an entry's
// address and 16 bits of its hash, so that an entry with another hash is hardly ever touched.
// Moving copies: a reader finds an entry in one of the two arrays at any moment.  Arrays are handed
// to `Retire`, a callable that frees them when nobody reads them any more.
//
// HashOf is a callable that gives an entry's 32-bit hash, the same for as long as it is in here.
// Threads: one that writes; any that read, where Retire waits for them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <type_traits>

#include "lib/base/huge_memory.h"

namespace esplane {

/// For a table that no other thread reads.
struct retire_at_once {
    template <typename Release>
    void operator()(Release release) const {
        release();
    }
};

template <typename Entry, typename HashOf, typename Retire = retire_at_once>
class growing_table {
  public:
    explicit growing_table(Retire retire = {}, std::uint32_t capacity = 16)
        : retire_(retire)
        , current_(slots::make(capacity)) {}
    ~growing_table() {
        slots* s = current_.load(std::memory_order_relaxed);
        if (slots* before = s->previous.load(std::memory_order_relaxed)) slots::free(before);
        slots::free(s);
    }
    growing_table(const growing_table&) = delete;
    growing_table& operator=(const growing_table&) = delete;

    /// Reader.  `match` decides between entries of one hash.
    template <typename Match>
    [[nodiscard]] Entry* find(std::uint32_t hash, Match match) const noexcept {
        const slots* s = current_.load(std::memory_order_acquire);
        const slots* before = s->previous.load(std::memory_order_acquire); // see finish_moving()
        if (Entry* e = look_in(*s, hash, match)) return e;
        return before == nullptr ? nullptr : look_in(*before, hash, match);
    }

    /// Reader: brings the slot of a hash nearer.
    void prefetch(std::uint32_t hash) const noexcept {
        const slots* s = current_.load(std::memory_order_acquire);
        __builtin_prefetch(&s->cell[hash & s->mask]);
    }
    /// Reader: brings nearer what the slot of a hash points to first.
    void prefetch_entry(std::uint32_t hash) const noexcept {
        const slots* s = current_.load(std::memory_order_acquire);
        __builtin_prefetch(entry_of(s->cell[hash & s->mask].load(std::memory_order_relaxed)));
    }

    /// Writer.  The entry is the table's to publish, the caller's to own.
    void insert(Entry* e) {
        move_some();
        slots* s = current_.load(std::memory_order_relaxed);
        if ((used_ + 1) * 2 > s->mask + std::size_t{1}) s = grow();
        place(*s, e);
        ++size_;
    }

    /// Writer.  For readers the entry must stay what it is for as long as Retire says.
    void erase(const Entry* e) noexcept {
        slots* s = current_.load(std::memory_order_relaxed);
        const bool was_here = put(*s, e, grave);
        slots* before = s->previous.load(std::memory_order_relaxed);
        const bool was_there = before != nullptr && put(*before, e, grave);
        if (was_here || was_there) --size_;
    }

    /// Writer: puts `after` into the slot of `before`; same hash.
    void replace(const Entry* before, Entry* after) noexcept {
        slots* s = current_.load(std::memory_order_relaxed);
        const std::uint64_t cell = cell_of(after);
        (void)put(*s, before, cell);
        if (slots* outgrown = s->previous.load(std::memory_order_relaxed))
            (void)put(*outgrown, before, cell);
    }

    [[nodiscard]] std::size_t size() const noexcept { return size_; }

    /// Writer: calls `f` for each entry until it returns false.  It changes nothing here.
    template <typename F>
    void each(F f) const {
        const slots* s = current_.load(std::memory_order_relaxed);
        if (!each_from(*s, 0, f)) return;
        if (const slots* before = s->previous.load(std::memory_order_relaxed))
            (void)each_from(*before, moved_, f);
    }

  private:
    static constexpr std::uint64_t empty = 0;
    static constexpr std::uint64_t grave = 1; ///< was an entry's: whoever looks goes on
    static constexpr unsigned tag_shift = 48;
    /// Cells that an insertion moves.  A new array has room for a sixteenth of the old one's cells
    /// at least, so it is never full before all are moved.
    static constexpr std::uint32_t cells_at_a_time = 32;

    struct slots {
        std::uint32_t mask;
        std::atomic<slots*> previous{nullptr};
        std::atomic<std::uint64_t>* cell; ///< mask + 1 of them

        static slots* make(std::uint32_t capacity) {
            auto* s = new slots;
            s->mask = capacity - 1;
            s->cell = static_cast<std::atomic<std::uint64_t>*>(zeros(size_for(capacity)));
            return s;
        }
        static void free(slots* s) noexcept {
            const std::size_t size = size_for(s->mask + 1);
            if (size >= huge_memory::page)
                huge_memory::give_back(s->cell, size);
            else
                std::free(s->cell);
            delete s;
        }
        [[nodiscard]] static std::size_t size_for(std::uint32_t capacity) noexcept {
            return capacity * sizeof(std::uint64_t);
        }
        /// Of a large one nothing is touched yet.  Huge pages are for readers: clearing one may
        /// take the writer a millisecond.
        [[nodiscard]] static void* zeros(std::size_t size) {
            constexpr bool is_read_by_others = !std::is_same_v<Retire, retire_at_once>;
            void* const memory =
                size >= huge_memory::page
                    ? huge_memory::take(size, is_read_by_others ? huge_memory::pages::huge
                                                                : huge_memory::pages::small)
                    : std::calloc(1, size);
            if (memory == nullptr) std::abort(); // as operator new, without exceptions
            return memory;
        }
    };

    static std::uint64_t tag_of(std::uint32_t hash) noexcept {
        return std::uint64_t{hash >> 16} << tag_shift;
    }
    static Entry* entry_of(std::uint64_t cell) noexcept {
        return reinterpret_cast<Entry*>(cell & ((std::uint64_t{1} << tag_shift) - 1));
    }
    static std::uint64_t cell_of(Entry* e) noexcept {
        return tag_of(HashOf{}(*e)) | reinterpret_cast<std::uint64_t>(e);
    }

    template <typename Match>
    static Entry* look_in(const slots& s, std::uint32_t hash, Match& match) noexcept {
        for (std::uint32_t i = hash & s.mask;; i = (i + 1) & s.mask) {
            const std::uint64_t cell = s.cell[i].load(std::memory_order_acquire);
            if (cell == empty) return nullptr;
            if (((cell ^ tag_of(hash)) >> tag_shift) != 0 || cell == grave) continue;
            Entry* e = entry_of(cell);
            if (HashOf{}(*e) == hash && match(*e)) return e;
        }
    }

    /// Puts `cell` where `e` is.  False: it is not there.
    static bool put(slots& s, const Entry* e, std::uint64_t cell) noexcept {
        const std::uint64_t wanted = cell_of(const_cast<Entry*>(e));
        for (std::uint32_t i = static_cast<std::uint32_t>(HashOf{}(*e)) & s.mask;;
             i = (i + 1) & s.mask) {
            const std::uint64_t found = s.cell[i].load(std::memory_order_relaxed);
            if (found == empty) return false;
            if (found != wanted) continue;
            s.cell[i].store(cell, std::memory_order_release);
            return true;
        }
    }

    void place(slots& s, Entry* e) noexcept {
        std::uint32_t i = HashOf{}(*e) & s.mask;
        std::uint64_t there;
        while ((there = s.cell[i].load(std::memory_order_relaxed)) > grave)
            i = (i + 1) & s.mask;
        s.cell[i].store(cell_of(e), std::memory_order_release);
        if (there == empty) ++used_;
    }

    template <typename F>
    static bool each_from(const slots& s, std::uint32_t first, F& f) {
        for (std::uint32_t i = first; i <= s.mask; ++i) {
            const std::uint64_t cell = s.cell[i].load(std::memory_order_relaxed);
            if (cell > grave && !f(*entry_of(cell))) return false;
        }
        return true;
    }

    void move_some() noexcept {
        slots* s = current_.load(std::memory_order_relaxed);
        slots* before = s->previous.load(std::memory_order_relaxed);
        if (before != nullptr) move(*s, before, cells_at_a_time);
    }

    /// Moves up to `count` cells; the hashes of the next ones are on their way meanwhile.
    void move(slots& s, slots* before, std::uint32_t count) noexcept {
        const std::uint32_t end = before->mask - moved_ < count ? before->mask + 1 : moved_ + count;
        for (; moved_ != end; ++moved_) {
            const std::uint64_t cell = before->cell[moved_].load(std::memory_order_relaxed);
            if (cell > grave) place(s, entry_of(cell));
        }
        const std::uint32_t next_end = std::min(before->mask + 1, end + cells_at_a_time);
        for (std::uint32_t i = end; i != next_end; ++i)
            __builtin_prefetch(entry_of(before->cell[i].load(std::memory_order_relaxed)));
        if (moved_ == before->mask + 1) finish_moving(s, before);
    }

    /// Whoever sees that there is no previous array finds all that was in it in this one.
    void finish_moving(slots& s, slots* before) noexcept {
        s.previous.store(nullptr, std::memory_order_release);
        retire_([before] { slots::free(before); });
    }

    /// A new array, sized for what lives.
    slots* grow() {
        slots* old = current_.load(std::memory_order_relaxed);
        if (slots* before = old->previous.load(std::memory_order_relaxed))
            move(*old, before, before->mask + 1);
        std::uint32_t capacity = std::max(16u, (old->mask + 1) / 4);
        while (capacity < size_ * 4)
            capacity *= 2;
        slots* next = slots::make(capacity);
        next->previous.store(old, std::memory_order_relaxed);
        current_.store(next, std::memory_order_release);
        used_ = 0;
        moved_ = 0;
        return next;
    }

    [[no_unique_address]] Retire retire_;
    std::atomic<slots*> current_;
    std::size_t size_ = 0;    ///< entries
    std::size_t used_ = 0;    ///< cells of the current array that are not empty, graves included
    std::uint32_t moved_ = 0; ///< cells of the previous one that are done with
};

} // namespace esplane

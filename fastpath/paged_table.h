// SPDX-License-Identifier: Apache-2.0
//
// A hash table of pointers that one thread changes while workers read it, without a lock, and that
// grows a page at a time: no change takes time that grows with the table, but where the directory
// doubles, a pointer for some 200 entries.
//
//   hash   [ tag: 16 bits ]....[ which page ][ which line: 6 bits ]
//   page   64 lines | a word for each that sums it up | hashes, for the writer
//   line   7 x [ tag | pointer ] | reach
//
// Extendible hashing: a directory of pages; a page that is too full is split in two.  The first
// page of a table begins with one line and doubles them.  An entry that finds its line full lies in
// one of the next; how far on, at most, is its own line's reach.
//
// What is not there mostly costs a reader one word: two bits of it, which the hash says, are set
// for each entry of the line, 15 to 30 bits an entry, so that about one answer in a hundred is a
// wrong "may be" and the words of a hundred thousand entries stay in the second-level cache.  What
// is there costs that word, the line, and the entry.
//
// What a change takes out (an entry, a page, a directory) is retired and may be freed only after
// all workers were quiescent.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <emmintrin.h>
#include <memory>
#include <new>

#include "fastpath/retired.h"
#include "lib/base/slab.h"

namespace esplane::fastpath {

template <typename Entry>
class paged_table {
    struct page;
    struct directory;
    using sum = std::atomic<std::uint64_t>; ///< of a line

  public:
    class alignas(64) line {
      public:
        static constexpr unsigned slots = 7;

        /// Reader: calls `take` with each entry in it that may have that hash.
        template <typename Take>
        void each(std::uint32_t hash, Take take) const noexcept {
            for (unsigned found = matches(tag_of(hash)); found != 0; found &= found - 1) {
                Entry* const e = at(static_cast<unsigned>(std::countr_zero(found)));
                if (e != nullptr) take(*e);
            }
        }
        struct candidate {
            Entry* e;
            bool more; ///< whether others may have that hash, too
        };
        /// Reader: an entry in it that may have that hash; nullptr where there is none.
        [[nodiscard]] candidate first(std::uint32_t hash) const noexcept {
            const unsigned found = matches(tag_of(hash));
            return {found == 0 ? nullptr : at(static_cast<unsigned>(std::countr_zero(found))),
                    (found & (found - 1)) != 0 || reaches_on()};
        }
        /// Whether entries whose hash leads here may be in other lines.
        [[nodiscard]] bool reaches_on() const noexcept {
            return reach.load(std::memory_order_acquire) != 0;
        }

      private:
        friend class paged_table;

        /// Bit i: slot i may hold an entry of that hash.
        ///
        /// Slots are written one by one while this reads them together: each is whole.
        [[nodiscard]] __attribute__((no_sanitize("thread"))) unsigned
        matches(std::uint32_t tag) const noexcept {
            const auto* pair = reinterpret_cast<const __m128i*>(this);
            // Of two slots each, and in the end of the reach, the half that the tag
            // is in.
            const auto upper_halves = [](__m128i a, __m128i b) {
                return _mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(a), _mm_castsi128_ps(b),
                                                       _MM_SHUFFLE(3, 1, 3, 1)));
            };
            const __m128i wanted = _mm_set1_epi32(static_cast<int>(tag));
            const __m128i low = upper_halves(_mm_load_si128(pair), _mm_load_si128(pair + 1));
            const __m128i high = upper_halves(_mm_load_si128(pair + 2), _mm_load_si128(pair + 3));
            const __m128i same = _mm_packs_epi32(_mm_cmpeq_epi32(_mm_srli_epi32(low, 16), wanted),
                                                 _mm_cmpeq_epi32(_mm_srli_epi32(high, 16), wanted));
            std::atomic_signal_fence(std::memory_order_acquire);
            return static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(same, same))) & 0x7f;
        }
        [[nodiscard]] Entry* at(unsigned slot) const noexcept {
            return std::bit_cast<Entry*>(words[slot].load(std::memory_order_acquire) & address);
        }
        /// `slots` where there is none.
        [[nodiscard]] unsigned slot_of(const Entry* e) const noexcept {
            unsigned slot = 0;
            while (slot < slots && at(slot) != e)
                ++slot;
            return slot;
        }
        [[nodiscard]] unsigned free_slot() const noexcept { return slot_of(nullptr); }
        void put(unsigned slot, Entry* e, std::uint32_t hash) noexcept {
            words[slot].store(std::bit_cast<std::uint64_t>(e) | std::uint64_t{tag_of(hash)}
                                                                    << address_bits,
                              std::memory_order_release);
        }

        std::array<std::atomic<std::uint64_t>, slots> words{}; ///< tag and pointer; 0: empty
        std::atomic<std::uint64_t> reach{0}; ///< never less than it was; all lines: the next page
    };

    /// What a reader looks at: the same for a whole burst.
    class view {
      public:
        [[nodiscard]] bool may_have(std::uint32_t hash) const noexcept {
            const std::uint64_t both = pattern_of(hash);
            const line* const end = lines_of(hash) + line_mask_ + 1;
            const sum& s = reinterpret_cast<const sum*>(end)[hash & line_mask_];
            return (s.load(std::memory_order_acquire) & both) == both;
        }
        /// Where an entry of that hash is, if it is not further on.
        [[nodiscard]] const line& line_of(std::uint32_t hash) const noexcept {
            return lines_of(hash)[hash & line_mask_];
        }

      private:
        friend class paged_table;
        explicit view(const directory& d) noexcept
            : pages_(d.pages)
            , page_mask_(d.page_mask)
            , line_mask_(d.line_mask) {}
        [[nodiscard]] page* page_of(std::uint32_t hash) const noexcept {
            return pages_[hash >> line_bits & page_mask_].load(std::memory_order_acquire);
        }
        [[nodiscard]] const line* lines_of(std::uint32_t hash) const noexcept {
            return reinterpret_cast<const line*>(page_of(hash) + 1);
        }

        const std::atomic<page*>* pages_;
        std::uint32_t page_mask_;
        std::uint32_t line_mask_;
    };

    explicit paged_table(retired& graveyard)
        : graveyard_(graveyard)
        , directory_(directory::make(1, 1)) {
        root().pages[0].store(page::make(1, 0), std::memory_order_relaxed);
    }
    ~paged_table() {
        directory& d = root();
        for (std::uint32_t i = d.page_mask + 1; i-- != 0;) {
            page* p = d.pages[i].load(std::memory_order_relaxed);
            if (i == (i & low_bits(p->depth))) // the last of those that share it
                for (page* more = nullptr; p != nullptr; p = more) {
                    more = p->more.load(std::memory_order_relaxed);
                    page::free(p);
                }
        }
        directory::free(&d);
    }
    paged_table(const paged_table&) = delete;
    paged_table& operator=(const paged_table&) = delete;

    /// Reader.
    [[nodiscard]] view read() const noexcept {
        return view(*directory_.load(std::memory_order_acquire));
    }
    /// Reader: calls `take` with each entry that may have that hash.
    ///
    /// home   line_of() of the hash
    template <typename Take>
    void each(const line& home, std::uint32_t hash, Take take) const noexcept {
        home.each(hash, take);
        if (home.reaches_on()) [[unlikely]]
            each_further(hash, take);
    }
    /// Reader.  `match` decides between entries of one hash.
    template <typename Match>
    [[nodiscard]] Entry* find(std::uint32_t hash, Match match) const noexcept {
        Entry* found = nullptr;
        each(read().line_of(hash), hash, [&](Entry& e) {
            if (found == nullptr && match(e)) found = &e;
        });
        return found;
    }

    /// Writer.  The entry is the table's to publish, the caller's to own.
    void insert(Entry* e, std::uint32_t hash) {
        page* p = page_of(hash);
        while (p->taken >= p->comfortable() && p->depth < deepest)
            p = p->count < page_lines ? widen(*p) : split(*p, hash);
        p->sum_up(hash);
        while (p->taken == p->capacity())
            p = next_of(*p, hash);
        p->put(e, hash);
    }

    /// Writer.  The entry stays readable until the workers were quiescent.
    void erase(const Entry* e, std::uint32_t hash) noexcept {
        at_place_of(e, hash, [&](page& p, line& l, unsigned slot) {
            l.words[slot].store(0, std::memory_order_release);
            --p.taken;
        });
        // What one word sums up of several pages stays.
        page& first = *page_of(hash);
        if (first.more.load(std::memory_order_relaxed) == nullptr) first.sum_up_anew(hash);
    }

    /// Writer: puts `after` into the slot of `before`; same hash.
    void replace(const Entry* before, Entry* after, std::uint32_t hash) noexcept {
        at_place_of(before, hash, [&](page&, line& l, unsigned slot) { l.put(slot, after, hash); });
    }

  private:
    static constexpr std::uint32_t line_bits = 6;
    static constexpr std::uint32_t page_lines = 1U << line_bits;
    /// Bits of a hash that lead to a page, at most.
    static constexpr std::uint32_t deepest = 17;
    static constexpr unsigned address_bits = 48; ///< all that a process has
    static constexpr std::uint64_t address = (std::uint64_t{1} << address_bits) - 1;
    static_assert(sizeof(line) == 64 && sizeof(void*) == 8);
    using slot_hashes = std::array<std::uint32_t, line::slots>;

    [[nodiscard]] static std::uint16_t tag_of(std::uint32_t hash) noexcept {
        const auto t = static_cast<std::uint16_t>(hash >> 16);
        return t == 0 ? std::uint16_t{1} : t;
    }
    [[nodiscard]] static std::uint64_t pattern_of(std::uint32_t hash) noexcept {
        return patterns[hash >> 24];
    }
    /// Two different bits each: a load is cheaper than shifts by a variable.
    static constexpr auto patterns = [] {
        std::array<std::uint64_t, 256> all{};
        for (unsigned i = 0; i < all.size(); ++i) {
            const unsigned first = i % 64;
            const unsigned second = (first + 1 + i / 64 * 15) % 64;
            all[i] = std::uint64_t{1} << first | std::uint64_t{1} << second;
        }
        return all;
    }();

    /// In one piece of memory with its lines, the words that sum them up, and hashes.
    struct alignas(64) page {
        [[nodiscard]] static page* make(std::uint32_t lines, std::uint32_t depth) {
            static slab& full = *new slab(size_of(page_lines)); // tables may outlive all else
            void* const memory = lines == page_lines
                                     ? full.take()
                                     : ::operator new(size_of(lines), std::align_val_t(64));
            if (memory == nullptr) std::abort(); // as operator new does where nothing may throw
            page* const p = new (memory) page(lines, depth);
            std::uninitialized_value_construct_n(p->lines(), lines);
            std::uninitialized_value_construct_n(p->sums(), lines);
            std::uninitialized_value_construct_n(p->hashes(), lines);
            return p;
        }
        static void free(page* p) noexcept {
            if (p->count == page_lines)
                slab::give_back(p);
            else
                ::operator delete(p, std::align_val_t(64));
        }
        [[nodiscard]] static std::size_t size_of(std::uint32_t lines) noexcept {
            const std::size_t size =
                sizeof(page) + lines * (sizeof(line) + sizeof(sum) + sizeof(slot_hashes));
            return (size + sizeof(line) - 1) / sizeof(line) * sizeof(line);
        }

        [[nodiscard]] line* lines() noexcept { return reinterpret_cast<line*>(this + 1); }
        [[nodiscard]] sum* sums() noexcept { return reinterpret_cast<sum*>(lines() + count); }
        [[nodiscard]] slot_hashes* hashes() noexcept {
            return reinterpret_cast<slot_hashes*>(sums() + count);
        }
        [[nodiscard]] std::uint32_t capacity() const noexcept { return count * line::slots; }
        /// Beyond, too many would find their line full.
        [[nodiscard]] std::uint32_t comfortable() const noexcept { return capacity() * 5 / 8; }
        /// The line that a hash leads to, and those after it.
        [[nodiscard]] std::uint32_t index_of(std::uint32_t hash,
                                             std::uint32_t steps = 0) const noexcept {
            return (hash + steps) & (count - 1);
        }
        [[nodiscard]] std::uint32_t reach_of(std::uint32_t hash) noexcept {
            return static_cast<std::uint32_t>(
                lines()[index_of(hash)].reach.load(std::memory_order_relaxed));
        }
        void widen_reach(std::uint32_t hash, std::uint32_t steps) noexcept {
            if (reach_of(hash) < steps)
                lines()[index_of(hash)].reach.store(steps, std::memory_order_release);
        }

        /// Before an entry of that hash is there.
        void sum_up(std::uint32_t hash) noexcept {
            sum& s = sums()[index_of(hash)];
            s.store(s.load(std::memory_order_relaxed) | pattern_of(hash),
                    std::memory_order_release);
        }
        /// After one of that hash was taken out.
        void sum_up_anew(std::uint32_t hash) noexcept {
            std::uint64_t all = 0;
            each_from(hash, [&](Entry*, std::uint32_t one) {
                if (index_of(one) == index_of(hash)) all |= pattern_of(one);
            });
            sums()[index_of(hash)].store(all, std::memory_order_release);
        }
        /// There is room.
        void put(Entry* e, std::uint32_t hash) noexcept {
            std::uint32_t steps = 0;
            unsigned slot = 0;
            while ((slot = lines()[index_of(hash, steps)].free_slot()) == line::slots)
                ++steps;
            widen_reach(hash, steps);
            hashes()[index_of(hash, steps)][slot] = hash;
            lines()[index_of(hash, steps)].put(slot, e, hash);
            ++taken;
        }
        /// Calls `take` with all entries, and their hashes, from the line of a hash on as far as
        /// those that it leads to may be.
        template <typename Take>
        void each_from(std::uint32_t hash, Take take) noexcept {
            const std::uint32_t reach = std::min(reach_of(hash), count - 1);
            for (std::uint32_t steps = 0; steps <= reach; ++steps)
                each_in(index_of(hash, steps), take);
        }
        template <typename Take>
        void each_in(std::uint32_t index, Take take) noexcept {
            for (unsigned slot = 0; slot < line::slots; ++slot) {
                Entry* const e = lines()[index].at(slot);
                if (e != nullptr) take(e, hashes()[index][slot]);
            }
        }

        const std::uint32_t count; ///< of lines
        const std::uint32_t depth; ///< bits of the hash, above line_bits, that all of it share
        std::uint32_t taken = 0;
        std::atomic<page*> more{nullptr}; ///< where more than a page have all but the same hash

      private:
        page(std::uint32_t lines, std::uint32_t depth_of_it) noexcept
            : count(lines)
            , depth(depth_of_it) {}
    };

    /// Masks and pages in one piece of memory: one pointer less on the way to an entry.
    struct directory {
        std::uint32_t page_mask;
        std::uint32_t line_mask;     ///< the same in all pages
        std::atomic<page*> pages[1]; ///< page_mask + 1 of them

        [[nodiscard]] static directory* make(std::uint32_t pages, std::uint32_t lines) {
            void* const memory =
                ::operator new(offsetof(directory, pages) + pages * sizeof(std::atomic<page*>));
            auto* const d = static_cast<directory*>(memory);
            d->page_mask = pages - 1;
            d->line_mask = lines - 1;
            for (std::uint32_t i = 0; i < pages; ++i)
                new (&d->pages[i]) std::atomic<page*>(nullptr);
            return d;
        }
        static void free(directory* d) noexcept { ::operator delete(d); }
    };

    [[nodiscard]] static std::uint32_t low_bits(std::uint32_t depth) noexcept {
        return (std::uint32_t{1} << depth) - 1;
    }
    [[nodiscard]] directory& root() const noexcept {
        return *directory_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] page* page_of(std::uint32_t hash) const noexcept { return read().page_of(hash); }

    /// A reader may meet entries again that it has met.
    template <typename Take>
    [[gnu::noinline]] void each_further(std::uint32_t hash, Take take) const noexcept {
        for (page* p = page_of(hash); p != nullptr; p = p->more.load(std::memory_order_acquire)) {
            const std::uint64_t reach =
                p->lines()[p->index_of(hash)].reach.load(std::memory_order_acquire);
            for (std::uint32_t steps = 0; steps <= reach && steps < p->count; ++steps)
                p->lines()[p->index_of(hash, steps)].each(hash, take);
            if (reach < p->count) return;
        }
    }

    /// Writer: calls `take` with page, index of the line and slot of an entry.
    template <typename Take>
    void at_place_of(const Entry* e, std::uint32_t hash, Take take) noexcept {
        for (page* p = page_of(hash); p != nullptr; p = p->more.load(std::memory_order_relaxed))
            for (std::uint32_t steps = 0; steps < p->count; ++steps) {
                line& l = p->lines()[p->index_of(hash, steps)];
                const unsigned slot = l.slot_of(e);
                if (slot == line::slots) continue;
                take(*p, l, slot);
                return;
            }
    }

    page* next_of(page& p, std::uint32_t hash) {
        p.widen_reach(hash, p.count);
        page* more = p.more.load(std::memory_order_relaxed);
        if (more != nullptr) return more;
        more = page::make(p.count, p.depth);
        p.more.store(more, std::memory_order_release);
        return more;
    }

    /// Writer: puts a page of twice as many lines in the place of the only one.
    page* widen(page& only) {
        page* const wider = page::make(2 * only.count, 0);
        move(only, [&](std::uint32_t) { return wider; });
        directory* const next = directory::make(1, wider->count);
        next->pages[0].store(wider, std::memory_order_relaxed);
        publish(next);
        retire(only);
        return wider;
    }

    /// Writer: puts two pages in the place of a full one.  Returns the one for `hash`.
    page* split(page& full, std::uint32_t hash) {
        if (low_bits(full.depth) == root().page_mask) double_directory();
        page* const halves[] = {page::make(page_lines, full.depth + 1),
                                page::make(page_lines, full.depth + 1)};
        const auto half_of = [&](std::uint32_t one) {
            return halves[one >> (line_bits + full.depth) & 1];
        };
        move(full, half_of);
        directory& d = root();
        const std::uint32_t step = low_bits(full.depth) + 1;
        for (std::uint32_t i = hash >> line_bits & (step - 1); i <= d.page_mask; i += step)
            d.pages[i].store(half_of(i << line_bits), std::memory_order_release);
        retire(full);
        return half_of(hash);
    }

    /// Writer: puts what is in a page into those that `page_for` says.
    template <typename PageFor>
    static void move(page& from, PageFor page_for) {
        for (std::uint32_t index = 0; index < from.count; ++index)
            from.each_in(index, [&](Entry* e, std::uint32_t hash) {
                page& to = *page_for(hash);
                to.sum_up(hash);
                to.put(e, hash);
            });
    }

    void double_directory() {
        const directory& before = root();
        const std::uint32_t count = before.page_mask + 1;
        directory* const next = directory::make(2 * count, page_lines);
        for (std::uint32_t i = 0; i < 2 * count; ++i)
            next->pages[i].store(before.pages[i & before.page_mask].load(std::memory_order_relaxed),
                                 std::memory_order_relaxed);
        publish(next);
    }
    void publish(directory* next) {
        directory* const before = &root();
        directory_.store(next, std::memory_order_release);
        graveyard_.add([before] { directory::free(before); });
    }
    void retire(page& p) {
        graveyard_.add([gone = &p] { page::free(gone); });
    }

    retired& graveyard_;
    std::atomic<directory*> directory_;
};

} // namespace esplane::fastpath

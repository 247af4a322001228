// SPDX-License-Identifier: Apache-2.0
//
// A hash table of pointers that one thread changes while workers read it, without a lock, and that
// grows a page at a time.  A change takes time that grows with the table only where the directory
// doubles: a pointer a page is copied then, once for as many entries as there are.
//
//   hash    [ tag: 16 bits ]....[ which page: low bits ]
//   page    one line of 32 tags | 32 pointers | 32 hashes, for the writer
//
// Extendible hashing: a directory of pages; a page that is full is split in two.  What is not there
// costs a reader the line of tags, 2 bytes an entry: those of a hundred thousand entries stay in
// the second-level cache where the pointers do not.  What a change takes out (an entry, a page, a
// directory) is retired and may be freed only after all workers were quiescent.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <emmintrin.h>
#include <new>

#include "fastpath/retired.h"
#include "lib/base/slab.h"

namespace esplane::fastpath {

template <typename Entry>
class paged_table {
  public:
    static constexpr unsigned page_slots = 32;
    using slot = std::atomic<Entry*>;
    using tag = std::uint16_t;

    struct page : on_slab<page> {
        /// Bit i: slot i may hold an entry of that hash.
        ///
        /// Tags are written one by one while this reads them together: each is whole, and the
        /// pointer of a tag that is seen is there.
        [[nodiscard]] __attribute__((no_sanitize("thread"))) std::uint32_t
        matches(tag t) const noexcept {
            const auto* line = reinterpret_cast<const __m128i*>(tags.data());
            const __m128i wanted = _mm_set1_epi16(static_cast<short>(t));
            const __m128i a = _mm_cmpeq_epi16(_mm_load_si128(line), wanted);
            const __m128i b = _mm_cmpeq_epi16(_mm_load_si128(line + 1), wanted);
            const __m128i c = _mm_cmpeq_epi16(_mm_load_si128(line + 2), wanted);
            const __m128i d = _mm_cmpeq_epi16(_mm_load_si128(line + 3), wanted);
            const auto low = static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(a, b)));
            const auto high = static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(c, d)));
            std::atomic_signal_fence(std::memory_order_acquire);
            return low | high << 16;
        }

        alignas(64) std::array<std::atomic<tag>, page_slots> tags{}; ///< 0: empty
        std::array<slot, page_slots> slots{};
        std::array<std::uint32_t, page_slots> hashes{};
        std::atomic<page*> more{nullptr}; ///< where more than a page have all but the same hash
        std::uint32_t depth = 0;          ///< bits of the hash that all of the page share
        std::uint32_t taken = 0;          ///< a bit for each slot
    };

    explicit paged_table(retired& graveyard)
        : graveyard_(graveyard)
        , directory_(directory::make(1)) {
        root().pages[0].store(new page, std::memory_order_relaxed);
    }
    ~paged_table() {
        directory& d = root();
        for (std::uint32_t i = d.mask + 1; i-- != 0;) {
            page* p = d.pages[i].load(std::memory_order_relaxed);
            if (i == (i & bits(p->depth))) // the last of those that share it
                for (page* more = nullptr; p != nullptr; p = more) {
                    more = p->more.load(std::memory_order_relaxed);
                    delete p;
                }
        }
        directory::free(&d);
    }
    paged_table(const paged_table&) = delete;
    paged_table& operator=(const paged_table&) = delete;

    [[nodiscard]] static tag tag_of(std::uint32_t hash) noexcept {
        const auto t = static_cast<tag>(hash >> 16);
        return t == 0 ? tag{1} : t;
    }

    /// Reader: where entries of a hash are, and in the pages that `more` leads to.
    [[nodiscard]] const page* page_of(std::uint32_t hash) const noexcept {
        const directory* d = directory_.load(std::memory_order_acquire);
        return d->pages[hash & d->mask].load(std::memory_order_acquire);
    }

    /// Reader.  `match` decides between entries of one hash.
    template <typename Match>
    [[nodiscard]] Entry* find(std::uint32_t hash, Match match) const noexcept {
        const slot* s = slot_of(hash, match);
        return s == nullptr ? nullptr : s->load(std::memory_order_acquire);
    }

    /// Writer.  The entry is the table's to publish, the caller's to own.
    void insert(Entry* e, std::uint32_t hash) {
        page* p = writable(hash);
        while (p->taken == ~std::uint32_t{0})
            p = p->depth == deepest ? next_of(*p) : split(*p, hash);
        put(*p, e, hash);
    }

    /// Writer.  The entry stays readable until the workers were quiescent.
    void erase(const Entry* e, std::uint32_t hash) noexcept {
        for (page* p = writable(hash); p != nullptr; p = p->more.load(std::memory_order_relaxed))
            for (unsigned i = 0; i < page_slots; ++i) {
                const bool is_taken = (p->taken >> i & 1) != 0;
                if (!is_taken || p->slots[i].load(std::memory_order_relaxed) != e) continue;
                p->tags[i].store(0, std::memory_order_release);
                p->taken &= ~(std::uint32_t{1} << i);
                return;
            }
    }

    /// Writer: puts `after` into the slot of `before`; same hash.
    void replace(const Entry* before, Entry* after, std::uint32_t hash) noexcept {
        const slot* s = slot_of(hash, [&](const Entry& one) { return &one == before; });
        const_cast<slot*>(s)->store(after, std::memory_order_release);
    }

    /// Writer: calls `take` with the hash of each entry.
    template <typename Take>
    void each_hash(Take take) const {
        const directory& d = root();
        for (std::uint32_t i = 0; i <= d.mask; ++i) {
            const page* p = d.pages[i].load(std::memory_order_relaxed);
            if (i != (i & bits(p->depth))) continue; // others share it
            for (; p != nullptr; p = p->more.load(std::memory_order_relaxed))
                for (std::uint32_t taken = p->taken; taken != 0; taken &= taken - 1)
                    take(p->hashes[static_cast<unsigned>(std::countr_zero(taken))]);
        }
    }

  private:
    /// Bits of a hash that lead to a page, at most.
    static constexpr std::uint32_t deepest = 24;

    /// Mask and pages in one piece of memory: one pointer less on the way to an entry.
    struct directory {
        std::uint32_t mask;
        std::atomic<page*> pages[1]; ///< mask + 1 of them

        static directory* make(std::uint32_t count) {
            void* memory =
                ::operator new(offsetof(directory, pages) + count * sizeof(std::atomic<page*>));
            auto* d = static_cast<directory*>(memory);
            d->mask = count - 1;
            for (std::uint32_t i = 0; i < count; ++i)
                new (&d->pages[i]) std::atomic<page*>(nullptr);
            return d;
        }
        static void free(directory* d) noexcept { ::operator delete(d); }
    };

    [[nodiscard]] static std::uint32_t bits(std::uint32_t depth) noexcept {
        return (std::uint32_t{1} << depth) - 1;
    }
    [[nodiscard]] directory& root() const noexcept {
        return *directory_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] page* writable(std::uint32_t hash) const noexcept {
        return const_cast<page*>(page_of(hash));
    }

    template <typename Match>
    [[nodiscard]] const slot* slot_of(std::uint32_t hash, Match match) const noexcept {
        const tag t = tag_of(hash);
        for (const page* p = page_of(hash); p != nullptr;
             p = p->more.load(std::memory_order_acquire))
            for (std::uint32_t found = p->matches(t); found != 0; found &= found - 1) {
                const slot& s = p->slots[static_cast<unsigned>(std::countr_zero(found))];
                if (match(*s.load(std::memory_order_acquire))) return &s;
            }
        return nullptr;
    }

    static void put(page& p, Entry* e, std::uint32_t hash) noexcept {
        const auto at = static_cast<unsigned>(std::countr_one(p.taken));
        p.taken |= std::uint32_t{1} << at;
        p.hashes[at] = hash;
        p.slots[at].store(e, std::memory_order_release);
        p.tags[at].store(tag_of(hash), std::memory_order_release);
    }

    static page* next_of(page& p) {
        page* more = p.more.load(std::memory_order_relaxed);
        if (more != nullptr) return more;
        more = new page;
        more->depth = p.depth;
        p.more.store(more, std::memory_order_release);
        return more;
    }

    /// Puts two pages in the place of a full one.  Returns the one for `hash`.
    page* split(page& full, std::uint32_t hash) {
        if (bits(full.depth) == root().mask) grow();
        page* const halves[] = {new page, new page};
        for (page* p : halves)
            p->depth = full.depth + 1;
        for (unsigned i = 0; i < page_slots; ++i)
            put(*halves[full.hashes[i] >> full.depth & 1],
                full.slots[i].load(std::memory_order_relaxed), full.hashes[i]);
        directory& d = root();
        for (std::uint32_t i = hash & bits(full.depth); i <= d.mask; i += bits(full.depth) + 1)
            d.pages[i].store(halves[i >> full.depth & 1], std::memory_order_release);
        page* const mine = halves[hash >> full.depth & 1];
        graveyard_.add([gone = &full] { delete gone; });
        return mine;
    }

    void grow() {
        directory* const old = &root();
        const std::uint32_t count = old->mask + 1;
        directory* const next = directory::make(2 * count);
        for (std::uint32_t i = 0; i < 2 * count; ++i)
            next->pages[i].store(old->pages[i & old->mask].load(std::memory_order_relaxed),
                                 std::memory_order_relaxed);
        directory_.store(next, std::memory_order_release);
        graveyard_.add([old] { directory::free(old); });
    }

    retired& graveyard_;
    std::atomic<directory*> directory_;
};

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// Which hashes may be in a table: a Bloom filter that one thread changes while workers read it.
//
// Two bits of one word a hash, 16 to 32 bits for each hash that is in: about one answer in a
// hundred is a wrong "may be", and that of a hundred thousand hashes stays in the second-level
// cache.  What is taken out leaves its bits behind until the next rebuild, which reads all hashes
// there are: the addition that it comes with takes as long as the table is large, some 20 ms with a
// million; it comes again only after about as many additions.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>

#include "fastpath/retired.h"

namespace esplane::fastpath {

class presence {
  public:
    /// What a reader looks at: the same for a whole burst.
    struct words {
        [[nodiscard]] bool may_have(std::uint32_t hash) const noexcept {
            const std::uint64_t both = bits_of(hash);
            return (of[place_of(hash)].load(std::memory_order_acquire) & both) == both;
        }

        std::uint32_t mask;
        std::atomic<std::uint64_t> of[1]; ///< mask + 1 of them

      private:
        friend class presence;
        [[nodiscard]] std::uint32_t place_of(std::uint32_t hash) const noexcept {
            return hash >> 10 & mask;
        }
        [[nodiscard]] static std::uint64_t bits_of(std::uint32_t hash) noexcept {
            return patterns[hash & (patterns.size() - 1)];
        }
        /// Two different bits each: a load is cheaper than shifts by a variable.
        static constexpr auto patterns = [] {
            std::array<std::uint64_t, 1024> all{};
            for (unsigned i = 0; i < all.size(); ++i) {
                const unsigned first = i % 64;
                const unsigned second = (first + 1 + i / 64 * 4) % 64;
                all[i] = std::uint64_t{1} << first | std::uint64_t{1} << second;
            }
            return all;
        }();
    };

    explicit presence(retired& graveyard)
        : graveyard_(graveyard)
        , current_(make(1)) {}
    ~presence() { free(current_.load(std::memory_order_relaxed)); }
    presence(const presence&) = delete;
    presence& operator=(const presence&) = delete;

    /// Reader.
    [[nodiscard]] const words& read() const noexcept {
        return *current_.load(std::memory_order_acquire);
    }

    /// Writer: before an entry of that hash is put in.  `each_hash` calls what it is given with the
    /// hash of each that is in.
    template <typename EachHash>
    void add(std::uint32_t hash, EachHash each_hash) {
        const std::uint32_t room = (root().mask + 1) * hashes_of_word;
        if (++noted_ > room && root().mask + 1 < most_words) rebuild(each_hash);
        set(root(), hash);
    }
    /// Writer: after one was taken out.
    void remove() noexcept { ++gone_; }

  private:
    static constexpr std::uint32_t hashes_of_word = 4;
    static constexpr std::uint32_t most_words = std::uint32_t{1} << 22; ///< place_of()

    static words* make(std::uint32_t count) {
        void* memory =
            ::operator new(offsetof(words, of) + count * sizeof(std::atomic<std::uint64_t>));
        auto* w = static_cast<words*>(memory);
        w->mask = count - 1;
        for (std::uint32_t i = 0; i < count; ++i)
            new (&w->of[i]) std::atomic<std::uint64_t>(0);
        return w;
    }
    static void free(words* w) noexcept { ::operator delete(w); }
    static void set(words& w, std::uint32_t hash) noexcept {
        std::atomic<std::uint64_t>& word = w.of[w.place_of(hash)];
        word.store(word.load(std::memory_order_relaxed) | words::bits_of(hash),
                   std::memory_order_release);
    }
    [[nodiscard]] words& root() const noexcept { return *current_.load(std::memory_order_relaxed); }

    /// Half full then, or less.
    template <typename EachHash>
    void rebuild(EachHash each_hash) {
        noted_ -= gone_;
        gone_ = 0;
        const std::uint32_t wanted = std::bit_ceil(noted_ * 2 / hashes_of_word + 1);
        words* const next = make(wanted < most_words ? wanted : most_words);
        each_hash([&](std::uint32_t hash) { set(*next, hash); });
        words* const before = current_.exchange(next, std::memory_order_acq_rel);
        graveyard_.add([before] { free(before); });
    }

    retired& graveyard_;
    std::atomic<words*> current_;
    std::uint32_t noted_ = 0; ///< hashes since the last rebuild, and those of before it
    std::uint32_t gone_ = 0;  ///< of them
};

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// Which prefixes there are and what each leads to: control's side of a longest prefix match, to
// know what covers what is withdrawn.
//
// One hash table of all prefixes; a covering one is looked for length by length, of those in use.
// Threads: control.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <nmmintrin.h>
#include <optional>
#include <utility>
#include <vector>

#include "lib/wire/endian.h"

namespace esplane::fastpath {

/// Bytes   of an address: 4 or 16
template <unsigned Bytes>
class prefix_map {
  public:
    struct covering {
        unsigned length = 0;
        std::uint32_t value = 0;
    };

    /// The value of exactly this prefix.  Bits of `prefix` after `length` do not count, here and
    /// below.
    [[nodiscard]] std::optional<std::uint32_t> find(const std::uint8_t* prefix,
                                                    unsigned length) const noexcept {
        if (in_use_[length] == 0) return {};
        const cell key = key_of(prefix, length);
        for (std::size_t at = home_of(key); cells_[at].used; at = after(at))
            if (same(cells_[at], key)) return cells_[at].value;
        return {};
    }

    /// Returns the value it had.
    std::optional<std::uint32_t> set(const std::uint8_t* prefix, unsigned length,
                                     std::uint32_t value) {
        if (2 * (size_ + 1) > cells_.size()) grow();
        cell key = key_of(prefix, length);
        key.value = value;
        std::size_t at = home_of(key);
        for (; cells_[at].used; at = after(at))
            if (same(cells_[at], key)) return std::exchange(cells_[at].value, value);
        cells_[at] = key;
        ++size_;
        ++in_use_[length];
        return {};
    }

    /// Returns the value it had.
    std::optional<std::uint32_t> erase(const std::uint8_t* prefix, unsigned length) {
        if (in_use_[length] == 0) return {};
        const cell key = key_of(prefix, length);
        std::size_t at = home_of(key);
        while (cells_[at].used && !same(cells_[at], key))
            at = after(at);
        if (!cells_[at].used) return {};
        const std::uint32_t value = cells_[at].value;
        --size_;
        --in_use_[length];
        close_gap(at);
        return value;
    }

    /// The longest prefix shorter than `length` that covers this one.
    [[nodiscard]] std::optional<covering> cover(const std::uint8_t* prefix,
                                                unsigned length) const noexcept {
        while (length-- > 0)
            if (const auto value = find(prefix, length)) return covering{length, *value};
        return {};
    }

    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] std::size_t bytes() const noexcept { return cells_.capacity() * sizeof(cell); }

    template <typename Take>
    void for_each_value(Take take) const {
        for (const cell& c : cells_)
            if (c.used) take(c.value);
    }

  private:
    struct cell {
        std::array<std::uint8_t, Bytes> prefix{};
        std::uint8_t length = 0;
        bool used = false;
        std::uint32_t value = 0;
    };

    [[nodiscard]] static cell key_of(const std::uint8_t* prefix, unsigned length) noexcept {
        cell c;
        const unsigned whole = length / 8;
        std::memcpy(c.prefix.data(), prefix, whole);
        if (length % 8 != 0)
            c.prefix[whole] = static_cast<std::uint8_t>(prefix[whole] & (0xff00u >> (length % 8)));
        c.length = static_cast<std::uint8_t>(length);
        c.used = true;
        return c;
    }
    [[nodiscard]] static bool same(const cell& a, const cell& b) noexcept {
        return a.length == b.length && a.prefix == b.prefix;
    }
    [[nodiscard]] std::size_t home_of(const cell& c) const noexcept {
        std::uint64_t h = c.length;
        if constexpr (Bytes == 4) {
            h = _mm_crc32_u64(h, wire::load<std::uint32_t>(c.prefix.data()));
        } else {
            h = _mm_crc32_u64(h, wire::load<std::uint64_t>(c.prefix.data()));
            h = _mm_crc32_u64(h, wire::load<std::uint64_t>(c.prefix.data() + 8));
        }
        return h & (cells_.size() - 1);
    }
    [[nodiscard]] std::size_t after(std::size_t at) const noexcept {
        return (at + 1) & (cells_.size() - 1);
    }
    /// Moves up what was probed past `at`.
    void close_gap(std::size_t at) {
        for (std::size_t i = after(at); cells_[i].used; i = after(i)) {
            const std::size_t mask = cells_.size() - 1;
            if (((i - home_of(cells_[i])) & mask) < ((i - at) & mask)) continue;
            cells_[at] = cells_[i];
            at = i;
        }
        cells_[at] = {};
    }
    void grow() {
        std::vector<cell> before(cells_.empty() ? 64 : 2 * cells_.size());
        before.swap(cells_);
        for (const cell& c : before) {
            if (!c.used) continue;
            std::size_t at = home_of(c);
            while (cells_[at].used)
                at = after(at);
            cells_[at] = c;
        }
    }

    std::vector<cell> cells_; ///< a power of two, at most half of them used
    std::size_t size_ = 0;
    std::array<std::uint32_t, Bytes * 8 + 1> in_use_{}; ///< prefixes of each length
};

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// Longest prefix match from addresses to numbers, changed in place while workers look things up.
//
// A trie of 256-way nodes, one byte a step; the first step of a wide table takes two bytes.  Leaves
// are pushed down, so a lookup never goes back.  A slot is 32 bits:
//
//   leaf    0 | depth 8 | value 23         depth: length of the prefix the value is of
//   child   1 | kind 2  | line 29          line: where the node is, in units of 64 bytes
//
//   full    256 slots; what nodes are while there are few                    1024 bytes
//   small   at most 7 runs of equal slots: bitmap of where runs begin          64
//   large   at most 23 runs                                                   128
//   chain   IPv6: several bytes that all but one address range miss            64
//
// Slots of a full node are stored in place.  Every other change makes a new node, stores it in its
// parent's slot and retires the old one: a reader finds the state before a change or after it.
// Control stores with release, readers load with acquire.
//
// Threads: find() by workers; the rest by control.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lib/wire/endian.h"

namespace esplane::fastpath {

using lpm_slot = std::uint32_t;

namespace lpm_node {

enum class kind : std::uint32_t { full, small, large, chain };

inline constexpr lpm_slot child_bit = 1u << 31;
inline constexpr unsigned kind_shift = 29;
inline constexpr lpm_slot line_mask = (1u << kind_shift) - 1;
inline constexpr unsigned depth_shift = 23;
inline constexpr lpm_slot value_mask = (1u << depth_shift) - 1;

/// small and large: which slots begin a run, runs before each word of that, the runs' slots.
struct packed {
    std::array<std::uint64_t, 4> starts;
    std::uint32_t before; ///< a byte for each word
    lpm_slot runs[1];     ///< as many as there are
};
inline constexpr unsigned small_runs = 7;
inline constexpr unsigned large_runs = 23;

/// Where the masked bytes of an address equal the key, `match` goes on at byte `next`.
struct chain {
    std::array<std::uint64_t, 2> key;
    std::array<std::uint64_t, 2> mask;
    lpm_slot match;     ///< a child or a leaf
    lpm_slot otherwise; ///< a leaf
    std::uint32_t next;
};

[[nodiscard]] constexpr bool is_child(lpm_slot s) noexcept {
    return (s & child_bit) != 0;
}
[[nodiscard]] constexpr kind kind_of(lpm_slot child) noexcept {
    return static_cast<kind>((child & ~child_bit) >> kind_shift);
}
[[nodiscard]] constexpr lpm_slot leaf(unsigned depth, std::uint32_t value) noexcept {
    return depth << depth_shift | value;
}
[[nodiscard]] constexpr unsigned depth_of(lpm_slot leaf) noexcept {
    return leaf >> depth_shift;
}

template <typename T>
[[nodiscard]] T load(const T& from) noexcept {
    return std::atomic_ref<T>(const_cast<T&>(from)).load(std::memory_order_acquire);
}

} // namespace lpm_node

/// Where the nodes of all tables of a fib are: one range of addresses, in huge pages where it is
/// big.  What is freed is used again; nothing goes back to the system.
class lpm_memory {
  public:
    static constexpr std::size_t line_bytes = 64;
    static constexpr std::size_t default_limit = std::size_t{8} << 30;

    /// limit   bytes; half of it for what is in use, half for what is being replaced
    explicit lpm_memory(std::size_t limit = default_limit);
    ~lpm_memory();
    lpm_memory(const lpm_memory&) = delete;
    lpm_memory& operator=(const lpm_memory&) = delete;

    [[nodiscard]] const std::uint8_t* base() const noexcept { return base_; }
    template <typename T>
    [[nodiscard]] T* at(std::uint32_t line) const noexcept {
        return reinterpret_cast<T*>(base_ + std::size_t{line} * line_bytes);
    }

    /// A run of lines that nobody reads.
    struct block {
        std::uint32_t line;
        std::uint32_t lines; ///< 1, 2, 16 or 4096
    };
    /// Whether `lines` more can be had, and as many again as are in use.
    [[nodiscard]] bool has_room(std::size_t lines);
    /// Never fails after has_room().  Never line 0.
    [[nodiscard]] std::uint32_t allocate(std::uint32_t lines);
    void release(block b);

    [[nodiscard]] std::size_t used_bytes() const noexcept { return used_ * line_bytes; }

  private:
    [[nodiscard]] std::vector<std::uint32_t>& free_list(std::uint32_t lines) noexcept;
    [[nodiscard]] bool commit(std::size_t lines);

    std::uint8_t* base_ = nullptr;
    std::size_t limit_ = 0;     ///< lines
    std::size_t committed_ = 0; ///< lines that may be touched
    std::size_t next_ = 1;      ///< first line never given out
    std::size_t used_ = 0;
    std::array<std::vector<std::uint32_t>, 4> free_;
};

/// Bytes   4 for IPv4, 16 for IPv6
template <unsigned Bytes>
class lpm_table {
  public:
    static constexpr std::uint32_t max_value = lpm_node::value_mask;
    /// Addresses of a burst.
    static constexpr unsigned max_burst = 64;

    /// Lines of memory for an empty one, wide or not.
    static constexpr std::uint32_t wide_lines = (1u << 16) * sizeof(lpm_slot) / 64;
    static constexpr std::uint32_t narrow_lines = 256 * sizeof(lpm_slot) / 64;

    /// Everything leads to `miss`.
    ///
    /// retired   where nodes go that workers may still read
    /// wide      whether it is so from the start: a step less, and 256 KiB
    lpm_table(lpm_memory& memory, std::vector<lpm_memory::block>& retired, std::uint32_t miss,
              bool wide = false);
    /// Nobody reads it any more.
    ~lpm_table();
    lpm_table(const lpm_table&) = delete;
    lpm_table& operator=(const lpm_table&) = delete;

    /// The value of the longest prefix that covers an address (network order).
    [[nodiscard]] std::uint32_t find(const std::uint8_t* address) const noexcept {
        return find_from(base_, root_.load(std::memory_order_acquire), address);
    }
    /// find() for many addresses, one by one: what each begins with is read once.  Finds what was
    /// there when it was made, until the worker is quiescent.
    class reader {
      public:
        explicit reader(const lpm_table& of) noexcept
            : base_(of.base_)
            , root_(of.root_.load(std::memory_order_acquire)) {}
        [[nodiscard]] std::uint32_t find(const std::uint8_t* address) const noexcept {
            return find_from(base_, root_, address);
        }

      private:
        const std::uint8_t* base_;
        std::uint32_t root_;
    };
    /// Of at most max_burst addresses, fetched ahead level by level.
    void find(std::span<const std::uint8_t* const> addresses, std::uint32_t* values) const noexcept;

    /// Whether all nodes lie in the near caches: there are so few.
    [[nodiscard]] bool is_near() const noexcept {
        return nodes_.load(std::memory_order_relaxed) <= most_near;
    }

    /// Leads to `value` whatever in `prefix` a longer one does not cover.
    ///
    /// depth    length of the prefix that the value is of: `length`, or where that was withdrawn,
    ///          of the next shorter one (0 and the value of a miss where there is none)
    /// returns  false: no memory; nothing has changed
    [[nodiscard]] bool assign(const std::uint8_t* prefix, unsigned length, unsigned depth,
                              std::uint32_t value);

    /// From now on workers read it: replaced nodes are retired, not freed at once.
    void publish() noexcept { published_ = true; }

  private:
    static constexpr std::uint32_t wide_bit = 1u << 31; ///< of root_: two bytes in the first step
    /// Nodes of a table that is not wide, and of one that does without packed nodes and without
    /// fetching ahead: all lie in the nearer caches.
    static constexpr unsigned most_narrow = 64;
    static constexpr unsigned most_near = 256;

    using slots = std::array<lpm_slot, 256>;
    struct edit {
        const std::uint8_t* prefix;
        unsigned length;
        lpm_slot leaf;
    };

    [[nodiscard]] static std::uint32_t find_from(const std::uint8_t* base, std::uint32_t root,
                                                 const std::uint8_t* address) noexcept {
        unsigned at;
        lpm_slot s = first(base, root, address, at);
        while (lpm_node::is_child(s))
            s = step(base, s, address, at);
        return s & lpm_node::value_mask;
    }
    [[nodiscard]] static lpm_slot first(const std::uint8_t* base, std::uint32_t root,
                                        const std::uint8_t* address, unsigned& at) noexcept {
        const auto* slot = reinterpret_cast<const lpm_slot*>(base + std::size_t{root & ~wide_bit} *
                                                                        lpm_memory::line_bytes);
        if ((root & wide_bit) == 0) {
            at = 1;
            return lpm_node::load(slot[address[0]]);
        }
        at = 2;
        return lpm_node::load(slot[address[0] << 8 | address[1]]);
    }
    [[nodiscard]] static const std::uint8_t* node_of(const std::uint8_t* base,
                                                     lpm_slot child) noexcept {
        return base + std::size_t{child & lpm_node::line_mask} * lpm_memory::line_bytes;
    }
    [[nodiscard]] static lpm_slot step(const std::uint8_t* base, lpm_slot child,
                                       const std::uint8_t* address, unsigned& at) noexcept {
        using lpm_node::kind, lpm_node::load;
        const std::uint8_t* node = node_of(base, child);
        if constexpr (Bytes == 16)
            if (lpm_node::kind_of(child) == kind::chain) return follow(node, address, at);
        const std::uint8_t byte = address[at++];
        if (lpm_node::kind_of(child) == kind::full)
            return load(reinterpret_cast<const lpm_slot*>(node)[byte]);
        const auto& n = *reinterpret_cast<const lpm_node::packed*>(node);
        const unsigned word = byte >> 6;
        const std::uint64_t upto = load(n.starts[word]) << (63 - (byte & 63));
        const auto before = static_cast<std::uint8_t>(load(n.before) >> (8 * word));
        return load(n.runs[before + static_cast<unsigned>(std::popcount(upto)) - 1]);
    }
    [[nodiscard]] static lpm_slot follow(const std::uint8_t* node, const std::uint8_t* address,
                                         unsigned& at) noexcept {
        using lpm_node::load;
        const auto& n = *reinterpret_cast<const lpm_node::chain*>(node);
        const std::uint64_t a = wire::load<std::uint64_t>(address) ^ load(n.key[0]);
        const std::uint64_t b = wire::load<std::uint64_t>(address + 8) ^ load(n.key[1]);
        at = load(n.next);
        return ((a & load(n.mask[0])) | (b & load(n.mask[1]))) == 0 ? load(n.match)
                                                                    : load(n.otherwise);
    }
    static void fetch(const std::uint8_t* base, lpm_slot child, std::uint8_t byte) noexcept;

    [[nodiscard]] lpm_slot update(lpm_slot s, unsigned level, const edit& e);
    [[nodiscard]] lpm_slot update_chain(lpm_slot s, const edit& e);
    void update_root(const edit& e);
    void widen();
    void expand(lpm_slot s, unsigned level, slots& into);
    [[nodiscard]] lpm_slot encode(const slots& from, unsigned level);
    [[nodiscard]] lpm_slot make_full(const slots& from);
    [[nodiscard]] lpm_slot make_packed(const slots& from, unsigned runs);
    [[nodiscard]] lpm_slot make_chain(unsigned level, std::uint8_t byte, lpm_slot match,
                                      lpm_slot otherwise);
    [[nodiscard]] lpm_slot make(const lpm_node::chain& from);
    [[nodiscard]] lpm_slot allocate(lpm_node::kind k);
    void retire(lpm_slot s);
    void retire(lpm_memory::block b);
    void free_below(lpm_slot s);

    const std::uint8_t* base_; ///< the memory's
    std::atomic<std::uint32_t> root_{0};
    std::atomic<unsigned> nodes_{0};
    lpm_memory& memory_;
    std::vector<lpm_memory::block>& retired_;
    bool published_ = false;
};

extern template class lpm_table<4>;
extern template class lpm_table<16>;

} // namespace esplane::fastpath

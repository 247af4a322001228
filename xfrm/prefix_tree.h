// SPDX-License-Identifier: Apache-2.0
//
// A set of prefixes, each with a value: a binary tree without one-way branches (PATRICIA).
//
//            0/0
//            /                 A node is a prefix that was put in, or the place where two part.
//       10.0.0.0/14            Nodes lie in one array and are named by their index: 24 bytes each
//       /         \            for IPv4, at most two a prefix.
//  10.1.0.0/16  10.2.0.0/16
//
// Threads: one.  Does not: look up addresses; that is what fastpath/fib does.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

namespace esplane::xfrm {

/// The bits of an IPv4 prefix, the first one highest.
struct key_v4 {
    static constexpr unsigned width = 32;
    std::uint32_t bits = 0;

    [[nodiscard]] bool bit(unsigned i) const noexcept { return (bits >> (31 - i) & 1) != 0; }
    /// How many bits, from the first on, both have alike.
    [[nodiscard]] unsigned common(const key_v4& b) const noexcept {
        return static_cast<unsigned>(std::countl_zero(bits ^ b.bits));
    }
    /// Without what comes behind the first `length` bits.
    [[nodiscard]] key_v4 first(unsigned length) const noexcept {
        return {length == 0 ? 0 : bits & ~std::uint32_t{0} << (32 - length)};
    }
    friend bool operator==(const key_v4&, const key_v4&) = default;
};

/// The bits of an IPv6 prefix.
struct key_v6 {
    static constexpr unsigned width = 128;
    std::uint64_t high = 0;
    std::uint64_t low = 0;

    [[nodiscard]] bool bit(unsigned i) const noexcept {
        return i < 64 ? (high >> (63 - i) & 1) != 0 : (low >> (127 - i) & 1) != 0;
    }
    [[nodiscard]] unsigned common(const key_v6& b) const noexcept {
        return high != b.high ? static_cast<unsigned>(std::countl_zero(high ^ b.high))
                              : 64 + static_cast<unsigned>(std::countl_zero(low ^ b.low));
    }
    [[nodiscard]] key_v6 first(unsigned length) const noexcept {
        constexpr std::uint64_t ones = ~std::uint64_t{0};
        if (length == 0) return {};
        if (length <= 64) return {high & ones << (64 - length), 0};
        return {high, low & ones << (128 - length)};
    }
    friend bool operator==(const key_v6&, const key_v6&) = default;
};

/// Value: what a prefix has; a default-constructed one compares equal to "nothing".
template <typename Key, typename Value>
class prefix_tree {
  public:
    using index = std::uint32_t;
    static constexpr index root = 0; ///< the prefix of length 0; always there
    static constexpr index none = ~index{0};

    prefix_tree() { nodes_.emplace_back(); }

    [[nodiscard]] const Key& key(index n) const noexcept { return nodes_[n].key; }
    [[nodiscard]] unsigned length(index n) const noexcept { return nodes_[n].length; }
    [[nodiscard]] Value& value(index n) noexcept { return nodes_[n].value; }
    [[nodiscard]] const Value& value(index n) const noexcept { return nodes_[n].value; }

    /// `n` or none.  `key` has nothing behind `length`.
    [[nodiscard]] index find(const Key& key, unsigned length) const noexcept {
        index at = root;
        while (at != none && nodes_[at].length < length && covers(at, key))
            at = nodes_[at].child[key.bit(nodes_[at].length)];
        return at != none && nodes_[at].length == length && nodes_[at].key == key ? at : none;
    }

    /// The node of that prefix; makes it where it is not there yet.  Nodes keep their index as long
    /// as they have a value.
    index insert(const Key& key, unsigned length) {
        index above = root;
        while (nodes_[above].length < length) {
            const bool side = key.bit(nodes_[above].length);
            const index below = nodes_[above].child[side];
            if (below == none) return hang(above, side, make(key, length));
            const unsigned alike = nodes_[below].key.common(key);
            if (alike < nodes_[below].length && alike < length)
                return fork(above, side, below, alike, key, length);
            if (nodes_[below].length > length) {
                const index between = hang(above, side, make(key, length));
                hang(between, nodes_[below].key.bit(length), below);
                return between;
            }
            above = below;
        }
        return above;
    }

    /// Takes a node out whose value is nothing, and the parting above where it is of no use then.
    void erase(index n) {
        const Key key = nodes_[n].key;
        const unsigned length = nodes_[n].length;
        index grandparent = none;
        index parent = none;
        for (index at = root; at != n; at = nodes_[at].child[key.bit(nodes_[at].length)]) {
            grandparent = parent;
            parent = at;
        }
        if (length == 0 || !splice(parent, n)) return;
        if (grandparent != none && is_nothing(parent)) splice(grandparent, parent);
    }

    /// Calls see(node) for each prefix that covers `n`, the shortest first, `n` not among them.
    template <typename See>
    void above(index n, See see) const {
        const Key key = nodes_[n].key;
        for (index at = root; at != n; at = nodes_[at].child[key.bit(nodes_[at].length)])
            see(at);
    }

    /// Calls see(node) for each node that `n` covers, `n` not among them.  `see` may change values
    /// and nothing else.
    template <typename See>
    void below(index n, See see) const {
        std::vector<index> waiting(nodes_[n].child.begin(), nodes_[n].child.end());
        while (!waiting.empty()) {
            const index at = waiting.back();
            waiting.pop_back();
            if (at == none) continue;
            waiting.insert(waiting.end(), nodes_[at].child.begin(), nodes_[at].child.end());
            see(at);
        }
    }

    /// Nodes in use.
    [[nodiscard]] std::size_t size() const noexcept { return nodes_.size() - free_.size(); }

  private:
    struct node {
        Key key{};
        std::array<index, 2> child{none, none};
        Value value{};
        std::uint8_t length = 0;
    };

    [[nodiscard]] bool covers(index n, const Key& key) const noexcept {
        return nodes_[n].key.common(key) >= nodes_[n].length;
    }
    [[nodiscard]] bool is_nothing(index n) const noexcept { return nodes_[n].value == Value{}; }

    index make(const Key& key, unsigned length) {
        index n = static_cast<index>(nodes_.size());
        if (free_.empty()) {
            nodes_.emplace_back();
        } else {
            n = free_.back();
            free_.pop_back();
        }
        nodes_[n] = {key.first(length), {none, none}, Value{}, static_cast<std::uint8_t>(length)};
        return n;
    }
    index hang(index parent, bool side, index child) {
        nodes_[parent].child[side] = child;
        return child;
    }
    /// Where `below` and a new prefix part after `alike` bits.
    index fork(index above, bool side, index below, unsigned alike, const Key& key,
               unsigned length) {
        const index parting = hang(above, side, make(key, alike));
        const index fresh = hang(parting, key.bit(alike), make(key, length));
        hang(parting, nodes_[below].key.bit(alike), below);
        return fresh;
    }
    /// Puts the only child of `n`, if any, in its place; false where it has two.
    bool splice(index parent, index n) {
        const auto [left, right] = nodes_[n].child;
        if (left != none && right != none) return false;
        hang(parent, nodes_[n].key.bit(nodes_[parent].length), left != none ? left : right);
        free_.push_back(n);
        return true;
    }

    std::vector<node> nodes_;
    std::vector<index> free_;
};

} // namespace esplane::xfrm

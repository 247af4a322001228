// SPDX-License-Identifier: Apache-2.0
#include "fastpath/lpm.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <utility>

namespace esplane::fastpath {

using lpm_node::is_child;
using lpm_node::kind;

namespace {

constexpr std::size_t commit_step = (2 << 20) / lpm_memory::line_bytes; ///< a huge page
constexpr std::size_t smallest_limit = 4 << 20;
/// What one assign() may need besides a second copy of all that is there: a full node and a rest of
/// a chain for each byte, a wide root and what its chains are split into.
constexpr std::size_t edit_lines = 16 * 17 + 4096 + 256;

template <typename T>
void store(T& to, T value) noexcept {
    std::atomic_ref<T>(to).store(value, std::memory_order_release);
}

constexpr std::uint32_t lines_of(kind k) noexcept {
    return k == kind::full ? 16 : k == kind::large ? 2 : 1;
}

void compare_byte(lpm_node::chain& n, unsigned at, std::uint8_t key) noexcept {
    reinterpret_cast<std::uint8_t*>(n.key.data())[at] = key;
    reinterpret_cast<std::uint8_t*>(n.mask.data())[at] = 0xff;
}

unsigned count_runs(const std::array<lpm_slot, 256>& slots) noexcept {
    unsigned runs = 1;
    for (unsigned i = 1; i < slots.size(); ++i)
        runs += slots[i] != slots[i - 1];
    return runs;
}

} // namespace

// --- memory
// ---------------------------------------------------------------------------------------

lpm_memory::lpm_memory(std::size_t limit) {
    void* range = MAP_FAILED;
    for (; range == MAP_FAILED && limit >= smallest_limit; limit /= 2) {
        range =
            ::mmap(nullptr, limit, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        limit_ = limit / line_bytes;
    }
    if (range == MAP_FAILED) std::abort(); // as where operator new finds nothing
    base_ = static_cast<std::uint8_t*>(range);
}

lpm_memory::~lpm_memory() {
    ::munmap(base_, limit_ * line_bytes);
}

bool lpm_memory::has_room(std::size_t lines) {
    const std::size_t end = next_ + used_ + lines;
    return end <= committed_ || commit(end);
}

bool lpm_memory::commit(std::size_t lines) {
    const std::size_t end = (lines + commit_step - 1) / commit_step * commit_step;
    if (end > limit_) return false;
    std::uint8_t* from = base_ + committed_ * line_bytes;
    const std::size_t bytes = (end - committed_) * line_bytes;
    if (::mprotect(from, bytes, PROT_READ | PROT_WRITE) != 0) return false;
    if (committed_ != 0) (void)::madvise(from, bytes, MADV_HUGEPAGE); // a small table stays small
    committed_ = end;
    return true;
}

std::vector<std::uint32_t>& lpm_memory::free_list(std::uint32_t lines) noexcept {
    return free_[lines == 1 ? 0 : lines == 2 ? 1 : lines == 16 ? 2 : 3];
}

std::uint32_t lpm_memory::allocate(std::uint32_t lines) {
    used_ += lines;
    std::vector<std::uint32_t>& list = free_list(lines);
    if (!list.empty()) {
        const std::uint32_t line = list.back();
        list.pop_back();
        return line;
    }
    assert(next_ + lines <= committed_);
    const auto line = static_cast<std::uint32_t>(next_);
    next_ += lines;
    return line;
}

void lpm_memory::release(block b) {
    used_ -= b.lines;
    free_list(b.lines).push_back(b.line);
}

// --- readers
// --------------------------------------------------------------------------------------

/// Fetches what step() will read of a node.
template <unsigned Bytes>
void lpm_table<Bytes>::fetch(const std::uint8_t* base, lpm_slot child, std::uint8_t byte) noexcept {
    const std::uint8_t* node = node_of(base, child);
    const kind k = lpm_node::kind_of(child);
    __builtin_prefetch(k == kind::full ? node + sizeof(lpm_slot) * byte : node);
    if (k == kind::large) __builtin_prefetch(node + 64);
}

template <unsigned Bytes>
void lpm_table<Bytes>::find(std::span<const std::uint8_t* const> addresses,
                            std::uint32_t* values) const noexcept {
    if (is_near()) {
        for (std::size_t i = 0; i < addresses.size(); ++i)
            values[i] = find(addresses[i]);
        return;
    }
    const std::uint32_t root = root_.load(std::memory_order_acquire);
    std::array<std::uint8_t, max_burst> left; // who has not arrived yet
    std::array<std::uint8_t, max_burst> at;
    unsigned count = 0;
    const auto sort = [&](unsigned i, lpm_slot s, unsigned next) {
        values[i] = s & lpm_node::value_mask;
        if (!is_child(s)) return;
        values[i] = s;
        at[i] = static_cast<std::uint8_t>(next);
        left[count++] = static_cast<std::uint8_t>(i);
        fetch(base_, s, addresses[i][next]);
    };
    for (unsigned i = 0; i < addresses.size(); ++i) {
        unsigned next;
        const lpm_slot s = first(base_, root, addresses[i], next);
        sort(i, s, next);
    }
    while (count != 0) {
        const unsigned round = std::exchange(count, 0);
        for (unsigned j = 0; j < round; ++j) {
            const unsigned i = left[j];
            unsigned next = at[i];
            const lpm_slot s = step(base_, values[i], addresses[i], next);
            sort(i, s, next);
        }
    }
}

// --- control
// --------------------------------------------------------------------------------------

template <unsigned Bytes>
lpm_table<Bytes>::lpm_table(lpm_memory& memory, std::vector<lpm_memory::block>& retired,
                            std::uint32_t miss, bool wide)
    : base_(memory.base())
    , memory_(memory)
    , retired_(retired) {
    const std::uint32_t lines = wide ? wide_lines : narrow_lines;
    if (!memory_.has_room(lines)) std::abort(); // the caller has asked
    const std::uint32_t line = memory_.allocate(lines);
    for (unsigned i = 0; i < (wide ? 1u << 16 : 256u); ++i)
        store(memory_.at<lpm_slot>(line)[i], lpm_node::leaf(0, miss));
    root_.store(wide ? line | wide_bit : line, std::memory_order_release);
}

template <unsigned Bytes>
lpm_table<Bytes>::~lpm_table() {
    published_ = false;
    const std::uint32_t root = root_.load(std::memory_order_relaxed);
    const std::uint32_t line = root & ~wide_bit;
    const bool wide = (root & wide_bit) != 0;
    for (unsigned i = 0; i < (wide ? 1u << 16 : 256u); ++i)
        free_below(memory_.at<lpm_slot>(line)[i]);
    memory_.release({line, wide ? wide_lines : narrow_lines});
}

template <unsigned Bytes>
void lpm_table<Bytes>::free_below(lpm_slot s) {
    if (!is_child(s)) return;
    const std::uint32_t line = s & lpm_node::line_mask;
    switch (lpm_node::kind_of(s)) {
    case kind::full:
        for (unsigned i = 0; i < 256; ++i)
            free_below(memory_.at<lpm_slot>(line)[i]);
        break;
    case kind::chain:
        free_below(memory_.at<lpm_node::chain>(line)->match);
        break;
    default: {
        const auto& n = *memory_.at<lpm_node::packed>(line);
        unsigned runs = 0;
        for (const std::uint64_t word : n.starts)
            runs += static_cast<unsigned>(std::popcount(word));
        for (unsigned i = 0; i < runs; ++i)
            free_below(n.runs[i]);
    }
    }
    retire(s);
}

template <unsigned Bytes>
bool lpm_table<Bytes>::assign(const std::uint8_t* prefix, unsigned length, unsigned depth,
                              std::uint32_t value) {
    assert(length <= Bytes * 8 && depth <= length && value <= max_value);
    if (!memory_.has_room(edit_lines)) return false;
    update_root({prefix, length, lpm_node::leaf(depth, value)});
    const bool wide = (root_.load(std::memory_order_relaxed) & wide_bit) != 0;
    if (!wide && nodes_.load(std::memory_order_relaxed) > most_narrow) widen();
    return true;
}

template <unsigned Bytes>
void lpm_table<Bytes>::update_root(const edit& e) {
    const std::uint32_t root = root_.load(std::memory_order_relaxed);
    auto* const slot = memory_.at<lpm_slot>(root & ~wide_bit);
    const bool wide = (root & wide_bit) != 0;
    const unsigned bytes = wide ? 2 : 1;
    const unsigned bits = 8 * bytes;
    const unsigned index = wide ? unsigned{e.prefix[0]} << 8 | e.prefix[1] : e.prefix[0];
    const unsigned count = e.length < bits ? 1u << (bits - e.length) : 1u;
    const unsigned begin = index & ~(count - 1);
    for (unsigned i = begin; i < begin + count; ++i) {
        const lpm_slot before = slot[i];
        const lpm_slot after = update(before, bytes, e);
        if (after != before) store(slot[i], after);
    }
}

/// What stands for `s`, which covers the addresses that begin with the first `level` bytes of the
/// prefix or, where the prefix is no longer than that, some of those in it.
template <unsigned Bytes>
lpm_slot lpm_table<Bytes>::update(lpm_slot s, unsigned level, const edit& e) {
    const bool within = e.length <= level * 8;
    if (within && !is_child(s)) return lpm_node::depth_of(s) <= e.length ? e.leaf : s;
    if (within && lpm_node::kind_of(s) == kind::chain) return update_chain(s, e);
    unsigned begin = 0, count = 256;
    if (!within) {
        const unsigned rest = std::min(8u, e.length - level * 8);
        count = 256u >> rest;
        begin = e.prefix[level] & ~(count - 1) & 0xff;
    }
    const bool in_place = is_child(s) && lpm_node::kind_of(s) == kind::full;
    slots copy;
    if (!in_place) expand(s, level, copy);
    lpm_slot* const slot = in_place ? memory_.at<lpm_slot>(s & lpm_node::line_mask) : copy.data();
    for (unsigned i = begin; i < begin + count; ++i) {
        const lpm_slot before = slot[i];
        const lpm_slot after = update(before, level + 1, e);
        if (after != before) store(slot[i], after);
    }
    if (in_place) {
        const bool grows = lpm_node::depth_of(e.leaf) == e.length;
        if (grows) return s;
        expand(s, level, copy);
        const unsigned runs = count_runs(copy);
        const bool far = nodes_.load(std::memory_order_relaxed) > most_near;
        if (runs != 1 && (!far || runs > lpm_node::large_runs / 2)) return s;
    }
    retire(s);
    return encode(copy, level);
}

/// Of a chain that lies in the prefix.
template <unsigned Bytes>
lpm_slot lpm_table<Bytes>::update_chain(lpm_slot s, const edit& e) {
    lpm_node::chain n = *memory_.at<lpm_node::chain>(s & lpm_node::line_mask);
    n.match = update(n.match, n.next, e);
    n.otherwise = update(n.otherwise, n.next, e);
    retire(s);
    return n.match == n.otherwise ? n.match : make(n);
}

/// The 256 slots that `s` stands for.
template <unsigned Bytes>
void lpm_table<Bytes>::expand(lpm_slot s, unsigned level, slots& into) {
    if (!is_child(s)) {
        into.fill(s);
        return;
    }
    const std::uint32_t line = s & lpm_node::line_mask;
    switch (lpm_node::kind_of(s)) {
    case kind::full:
        std::copy_n(memory_.at<lpm_slot>(line), 256, into.begin());
        return;
    case kind::chain: {
        // Compares the bytes up to here once more: whoever comes here has them.
        const lpm_node::chain rest = *memory_.at<lpm_node::chain>(line);
        const std::uint8_t byte = reinterpret_cast<const std::uint8_t*>(rest.key.data())[level];
        into.fill(rest.otherwise);
        into[byte] = rest.next == level + 1 ? rest.match : make(rest);
        return;
    }
    default: {
        const auto& n = *memory_.at<lpm_node::packed>(line);
        const lpm_slot* run = n.runs - 1;
        for (unsigned i = 0; i < 256; ++i) {
            run += (n.starts[i / 64] >> (i % 64)) & 1;
            into[i] = *run;
        }
    }
    }
}

/// The smallest that stands for 256 slots.
template <unsigned Bytes>
lpm_slot lpm_table<Bytes>::encode(const slots& from, unsigned level) {
    const unsigned runs = count_runs(from);
    if (runs == 1) return from[0]; // a leaf: no two slots have one child
    if (Bytes == 16 && runs <= 3) {
        const lpm_slot otherwise = from[0] == from[255] || is_child(from[0]) ? from[255] : from[0];
        const auto odd =
            std::find_if(from.begin(), from.end(), [&](auto s) { return s != otherwise; });
        if (std::count(from.begin(), from.end(), otherwise) == 255)
            return make_chain(level, static_cast<std::uint8_t>(odd - from.begin()), *odd,
                              otherwise);
    }
    const bool far = nodes_.load(std::memory_order_relaxed) >= most_near;
    return far && runs <= lpm_node::large_runs ? make_packed(from, runs) : make_full(from);
}

template <unsigned Bytes>
lpm_slot lpm_table<Bytes>::make_full(const slots& from) {
    const lpm_slot s = allocate(kind::full);
    auto* to = memory_.at<lpm_slot>(s & lpm_node::line_mask);
    for (unsigned i = 0; i < 256; ++i)
        store(to[i], from[i]);
    return s;
}

template <unsigned Bytes>
lpm_slot lpm_table<Bytes>::make_packed(const slots& from, unsigned runs) {
    const lpm_slot s = allocate(runs <= lpm_node::small_runs ? kind::small : kind::large);
    auto& n = *memory_.at<lpm_node::packed>(s & lpm_node::line_mask);
    std::array<std::uint64_t, 4> starts{};
    std::uint32_t before = 0;
    unsigned count = 0;
    for (unsigned i = 0; i < 256; ++i) {
        if (i % 64 == 0) before |= count << (i / 8);
        if (i != 0 && from[i] == from[i - 1]) continue;
        starts[i / 64] |= std::uint64_t{1} << (i % 64);
        store(n.runs[count++], from[i]);
    }
    for (unsigned i = 0; i < starts.size(); ++i)
        store(n.starts[i], starts[i]);
    store(n.before, before);
    return s;
}

/// One byte before `match`; where that is a chain with the same miss, the two become one.
template <unsigned Bytes>
lpm_slot lpm_table<Bytes>::make_chain(unsigned level, std::uint8_t byte, lpm_slot match,
                                      lpm_slot otherwise) {
    lpm_node::chain n{{}, {}, match, otherwise, level + 1};
    if (is_child(match) && lpm_node::kind_of(match) == kind::chain) {
        const auto& after = *memory_.at<lpm_node::chain>(match & lpm_node::line_mask);
        if (after.otherwise == otherwise) {
            n = after;
            retire(match);
        }
    }
    compare_byte(n, level, byte);
    return make(n);
}

template <unsigned Bytes>
lpm_slot lpm_table<Bytes>::make(const lpm_node::chain& from) {
    const lpm_slot s = allocate(kind::chain);
    auto& n = *memory_.at<lpm_node::chain>(s & lpm_node::line_mask);
    for (unsigned i = 0; i < 2; ++i) {
        store(n.key[i], from.key[i]);
        store(n.mask[i], from.mask[i]);
    }
    store(n.match, from.match);
    store(n.otherwise, from.otherwise);
    store(n.next, from.next);
    return s;
}

/// Two bytes in the first step from now on.
template <unsigned Bytes>
void lpm_table<Bytes>::widen() {
    const std::uint32_t before = root_.load(std::memory_order_relaxed);
    const std::uint32_t line = memory_.allocate(wide_lines);
    for (unsigned i = 0; i < 256; ++i) {
        const lpm_slot s = memory_.at<lpm_slot>(before)[i];
        slots below;
        expand(s, 1, below);
        for (unsigned j = 0; j < 256; ++j)
            store(memory_.at<lpm_slot>(line)[i * 256 + j], below[j]);
        retire(s);
    }
    root_.store(line | wide_bit, std::memory_order_release);
    retire(lpm_memory::block{before, narrow_lines});
}

template <unsigned Bytes>
lpm_slot lpm_table<Bytes>::allocate(kind k) {
    nodes_.store(nodes_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    const std::uint32_t line = memory_.allocate(lines_of(k));
    assert(line <= lpm_node::line_mask);
    return lpm_node::child_bit | static_cast<lpm_slot>(k) << lpm_node::kind_shift | line;
}

template <unsigned Bytes>
void lpm_table<Bytes>::retire(lpm_slot s) {
    if (!is_child(s)) return;
    nodes_.store(nodes_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    retire(lpm_memory::block{s & lpm_node::line_mask, lines_of(lpm_node::kind_of(s))});
}

template <unsigned Bytes>
void lpm_table<Bytes>::retire(lpm_memory::block b) {
    if (published_)
        retired_.push_back(b);
    else
        memory_.release(b);
}

template class lpm_table<4>;
template class lpm_table<16>;

} // namespace esplane::fastpath

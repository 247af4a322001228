// SPDX-License-Identifier: Apache-2.0
#include "fastpath/policy_table.h"

#include <algorithm>
#include <bit>
#include <nmmintrin.h>

namespace esplane::fastpath {

namespace {

template <std::size_t Words>
std::uint32_t hash_of(const flow_key<Words>& key) noexcept {
    std::uint64_t h = 0;
    for (const std::uint64_t word : key.words)
        h = _mm_crc32_u64(h, word);
    return static_cast<std::uint32_t>(h);
}

constexpr std::uint64_t port_bits = 0xffffffff; ///< upper_word()

template <std::size_t Words>
bool looks_at_ports(const flow_key<Words>& mask) noexcept {
    return (mask.words[Words - 1] & port_bits) != 0;
}

/// Prefix lengths rounded down to whole bytes, of IPv6 to pairs of bytes.
template <std::size_t Words>
flow_key<Words> rounded(const flow_key<Words>& mask) noexcept {
    constexpr std::size_t unit = Words == v4_words ? 1 : 2;
    auto bytes = std::bit_cast<std::array<std::uint8_t, 8 * Words>>(mask);
    for (std::size_t at = 0; at < bytes.size() - 8; at += unit) {
        const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(at);
        const auto last = first + unit;
        if (std::any_of(first, last, [](std::uint8_t b) { return b != 0xff; }))
            std::fill(first, last, std::uint8_t{0});
    }
    return std::bit_cast<flow_key<Words>>(bytes);
}

} // namespace

/// One search for the flows of a burst: pointers to the entries that may cover them are asked for
/// when they are noted, the entries when all are, and then these are looked at.
template <std::size_t Words>
class policy_table<Words>::search {
  public:
    /// Leaves out the flows that no policy can cover.
    search(const search_list& list, std::span<const key> flows, const policy_entry** found) noexcept
        : found_(found) {
        for (unsigned i = 0; i < flows.size(); ++i) {
            found[i] = nullptr;
            flows_[open_] = flows[i];
            origin_[open_] = static_cast<std::uint8_t>(i);
            open_ += (flows[i] & list.common_mask) == list.common ? 1 : 0;
        }
    }

    // 1. Pick the flows whose key the tuple may have.
    // 2. Ask for their pages.
    // 3. Note what these have.
    void look_in(const searched& one) noexcept {
        const presence::words& keys = one.keys->read();
        const key mask = one.mask;
        unsigned picked = 0;
        for (unsigned flow = 0; flow < open_; ++flow) {
            const std::uint32_t hash = hash_of(flows_[flow] & mask);
            picked_[picked] = {hash, flow};
            picked += keys.may_have(hash) ? 1 : 0;
        }
        for (unsigned i = 0; i < picked; ++i) {
            pages_[i] = one.heads->page_of(picked_[i].hash);
            __builtin_prefetch(pages_[i]);
        }
        for (unsigned i = 0; i < picked; ++i)
            look_at(pages_[i], table::tag_of(picked_[i].hash), picked_[i].flow);
    }

    void settle() noexcept {
        for (unsigned i = 0; i < noted_; ++i) {
            entries_[i] = slots_[i]->load(std::memory_order_acquire);
            __builtin_prefetch(entries_[i]);
            if constexpr (sizeof(key) > 16)
                __builtin_prefetch(reinterpret_cast<const char*>(entries_[i]) + 64);
        }
        for (unsigned i = 0; i < noted_; ++i)
            walk(entries_[i], flow_of_[i]);
        noted_ = 0;
    }

  private:
    static constexpr unsigned most_noted = 128;
    struct pick {
        std::uint32_t hash;
        std::uint32_t flow;
    };

    void look_at(const typename table::page* p, typename table::tag t, unsigned flow) noexcept {
        for (; p != nullptr; p = p->more.load(std::memory_order_acquire))
            for (std::uint32_t m = p->matches(t); m != 0; m &= m - 1)
                note(flow, p->slots[static_cast<unsigned>(std::countr_zero(m))]);
    }

    void note(unsigned flow, const typename table::slot& where) noexcept {
        if (noted_ == most_noted) settle();
        __builtin_prefetch(&where);
        slots_[noted_] = &where;
        flow_of_[noted_++] = static_cast<std::uint8_t>(flow);
    }

    /// A chain is sorted: its first that covers the flow is its best.
    void walk(const entry* e, unsigned flow) noexcept {
        const policy_entry*& best = found_[origin_[flow]];
        for (; e != nullptr; e = e->next.load(std::memory_order_acquire)) {
            if (best != nullptr && !precedes(e->run, *best)) return;
            if (!e->covers(flows_[flow])) continue;
            best = &e->run;
            return;
        }
    }

    const policy_entry** found_;
    unsigned open_ = 0;
    unsigned noted_ = 0;
    std::array<key, most_flows> flows_;
    std::array<std::uint8_t, most_flows> origin_;
    std::array<pick, most_flows> picked_;
    std::array<const typename table::page*, most_flows> pages_;
    std::array<const typename table::slot*, most_noted> slots_;
    std::array<const entry*, most_noted> entries_;
    std::array<std::uint8_t, most_noted> flow_of_;
};

template <std::size_t Words>
policy_table<Words>::policy_table(retired& graveyard)
    : graveyard_(graveyard) {
    publish();
}

template <std::size_t Words>
policy_table<Words>::~policy_table() {
    delete published_.load(std::memory_order_relaxed);
}

template <std::size_t Words>
void policy_table<Words>::find(std::span<const key> flows,
                               const policy_entry** found) const noexcept {
    const search_list& list = *published();
    if (list.tuples.empty()) {
        std::fill_n(found, flows.size(), nullptr);
        return;
    }
    search s(list, flows, found);
    for (const searched& one : list.tuples)
        s.look_in(one);
    s.settle();
}

template <std::size_t Words>
auto policy_table<Words>::mask_at(level l, const key& mask) noexcept -> key {
    if (l == level::exact) return mask;
    key m = rounded(mask);
    if (l == level::coarse) m.words[Words - 1] = 0;
    return m;
}

template <std::size_t Words>
auto policy_table<Words>::tuple_of(const key& mask) const noexcept -> tuple* {
    const auto at = std::find_if(tuples_.begin(), tuples_.end(),
                                 [&](const auto& one) { return one->mask == mask; });
    return at == tuples_.end() ? nullptr : at->get();
}

template <std::size_t Words>
auto policy_table<Words>::place_in(tuple& t, const entry& e) noexcept -> place {
    const key k = e.key & t.mask;
    const std::uint32_t hash = hash_of(k);
    return {&t, t.heads.find(hash, [&](const entry& one) { return (one.key & t.mask) == k; }),
            hash};
}

/// The place of a chain that has an entry which `pick` takes.
template <std::size_t Words>
template <typename Pick>
auto policy_table<Words>::place_where(const entry& e, Pick pick) const noexcept -> place {
    for (const level l : {level::exact, level::coarse, level::ported}) {
        tuple* const t = tuple_of(mask_at(l, e.mask));
        if (t == nullptr) continue;
        const place p = place_in(*t, e);
        for (const entry* one = p.head; one != nullptr;
             one = one->next.load(std::memory_order_relaxed))
            if (pick(*one)) return p;
    }
    return {};
}

/// Where another of the same selector is, if there is one: an update stays in its chain, see
/// user_backend::succeed().
template <std::size_t Words>
auto policy_table<Words>::choose_place(const entry& e) -> place {
    const place beside =
        place_where(e, [&](const entry& one) { return one.key == e.key && one.mask == e.mask; });
    if (beside.in != nullptr) return beside;
    const auto place_at = [&](level l) {
        const key mask = mask_at(l, e.mask);
        tuple* t = tuple_of(mask);
        if (t == nullptr) t = tuples_.emplace_back(std::make_unique<tuple>(mask, graveyard_)).get();
        return place_in(*t, e);
    };
    const auto has_room = [](const place& p) {
        std::size_t length = 0;
        for (const entry* one = p.head; one != nullptr;
             one = one->next.load(std::memory_order_relaxed))
            ++length;
        return length < longest_chain;
    };
    if (tuples_.size() < own_tuples || tuple_of(e.mask) != nullptr) return place_at(level::exact);
    for (const level l : {level::coarse, level::ported})
        if (const place p = place_at(l); has_room(p)) return p;
    return place_at(level::exact);
}

template <std::size_t Words>
void policy_table<Words>::agree(const entry& e) {
    const std::size_t known = published()->tuples.size();
    const key before = common_mask_;
    const bool is_first = tuples_.size() == 1 && tuples_.front()->count == 0;
    common_mask_ = is_first ? e.mask : common_mask_ & e.mask & ~(common_ ^ e.key);
    common_ = e.key & common_mask_;
    if (is_first || known != tuples_.size() || !(before == common_mask_)) publish();
}

/// The new list is there before the policy can be found: a reader that still has the one from
/// before takes its packets as if the change came a moment later.
template <std::size_t Words>
void policy_table<Words>::insert(entry* e, const ipsec::selector& s) {
    std::tie(e->key, e->mask) = key_of<Words>(s);
    const place p = choose_place(*e);
    agree(*e);
    ++p.in->count;
    if (looks_at_ports(e->mask)) port_readers_.fetch_add(1, std::memory_order_release);
    e->next.store(p.head, std::memory_order_relaxed);
    if (p.head == nullptr) {
        p.in->keys.add(p.hash, [&](auto take) { p.in->heads.each_hash(take); });
        p.in->heads.insert(e, p.hash);
        return;
    }
    if (precedes(e->run, p.head->run)) {
        p.in->heads.replace(p.head, e, p.hash);
        return;
    }
    entry* before = p.head;
    entry* after = before->next.load(std::memory_order_relaxed);
    for (; after != nullptr && !precedes(e->run, after->run);
         after = before->next.load(std::memory_order_relaxed))
        before = after;
    e->next.store(after, std::memory_order_relaxed);
    before->next.store(e, std::memory_order_release);
}

/// What comes after it in its chain stays reachable by it.
template <std::size_t Words>
void policy_table<Words>::erase(entry* e) {
    const place p = place_where(*e, [&](const entry& one) { return &one == e; });
    entry* const after = e->next.load(std::memory_order_relaxed);
    if (p.head != e) {
        entry* before = p.head;
        while (before->next.load(std::memory_order_relaxed) != e)
            before = before->next.load(std::memory_order_relaxed);
        before->next.store(after, std::memory_order_release);
    } else if (after != nullptr)
        p.in->heads.replace(e, after, p.hash);
    else {
        p.in->heads.erase(e, p.hash);
        p.in->keys.remove();
    }
    if (looks_at_ports(e->mask)) port_readers_.fetch_sub(1, std::memory_order_release);
    if (--p.in->count == 0) remove_tuple(*p.in);
}

template <std::size_t Words>
void policy_table<Words>::remove_tuple(const tuple& t) {
    const auto at = std::find_if(tuples_.begin(), tuples_.end(),
                                 [&](const auto& one) { return one.get() == &t; });
    std::shared_ptr<tuple> gone = std::move(*at);
    tuples_.erase(at);
    publish();
    graveyard_.add([gone] {});
}

template <std::size_t Words>
void policy_table<Words>::publish() {
    auto list = std::make_unique<search_list>();
    list->common_mask = common_mask_;
    list->common = common_;
    for (const auto& one : tuples_)
        list->tuples.push_back({one->mask, &one->keys, &one->heads});
    const auto* before = published_.exchange(list.release(), std::memory_order_acq_rel);
    if (before != nullptr) graveyard_.add([before] { delete before; });
}

template class policy_table<v4_words>;
template class policy_table<v6_words>;

template <std::size_t Words>
std::pair<flow_key<Words>, flow_key<Words>> key_of(const ipsec::selector& s) noexcept {
    const auto ones = [] {
        ipsec::address a;
        a.bytes.fill(0xff);
        return a;
    }();
    const auto mask = key_of_parts<Words>(
        masked(ones, s.source_prefix).bytes.data(), masked(ones, s.destination_prefix).bytes.data(),
        upper_word(s.source_port_mask, s.destination_port_mask, s.protocol != 0 ? 0xff : 0));
    const auto key = key_of_parts<Words>(s.source.bytes.data(), s.destination.bytes.data(),
                                         upper_word(s.source_port, s.destination_port, s.protocol));
    return {key & mask, mask};
}
template std::pair<flow_key<v4_words>, flow_key<v4_words>>
key_of<v4_words>(const ipsec::selector&) noexcept;
template std::pair<flow_key<v6_words>, flow_key<v6_words>>
key_of<v6_words>(const ipsec::selector&) noexcept;

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "fastpath/policy_table.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <nmmintrin.h>

namespace esplane::fastpath {

namespace {

/// Linear: what is one of two keys gives what is one of the two results.
template <std::size_t Words>
std::uint32_t raw_hash_of(const flow_key<Words>& key) noexcept {
    std::uint64_t h = 0;
    for (const std::uint64_t word : key.words)
        h = _mm_crc32_u64(h, word);
    return static_cast<std::uint32_t>(h);
}

/// Keys that differ in few bits may differ in few of a CRC.
constexpr std::uint32_t mixed(std::uint32_t raw_hash) noexcept {
    const std::uint32_t h = raw_hash * 0x9e3779b1;
    return h ^ h >> 16;
}

template <std::size_t Words>
std::uint32_t hash_of(const flow_key<Words>& key) noexcept {
    return mixed(raw_hash_of(key));
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

/// At most /24 and no ports, of IPv6 /64: so few tuples are left, and seldom do so many policies
/// about hosts of one network meet that it matters.
template <std::size_t Words>
constexpr flow_key<Words> coarsest = [] {
    if constexpr (Words == v4_words)
        return flow_key<Words>{{0x00ffffff'00ffffff, 0}}; // in memory the first three bytes of each
    else
        return flow_key<Words>{{~std::uint64_t{0}, 0, ~std::uint64_t{0}, 0, 0}};
}();

/// Source, destination, ports and protocol.
template <std::size_t Words>
constexpr std::array<flow_key<Words>, 3> parts_of_key = [] {
    constexpr std::uint64_t all = ~std::uint64_t{0};
    constexpr std::uint64_t first_half = 0xffffffff; // in memory
    if constexpr (Words == v4_words)
        return std::array<flow_key<Words>, 3>{{{{first_half, 0}}, {{~first_half, 0}}, {{0, all}}}};
    else
        return std::array<flow_key<Words>, 3>{
            {{{all, all, 0, 0, 0}}, {{0, 0, all, all, 0}}, {{0, 0, 0, 0, all}}}};
}();

} // namespace

template <std::size_t Words>
void policy_table<Words>::ask_for(const entry* e) noexcept {
    __builtin_prefetch(e);
    if constexpr (Words == v6_words) __builtin_prefetch(reinterpret_cast<const char*>(e) + 64);
}

/// One search for the flows of a burst.  What its flows will touch is asked for before the first of
/// it is touched, of all tuples together:
///
///   1. pick   the flows whose key a tuple may have, with the line that says so
///   2. note   the entries that these lines have
///   3. walk   their chains, an entry of each at a time
template <std::size_t Words>
class policy_table<Words>::search {
  public:
    /// Leaves out the flows that no policy can cover.
    search(const search_list& list, std::span<const key> flows, const policy_entry** found) noexcept
        : list_(list)
        , found_(found) {
        for (unsigned i = 0; i < flows.size(); ++i) {
            found[i] = nullptr;
            flows_[open_] = flows[i];
            origin_[open_] = static_cast<std::uint8_t>(i);
            open_ += (flows[i] & list.common_mask) == list.common ? 1 : 0;
        }
        std::fill_n(best_.begin(), open_, ~std::uint64_t{0});
    }

    void run() noexcept {
        hash_parts();
        for (unsigned n = 0; n < list_.tuples.size(); ++n)
            pick_of(n);
        settle();
    }

  private:
    static constexpr unsigned most_picked = 4 * most_flows;
    using hashes_of_flows = std::array<std::uint32_t, most_flows>;
    /// As a word: written at once, whether it is then taken or not.
    struct pick {
        std::uint32_t hash;
        std::uint32_t flow : 8;
        std::uint32_t number : 24; ///< of the tuple
    };
    struct candidate {
        const entry* e;
        std::uint32_t flow;
    };

    void hash_parts() noexcept {
        for (std::size_t part = 0; part < list_.parts.size(); ++part) {
            const key mask = list_.parts[part];
            hashes_of_flows& raw = raw_[part];
            for (unsigned i = 0, open = open_; i < open; ++i)
                raw[i] = raw_hash_of(flows_[i] & mask);
        }
    }
    void pick_of(unsigned number) noexcept {
        if (picked_ + open_ > most_picked) settle();
        const searched& one = list_.tuples[number];
        const auto view = one.heads->read();
        const hashes_of_flows hashes = hash_for(one);
        const unsigned open = open_; // a member would be read again after each pick is written
        std::uint64_t who = std::uint64_t{number} << 40;
        unsigned picked = picked_;
        for (unsigned i = 0; i < open; ++i) {
            picks_[picked] = who | hashes[i];
            picked += view.may_have(hashes[i]) ? 1 : 0;
            who += std::uint64_t{1} << 32;
        }
        picked_ = picked;
    }
    [[nodiscard]] hashes_of_flows hash_for(const searched& one) const noexcept {
        hashes_of_flows hashes;
        if (!one.is_in_parts) {
            for (unsigned i = 0; i < open_; ++i)
                hashes[i] = hash_of(flows_[i] & one.mask);
            return hashes;
        }
        const auto& source = raw_[one.source];
        const auto& destination = raw_[one.destination];
        const auto& upper = raw_[one.upper];
        for (unsigned i = 0; i < open_; ++i)
            hashes[i] = mixed(source[i] ^ destination[i] ^ upper[i]);
        return hashes;
    }

    void settle() noexcept {
        for (unsigned i = 0; i < picked_; ++i)
            __builtin_prefetch(&home_of(std::bit_cast<pick>(picks_[i])));
        for (unsigned i = 0; i < picked_; ++i) {
            const auto p = std::bit_cast<pick>(picks_[i]);
            list_.tuples[p.number].heads->each(home_of(p), p.hash,
                                               [&](const entry& e) { note(e, p.flow); });
        }
        picked_ = 0;
        walk();
    }
    [[nodiscard]] const typename table::line& home_of(const pick& p) const noexcept {
        return list_.tuples[p.number].heads->read().line_of(p.hash);
    }

    void note(const entry& e, unsigned flow) noexcept {
        if (noted_ == most_picked) [[unlikely]]
            walk();
        ask_for(&e);
        candidates_[noted_++] = {&e, flow};
    }
    /// A chain is sorted: its first that covers the flow is its best.
    void walk() noexcept {
        while (noted_ != 0) {
            unsigned kept = 0;
            for (unsigned i = 0; i < noted_; ++i) {
                const auto [e, flow] = candidates_[i];
                const bool may_be_best = improves(*e, flow);
                const bool covers = e->covers(flows_[flow]);
                if (may_be_best && covers) {
                    found_[origin_[flow]] = &e->run;
                    best_[flow] = e->run.rank;
                }
                const entry* const next = e->next.load(std::memory_order_acquire);
                ask_for(next);
                candidates_[kept] = {next, flow};
                kept += may_be_best && !covers && next != nullptr ? 1 : 0;
            }
            noted_ = kept;
        }
    }
    [[nodiscard]] bool improves(const entry& e, unsigned flow) const noexcept {
        if (e.run.rank != best_[flow]) [[likely]]
            return e.run.rank < best_[flow];
        const policy_entry* const best = found_[origin_[flow]];
        return best == nullptr || precedes(e.run, *best);
    }

    const search_list& list_;
    const policy_entry** found_;
    unsigned open_ = 0; ///< flows that a policy may cover
    unsigned picked_ = 0;
    unsigned noted_ = 0;
    std::array<key, most_flows> flows_;
    std::array<std::uint8_t, most_flows> origin_;
    std::array<std::uint64_t, most_flows> best_;  ///< rank
    std::array<hashes_of_flows, most_parts> raw_; ///< raw_hash_of()
    std::array<std::uint64_t, most_picked + most_flows> picks_;
    std::array<candidate, most_picked> candidates_;
};

/// The same where there is one tuple: its lines say at once what is in it.
template <std::size_t Words>
void policy_table<Words>::find_in_one(const search_list& list, std::span<const key> flows,
                                      const policy_entry** found) noexcept {
    const searched& only = list.tuples.front();
    const auto view = only.heads->read();
    const key mask = only.mask;
    std::array<std::uint32_t, most_flows> hashes;
    std::array<const typename table::line*, most_flows> homes;
    for (std::size_t i = 0; i < flows.size(); ++i) {
        hashes[i] = hash_of(flows[i] & mask);
        homes[i] = &view.line_of(hashes[i]);
        __builtin_prefetch(homes[i]);
    }
    std::array<const entry*, most_flows> heads;
    std::uint64_t unclear = 0; // a bit for each flow of which other entries may have the hash, too
    for (std::size_t i = 0; i < flows.size(); ++i) {
        const auto [head, more] = homes[i]->first(hashes[i]);
        heads[i] = head;
        unclear |= std::uint64_t{more} << i;
        ask_for(head);
    }
    for (std::size_t i = 0; i < flows.size(); ++i) {
        const entry* e = heads[i];
        while (e != nullptr && !e->covers(flows[i]))
            [[unlikely]] e = e->next.load(std::memory_order_acquire);
        found[i] = e == nullptr ? nullptr : &e->run;
    }
    for (; unclear != 0; unclear &= unclear - 1) {
        const auto i = static_cast<std::size_t>(std::countr_zero(unclear));
        search(list, flows.subspan(i, 1), &found[i]).run();
    }
}

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
    if (list.tuples.size() == 1)
        find_in_one(list, flows, found);
    else
        search(list, flows, found).run();
}

template <std::size_t Words>
auto policy_table<Words>::mask_at(level l, const key& mask) noexcept -> key {
    if (l == level::exact) return mask;
    return l == level::ported ? rounded(mask) : rounded(mask) & coarsest<Words>;
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
    else
        p.in->heads.erase(e, p.hash);
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
        list->take(*one);
    const auto* before = published_.exchange(list.release(), std::memory_order_acq_rel);
    if (before != nullptr) graveyard_.add([before] { delete before; });
}

template <std::size_t Words>
void policy_table<Words>::search_list::take(const tuple& t) {
    const auto number_of = [this](const key& part) {
        const auto number = std::ranges::find(parts, part) - parts.begin();
        if (number == std::ssize(parts)) parts.push_back(part);
        return static_cast<std::uint8_t>(number);
    };
    searched& one = tuples.emplace_back(searched{t.mask, &t.heads, false, 0, 0, 0});
    if (parts.size() + 3 > most_parts) return;
    one.is_in_parts = true;
    one.source = number_of(t.mask & parts_of_key<Words>[0]);
    one.destination = number_of(t.mask & parts_of_key<Words>[1]);
    one.upper = number_of(t.mask & parts_of_key<Words>[2]);
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

// SPDX-License-Identifier: Apache-2.0
//
// Policies of one direction and family: which one a flow falls under, at a cost that hardly grows
// with their number.
//
// Tuple space search with merged tuples.  Selectors of one shape (prefix lengths, port masks,
// protocol or not) share a hash table, a tuple, and a flow is looked up once in each.  Only the
// first shape gets a tuple of its own: the others share coarse ones, of which there are few:
//
//   coarse   prefix lengths rounded down, /24 at most (IPv6 /64), no ports, no protocol
//   ported   prefix lengths rounded down, ports and protocol as they are
//   exact    the shape itself
//
// A selector goes into the first of these where not too many others have the same key; those that
// have are a chain, best first, and each is held against the flow.  Bursts are looked up together:
// what the flows of a burst will touch, in all tuples, is asked for before the first of it is
// touched.  Why so, and what else was tried: doc/performance.md.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "fastpath/counters.h"
#include "fastpath/paged_table.h"
#include "lib/ipsec/policy.h"

namespace esplane::fastpath {

struct sa_group;

/// A flow in words that can be masked and hashed.
///
///   IPv4: [src dst] [sport dport proto 0]        IPv6: [src src] [dst dst] [sport dport proto 0]
template <std::size_t Words>
struct flow_key {
    std::array<std::uint64_t, Words> words; ///< arrays of keys are not cleared: {} does

    friend bool operator==(const flow_key& a, const flow_key& b) noexcept {
        std::uint64_t difference = 0;
        for (std::size_t i = 0; i < Words; ++i)
            difference |= a.words[i] ^ b.words[i];
        return difference == 0;
    }
    friend flow_key operator&(const flow_key& a, const flow_key& b) noexcept {
        flow_key r;
        for (std::size_t i = 0; i < Words; ++i)
            r.words[i] = a.words[i] & b.words[i];
        return r;
    }
    /// Bits in which they differ.
    friend flow_key operator^(const flow_key& a, const flow_key& b) noexcept {
        flow_key r;
        for (std::size_t i = 0; i < Words; ++i)
            r.words[i] = a.words[i] ^ b.words[i];
        return r;
    }
    friend flow_key operator~(const flow_key& a) noexcept {
        flow_key r;
        for (std::size_t i = 0; i < Words; ++i)
            r.words[i] = ~a.words[i];
        return r;
    }
};
inline constexpr std::size_t v4_words = 2;
inline constexpr std::size_t v6_words = 5;

/// Ports and protocol as the last word of a key.
[[nodiscard]] inline std::uint64_t upper_word(wire::be16 source, wire::be16 destination,
                                              std::uint8_t protocol) noexcept {
    return source.network() | std::uint64_t{destination.network()} << 16 |
           std::uint64_t{protocol} << 32;
}

/// source, destination   4 or 16 bytes each, as `Words` says
template <std::size_t Words>
[[nodiscard]] flow_key<Words> key_of_parts(const std::uint8_t* source,
                                           const std::uint8_t* destination,
                                           std::uint64_t upper) noexcept {
    flow_key<Words> key;
    if constexpr (Words == v4_words) {
        key.words[0] = wire::load<std::uint32_t>(source) |
                       std::uint64_t{wire::load<std::uint32_t>(destination)} << 32;
    } else {
        key.words[0] = wire::load<std::uint64_t>(source);
        key.words[1] = wire::load<std::uint64_t>(source + 8);
        key.words[2] = wire::load<std::uint64_t>(destination);
        key.words[3] = wire::load<std::uint64_t>(destination + 8);
    }
    key.words[Words - 1] = upper;
    return key;
}

/// The key of a selector and the mask that goes with it.
template <std::size_t Words>
[[nodiscard]] std::pair<flow_key<Words>, flow_key<Words>> key_of(const ipsec::selector& s) noexcept;

/// What an SA must be like that a packet came out of: a template as workers hold it against SAs.
struct sa_requirement {
    ipsec::address source; ///< any = not checked
    ipsec::mode run_mode = ipsec::mode::tunnel;
    std::uint8_t protocol = 0;
    bool leaves_addresses_open = false; ///< of transport mode: the packet brings them
    wire::be32 spi;                     ///< 0 = any
    std::uint32_t reqid = 0;            ///< 0 = any
};

/// A policy as run.  Immutable but for `use_time` and `asked_ns`.
struct policy_entry {
    /// Lower wins: priority in the upper half, order of arrival in the lower as far as it fits;
    /// among equals `position` does, which lies where a search mostly does not have to look.
    std::uint64_t rank = 0;
    const sa_group* group = nullptr; ///< outbound, where it protects
    second_stamp use_time;           ///< CLOCK_REALTIME seconds of the last packet
    ipsec::policy_action action = ipsec::policy_action::allow;
    bool protects = false;
    bool optional = false;    ///< "level use": in clear where no SA is
    bool cpu_acquire = false; ///< each CPU is to have an SA of its own: RFC 9611

    counter asked_ns;        ///< CLOCK_MONOTONIC, of the last packet that did not wait for its SA
    std::uint32_t index = 0; ///< control's name for it
    sa_requirement required; ///< where it protects
    std::uint64_t position = 0; ///< in order of arrival

    void set_rank(std::uint32_t priority, std::uint64_t arrived) noexcept {
        constexpr std::uint64_t last = 0xffffffff;
        rank = std::uint64_t{priority} << 32 | (arrived < last ? arrived : last);
        position = arrived;
    }
};

/// Whether a packet that both cover is a's.
[[nodiscard]] inline bool precedes(const policy_entry& a, const policy_entry& b) noexcept {
    return a.rank != b.rank ? a.rank < b.rank : a.position < b.position;
}

/// With the key it is found by: what a lookup touches comes first, for IPv4 in one line.
template <std::size_t Words>
struct alignas(64) keyed_policy {
    flow_key<Words> key{};
    flow_key<Words> mask{};
    std::atomic<keyed_policy*> next{nullptr}; ///< same key of their tuple, worse rank
    policy_entry run;

    [[nodiscard]] bool covers(const flow_key<Words>& flow) const noexcept {
        return (flow & mask) == key;
    }
};

/// Writer: control; readers: workers.
template <std::size_t Words>
class policy_table {
  public:
    using entry = keyed_policy<Words>;
    using key = flow_key<Words>;
    static constexpr std::size_t most_flows = 64; ///< of one search

    explicit policy_table(retired& graveyard);
    ~policy_table();
    policy_table(const policy_table&) = delete;
    policy_table& operator=(const policy_table&) = delete;

    [[nodiscard]] bool empty() const noexcept { return published()->tuples.empty(); }
    /// Whether ports make a difference to any of its policies.
    [[nodiscard]] bool reads_ports() const noexcept {
        return port_readers_.load(std::memory_order_acquire) != 0;
    }
    /// The best policy for each flow, at most most_flows; nullptr where none covers it.
    void find(std::span<const key> flows, const policy_entry** found) const noexcept;
    [[nodiscard]] const policy_entry* find(const key& flow) const noexcept {
        const policy_entry* found = nullptr;
        find(std::span(&flow, 1), &found);
        return found;
    }

    /// Takes an entry, its rank set, under a selector; the caller owns it.
    void insert(entry* e, const ipsec::selector& s);
    /// Takes it out; it may be freed after the workers were quiescent.
    void erase(entry* e);

  private:
    /// Shapes that get a tuple of their own, whatever they are.
    static constexpr std::size_t own_tuples = 1;
    /// So many of one key are in a coarse tuple.
    static constexpr std::size_t longest_chain = 8;
    /// Of masks, see search_list.
    static constexpr std::size_t most_parts = 64;

    using table = paged_table<entry>;
    struct tuple {
        tuple(const key& m, retired& graveyard)
            : mask(m)
            , heads(graveyard) {}
        key mask;
        table heads;           ///< of chains
        std::size_t count = 0; ///< of its policies
    };
    /// What a lookup reads of a tuple.
    struct searched {
        key mask;
        const table* heads;
        bool is_in_parts;                        ///< else there are too many parts
        std::uint8_t source, destination, upper; ///< numbers of the mask's parts
    };
    /// Immutable.
    struct search_list {
        /// What all policies, and those that were there since the first, agree in.
        key common_mask;
        key common;
        /// Those of which the masks are made, each once: a flow is hashed under each part, and what
        /// it hashes to under a mask is made of these.
        std::vector<key> parts;
        std::vector<searched> tuples;

        void take(const tuple& t);
    };
    /// Where a policy is or would be: the head of the chain of its key, if there is one.
    struct place {
        tuple* in = nullptr;
        entry* head = nullptr;
        std::uint32_t hash = 0;
    };
    class search;
    static void find_in_one(const search_list& list, std::span<const key> flows,
                            const policy_entry** found) noexcept;
    static void ask_for(const entry* e) noexcept;
    enum class level : std::uint8_t { exact, coarse, ported };

    [[nodiscard]] static key mask_at(level l, const key& mask) noexcept;
    [[nodiscard]] const search_list* published() const noexcept {
        return published_.load(std::memory_order_acquire);
    }
    [[nodiscard]] tuple* tuple_of(const key& mask) const noexcept;
    [[nodiscard]] static place place_in(tuple& t, const entry& e) noexcept;
    template <typename Pick>
    [[nodiscard]] place place_where(const entry& e, Pick pick) const noexcept;
    [[nodiscard]] place choose_place(const entry& e);
    void agree(const entry& e);
    void remove_tuple(const tuple& t);
    void publish();

    retired& graveyard_;
    std::vector<std::unique_ptr<tuple>> tuples_;
    key common_mask_{}; ///< of the search list
    key common_{};
    std::atomic<const search_list*> published_{nullptr};
    std::atomic<std::uint32_t> port_readers_{0}; ///< policies that look at ports
};

extern template class policy_table<v4_words>;
extern template class policy_table<v6_words>;

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// The SPD as packets see it: which policy a flow falls under, and what follows.
//
// Tuple space search: policies whose selectors have the same shape (prefix lengths, protocol or
// not, port masks) share one hash table, and a flow is looked up once per shape.  Shapes are tried
// in order of the best policy they hold and the search stops when no better one can come.  Adding
// or removing a policy touches one shape.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "fastpath/counters.h"
#include "fastpath/lookup_table.h"
#include "fastpath/packet.h"
#include "fastpath/sa.h"
#include "lib/ipsec/policy.h"

namespace esplane::fastpath {

struct peer_group;

/// The SAs of a template where some are for the traffic of one CPU: which a worker may take.
/// Immutable.
struct sa_choices {
    struct list {
        std::vector<sa_out*> sas; ///< best first, the worker's own before those of no CPU
        std::size_t own = 0;      ///< how many are its own
    };
    std::vector<list> of_worker;
    list rest; ///< for workers that have none of their own

    [[nodiscard]] const list& of(unsigned worker) const noexcept {
        return worker < of_worker.size() && of_worker[worker].own != 0 ? of_worker[worker] : rest;
    }
};

/// The SAs that satisfy one template, best first: what control resolved it to.
struct sa_group {
    /// The one that packets take; nullptr while there is none.
    std::atomic<sa_out*> best{nullptr};
    /// All of them, where `best` has a selector that the flow may miss.  Ends with nullptr.
    std::atomic<sa_out* const*> all{nullptr};
    /// Of a template in transport mode: the packet's own destination says which.  Else nullptr.
    const lookup_table<peer_group>* peers = nullptr;
    /// Where the worker makes a difference; `best` is nullptr then.  Else nullptr.
    std::atomic<const sa_choices*> choices{nullptr};
};

/// Those SAs of a template in transport mode that go to one destination.
struct peer_group {
    std::uint32_t hash = 0; ///< of the destination, see hash_of_peer()
    ipsec::address destination;
    const sa_group* sas = nullptr;
};

/// address   4 or 16 bytes, as `f` says
[[nodiscard]] std::uint32_t hash_of_peer(const std::uint8_t* address, ipsec::family f) noexcept;

/// A flow in words that can be masked and hashed.
///
///   IPv4: [src dst] [sport dport proto 0]        IPv6: [src src] [dst dst] [sport dport proto 0]
template <std::size_t Words>
struct flow_key {
    std::array<std::uint64_t, Words> words{};

    friend bool operator==(const flow_key& a, const flow_key& b) noexcept {
        std::uint64_t difference = 0;
        for (std::size_t i = 0; i < Words; ++i)
            difference |= a.words[i] ^ b.words[i];
        return difference == 0;
    }
};
inline constexpr std::size_t v4_words = 2;
inline constexpr std::size_t v6_words = 5;

/// A policy as run.  Immutable but for `use_time` and `asked_ns`.
struct policy_entry {
    /// Lower wins: priority in the upper half, order of arrival in the lower.
    std::uint64_t rank = 0;
    ipsec::policy_action action = ipsec::policy_action::allow;
    bool protects = false;
    bool optional = false;           ///< "level use": in clear where no SA is
    bool cpu_acquire = false;        ///< each CPU is to have an SA of its own: RFC 9611
    std::uint32_t index = 0;         ///< control's name for it
    const sa_group* group = nullptr; ///< outbound, where it protects
    counter use_time;                ///< CLOCK_REALTIME seconds of the last packet

    ipsec::template_ required; ///< where it protects
    counter asked_ns;          ///< CLOCK_MONOTONIC, of the last packet that did not wait for its SA
};

/// With the key it is found by: what a lookup touches comes first.
template <std::size_t Words>
struct alignas(64) keyed_policy {
    flow_key<Words> key;
    policy_entry run;
    keyed_policy* next = nullptr; ///< same key, worse rank; control's alone
    std::uint32_t hash = 0;
};

/// Policies of one direction and family.  Writer: control; readers: workers.
template <std::size_t Words>
class policy_table {
  public:
    using entry = keyed_policy<Words>;

    explicit policy_table(retired& graveyard)
        : graveyard_(graveyard) {
        publish();
    }
    ~policy_table();
    policy_table(const policy_table&) = delete;
    policy_table& operator=(const policy_table&) = delete;

    [[nodiscard]] bool empty() const noexcept {
        return ordered_.load(std::memory_order_acquire)->empty();
    }
    /// Whether ports make a difference to any of its policies.
    [[nodiscard]] bool reads_ports() const noexcept;
    /// The best policy for a flow; nullptr where none covers it.
    [[nodiscard]] const policy_entry* find(const flow_key<Words>& flow) const noexcept;

    /// Takes an entry, its rank set, under a selector; the caller owns it.
    void insert(entry* e, const ipsec::selector& s);
    /// Takes it out; it may be freed after the workers were quiescent.
    void erase(entry* e, const ipsec::selector& s);

  private:
    struct shape {
        shape(const flow_key<Words>& m, retired& graveyard)
            : mask(m)
            , table(graveyard) {}
        flow_key<Words> mask;
        lookup_table<entry> table;
        std::uint64_t best = ~std::uint64_t{0}; ///< none of its policies has a lower rank
        std::size_t count = 0;                  ///< of its policies
    };
    /// What a lookup reads of a shape.
    struct searched {
        flow_key<Words> mask;
        std::uint64_t best; ///< no policy in it has a lower rank
        const lookup_table<entry>* table;
    };

    shape& shape_of(const flow_key<Words>& mask);
    void publish();

    retired& graveyard_;
    std::vector<std::unique_ptr<shape>> shapes_;
    std::atomic<const std::vector<searched>*> ordered_{nullptr};
};

extern template class policy_table<v4_words>;
extern template class policy_table<v6_words>;

/// The key of a selector and the mask that goes with it.
template <std::size_t Words>
[[nodiscard]] std::pair<flow_key<Words>, flow_key<Words>> key_of(const ipsec::selector& s) noexcept;

struct stage;
class packet_list;
struct protect_item;

/// Where classify() puts packets.  Arrays hold a burst.
struct verdicts {
    packet_list& bypass; ///< leaves as it is
    packet_list& local;  ///< for the machine's own stack
    std::span<protect_item> protect;
    unsigned protect_count = 0; ///< how many of `protect` are set
};

/// Holds packets against the policies, as the kernel does: one for the machine against `in`, one
/// passing through against `fwd`, then `out`.  A packet that came out of an SA is admitted only by
/// a policy whose template that SA satisfies; one in clear only where none asks for protection.
///
/// Policies with an if_id are for the traffic of its interface: `in` and `fwd` for what came out of
/// an SA of that if_id, `out` for what a route leads into it and no policy without if_id protects
/// or blocks.  Those with a mark are for packets with that mark alone.
void classify(stage& s, const packet_list& packets, verdicts& to) noexcept;

/// The first half of classify() alone: `in` for the machine, else `fwd`.  False: no policy admits
/// the packet; it is dropped.
[[nodiscard]] bool admit(stage& s, packet& p) noexcept;

/// The second half alone: `out`, for a packet that is not for the machine.
void direct(stage& s, packet& p, verdicts& to) noexcept;

/// The policy of one direction and no if_id that covers a parsed packet; nullptr where none does.
[[nodiscard]] const policy_entry* find_policy(const stage& s, const packet& p,
                                              ipsec::policy_direction d) noexcept;

/// Whether `out` lets a parsed packet leave as it is, by no interface of tunnels.
[[nodiscard]] bool may_leave_in_clear(const stage& s, const packet& p) noexcept;

} // namespace esplane::fastpath

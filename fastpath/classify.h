// SPDX-License-Identifier: Apache-2.0
//
// The SPD as packets see it: which policy a packet falls under (policy_table.h finds it), and what
// follows.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "fastpath/lookup_table.h"
#include "fastpath/packet.h"
#include "fastpath/policy_table.h"
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

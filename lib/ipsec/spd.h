// SPDX-License-Identifier: Apache-2.0
//
// The security policy database (RFC 4301 section 4.4.1): descriptions by direction,
// interface id and selector, by index and by age.
//
// Hash indices and a list in order of arrival (arrivals.h): no operation takes time linear in the
// number of policies, but for one in as many as there are that closes the list's gaps.
// Threads: one.  Does not: know rules, timers or backends (lib/control does), match packets
// (the data path's tables do).
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "lib/base/growing_table.h"
#include "lib/ipsec/arrivals.h"
#include "lib/ipsec/packed_policy.h"
#include "lib/ipsec/policy.h"

namespace esplane::ipsec {

class spd {
  public:
    class entry {
      public:
        std::uint64_t serial = 0; ///< from 1 up in order of arrival, never given twice
        std::uint32_t index = 0;
        policy_direction dir = policy_direction::out;
        policy_type type = policy_type::main;
        std::int64_t added_ns = 0; ///< CLOCK_MONOTONIC: since when its limits in time count

        /// As it was put in, or last kept.
        [[nodiscard]] policy describe() const;
        /// Changes all of the description but what names it.
        void keep(const policy& p) { kept_ = packed_policy(p); }

      private:
        friend class spd;
        std::uint32_t name_hash_ = 0;
        packed_policy kept_;
    };

    /// nullptr where there is none.  Entries stay where they are until they are taken out.
    [[nodiscard]] entry* find(const policy_key& k);
    [[nodiscard]] entry* find_index(std::uint32_t index);
    [[nodiscard]] entry* find_serial(std::uint64_t serial) { return arrivals_.find(serial); }
    /// The newest entry whose serial is at most `serial`; nullptr at the end of a walk.
    [[nodiscard]] entry* newest_from(std::uint64_t serial) { return arrivals_.newest_from(serial); }

    /// The index that a new policy would get: `wanted` where that is free and not 0, else the next
    /// free one, counted as the kernel's xfrm_gen_index() does.  Changes nothing.
    [[nodiscard]] std::uint32_t choose_index(policy_direction dir, std::uint32_t wanted) const;
    /// The position the next policy that is put in or replaced gets.
    [[nodiscard]] std::uint64_t next_position() const noexcept { return arrivals_.next_serial(); }
    /// That is at least `position` then.
    void go_on_from(std::uint64_t position) noexcept { arrivals_.go_on_from(position); }

    /// Puts in a policy whose name is not there yet; index and position are chosen already.
    ///
    /// index_chosen   the index is one that choose_index() made up
    entry& insert(const policy& p, bool index_chosen);
    /// Puts `p`, of the same name and index, in the place of what `e` holds.  As in
    /// the kernel it is the newest then.
    void replace(entry& e, const policy& p);
    /// Takes out an entry of this database.
    void erase(entry& e);

    [[nodiscard]] std::size_t size() const noexcept { return arrivals_.size(); }
    [[nodiscard]] std::uint32_t count(policy_direction dir) const noexcept {
        return counts_[static_cast<std::size_t>(dir)];
    }

  private:
    struct hash_by_name {
        [[nodiscard]] std::uint32_t operator()(const entry& e) const noexcept {
            return e.name_hash_;
        }
    };
    struct hash_by_index {
        [[nodiscard]] std::uint32_t operator()(const entry& e) const noexcept {
            return hash_of_index(e.index);
        }
    };
    struct index_choice {
        std::uint32_t index;
        std::uint32_t generator; ///< where the next choice starts
    };

    [[nodiscard]] static std::uint32_t hash_of_index(std::uint32_t index) noexcept {
        return static_cast<std::uint32_t>((index * 0x9e3779b97f4a7c15u) >> 32);
    }
    [[nodiscard]] static bool has_name(const entry& e, const policy_key& k);
    [[nodiscard]] index_choice generate_index(policy_direction dir) const;
    [[nodiscard]] bool has_index(std::uint32_t index) const;

    growing_table<entry, hash_by_name> by_name_;
    growing_table<entry, hash_by_index> by_index_;
    arrivals<entry> arrivals_;
    std::array<std::uint32_t, 3> counts_{};
    std::uint32_t index_generator_ = 0;
};

} // namespace esplane::ipsec

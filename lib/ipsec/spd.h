// SPDX-License-Identifier: Apache-2.0
//
// The security policy database (RFC 4301 section 4.4.1): descriptions by direction,
// interface id and selector, by index and by age.
//
// Hash maps and an ordered index: no operation takes time linear in the number of policies.
// Threads: one.  Does not: know rules, timers or backends (lib/control does), match packets
// (the data path's tables do).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>

#include "lib/ipsec/lifetime.h"
#include "lib/ipsec/policy.h"

namespace esplane::ipsec {

class spd {
  public:
    struct entry {
        policy what;
        lifetime_origin origin;

        /// From 1 up in order of arrival, never given twice.
        [[nodiscard]] std::uint64_t serial() const noexcept { return what.position; }
    };

    /// nullptr where there is none.  Entries stay where they are until they are taken out.
    [[nodiscard]] entry* find(const policy_key& k);
    [[nodiscard]] entry* find_index(std::uint32_t index);
    [[nodiscard]] entry* find_serial(std::uint64_t serial);
    /// The newest entry whose serial is at most `serial`; nullptr at the end of a walk.
    [[nodiscard]] entry* newest_from(std::uint64_t serial);

    /// The index that a new policy would get: `wanted` where that is free and not 0, else the next
    /// free one, counted as the kernel's xfrm_gen_index() does.  Changes nothing.
    [[nodiscard]] std::uint32_t choose_index(policy_direction dir, std::uint32_t wanted) const;
    /// The position the next policy that is put in or replaced gets.
    [[nodiscard]] std::uint64_t next_position() const noexcept { return last_position_ + 1; }

    /// Puts in a policy whose name is not there yet; index and position are chosen already.
    ///
    /// index_chosen   the index is one that choose_index() made up
    entry& insert(policy p, bool index_chosen);
    /// Puts `p`, of the same name and index, in the place of what `e` holds.  As in
    /// the kernel it is the newest then.
    void replace(entry& e, policy p);
    /// Takes out an entry of this database.
    policy take(entry& e);

    [[nodiscard]] std::size_t size() const noexcept { return by_name_.size(); }
    [[nodiscard]] std::uint32_t count(policy_direction dir) const noexcept {
        return counts_[static_cast<std::size_t>(dir)];
    }

  private:
    /// What no two policies share.
    struct name {
        policy_direction dir;
        policy_type type;
        std::uint32_t if_id;
        mark_mask mark;
        selector sel;
        std::optional<security_context> security;

        friend bool operator==(const name&, const name&) = default;
    };
    struct name_hash {
        [[nodiscard]] std::size_t operator()(const name& n) const noexcept;
    };
    struct index_choice {
        std::uint32_t index;
        std::uint32_t generator; ///< where the next choice starts
    };

    [[nodiscard]] static name name_of(const policy& p);
    [[nodiscard]] index_choice generate_index(policy_direction dir) const;
    void link(entry& e);

    std::unordered_map<name, entry, name_hash> by_name_;
    std::unordered_map<std::uint32_t, entry*> by_index_;
    std::map<std::uint64_t, entry*> by_serial_;
    std::array<std::uint32_t, 3> counts_{};
    std::uint64_t last_position_ = 0;
    std::uint32_t index_generator_ = 0;
};

} // namespace esplane::ipsec

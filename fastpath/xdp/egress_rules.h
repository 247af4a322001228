// SPDX-License-Identifier: Apache-2.0
//
// `out` policies in the form the egress program looks them up: a tuple space.
//
// Rules that look at the same bits share a mask; a packet is looked up once a mask.  A later
// fragment shows no ports: for it a rule that looks at ports and denies is widened to all ports,
// and one that allows is left out, so that nothing leaves in clear for want of a header.
//
// A change of one policy changes an entry or two of the maps, however many there are.
// Threads: one.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "fastpath/xdp/maps.h"
#include "lib/base/result.h"
#include "lib/ipsec/selector.h"

namespace esplane::fastpath {

/// What the egress program has to know of an `out` policy.
struct egress_rule {
    ipsec::selector sel;
    std::uint32_t priority = 0; ///< lower wins; among equals the lower position
    bool allow = false;         ///< false: protected or blocked, so not to leave in clear
    std::uint32_t position = 0; ///< in order of arrival

    [[nodiscard]] std::uint64_t rank() const noexcept {
        return std::uint64_t{priority} << 32 | position;
    }
};

/// The device that a guard stands on, or a VLAN device on top of it, as policies name it.
struct egress_device {
    int ifindex = 0;
    std::array<std::uint16_t, 2> tags{}; ///< of what leaves by it, outermost first: ESPLANE_TAG

    friend bool operator==(const egress_device&, const egress_device&) = default;
};

/// One entry of the map `egress_rules`; generation 0.
struct egress_entry {
    esplane_rule_key key{};
    esplane_rule rule{};
};

/// What has to be done to the maps, in this order.
struct egress_change {
    bool masks_before = false;           ///< the masks have changed: they come first
    std::vector<egress_entry> puts;      ///< new, or in the place of those of their key
    std::vector<esplane_rule_key> drops; ///< taken out
    bool masks_after = false;            ///< the masks have changed: they come last
};

/// All rules, and how they stand in the maps.
class egress_rule_space {
  public:
    /// Rules for other devices than these are left out.
    explicit egress_rule_space(std::vector<egress_device> devices);

    /// Puts in a rule; of those that stand for the same packets no two have the same rank.
    [[nodiscard]] egress_change insert(const egress_rule& r);
    /// Takes out one that was put in.
    [[nodiscard]] egress_change erase(const egress_rule& r);

    /// Whether the maps have room.  Errors: E2BIG where the rules need more than ESPLANE_MAX_MASKS
    /// masks or make more than ESPLANE_MAX_RULES entries.
    [[nodiscard]] result<void> fits() const;

    /// Numbers the masks from 0 up: for maps that are written whole.
    void renumber();
    /// The masks by number; one that is not in use has no kinds.  They fit, and did so since
    /// renumber().
    [[nodiscard]] esplane_mask_bank masks() const;
    [[nodiscard]] std::vector<egress_entry> entries() const;

  private:
    /// Any struct of the maps by its bytes; none has padding.
    struct tuple_hash {
        [[nodiscard]] std::size_t operator()(const esplane_tuple& t) const noexcept;
    };
    struct tuple_equal {
        [[nodiscard]] bool operator()(const esplane_tuple& a,
                                      const esplane_tuple& b) const noexcept;
    };
    /// The part of a mask that tells it from others.
    struct shape {
        esplane_tuple bits;
        std::uint32_t kinds;
    };
    struct shape_less {
        [[nodiscard]] bool operator()(const shape& a, const shape& b) const noexcept;
    };
    struct by_rank {
        [[nodiscard]] bool operator()(const esplane_rule& a, const esplane_rule& b) const noexcept {
            return a.rank < b.rank;
        }
    };
    using rules_by_rank = std::set<esplane_rule, by_rank>;
    /// Rules that look at the same bits.
    struct mask_rules {
        std::uint32_t number = 0;
        std::uint64_t best_rank = 0; ///< none of its rules is better
        std::unordered_map<esplane_tuple, esplane_rule, tuple_hash, tuple_equal> best;
        /// Those behind the best of their tuple; mostly none.
        std::unordered_map<esplane_tuple, rules_by_rank, tuple_hash, tuple_equal> others;
    };
    /// Where a rule stands: in one mask, or beside it in another for later fragments.
    struct place {
        shape of;
        esplane_tuple tuple;
    };

    [[nodiscard]] std::vector<place> places_of(const egress_rule& r) const;
    void insert(const place& at, const esplane_rule& rule, egress_change& change);
    void erase(const place& at, const esplane_rule& rule, egress_change& change);
    mask_rules& open_mask(const shape& of, egress_change& change);

    std::vector<egress_device> devices_;
    std::map<shape, mask_rules, shape_less> masks_;
    std::set<std::uint32_t> free_numbers_; ///< of those given out; one beyond is the next
    std::size_t entries_ = 0;
};

} // namespace esplane::fastpath

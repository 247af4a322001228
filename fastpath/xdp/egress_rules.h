// SPDX-License-Identifier: Apache-2.0
//
// `out` policies in the form the egress program looks them up: a tuple space.
//
// Rules that look at the same bits share a mask; a packet is looked up once a mask.  A later
// fragment shows no ports: for it a rule that looks at ports and denies is widened to all ports,
// and one that allows is left out, so that nothing leaves in clear for want of a header.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "fastpath/xdp/maps.h"
#include "lib/base/result.h"
#include "lib/ipsec/selector.h"

namespace esplane::fastpath {

/// What the egress program has to know of an `out` policy.
struct egress_rule {
    ipsec::selector sel;
    std::uint32_t priority = 0; ///< lower wins; among equals the earlier in the list
    bool allow = false;         ///< false: protected or blocked, so not to leave in clear
};

/// The device that a guard stands on, or a VLAN device on top of it, as policies name it.
struct egress_device {
    int ifindex = 0;
    std::array<std::uint16_t, 2> tags{}; ///< of what leaves by it, outermost first: ESPLANE_TAG

    friend bool operator==(const egress_device&, const egress_device&) = default;
};

/// The maps' contents.
struct egress_rule_set {
    esplane_mask_bank bank{};
    std::vector<esplane_rule_key> keys; ///< of `rules`, in step with it; generation 0
    std::vector<esplane_rule> rules;
};

/// Makes a rule set for these devices; rules for others are left out.
///
/// Errors: E2BIG where the rules need more than ESPLANE_MAX_MASKS masks or are more than
/// ESPLANE_MAX_RULES.
[[nodiscard]] result<egress_rule_set> compile_egress_rules(std::span<const egress_rule> rules,
                                                           std::span<const egress_device> devices);

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// When a daemon that stays closed opens.
#pragma once

#include <variant>

#include "lib/ipsec/event.h"

namespace esplane::tools {

/// Whether it is the first word on what must not leave in clear: an `out` policy that protects or
/// blocks, or nothing leaves by default.  Before it, what it is about to protect would leave,
/// whatever else is programmed.
[[nodiscard]] inline bool opens(const ipsec::event& e) {
    const auto keeps_in = [](const ipsec::policy& p) {
        return p.dir == ipsec::policy_direction::out &&
               (p.protects() || p.action != ipsec::policy_action::allow);
    };
    if (const auto* added = std::get_if<ipsec::policy_added>(&e)) return keeps_in(added->what);
    if (const auto* updated = std::get_if<ipsec::policy_updated>(&e))
        return keeps_in(updated->what);
    const auto* const changed = std::get_if<ipsec::defaults_changed>(&e);
    return changed != nullptr && ipsec::action_of(changed->what, ipsec::policy_direction::out) ==
                                     ipsec::policy_action::block;
}

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// A security policy as control describes it (RFC 4301 section 4.4.1, in XFRM's form).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "lib/ipsec/lifetime.h"
#include "lib/ipsec/sa.h"
#include "lib/ipsec/selector.h"

namespace esplane::ipsec {

/// XFRM_POLICY_IN, OUT, FWD: their kernel values.
enum class policy_direction : std::uint8_t { in = 0, out = 1, fwd = 2 };

/// XFRM_POLICY_TYPE_MAIN, SUB: their kernel values.  A sub-policy comes before the main one.
enum class policy_type : std::uint8_t { main = 0, sub = 1 };

/// allow without templates is a bypass; allow with templates protects; block discards.
enum class policy_action : std::uint8_t { allow = 0, block = 1 };

/// The SA that a packet must have been protected with, or is to be (xfrm_user_tmpl).
struct template_ {
    sa_id id;       ///< spi 0 = any; destination may be any for inbound checks
    address source; ///< any = not checked
    /// Of the outer header.
    family fam = family::unspecified;
    mode run_mode = mode::tunnel;
    std::uint32_t reqid = 0; ///< 0 = any when checking, exactly 0 when choosing (as the kernel)
    std::uint8_t share = 0;
    bool optional = false; ///< "level use"
    std::uint32_t auth_algs = 0;
    std::uint32_t cipher_algs = 0;
    std::uint32_t comp_algs = 0;

    friend bool operator==(const template_&, const template_&) = default;
};

namespace policy_flag {
inline constexpr std::uint8_t local_ok = 1;
inline constexpr std::uint8_t icmp = 2;
inline constexpr std::uint8_t cpu_acquire = 4; ///< an SA for each CPU is asked for (RFC 9611)
} // namespace policy_flag

struct policy {
    policy_direction dir = policy_direction::out;
    policy_type type = policy_type::main;
    selector sel;
    std::uint32_t if_id = 0; ///< of the interface whose traffic it is for; 0 = of none
    mark_mask mark;          ///< of the packets it is for
    std::optional<security_context> security;
    std::uint32_t priority = 0; ///< lower wins
    std::uint32_t index = 0;    ///< (n << 3) | dir; 0 = to be given
    policy_action action = policy_action::allow;
    std::uint8_t flags = 0;
    std::uint8_t share = 0;
    std::vector<template_> templates; ///< in this slice at most 1: an ESP tunnel
    lifetime_limits limits;
    lifetime_current current;
    /// Order of arrival: among equal priorities the earlier wins (as the kernel's `pos`).
    std::uint64_t position = 0;
    bool dying = false;

    [[nodiscard]] bool protects() const noexcept {
        return action == policy_action::allow && !templates.empty();
    }
};

/// What becomes of what no policy covers (XFRM_MSG_SETDEFAULT), by policy_direction.
using default_actions = std::array<policy_action, 3>;
[[nodiscard]] constexpr policy_action action_of(const default_actions& d,
                                                policy_direction dir) noexcept {
    return d[static_cast<std::size_t>(dir)];
}

/// What names a policy in requests: direction, type, interface id, mark, security context and
/// selector; or, for the selector, the index.  (Of one index there is one policy; with another
/// interface id or mark it is not found.)
struct policy_key {
    policy_direction dir = policy_direction::out;
    selector sel;
    std::uint32_t index = 0; ///< not 0: by index, `sel` is not looked at
    std::uint32_t if_id = 0;
    mark_mask mark;
    policy_type type = policy_type::main;
    std::optional<security_context> security = {};
};

} // namespace esplane::ipsec

// SPDX-License-Identifier: Apache-2.0
//
// Policies as XFRM messages carry them, both ways.  Rules and texts are those of the kernel's
// verify_newpolicy_info and validate_tmpl; then what esplane does not carry is refused.
#pragma once

#include "lib/base/result.h"
#include "lib/ipsec/policy.h"
#include "xfrm/attributes.h"
#include "xfrm/message.h"

namespace esplane::xfrm {

/// From NEWPOLICY and UPDPOLICY.
///
/// Errors: EINVAL with the kernel's text; EPROTONOSUPPORT and EOPNOTSUPP with `field`.
[[nodiscard]] result<ipsec::policy> decode_policy(const xfrm_userpolicy_info& info,
                                                  const attributes& a);
/// The fixed part of NEWPOLICY, UPDPOLICY and POLEXPIRE.
[[nodiscard]] xfrm_userpolicy_info policy_info(const ipsec::policy& p) noexcept;
/// What follows it: XFRMA_TMPL, SEC_CTX, POLICY_TYPE, MARK and IF_ID.
void encode_policy_attributes(message_writer& w, const ipsec::policy& p);
/// XFRMA_POLICY_TYPE.
void encode_policy_type(message_writer& w, ipsec::policy_type type);

/// From GETPOLICY, DELPOLICY and POLEXPIRE.  Errors: EINVAL (policy type, direction, security
/// context).
[[nodiscard]] result<ipsec::policy_key> decode_policy_key(const xfrm_userpolicy_id& id,
                                                          const attributes& a);
[[nodiscard]] xfrm_userpolicy_id policy_id_to(const ipsec::policy& p, bool by_index) noexcept;

/// main where the message does not say.  Errors: EINVAL for a type that is none.
[[nodiscard]] result<ipsec::policy_type> decode_policy_type(const attributes& a);
/// Errors: EINVAL for a direction that is none.
[[nodiscard]] result<void> check_policy_direction(std::uint8_t dir);

/// From ACQUIRE: a policy, and what is wanted for its templates.  Errors: as decode_policy.
struct acquire_request {
    ipsec::sa wanted;
    ipsec::policy what;
};
[[nodiscard]] result<acquire_request> decode_acquire(const xfrm_user_acquire& body,
                                                     const attributes& a);

/// From SETDEFAULT: `now` where a value is neither XFRM_USERPOLICY_BLOCK nor ACCEPT.
[[nodiscard]] ipsec::default_actions decode_defaults(const xfrm_userpolicy_default& d,
                                                     ipsec::default_actions now) noexcept;
[[nodiscard]] xfrm_userpolicy_default defaults_to(const ipsec::default_actions& d) noexcept;

} // namespace esplane::xfrm

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
/// What follows it: XFRMA_TMPL, XFRMA_POLICY_TYPE and XFRMA_IF_ID.
void encode_policy_attributes(message_writer& w, const ipsec::policy& p);
/// XFRMA_POLICY_TYPE.
void encode_policy_type(message_writer& w, ipsec::policy_type type);

/// From GETPOLICY and DELPOLICY.  Errors: EINVAL (direction), EOPNOTSUPP (policy type).
[[nodiscard]] result<ipsec::policy_key> decode_policy_key(const xfrm_userpolicy_id& id,
                                                          const attributes& a);
[[nodiscard]] xfrm_userpolicy_id policy_id_to(const ipsec::policy& p, bool by_index) noexcept;

/// Errors: EINVAL for a type that is none, EOPNOTSUPP for sub policies.
[[nodiscard]] result<void> check_policy_type(const attributes& a);

} // namespace esplane::xfrm

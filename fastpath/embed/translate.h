// SPDX-License-Identifier: Apache-2.0
//
// SAs, policies and events between the C interface and the control layer.
//
// Every value that came in is checked here, as the kernel checks what XFRM clients send: the layers
// below rely on it.  What is not carried is refused by the field's name.
#pragma once

#include <span>
#include <vector>

#include "lib/api/esplane/esplane.h"
#include "lib/control/layer.h"
#include "lib/ipsec/policy.h"
#include "lib/ipsec/sa.h"

namespace esplane::embed {

/// Errors: EINVAL (no family).
[[nodiscard]] result<ipsec::address> address_from(const esplane_address& a, const char* field);
[[nodiscard]] result<ipsec::sa_id> id_from(const esplane_sa_id& id);
/// Errors: those of esplane_sa_add() that hang on the value alone.
[[nodiscard]] result<ipsec::sa> sa_from(const esplane_sa& s);
[[nodiscard]] result<ipsec::policy> policy_from(const esplane_policy& p);
[[nodiscard]] result<ipsec::policy_key> policy_key_from(const esplane_policy_key& k);
[[nodiscard]] result<control::spi_request> spi_request_from(const esplane_spi_request& r);

enum class keys : bool { hidden, shown };

/// Pointers in the result are into `s` and valid as long as it is.
[[nodiscard]] esplane_sa sa_to(const ipsec::sa& s, keys k) noexcept;
/// templates   where the result's are kept
[[nodiscard]] esplane_policy policy_to(const ipsec::policy& p,
                                       std::vector<esplane_template>& templates);

} // namespace esplane::embed

// SPDX-License-Identifier: Apache-2.0
//
// XFRMA_SEC_CTX, both ways: security labels, which esplane carries and compares and does not
// understand.
#pragma once

#include <optional>

#include "lib/base/result.h"
#include "lib/ipsec/sa.h"
#include "xfrm/attributes.h"

namespace esplane::xfrm {

/// nullopt where the message has none.  Errors: EINVAL for one whose lengths do not agree.
[[nodiscard]] result<std::optional<ipsec::security_context>> decode_security(const attributes& a);
/// Writes XFRMA_SEC_CTX where there is a label.
void encode_security(message_writer& w, const std::optional<ipsec::security_context>& s);

} // namespace esplane::xfrm

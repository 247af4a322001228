// SPDX-License-Identifier: Apache-2.0
//
// Sequence numbers and windows as XFRM messages carry them, both ways.
#pragma once

#include "lib/base/result.h"
#include "lib/control/layer.h"
#include "lib/ipsec/sa.h"
#include "xfrm/attributes.h"
#include "xfrm/message.h"

namespace esplane::xfrm {

/// xfrm_init_replay(): whether the window that was asked for is one.  Errors: EINVAL with the
/// kernel's text.
[[nodiscard]] result<void> check_window(const ipsec::sa& s);

/// From NEWSA and UPDSA, for an SA whose direction is known.
///
/// Errors: EINVAL with the kernel's text.
[[nodiscard]] result<void> decode_replay(const xfrm_usersa_info& info, const attributes& a,
                                         ipsec::sa& s);
/// From NEWAE, for the SA as it is now.
///
/// Errors: EINVAL with the kernel's text (xfrm_replay_verify_len).
[[nodiscard]] result<control::replay_gift> decode_gift(const ipsec::sa& s, const attributes& a);
/// Writes XFRMA_REPLAY_ESN_VAL or XFRMA_REPLAY_VAL, in the form the SA was given in.
void encode_replay(message_writer& w, const ipsec::sa& s);

} // namespace esplane::xfrm

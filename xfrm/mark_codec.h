// SPDX-License-Identifier: Apache-2.0
//
// Marks as XFRM messages carry them, both ways: XFRMA_MARK, XFRMA_SET_MARK and its mask.
//
// As the kernel, encoding writes nothing of a mark that was not given.
#pragma once

#include "lib/ipsec/mark.h"
#include "xfrm/attributes.h"
#include "xfrm/message.h"

namespace esplane::xfrm {

/// Of the packets that an SA or a policy is for.
[[nodiscard]] ipsec::mark_mask decode_mark(const attributes& a) noexcept;
/// The same with what bits the client gave outside of the mask: no policy has those.
[[nodiscard]] ipsec::mark_mask decode_mark_as_given(const attributes& a) noexcept;
void encode_mark(message_writer& w, const ipsec::mark_mask& m);

/// What an SA puts on packets; without a mask all of it.
[[nodiscard]] ipsec::mark_mask decode_output_mark(const attributes& a) noexcept;
void encode_output_mark(message_writer& w, const ipsec::mark_mask& m);

} // namespace esplane::xfrm

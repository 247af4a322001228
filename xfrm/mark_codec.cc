// SPDX-License-Identifier: Apache-2.0
#include "xfrm/mark_codec.h"

namespace esplane::xfrm {

ipsec::mark_mask decode_mark(const attributes& a) noexcept {
    const auto m = a.load<xfrm_mark>(XFRMA_MARK).value_or(xfrm_mark{});
    return {m.v & m.m, m.m};
}

ipsec::mark_mask decode_mark_as_given(const attributes& a) noexcept {
    const auto m = a.load<xfrm_mark>(XFRMA_MARK).value_or(xfrm_mark{});
    return {m.v, m.m};
}

void encode_mark(message_writer& w, const ipsec::mark_mask& m) {
    if (m.given()) w.attribute(XFRMA_MARK, xfrm_mark{m.value, m.mask});
}

ipsec::mark_mask decode_output_mark(const attributes& a) noexcept {
    const auto value = a.load<std::uint32_t>(XFRMA_SET_MARK);
    if (!value) return {};
    return {*value, a.load<std::uint32_t>(XFRMA_SET_MARK_MASK).value_or(~0u)};
}

void encode_output_mark(message_writer& w, const ipsec::mark_mask& m) {
    if (!m.given()) return;
    w.attribute(XFRMA_SET_MARK, m.value);
    w.attribute(XFRMA_SET_MARK_MASK, m.mask);
}

} // namespace esplane::xfrm

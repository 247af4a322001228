// SPDX-License-Identifier: Apache-2.0
#include "xfrm/security_codec.h"

namespace esplane::xfrm {

/// verify_sec_ctx_len
result<std::optional<ipsec::security_context>> decode_security(const attributes& a) {
    const auto head = a.load<xfrm_user_sec_ctx>(XFRMA_SEC_CTX);
    if (!head) return std::nullopt;
    const bytes value = a.get(XFRMA_SEC_CTX);
    if (head->len > value.size() || head->len != sizeof *head + head->ctx_len)
        return fail(EINVAL, "Invalid security context length");
    const bytes label = value.subspan(sizeof *head, head->ctx_len);
    return ipsec::security_context{head->ctx_doi, head->ctx_alg, {label.begin(), label.end()}};
}

void encode_security(message_writer& w, const std::optional<ipsec::security_context>& s) {
    if (!s) return;
    xfrm_user_sec_ctx head{};
    head.exttype = XFRMA_SEC_CTX;
    head.ctx_doi = s->domain;
    head.ctx_alg = s->algorithm;
    head.ctx_len = static_cast<std::uint16_t>(s->label.size());
    head.len = static_cast<std::uint16_t>(sizeof head + s->label.size());
    const auto* const at = reinterpret_cast<const std::uint8_t*>(&head);
    std::vector<std::uint8_t> value(at, at + sizeof head);
    value.insert(value.end(), s->label.begin(), s->label.end());
    w.attribute_bytes(XFRMA_SEC_CTX, value);
}

} // namespace esplane::xfrm

// SPDX-License-Identifier: Apache-2.0
#include "xfrm/attributes.h"

#include <algorithm>

#include "xfrm/schema.h"

namespace esplane::xfrm {
namespace {

/// ignored: carries nothing (padding).  carried: esplane acts on it, or does as the kernel does
/// where a message has no use for it.
enum class treatment : std::uint8_t { ignored, carried, refused };

struct rule {
    std::uint16_t type;
    treatment how;
};

constexpr rule rules[] = {
    {XFRMA_UNSPEC, treatment::ignored},
    {XFRMA_ALG_AUTH, treatment::carried},
    {XFRMA_ALG_CRYPT, treatment::carried},
    {XFRMA_ALG_COMP, treatment::refused},
    {XFRMA_ENCAP, treatment::carried},
    {XFRMA_TMPL, treatment::carried},
    {XFRMA_SA, treatment::refused},
    {XFRMA_POLICY, treatment::refused},
    {XFRMA_SEC_CTX, treatment::carried},
    {XFRMA_LTIME_VAL, treatment::carried},
    {XFRMA_REPLAY_VAL, treatment::carried},
    {XFRMA_REPLAY_THRESH, treatment::carried},
    {XFRMA_ETIMER_THRESH, treatment::carried},
    {XFRMA_SRCADDR, treatment::carried},
    {XFRMA_COADDR, treatment::carried},
    {XFRMA_LASTUSED, treatment::carried},
    {XFRMA_POLICY_TYPE, treatment::carried},
    {XFRMA_MIGRATE, treatment::carried},
    {XFRMA_ALG_AEAD, treatment::carried},
    {XFRMA_KMADDRESS, treatment::carried},
    {XFRMA_ALG_AUTH_TRUNC, treatment::carried},
    {XFRMA_MARK, treatment::carried},
    {XFRMA_TFCPAD, treatment::carried},
    {XFRMA_REPLAY_ESN_VAL, treatment::carried},
    {XFRMA_SA_EXTRA_FLAGS, treatment::carried},
    {XFRMA_PROTO, treatment::carried},
    {XFRMA_ADDRESS_FILTER, treatment::carried},
    {XFRMA_PAD, treatment::ignored},
    {XFRMA_OFFLOAD_DEV, treatment::refused},
    {XFRMA_SET_MARK, treatment::carried},
    {XFRMA_SET_MARK_MASK, treatment::carried},
    {XFRMA_IF_ID, treatment::carried},
    {XFRMA_MTIMER_THRESH, treatment::carried},
    {xfrma_sa_dir, treatment::carried},
    {xfrma_nat_keepalive_interval, treatment::carried},
    {xfrma_sa_pcpu, treatment::carried},
    {xfrma_iptfs_drop_time, treatment::refused},
    {xfrma_iptfs_reorder_window, treatment::refused},
    {xfrma_iptfs_dont_frag, treatment::refused},
    {xfrma_iptfs_init_delay, treatment::refused},
    {xfrma_iptfs_max_qsize, treatment::refused},
    {xfrma_iptfs_pkt_size, treatment::refused},
};

consteval bool ordered_by_type() {
    for (std::size_t i = 0; i < std::size(rules); ++i)
        if (rules[i].type != i) return false;
    return true;
}
static_assert(ordered_by_type());

/// Bytes that a value must have, by xfrma_policy.
std::size_t least_of(std::uint16_t type) noexcept {
    const structure* const content = find_attribute(xfrm_attributes(), type)->content;
    return content != nullptr ? content->size : 0;
}

/// What the kernel's xfrma_policy says of one value.
[[nodiscard]] result<void> check_value(std::uint16_t type, bytes value) {
    // What is younger than the kernel's strict checks.
    const bool strictly = type >= xfrma_sa_dir && rules[type].how == treatment::carried;
    if (strictly && least_of(type) != 0 && value.size() != least_of(type))
        return fail(EINVAL, "invalid attribute length", attribute_name(type));
    if (value.size() < least_of(type))
        return fail(ERANGE, "Attribute failed policy validation", attribute_name(type));
    if (type != xfrma_sa_dir) return {};
    if (value[0] != xfrm_sa_dir_in && value[0] != xfrm_sa_dir_out)
        return fail(ERANGE, "integer out of range", attribute_name(type));
    return {};
}

} // namespace

std::string attribute_name(std::uint16_t type) {
    const attribute_form* const form = find_attribute(xfrm_attributes(), type);
    return form != nullptr ? std::string(form->name) : "XFRMA_" + std::to_string(type);
}

tl::unexpected<error> not_carried(std::uint16_t type) {
    const std::string name = attribute_name(type);
    return fail(EOPNOTSUPP, name + " is not carried", name);
}

result<attributes> attributes::parse(const message& m, std::size_t fixed, bool strict) {
    attributes found;
    result<void> verdict;
    for_each_attribute(m.after(fixed), [&](std::uint16_t type, bytes value) {
        if (type >= std::size(rules)) {
            if (strict) verdict = not_carried(type);
        } else if (rules[type].how != treatment::ignored) {
            verdict = check_value(type, value);
            found.values_[type] = value;
        }
        return verdict.has_value();
    });
    if (!verdict) return tl::unexpected(std::move(verdict.error()));
    for (const rule& r : rules)
        if (r.how == treatment::refused && found.has(r.type)) return not_carried(r.type);
    return found;
}

bool has_leftover(const message& m, std::size_t fixed) {
    bytes rest = m.after(fixed);
    for_each_attribute(rest, [&rest](std::uint16_t, bytes value) {
        const auto end = static_cast<std::size_t>(value.data() - rest.data()) + value.size();
        rest = rest.subspan(std::min(aligned(end), rest.size()));
        return true;
    });
    return !rest.empty();
}

std::optional<std::uint32_t> attribute_offset(const message& m, std::size_t fixed,
                                              const std::string& name) {
    std::optional<std::uint32_t> offset;
    for_each_attribute(m.after(fixed), [&](std::uint16_t type, bytes value) {
        const bool named = attribute_name(type) == name;
        if (!named && "XFRMA_SPD_" + std::to_string(type) != name) return true;
        offset = static_cast<std::uint32_t>(value.data() - m.whole.data() - sizeof(nlattr));
        return !named || type >= std::size(rules) || check_value(type, value).has_value();
    });
    return offset;
}

} // namespace esplane::xfrm

// SPDX-License-Identifier: Apache-2.0
#include "xfrm/attributes.h"

#include <algorithm>
#include <string_view>

namespace esplane::xfrm {
namespace {

/// ignored: carries nothing (padding).  carried: esplane acts on it, or does as the kernel does
/// where a message has no use for it.
enum class treatment : std::uint8_t { ignored, carried, refused };

struct rule {
    std::uint16_t type;
    std::string_view name;
    treatment how;
    std::uint16_t least; ///< bytes of value, by xfrma_policy
};

constexpr rule rules[] = {
    {XFRMA_UNSPEC, "XFRMA_UNSPEC", treatment::ignored, 0},
    {XFRMA_ALG_AUTH, "XFRMA_ALG_AUTH", treatment::carried, sizeof(xfrm_algo)},
    {XFRMA_ALG_CRYPT, "XFRMA_ALG_CRYPT", treatment::carried, sizeof(xfrm_algo)},
    {XFRMA_ALG_COMP, "XFRMA_ALG_COMP", treatment::refused, sizeof(xfrm_algo)},
    {XFRMA_ENCAP, "XFRMA_ENCAP", treatment::carried, sizeof(xfrm_encap_tmpl)},
    {XFRMA_TMPL, "XFRMA_TMPL", treatment::carried, sizeof(xfrm_user_tmpl)},
    {XFRMA_SA, "XFRMA_SA", treatment::refused, sizeof(xfrm_usersa_info)},
    {XFRMA_POLICY, "XFRMA_POLICY", treatment::refused, sizeof(xfrm_userpolicy_info)},
    {XFRMA_SEC_CTX, "XFRMA_SEC_CTX", treatment::carried, sizeof(xfrm_user_sec_ctx)},
    {XFRMA_LTIME_VAL, "XFRMA_LTIME_VAL", treatment::carried, sizeof(xfrm_lifetime_cur)},
    {XFRMA_REPLAY_VAL, "XFRMA_REPLAY_VAL", treatment::carried, sizeof(xfrm_replay_state)},
    {XFRMA_REPLAY_THRESH, "XFRMA_REPLAY_THRESH", treatment::carried, 4},
    {XFRMA_ETIMER_THRESH, "XFRMA_ETIMER_THRESH", treatment::carried, 4},
    {XFRMA_SRCADDR, "XFRMA_SRCADDR", treatment::carried, sizeof(xfrm_address_t)},
    {XFRMA_COADDR, "XFRMA_COADDR", treatment::carried, sizeof(xfrm_address_t)},
    {XFRMA_LASTUSED, "XFRMA_LASTUSED", treatment::carried, 8},
    {XFRMA_POLICY_TYPE, "XFRMA_POLICY_TYPE", treatment::carried, sizeof(xfrm_userpolicy_type)},
    {XFRMA_MIGRATE, "XFRMA_MIGRATE", treatment::carried, sizeof(xfrm_user_migrate)},
    {XFRMA_ALG_AEAD, "XFRMA_ALG_AEAD", treatment::carried, sizeof(xfrm_algo_aead)},
    {XFRMA_KMADDRESS, "XFRMA_KMADDRESS", treatment::carried, sizeof(xfrm_user_kmaddress)},
    {XFRMA_ALG_AUTH_TRUNC, "XFRMA_ALG_AUTH_TRUNC", treatment::carried, sizeof(xfrm_algo_auth)},
    {XFRMA_MARK, "XFRMA_MARK", treatment::carried, sizeof(xfrm_mark)},
    {XFRMA_TFCPAD, "XFRMA_TFCPAD", treatment::carried, 4},
    {XFRMA_REPLAY_ESN_VAL, "XFRMA_REPLAY_ESN_VAL", treatment::carried,
     sizeof(xfrm_replay_state_esn)},
    {XFRMA_SA_EXTRA_FLAGS, "XFRMA_SA_EXTRA_FLAGS", treatment::carried, 4},
    {XFRMA_PROTO, "XFRMA_PROTO", treatment::carried, 1},
    {XFRMA_ADDRESS_FILTER, "XFRMA_ADDRESS_FILTER", treatment::carried, sizeof(xfrm_address_filter)},
    {XFRMA_PAD, "XFRMA_PAD", treatment::ignored, 0},
    {XFRMA_OFFLOAD_DEV, "XFRMA_OFFLOAD_DEV", treatment::refused, sizeof(xfrm_user_offload)},
    {XFRMA_SET_MARK, "XFRMA_SET_MARK", treatment::carried, 4},
    {XFRMA_SET_MARK_MASK, "XFRMA_SET_MARK_MASK", treatment::carried, 4},
    {XFRMA_IF_ID, "XFRMA_IF_ID", treatment::carried, 4},
    {XFRMA_MTIMER_THRESH, "XFRMA_MTIMER_THRESH", treatment::carried, 4},
    {xfrma_sa_dir, "XFRMA_SA_DIR", treatment::carried, 1},
    {xfrma_nat_keepalive_interval, "XFRMA_NAT_KEEPALIVE_INTERVAL", treatment::carried, 4},
    {xfrma_sa_pcpu, "XFRMA_SA_PCPU", treatment::refused, 0},
    {xfrma_iptfs_drop_time, "XFRMA_IPTFS_DROP_TIME", treatment::refused, 0},
    {xfrma_iptfs_reorder_window, "XFRMA_IPTFS_REORDER_WINDOW", treatment::refused, 0},
    {xfrma_iptfs_dont_frag, "XFRMA_IPTFS_DONT_FRAG", treatment::refused, 0},
    {xfrma_iptfs_init_delay, "XFRMA_IPTFS_INIT_DELAY", treatment::refused, 0},
    {xfrma_iptfs_max_qsize, "XFRMA_IPTFS_MAX_QSIZE", treatment::refused, 0},
    {xfrma_iptfs_pkt_size, "XFRMA_IPTFS_PKT_SIZE", treatment::refused, 0},
};

consteval bool ordered_by_type() {
    for (std::size_t i = 0; i < std::size(rules); ++i)
        if (rules[i].type != i) return false;
    return true;
}
static_assert(ordered_by_type());

/// What the kernel's xfrma_policy says of one value.
[[nodiscard]] result<void> check_value(std::uint16_t type, bytes value) {
    if (value.size() < rules[type].least && type != xfrma_sa_dir)
        return fail(ERANGE, "Attribute failed policy validation", attribute_name(type));
    if (type != xfrma_sa_dir) return {};
    if (value.size() != 1) return fail(EINVAL, "invalid attribute length", attribute_name(type));
    if (value[0] != xfrm_sa_dir_in && value[0] != xfrm_sa_dir_out)
        return fail(ERANGE, "integer out of range", attribute_name(type));
    return {};
}

} // namespace

std::string attribute_name(std::uint16_t type) {
    return type < std::size(rules) ? std::string(rules[type].name)
                                   : "XFRMA_" + std::to_string(type);
}

tl::unexpected<error> not_carried(std::uint16_t type) {
    const std::string name = attribute_name(type);
    return fail(EOPNOTSUPP, name + " is not carried", name);
}

result<attributes> attributes::parse(const message& m, std::size_t fixed) {
    attributes found;
    result<void> verdict;
    for_each_attribute(m.after(fixed), [&](std::uint16_t type, bytes value) {
        if (type >= std::size(rules)) {
            verdict = not_carried(type);
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

std::optional<std::uint32_t> attribute_offset(const message& m, std::size_t fixed,
                                              const std::string& name) {
    std::optional<std::uint32_t> offset;
    for_each_attribute(m.after(fixed), [&](std::uint16_t type, bytes value) {
        if (attribute_name(type) == name)
            offset = static_cast<std::uint32_t>(value.data() - m.whole.data() - sizeof(nlattr));
        return true;
    });
    return offset;
}

} // namespace esplane::xfrm

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <span>
#include <string_view>

#include "tests/interop/xfrm_oracle_allowed.h"

namespace esplane::tests::oracle {

namespace {

using namespace esplane::xfrm;

using types = std::span<const std::uint16_t>;

constexpr std::uint16_t puts_sa[] = {XFRM_MSG_NEWSA, XFRM_MSG_UPDSA};
constexpr std::uint16_t new_sa[] = {XFRM_MSG_NEWSA};
constexpr std::uint16_t names_protocol[] = {
    XFRM_MSG_NEWSA,   XFRM_MSG_UPDSA,    XFRM_MSG_NEWPOLICY, XFRM_MSG_UPDPOLICY,
    XFRM_MSG_ACQUIRE, XFRM_MSG_ALLOCSPI, XFRM_MSG_MIGRATE};
constexpr std::uint16_t has_template[] = {XFRM_MSG_NEWPOLICY, XFRM_MSG_UPDPOLICY, XFRM_MSG_ACQUIRE};
constexpr std::uint16_t puts_policy[] = {XFRM_MSG_NEWPOLICY, XFRM_MSG_UPDPOLICY};
constexpr std::uint16_t has_selector[] = {XFRM_MSG_NEWSA, XFRM_MSG_UPDSA, XFRM_MSG_NEWPOLICY,
                                          XFRM_MSG_UPDPOLICY, XFRM_MSG_ACQUIRE};
constexpr std::uint16_t has_encap[] = {XFRM_MSG_NEWSA, XFRM_MSG_UPDSA, XFRM_MSG_MIGRATE};
constexpr std::uint16_t allocates[] = {XFRM_MSG_ALLOCSPI};
constexpr std::uint16_t migrates[] = {XFRM_MSG_MIGRATE};
constexpr std::uint16_t larval_or_moved[] = {XFRM_MSG_ALLOCSPI, XFRM_MSG_MIGRATE};

/// One way to say no.
struct refusal {
    types asked;
    int code;
    std::string_view text;
};

constexpr refusal refusals[] = {
    {names_protocol, EPROTONOSUPPORT, "AH is not carried, only ESP is"},
    {names_protocol, EPROTONOSUPPORT, "IPComp is not carried, only ESP is"},
    {names_protocol, EPROTONOSUPPORT, "routing header is not carried, only ESP is"},
    {names_protocol, EPROTONOSUPPORT, "destination options is not carried, only ESP is"},
    {names_protocol, EOPNOTSUPP, "mode BEET is not carried, only tunnel and transport are"},
    {names_protocol, EOPNOTSUPP,
     "mode route optimization is not carried, only tunnel and transport are"},
    {names_protocol, EOPNOTSUPP, "mode IP-TFS is not carried, only tunnel and transport are"},
    {has_template, EOPNOTSUPP, "mode in_trigger is not carried"},
    {has_template, EOPNOTSUPP, "XFRMA_TMPL with more than one template is not carried"},
    {has_template, EOPNOTSUPP, "XFRMA_TMPL with a choice of algorithms is not carried"},
    {puts_policy, EOPNOTSUPP,
     "XFRMA_TMPL of a sub-policy beside that of a main policy is not carried"},
    {has_selector, EOPNOTSUPP, "a device in the selector is not carried"},
    {has_selector, EOPNOTSUPP, "a user in the selector is not carried"},
    {has_encap, EOPNOTSUPP, "ESP in TCP is not carried, only in UDP"},
    {new_sa, EOPNOTSUPP, "SPI 0 is not carried"},
    {puts_sa, ENOSYS, "encryption without integrity is not carried"},
    {larval_or_moved, EINVAL, "Invalid address family"},
    {larval_or_moved, EINVAL, "Unsupported mode"},
    {allocates, ENOENT, "No SPI available in the requested range"},
    {migrates, EINVAL, "Unsupported encapsulation type for ESP"},
    {migrates, EAFNOSUPPORT, "XFRMA_MIGRATE to neither IPv4 nor IPv6"},
    {puts_sa, EINVAL, "Invalid prefix length in selector (must be <= 128)"},
};

bool is_among(types all, std::uint16_t one) {
    return std::ranges::find(all, one) != all.end();
}

/// "hmac(sha256) with an ICV of 144 bits is not carried, only with 128"
bool is_about_icv(const verdict& v) {
    return is_among(puts_sa, v.request) && v.code == -ENOSYS &&
           v.text.find(" with an ICV of ") != std::string::npos &&
           v.text.ends_with(" is not carried, only with 128");
}

/// Of what the kernel looks at, what esplane knows and does not carry.
constexpr std::uint16_t never_carried[] = {XFRMA_ALG_COMP, XFRMA_OFFLOAD_DEV};

constexpr std::uint16_t thresholds[] = {XFRMA_SPD_IPV4_HTHRESH, XFRMA_SPD_IPV6_HTHRESH};

/// What the kernel looks at in a message.
types read_by_kernel(std::uint16_t request, bool dump) {
    static constexpr std::uint16_t sa[] = {XFRMA_ALG_AUTH,       XFRMA_ALG_AUTH_TRUNC,
                                           XFRMA_ALG_CRYPT,      XFRMA_ALG_AEAD,
                                           XFRMA_ENCAP,          XFRMA_COADDR,
                                           XFRMA_SA_EXTRA_FLAGS, XFRMA_TFCPAD,
                                           XFRMA_MARK,           XFRMA_SET_MARK,
                                           XFRMA_SET_MARK_MASK,  XFRMA_IF_ID,
                                           xfrma_sa_dir,         xfrma_sa_pcpu,
                                           XFRMA_SEC_CTX,        XFRMA_REPLAY_VAL,
                                           XFRMA_REPLAY_ESN_VAL, XFRMA_LTIME_VAL,
                                           XFRMA_ETIMER_THRESH,  XFRMA_REPLAY_THRESH,
                                           XFRMA_MTIMER_THRESH,  xfrma_nat_keepalive_interval};
    static constexpr std::uint16_t sa_name[] = {XFRMA_MARK, XFRMA_SRCADDR};
    static constexpr std::uint16_t sa_filter[] = {XFRMA_PROTO, XFRMA_ADDRESS_FILTER};
    static constexpr std::uint16_t spi[] = {XFRMA_MARK, XFRMA_IF_ID, xfrma_sa_dir, xfrma_sa_pcpu};
    static constexpr std::uint16_t event[] = {
        XFRMA_MARK,          XFRMA_REPLAY_VAL,    XFRMA_LTIME_VAL,    XFRMA_REPLAY_ESN_VAL,
        XFRMA_REPLAY_THRESH, XFRMA_ETIMER_THRESH, XFRMA_MTIMER_THRESH};
    static constexpr std::uint16_t policy[] = {XFRMA_TMPL, XFRMA_POLICY_TYPE, XFRMA_SEC_CTX,
                                               XFRMA_MARK, XFRMA_IF_ID,       xfrma_sa_pcpu};
    static constexpr std::uint16_t policy_name[] = {XFRMA_POLICY_TYPE, XFRMA_SEC_CTX, XFRMA_MARK,
                                                    XFRMA_IF_ID};
    static constexpr std::uint16_t move[] = {XFRMA_MIGRATE, XFRMA_KMADDRESS, XFRMA_POLICY_TYPE,
                                             XFRMA_ENCAP, XFRMA_IF_ID};
    static constexpr std::uint16_t mark[] = {XFRMA_MARK};
    static constexpr std::uint16_t policy_type[] = {XFRMA_POLICY_TYPE};
    switch (request) {
    case XFRM_MSG_NEWSA:
    case XFRM_MSG_UPDSA:
        return sa;
    case XFRM_MSG_DELSA:
    case XFRM_MSG_GETSA:
        return dump ? sa_filter : sa_name;
    case XFRM_MSG_ALLOCSPI:
        return spi;
    case XFRM_MSG_NEWAE:
        return event;
    case XFRM_MSG_GETAE:
    case XFRM_MSG_EXPIRE:
        return mark;
    case XFRM_MSG_NEWPOLICY:
    case XFRM_MSG_UPDPOLICY:
    case XFRM_MSG_ACQUIRE:
        return policy;
    case XFRM_MSG_DELPOLICY:
    case XFRM_MSG_GETPOLICY:
    case XFRM_MSG_POLEXPIRE:
        return policy_name;
    case XFRM_MSG_FLUSHPOLICY:
        return policy_type;
    case XFRM_MSG_MIGRATE:
        return move;
    default:
        return {};
    }
}

/// The attribute that "XFRMA_... is not carried" names must be in the request, and one that the
/// kernel does not look at there.
bool is_about_attribute(const message& m, const verdict& v, bool kernel_like) {
    constexpr std::string_view end = " is not carried";
    if (v.code != -EOPNOTSUPP || !v.text.ends_with(end)) return false;
    const std::string name = v.text.substr(0, v.text.size() - end.size());
    const auto type = m.header.nlmsg_type;
    const bool dump = type == XFRM_MSG_GETSA && (m.header.nlmsg_flags & NLM_F_DUMP) != 0;
    const auto all = dump ? attributes_at(m.payload(), 0) : attributes_of(type, m.payload());
    return std::ranges::any_of(all, [&](const placed_attribute& a) {
        if (name_of_attribute(type, a.type) != name) return false;
        if (own_attributes(type)) return !kernel_like && !is_among(thresholds, a.type);
        return is_among(never_carried, a.type) ||
               (!kernel_like && !is_among(read_by_kernel(type, dump), a.type));
    });
}

/// Whether a template has the mode that Linux 6.14 brought.
bool has_iptfs(const message& m) {
    constexpr std::uint8_t iptfs = 5;
    bool found = false;
    for (const placed_attribute& a : attributes_of(m.header.nlmsg_type, m.payload()))
        for (std::size_t at = 0; a.type == XFRMA_TMPL && at + sizeof(xfrm_user_tmpl) <= a.length;
             at += sizeof(xfrm_user_tmpl))
            found |= m.payload()[a.at + at + offsetof(xfrm_user_tmpl, mode)] == iptfs;
    return found;
}

/// Linux 6.13 and later refuse it; Linux 6.14 and later look at more of it.
bool is_of_newer_kernels(const message& m, const verdict& v) {
    if (v.code != -EINVAL) return false;
    return v.text == "Invalid attribute SA_PCPU" ||
           (is_among(has_template, m.header.nlmsg_type) && has_iptfs(m));
}

bool is_allowed(const message& m, const verdict& v, bool kernel_like) {
    const bool listed = std::ranges::any_of(refusals, [&](const refusal& r) {
        return is_among(r.asked, m.header.nlmsg_type) && v.code == -r.code && v.text == r.text;
    });
    return listed || is_about_icv(v) || is_of_newer_kernels(m, v) ||
           is_about_attribute(m, v, kernel_like);
}

} // namespace

std::map<std::uint32_t, std::string>
allowed_refusals(const question& q, const std::vector<item>& told, bool kernel_like) {
    std::map<std::uint32_t, std::string> out;
    for (const message& m : messages_of(q))
        for (const item& i : told) {
            if (is_reply(i) || i.header.nlmsg_seq != m.header.nlmsg_seq) continue;
            const verdict v = verdict_of(i);
            if (v.code != 0 && is_allowed(m, v, kernel_like))
                out.emplace(m.header.nlmsg_seq, request_name(q, i) + ": " + kind_of(v));
        }
    return out;
}

} // namespace esplane::tests::oracle

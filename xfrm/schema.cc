// SPDX-License-Identifier: Apache-2.0
#include "xfrm/schema.h"

#include "xfrm/schema_structures.h"

namespace esplane::xfrm {
namespace {

using enum field_kind;
using namespace structures;

// Every byte of a structure is in one field, which has what its kind needs.

consteval bool fits(const field& f) {
    switch (f.kind) {
    case number:
    case mask:
    case word:
    case bits:
    case integer:
    case limit:
        return f.size == 1 || f.size == 2 || f.size == 4 || f.size == 8;
    case port:
        return f.size == 2;
    case spi:
        return f.size == 4;
    case address:
        return f.size == sizeof(xfrm_address_t);
    case record:
        return f.inner != nullptr && f.inner->size == f.size;
    case text:
    case reserved:
        break;
    }
    return f.size > 0;
}

consteval bool whole(const structure& s) {
    std::size_t at = 0;
    for (const field& f : s.fields) {
        if (f.offset != at || !fits(f)) return false;
        if (f.kind == record && !whole(*f.inner)) return false;
        at += f.size;
    }
    return at == s.size;
}

// Attributes, by their number

constexpr attribute_form sa_and_policy_attributes[] = {
    {XFRMA_UNSPEC, "XFRMA_UNSPEC"},
    {XFRMA_ALG_AUTH, "XFRMA_ALG_AUTH", &algorithm, false, tail_kind::key},
    {XFRMA_ALG_CRYPT, "XFRMA_ALG_CRYPT", &algorithm, false, tail_kind::key},
    {XFRMA_ALG_COMP, "XFRMA_ALG_COMP", &algorithm, false, tail_kind::key},
    {XFRMA_ENCAP, "XFRMA_ENCAP", &encap},
    {XFRMA_TMPL, "XFRMA_TMPL", &template_, true},
    {XFRMA_SA, "XFRMA_SA", &usersa_info},
    {XFRMA_POLICY, "XFRMA_POLICY", &userpolicy_info},
    {XFRMA_SEC_CTX, "XFRMA_SEC_CTX", &context, false, tail_kind::text},
    {XFRMA_LTIME_VAL, "XFRMA_LTIME_VAL", &current},
    {XFRMA_REPLAY_VAL, "XFRMA_REPLAY_VAL", &replay},
    {XFRMA_REPLAY_THRESH, "XFRMA_REPLAY_THRESH", &number32},
    {XFRMA_ETIMER_THRESH, "XFRMA_ETIMER_THRESH", &number32},
    {XFRMA_SRCADDR, "XFRMA_SRCADDR", &address_alone},
    {XFRMA_COADDR, "XFRMA_COADDR", &address_alone},
    {XFRMA_LASTUSED, "XFRMA_LASTUSED", &number64},
    {XFRMA_POLICY_TYPE, "XFRMA_POLICY_TYPE", &policy_type},
    {XFRMA_MIGRATE, "XFRMA_MIGRATE", &migrate, true},
    {XFRMA_ALG_AEAD, "XFRMA_ALG_AEAD", &aead, false, tail_kind::key},
    {XFRMA_KMADDRESS, "XFRMA_KMADDRESS", &manager},
    {XFRMA_ALG_AUTH_TRUNC, "XFRMA_ALG_AUTH_TRUNC", &auth, false, tail_kind::key},
    {XFRMA_MARK, "XFRMA_MARK", &mark},
    {XFRMA_TFCPAD, "XFRMA_TFCPAD", &number32},
    {XFRMA_REPLAY_ESN_VAL, "XFRMA_REPLAY_ESN_VAL", &replay_esn, false, tail_kind::words},
    {XFRMA_SA_EXTRA_FLAGS, "XFRMA_SA_EXTRA_FLAGS", &extra_flags_alone},
    {XFRMA_PROTO, "XFRMA_PROTO", &protocol_alone},
    {XFRMA_ADDRESS_FILTER, "XFRMA_ADDRESS_FILTER", &filter},
    {XFRMA_PAD, "XFRMA_PAD"},
    {XFRMA_OFFLOAD_DEV, "XFRMA_OFFLOAD_DEV", &offload},
    {XFRMA_SET_MARK, "XFRMA_SET_MARK", &mask32},
    {XFRMA_SET_MARK_MASK, "XFRMA_SET_MARK_MASK", &mask32},
    {XFRMA_IF_ID, "XFRMA_IF_ID", &number32},
    {XFRMA_MTIMER_THRESH, "XFRMA_MTIMER_THRESH", &number32},
    {xfrma_sa_dir, "XFRMA_SA_DIR", &sa_direction},
    {xfrma_nat_keepalive_interval, "XFRMA_NAT_KEEPALIVE_INTERVAL", &number32},
    {xfrma_sa_pcpu, "XFRMA_SA_PCPU", &number32},
    {xfrma_iptfs_drop_time, "XFRMA_IPTFS_DROP_TIME", &number32},
    {xfrma_iptfs_reorder_window, "XFRMA_IPTFS_REORDER_WINDOW", &number16},
    {xfrma_iptfs_dont_frag, "XFRMA_IPTFS_DONT_FRAG"},
    {xfrma_iptfs_init_delay, "XFRMA_IPTFS_INIT_DELAY", &number32},
    {xfrma_iptfs_max_qsize, "XFRMA_IPTFS_MAX_QSIZE", &number32},
    {xfrma_iptfs_pkt_size, "XFRMA_IPTFS_PKT_SIZE", &number32},
};

constexpr attribute_form sad_attributes[] = {
    {XFRMA_SAD_UNSPEC, "XFRMA_SAD_UNSPEC"},
    {XFRMA_SAD_CNT, "XFRMA_SAD_CNT", &number32},
    {XFRMA_SAD_HINFO, "XFRMA_SAD_HINFO", &sad_hash},
};

constexpr attribute_form spd_attributes[] = {
    {XFRMA_SPD_UNSPEC, "XFRMA_SPD_UNSPEC"},
    {XFRMA_SPD_INFO, "XFRMA_SPD_INFO", &spd_counts},
    {XFRMA_SPD_HINFO, "XFRMA_SPD_HINFO", &spd_hash},
    {XFRMA_SPD_IPV4_HTHRESH, "XFRMA_SPD_IPV4_HTHRESH", &threshold},
    {XFRMA_SPD_IPV6_HTHRESH, "XFRMA_SPD_IPV6_HTHRESH", &threshold},
};

constexpr attribute_form acknowledgement_attributes[] = {
    {NLMSGERR_ATTR_UNUSED, "NLMSGERR_ATTR_UNUSED"},
    {NLMSGERR_ATTR_MSG, "NLMSGERR_ATTR_MSG", nullptr, false, tail_kind::text},
    {NLMSGERR_ATTR_OFFS, "NLMSGERR_ATTR_OFFS", &number32},
    {NLMSGERR_ATTR_COOKIE, "NLMSGERR_ATTR_COOKIE"},
    {NLMSGERR_ATTR_POLICY, "NLMSGERR_ATTR_POLICY"},
    {NLMSGERR_ATTR_MISS_TYPE, "NLMSGERR_ATTR_MISS_TYPE", &number32},
    {NLMSGERR_ATTR_MISS_NEST, "NLMSGERR_ATTR_MISS_NEST", &number32},
};

template <std::size_t Count>
consteval bool ordered_and_whole(const attribute_form (&space)[Count]) {
    for (std::size_t i = 0; i < Count; ++i)
        if (space[i].type != i || (space[i].content != nullptr && !whole(*space[i].content)))
            return false;
    return true;
}
static_assert(ordered_and_whole(sa_and_policy_attributes));
static_assert(ordered_and_whole(sad_attributes));
static_assert(ordered_and_whole(spd_attributes));
static_assert(ordered_and_whole(acknowledgement_attributes));

// Messages, by their number

constexpr message_form messages[] = {
    {XFRM_MSG_NEWSA, "XFRM_MSG_NEWSA", &usersa_info, sa_and_policy_attributes},
    {XFRM_MSG_DELSA, "XFRM_MSG_DELSA", &sa_id, sa_and_policy_attributes},
    {XFRM_MSG_GETSA, "XFRM_MSG_GETSA", &sa_id, sa_and_policy_attributes},
    {XFRM_MSG_NEWPOLICY, "XFRM_MSG_NEWPOLICY", &userpolicy_info, sa_and_policy_attributes},
    {XFRM_MSG_DELPOLICY, "XFRM_MSG_DELPOLICY", &policy_id, sa_and_policy_attributes},
    {XFRM_MSG_GETPOLICY, "XFRM_MSG_GETPOLICY", &policy_id, sa_and_policy_attributes},
    {XFRM_MSG_ALLOCSPI, "XFRM_MSG_ALLOCSPI", &spi_info, sa_and_policy_attributes},
    {XFRM_MSG_ACQUIRE, "XFRM_MSG_ACQUIRE", &acquire, sa_and_policy_attributes},
    {XFRM_MSG_EXPIRE, "XFRM_MSG_EXPIRE", &expire, sa_and_policy_attributes},
    {XFRM_MSG_UPDPOLICY, "XFRM_MSG_UPDPOLICY", &userpolicy_info, sa_and_policy_attributes},
    {XFRM_MSG_UPDSA, "XFRM_MSG_UPDSA", &usersa_info, sa_and_policy_attributes},
    {XFRM_MSG_POLEXPIRE, "XFRM_MSG_POLEXPIRE", &policy_expire, sa_and_policy_attributes},
    {XFRM_MSG_FLUSHSA, "XFRM_MSG_FLUSHSA", &sa_flush, sa_and_policy_attributes},
    {XFRM_MSG_FLUSHPOLICY, "XFRM_MSG_FLUSHPOLICY", nullptr, sa_and_policy_attributes},
    {XFRM_MSG_NEWAE, "XFRM_MSG_NEWAE", &aevent, sa_and_policy_attributes},
    {XFRM_MSG_GETAE, "XFRM_MSG_GETAE", &aevent, sa_and_policy_attributes},
    {XFRM_MSG_REPORT, "XFRM_MSG_REPORT", &report, sa_and_policy_attributes},
    {XFRM_MSG_MIGRATE, "XFRM_MSG_MIGRATE", &policy_id, sa_and_policy_attributes},
    {XFRM_MSG_NEWSADINFO, "XFRM_MSG_NEWSADINFO", &flags, sad_attributes},
    {XFRM_MSG_GETSADINFO, "XFRM_MSG_GETSADINFO", &flags, sad_attributes},
    {XFRM_MSG_NEWSPDINFO, "XFRM_MSG_NEWSPDINFO", &flags, spd_attributes},
    {XFRM_MSG_GETSPDINFO, "XFRM_MSG_GETSPDINFO", &flags, spd_attributes},
    {XFRM_MSG_MAPPING, "XFRM_MSG_MAPPING", &mapping, sa_and_policy_attributes},
    {XFRM_MSG_SETDEFAULT, "XFRM_MSG_SETDEFAULT", &default_, sa_and_policy_attributes},
    {XFRM_MSG_GETDEFAULT, "XFRM_MSG_GETDEFAULT", &default_, sa_and_policy_attributes},
};

consteval bool all_messages() {
    std::uint16_t type = XFRM_MSG_BASE;
    for (const message_form& m : messages) {
        if (m.type != type++ || (m.fixed != nullptr && !whole(*m.fixed))) return false;
    }
    return type == XFRM_MSG_MAX + 1;
}
static_assert(all_messages());

// A dump request has no fixed part.
constexpr message_form sa_dump{XFRM_MSG_GETSA, "XFRM_MSG_GETSA", nullptr, sa_and_policy_attributes};
constexpr message_form policy_dump{XFRM_MSG_GETPOLICY, "XFRM_MSG_GETPOLICY", nullptr,
                                   sa_and_policy_attributes};

constexpr message_form nothing{NLMSG_NOOP, "NLMSG_NOOP"};
constexpr message_form overrun{NLMSG_OVERRUN, "NLMSG_OVERRUN"};
constexpr message_form done{NLMSG_DONE, "NLMSG_DONE", &outcome, acknowledgement_attributes};
constexpr message_form error_whole{NLMSG_ERROR, "NLMSG_ERROR", &outcome, acknowledgement_attributes,
                                   true};
constexpr message_form error_capped{NLMSG_ERROR, "NLMSG_ERROR", &capped,
                                    acknowledgement_attributes};
static_assert(whole(outcome) && whole(capped));

} // namespace

const message_form* find_message(const nlmsghdr& h) noexcept {
    switch (h.nlmsg_type) {
    case NLMSG_NOOP:
        return &nothing;
    case NLMSG_ERROR:
        return (h.nlmsg_flags & NLM_F_CAPPED) != 0 ? &error_capped : &error_whole;
    case NLMSG_DONE:
        return &done;
    case NLMSG_OVERRUN:
        return &overrun;
    case XFRM_MSG_GETSA:
        if ((h.nlmsg_flags & NLM_F_DUMP) != 0) return &sa_dump;
        break;
    case XFRM_MSG_GETPOLICY:
        if ((h.nlmsg_flags & NLM_F_DUMP) != 0) return &policy_dump;
        break;
    default:
        break;
    }
    if (h.nlmsg_type < XFRM_MSG_BASE || h.nlmsg_type > XFRM_MSG_MAX) return nullptr;
    return &messages[h.nlmsg_type - XFRM_MSG_BASE];
}

const attribute_form* find_attribute(std::span<const attribute_form> space,
                                     std::uint16_t type) noexcept {
    return type < space.size() ? &space[type] : nullptr;
}

std::span<const attribute_form> xfrm_attributes() noexcept {
    return sa_and_policy_attributes;
}

} // namespace esplane::xfrm

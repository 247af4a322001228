// SPDX-License-Identifier: Apache-2.0
#include "xfrm/schema.h"

#include <cstddef>
#include <netinet/in.h>
#include <sys/socket.h>

namespace esplane::xfrm {
namespace {

using enum field_kind;

// Names of values, as ip(8) has them where it has a word.

constexpr value_name families[] = {{AF_UNSPEC, "unspec"}, {AF_INET, "inet"}, {AF_INET6, "inet6"}};
constexpr value_name protocols[] = {
    {IPPROTO_IP, "any"},    {IPPROTO_ICMP, "icmp"},        {IPPROTO_TCP, "tcp"},
    {IPPROTO_UDP, "udp"},   {IPPROTO_ROUTING, "route2"},   {IPPROTO_ESP, "esp"},
    {IPPROTO_AH, "ah"},     {IPPROTO_ICMPV6, "ipv6-icmp"}, {IPPROTO_DSTOPTS, "hao"},
    {IPPROTO_COMP, "comp"}, {IPPROTO_RAW, "ipsec-any"}}; // 255: any of IPsec's
constexpr value_name modes[] = {{XFRM_MODE_TRANSPORT, "transport"},
                                {XFRM_MODE_TUNNEL, "tunnel"},
                                {XFRM_MODE_ROUTEOPTIMIZATION, "ro"},
                                {XFRM_MODE_IN_TRIGGER, "in_trigger"},
                                {XFRM_MODE_BEET, "beet"},
                                {xfrm_mode_iptfs, "iptfs"}};
constexpr value_name shares[] = {{XFRM_SHARE_ANY, "any"},
                                 {XFRM_SHARE_SESSION, "session"},
                                 {XFRM_SHARE_USER, "user"},
                                 {XFRM_SHARE_UNIQUE, "unique"}};
constexpr value_name state_flags[] = {{XFRM_STATE_NOECN, "noecn"},
                                      {XFRM_STATE_DECAP_DSCP, "decap-dscp"},
                                      {XFRM_STATE_NOPMTUDISC, "nopmtudisc"},
                                      {XFRM_STATE_WILDRECV, "wildrecv"},
                                      {XFRM_STATE_ICMP, "icmp"},
                                      {XFRM_STATE_AF_UNSPEC, "af-unspec"},
                                      {XFRM_STATE_ALIGN4, "align4"},
                                      {XFRM_STATE_ESN, "esn"}};
constexpr value_name extra_flags[] = {{XFRM_SA_XFLAG_DONT_ENCAP_DSCP, "dont-encap-dscp"},
                                      {XFRM_SA_XFLAG_OSEQ_MAY_WRAP, "oseq-may-wrap"}};
constexpr value_name event_flags[] = {
    {XFRM_AE_RTHR, "replay-threshold"}, {XFRM_AE_RVAL, "replay-value"},
    {XFRM_AE_LVAL, "lifetime-value"},   {XFRM_AE_ETHR, "timer-threshold"},
    {XFRM_AE_CR, "replay-update"},      {XFRM_AE_CE, "timer-expired"},
    {XFRM_AE_CU, "policy-updated"}};
constexpr value_name directions[] = {
    {XFRM_POLICY_IN, "in"}, {XFRM_POLICY_OUT, "out"}, {XFRM_POLICY_FWD, "fwd"}};
constexpr value_name actions[] = {{XFRM_POLICY_ALLOW, "allow"}, {XFRM_POLICY_BLOCK, "block"}};
constexpr value_name policy_flags[] = {{XFRM_POLICY_LOCALOK, "localok"},
                                       {XFRM_POLICY_ICMP, "icmp"},
                                       {xfrm_policy_cpu_acquire, "cpu-acquire"}};
constexpr value_name policy_types[] = {
    {XFRM_POLICY_TYPE_MAIN, "main"}, {XFRM_POLICY_TYPE_SUB, "sub"}, {XFRM_POLICY_TYPE_ANY, "any"}};
constexpr value_name defaults[] = {{XFRM_USERPOLICY_UNSPEC, "unspec"},
                                   {XFRM_USERPOLICY_BLOCK, "block"},
                                   {XFRM_USERPOLICY_ACCEPT, "accept"}};
constexpr value_name encapsulations[] = {
    {1, "espinudp-nonike"}, {2, "espinudp"}, {7, "espintcp"}}; // UDP_ENCAP_*, TCP_ENCAP_ESPINTCP
constexpr value_name offload_flags[] = {{XFRM_OFFLOAD_IPV6, "ipv6"},
                                        {XFRM_OFFLOAD_INBOUND, "inbound"},
                                        {XFRM_OFFLOAD_PACKET, "packet"}};
constexpr value_name sa_directions[] = {{xfrm_sa_dir_in, "in"}, {xfrm_sa_dir_out, "out"}};

// Fields.  FIELD takes the place from the header; what else a field has follows.

#define FIELD(structure_, member, ...)                                                             \
    field {                                                                                        \
#member, offsetof(structure_, member), sizeof(structure_::member), __VA_ARGS__             \
    }

constexpr field gap(std::uint16_t offset, std::uint16_t size) {
    return {"reserved", offset, size, reserved};
}

template <std::size_t Count>
constexpr structure structure_of(std::string_view name, std::size_t size,
                                 const field (&fields)[Count], std::string_view family = "family") {
    return {name, static_cast<std::uint16_t>(size), fields, family};
}

/// A structure that is one value.
constexpr field one(std::uint16_t size, field_kind kind, std::span<const value_name> names = {}) {
    return {{}, 0, size, kind, names};
}

constexpr field selector_fields[] = {
    FIELD(xfrm_selector, daddr, address),
    FIELD(xfrm_selector, saddr, address),
    FIELD(xfrm_selector, dport, port),
    FIELD(xfrm_selector, dport_mask, port),
    FIELD(xfrm_selector, sport, port),
    FIELD(xfrm_selector, sport_mask, port),
    FIELD(xfrm_selector, family, word, families),
    FIELD(xfrm_selector, prefixlen_d, number),
    FIELD(xfrm_selector, prefixlen_s, number),
    FIELD(xfrm_selector, proto, word, protocols),
    gap(45, 3),
    FIELD(xfrm_selector, ifindex, integer),
    FIELD(xfrm_selector, user, number),
};
constexpr structure selector =
    structure_of("xfrm_selector", sizeof(xfrm_selector), selector_fields);

constexpr field id_fields[] = {
    FIELD(xfrm_id, daddr, address),
    FIELD(xfrm_id, spi, spi),
    FIELD(xfrm_id, proto, word, protocols),
    gap(21, 3),
};
constexpr structure id = structure_of("xfrm_id", sizeof(xfrm_id), id_fields);

constexpr field limits_fields[] = {
    FIELD(xfrm_lifetime_cfg, soft_byte_limit, limit),
    FIELD(xfrm_lifetime_cfg, hard_byte_limit, limit),
    FIELD(xfrm_lifetime_cfg, soft_packet_limit, limit),
    FIELD(xfrm_lifetime_cfg, hard_packet_limit, limit),
    FIELD(xfrm_lifetime_cfg, soft_add_expires_seconds, number),
    FIELD(xfrm_lifetime_cfg, hard_add_expires_seconds, number),
    FIELD(xfrm_lifetime_cfg, soft_use_expires_seconds, number),
    FIELD(xfrm_lifetime_cfg, hard_use_expires_seconds, number),
};
constexpr structure limits =
    structure_of("xfrm_lifetime_cfg", sizeof(xfrm_lifetime_cfg), limits_fields);

constexpr field current_fields[] = {
    FIELD(xfrm_lifetime_cur, bytes, number),
    FIELD(xfrm_lifetime_cur, packets, number),
    FIELD(xfrm_lifetime_cur, add_time, number),
    FIELD(xfrm_lifetime_cur, use_time, number),
};
constexpr structure current =
    structure_of("xfrm_lifetime_cur", sizeof(xfrm_lifetime_cur), current_fields);

constexpr field stats_fields[] = {
    FIELD(xfrm_stats, replay_window, number),
    FIELD(xfrm_stats, replay, number),
    FIELD(xfrm_stats, integrity_failed, number),
};
constexpr structure stats = structure_of("xfrm_stats", sizeof(xfrm_stats), stats_fields);

constexpr field sa_info_fields[] = {
    FIELD(xfrm_usersa_info, sel, record, {}, &selector),
    FIELD(xfrm_usersa_info, id, record, {}, &id),
    FIELD(xfrm_usersa_info, saddr, address),
    FIELD(xfrm_usersa_info, lft, record, {}, &limits),
    FIELD(xfrm_usersa_info, curlft, record, {}, &current),
    FIELD(xfrm_usersa_info, stats, record, {}, &stats),
    FIELD(xfrm_usersa_info, seq, number),
    FIELD(xfrm_usersa_info, reqid, number),
    FIELD(xfrm_usersa_info, family, word, families),
    FIELD(xfrm_usersa_info, mode, word, modes),
    FIELD(xfrm_usersa_info, replay_window, number),
    FIELD(xfrm_usersa_info, flags, bits, state_flags),
    gap(217, 7),
};
constexpr structure sa_info =
    structure_of("xfrm_usersa_info", sizeof(xfrm_usersa_info), sa_info_fields);

constexpr field sa_id_fields[] = {
    FIELD(xfrm_usersa_id, daddr, address),
    FIELD(xfrm_usersa_id, spi, spi),
    FIELD(xfrm_usersa_id, family, word, families),
    FIELD(xfrm_usersa_id, proto, word, protocols),
    gap(23, 1),
};
constexpr structure sa_id = structure_of("xfrm_usersa_id", sizeof(xfrm_usersa_id), sa_id_fields);

constexpr field spi_info_fields[] = {
    FIELD(xfrm_userspi_info, info, record, {}, &sa_info),
    FIELD(xfrm_userspi_info, min, mask),
    FIELD(xfrm_userspi_info, max, mask),
};
constexpr structure spi_info =
    structure_of("xfrm_userspi_info", sizeof(xfrm_userspi_info), spi_info_fields, "info.family");

constexpr field aevent_fields[] = {
    FIELD(xfrm_aevent_id, sa_id, record, {}, &sa_id),
    FIELD(xfrm_aevent_id, saddr, address),
    FIELD(xfrm_aevent_id, flags, bits, event_flags),
    FIELD(xfrm_aevent_id, reqid, number),
};
constexpr structure aevent =
    structure_of("xfrm_aevent_id", sizeof(xfrm_aevent_id), aevent_fields, "sa_id.family");

constexpr field expire_fields[] = {
    FIELD(xfrm_user_expire, state, record, {}, &sa_info),
    FIELD(xfrm_user_expire, hard, number),
    gap(225, 7),
};
constexpr structure expire =
    structure_of("xfrm_user_expire", sizeof(xfrm_user_expire), expire_fields, "state.family");

constexpr field sa_flush_fields[] = {FIELD(xfrm_usersa_flush, proto, word, protocols)};
constexpr structure sa_flush =
    structure_of("xfrm_usersa_flush", sizeof(xfrm_usersa_flush), sa_flush_fields);

constexpr field mapping_fields[] = {
    FIELD(xfrm_user_mapping, id, record, {}, &sa_id), FIELD(xfrm_user_mapping, reqid, number),
    FIELD(xfrm_user_mapping, old_saddr, address),     FIELD(xfrm_user_mapping, new_saddr, address),
    FIELD(xfrm_user_mapping, old_sport, port),        FIELD(xfrm_user_mapping, new_sport, port),
};
constexpr structure mapping =
    structure_of("xfrm_user_mapping", sizeof(xfrm_user_mapping), mapping_fields, "id.family");

constexpr field report_fields[] = {
    FIELD(xfrm_user_report, proto, word, protocols),
    gap(1, 3),
    FIELD(xfrm_user_report, sel, record, {}, &selector),
};
constexpr structure report =
    structure_of("xfrm_user_report", sizeof(xfrm_user_report), report_fields, "sel.family");

constexpr field policy_info_fields[] = {
    FIELD(xfrm_userpolicy_info, sel, record, {}, &selector),
    FIELD(xfrm_userpolicy_info, lft, record, {}, &limits),
    FIELD(xfrm_userpolicy_info, curlft, record, {}, &current),
    FIELD(xfrm_userpolicy_info, priority, number),
    FIELD(xfrm_userpolicy_info, index, number),
    FIELD(xfrm_userpolicy_info, dir, word, directions),
    FIELD(xfrm_userpolicy_info, action, word, actions),
    FIELD(xfrm_userpolicy_info, flags, bits, policy_flags),
    FIELD(xfrm_userpolicy_info, share, word, shares),
    gap(164, 4),
};
constexpr structure policy_info = structure_of("xfrm_userpolicy_info", sizeof(xfrm_userpolicy_info),
                                               policy_info_fields, "sel.family");

constexpr field policy_id_fields[] = {
    FIELD(xfrm_userpolicy_id, sel, record, {}, &selector),
    FIELD(xfrm_userpolicy_id, index, number),
    FIELD(xfrm_userpolicy_id, dir, word, directions),
    gap(61, 3),
};
constexpr structure policy_id =
    structure_of("xfrm_userpolicy_id", sizeof(xfrm_userpolicy_id), policy_id_fields, "sel.family");

constexpr field policy_expire_fields[] = {
    FIELD(xfrm_user_polexpire, pol, record, {}, &policy_info),
    FIELD(xfrm_user_polexpire, hard, number),
    gap(169, 7),
};
constexpr structure policy_expire = structure_of("xfrm_user_polexpire", sizeof(xfrm_user_polexpire),
                                                 policy_expire_fields, "pol.sel.family");

constexpr field acquire_fields[] = {
    FIELD(xfrm_user_acquire, id, record, {}, &id),
    FIELD(xfrm_user_acquire, saddr, address),
    FIELD(xfrm_user_acquire, sel, record, {}, &selector),
    FIELD(xfrm_user_acquire, policy, record, {}, &policy_info),
    FIELD(xfrm_user_acquire, aalgos, mask),
    FIELD(xfrm_user_acquire, ealgos, mask),
    FIELD(xfrm_user_acquire, calgos, mask),
    FIELD(xfrm_user_acquire, seq, number),
};
constexpr structure acquire =
    structure_of("xfrm_user_acquire", sizeof(xfrm_user_acquire), acquire_fields, "sel.family");

constexpr field default_fields[] = {
    FIELD(xfrm_userpolicy_default, in, word, defaults),
    FIELD(xfrm_userpolicy_default, fwd, word, defaults),
    FIELD(xfrm_userpolicy_default, out, word, defaults),
};
constexpr structure default_ =
    structure_of("xfrm_userpolicy_default", sizeof(xfrm_userpolicy_default), default_fields);

constexpr field flags_fields[] = {{"flags", 0, 4, mask}};
constexpr structure flags = structure_of("u32", 4, flags_fields);

// Structures of attributes

constexpr field number16_fields[] = {one(2, number)};
constexpr structure number16 = structure_of("u16", 2, number16_fields);
constexpr field number32_fields[] = {one(4, number)};
constexpr structure number32 = structure_of("u32", 4, number32_fields);
constexpr field number64_fields[] = {one(8, number)};
constexpr structure number64 = structure_of("u64", 8, number64_fields);
constexpr field mask32_fields[] = {one(4, mask)};
constexpr structure mask32 = structure_of("u32", 4, mask32_fields);
constexpr field address_fields[] = {one(sizeof(xfrm_address_t), address)};
constexpr structure address_alone =
    structure_of("xfrm_address_t", sizeof(xfrm_address_t), address_fields);
constexpr field extra_flags_fields[] = {one(4, bits, extra_flags)};
constexpr structure extra_flags_alone = structure_of("u32", 4, extra_flags_fields);
constexpr field protocol_fields[] = {one(1, word, protocols)};
constexpr structure protocol_alone = structure_of("u8", 1, protocol_fields);
constexpr field sa_direction_fields[] = {one(1, word, sa_directions)};
constexpr structure sa_direction = structure_of("u8", 1, sa_direction_fields);

constexpr field algorithm_fields[] = {
    FIELD(xfrm_algo, alg_name, text),
    FIELD(xfrm_algo, alg_key_len, number),
};
constexpr structure algorithm = structure_of("xfrm_algo", sizeof(xfrm_algo), algorithm_fields);

constexpr field auth_fields[] = {
    FIELD(xfrm_algo_auth, alg_name, text),
    FIELD(xfrm_algo_auth, alg_key_len, number),
    FIELD(xfrm_algo_auth, alg_trunc_len, number),
};
constexpr structure auth = structure_of("xfrm_algo_auth", sizeof(xfrm_algo_auth), auth_fields);

constexpr field aead_fields[] = {
    FIELD(xfrm_algo_aead, alg_name, text),
    FIELD(xfrm_algo_aead, alg_key_len, number),
    FIELD(xfrm_algo_aead, alg_icv_len, number),
};
constexpr structure aead = structure_of("xfrm_algo_aead", sizeof(xfrm_algo_aead), aead_fields);

constexpr field encap_fields[] = {
    FIELD(xfrm_encap_tmpl, encap_type, word, encapsulations),
    FIELD(xfrm_encap_tmpl, encap_sport, port),
    FIELD(xfrm_encap_tmpl, encap_dport, port),
    gap(6, 2),
    FIELD(xfrm_encap_tmpl, encap_oa, address),
};
constexpr structure encap = structure_of("xfrm_encap_tmpl", sizeof(xfrm_encap_tmpl), encap_fields);

constexpr field template_fields[] = {
    FIELD(xfrm_user_tmpl, id, record, {}, &id),
    FIELD(xfrm_user_tmpl, family, word, families),
    gap(26, 2),
    FIELD(xfrm_user_tmpl, saddr, address),
    FIELD(xfrm_user_tmpl, reqid, number),
    FIELD(xfrm_user_tmpl, mode, word, modes),
    FIELD(xfrm_user_tmpl, share, word, shares),
    FIELD(xfrm_user_tmpl, optional, number),
    gap(51, 1),
    FIELD(xfrm_user_tmpl, aalgos, mask),
    FIELD(xfrm_user_tmpl, ealgos, mask),
    FIELD(xfrm_user_tmpl, calgos, mask),
};
constexpr structure template_ =
    structure_of("xfrm_user_tmpl", sizeof(xfrm_user_tmpl), template_fields);

constexpr field context_fields[] = {
    FIELD(xfrm_user_sec_ctx, len, number),     FIELD(xfrm_user_sec_ctx, exttype, number),
    FIELD(xfrm_user_sec_ctx, ctx_alg, number), FIELD(xfrm_user_sec_ctx, ctx_doi, number),
    FIELD(xfrm_user_sec_ctx, ctx_len, number),
};
constexpr structure context =
    structure_of("xfrm_user_sec_ctx", sizeof(xfrm_user_sec_ctx), context_fields);

constexpr field replay_fields[] = {
    FIELD(xfrm_replay_state, oseq, number),
    FIELD(xfrm_replay_state, seq, number),
    FIELD(xfrm_replay_state, bitmap, mask),
};
constexpr structure replay =
    structure_of("xfrm_replay_state", sizeof(xfrm_replay_state), replay_fields);

constexpr field replay_esn_fields[] = {
    FIELD(xfrm_replay_state_esn, bmp_len, number),
    FIELD(xfrm_replay_state_esn, oseq, number),
    FIELD(xfrm_replay_state_esn, seq, number),
    FIELD(xfrm_replay_state_esn, oseq_hi, number),
    FIELD(xfrm_replay_state_esn, seq_hi, number),
    FIELD(xfrm_replay_state_esn, replay_window, number),
};
constexpr structure replay_esn =
    structure_of("xfrm_replay_state_esn", sizeof(xfrm_replay_state_esn), replay_esn_fields);

constexpr field policy_type_fields[] = {
    FIELD(xfrm_userpolicy_type, type, word, policy_types),
    gap(1, 1),
    FIELD(xfrm_userpolicy_type, reserved1, reserved),
    FIELD(xfrm_userpolicy_type, reserved2, reserved),
    gap(5, 1),
};
constexpr structure policy_type =
    structure_of("xfrm_userpolicy_type", sizeof(xfrm_userpolicy_type), policy_type_fields);

constexpr field migrate_fields[] = {
    FIELD(xfrm_user_migrate, old_daddr, address, {}, nullptr, "old_family"),
    FIELD(xfrm_user_migrate, old_saddr, address, {}, nullptr, "old_family"),
    FIELD(xfrm_user_migrate, new_daddr, address, {}, nullptr, "new_family"),
    FIELD(xfrm_user_migrate, new_saddr, address, {}, nullptr, "new_family"),
    FIELD(xfrm_user_migrate, proto, word, protocols),
    FIELD(xfrm_user_migrate, mode, word, modes),
    FIELD(xfrm_user_migrate, reserved, field_kind::reserved),
    FIELD(xfrm_user_migrate, reqid, number),
    FIELD(xfrm_user_migrate, old_family, word, families),
    FIELD(xfrm_user_migrate, new_family, word, families),
};
constexpr structure migrate =
    structure_of("xfrm_user_migrate", sizeof(xfrm_user_migrate), migrate_fields);

constexpr field manager_fields[] = {
    FIELD(xfrm_user_kmaddress, local, address),
    FIELD(xfrm_user_kmaddress, remote, address),
    FIELD(xfrm_user_kmaddress, reserved, field_kind::reserved),
    FIELD(xfrm_user_kmaddress, family, word, families),
    gap(38, 2),
};
constexpr structure manager =
    structure_of("xfrm_user_kmaddress", sizeof(xfrm_user_kmaddress), manager_fields);

constexpr field mark_fields[] = {FIELD(xfrm_mark, v, mask), FIELD(xfrm_mark, m, mask)};
constexpr structure mark = structure_of("xfrm_mark", sizeof(xfrm_mark), mark_fields);

constexpr field filter_fields[] = {
    FIELD(xfrm_address_filter, saddr, address),         FIELD(xfrm_address_filter, daddr, address),
    FIELD(xfrm_address_filter, family, word, families), FIELD(xfrm_address_filter, splen, number),
    FIELD(xfrm_address_filter, dplen, number),
};
constexpr structure filter =
    structure_of("xfrm_address_filter", sizeof(xfrm_address_filter), filter_fields);

constexpr field offload_fields[] = {
    FIELD(xfrm_user_offload, ifindex, integer),
    FIELD(xfrm_user_offload, flags, bits, offload_flags),
    gap(5, 3),
};
constexpr structure offload =
    structure_of("xfrm_user_offload", sizeof(xfrm_user_offload), offload_fields);

// Structures of the databases' own attributes

constexpr field sad_hash_fields[] = {
    FIELD(xfrmu_sadhinfo, sadhcnt, number),
    FIELD(xfrmu_sadhinfo, sadhmcnt, number),
};
constexpr structure sad_hash =
    structure_of("xfrmu_sadhinfo", sizeof(xfrmu_sadhinfo), sad_hash_fields);

constexpr field spd_counts_fields[] = {
    FIELD(xfrmu_spdinfo, incnt, number),   FIELD(xfrmu_spdinfo, outcnt, number),
    FIELD(xfrmu_spdinfo, fwdcnt, number),  FIELD(xfrmu_spdinfo, inscnt, number),
    FIELD(xfrmu_spdinfo, outscnt, number), FIELD(xfrmu_spdinfo, fwdscnt, number),
};
constexpr structure spd_counts =
    structure_of("xfrmu_spdinfo", sizeof(xfrmu_spdinfo), spd_counts_fields);

constexpr field spd_hash_fields[] = {
    FIELD(xfrmu_spdhinfo, spdhcnt, number),
    FIELD(xfrmu_spdhinfo, spdhmcnt, number),
};
constexpr structure spd_hash =
    structure_of("xfrmu_spdhinfo", sizeof(xfrmu_spdhinfo), spd_hash_fields);

constexpr field threshold_fields[] = {
    FIELD(xfrmu_spdhthresh, lbits, number),
    FIELD(xfrmu_spdhthresh, rbits, number),
};
constexpr structure threshold =
    structure_of("xfrmu_spdhthresh", sizeof(xfrmu_spdhthresh), threshold_fields);

// Structures of netlink itself

constexpr field outcome_fields[] = {FIELD(nlmsgerr, error, integer)};
constexpr structure outcome = structure_of("int", sizeof(nlmsgerr::error), outcome_fields);

constexpr field header_fields[] = {
    FIELD(nlmsghdr, nlmsg_len, number), FIELD(nlmsghdr, nlmsg_type, number),
    FIELD(nlmsghdr, nlmsg_flags, mask), FIELD(nlmsghdr, nlmsg_seq, number),
    FIELD(nlmsghdr, nlmsg_pid, number),
};
constexpr structure header = structure_of("nlmsghdr", sizeof(nlmsghdr), header_fields);

constexpr field capped_fields[] = {
    FIELD(nlmsgerr, error, integer),
    FIELD(nlmsgerr, msg, record, {}, &header),
};
constexpr structure capped = structure_of("nlmsgerr", sizeof(nlmsgerr), capped_fields);

#undef FIELD

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
    {XFRMA_SA, "XFRMA_SA", &sa_info},
    {XFRMA_POLICY, "XFRMA_POLICY", &policy_info},
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
    {XFRM_MSG_NEWSA, "XFRM_MSG_NEWSA", &sa_info, sa_and_policy_attributes},
    {XFRM_MSG_DELSA, "XFRM_MSG_DELSA", &sa_id, sa_and_policy_attributes},
    {XFRM_MSG_GETSA, "XFRM_MSG_GETSA", &sa_id, sa_and_policy_attributes},
    {XFRM_MSG_NEWPOLICY, "XFRM_MSG_NEWPOLICY", &policy_info, sa_and_policy_attributes},
    {XFRM_MSG_DELPOLICY, "XFRM_MSG_DELPOLICY", &policy_id, sa_and_policy_attributes},
    {XFRM_MSG_GETPOLICY, "XFRM_MSG_GETPOLICY", &policy_id, sa_and_policy_attributes},
    {XFRM_MSG_ALLOCSPI, "XFRM_MSG_ALLOCSPI", &spi_info, sa_and_policy_attributes},
    {XFRM_MSG_ACQUIRE, "XFRM_MSG_ACQUIRE", &acquire, sa_and_policy_attributes},
    {XFRM_MSG_EXPIRE, "XFRM_MSG_EXPIRE", &expire, sa_and_policy_attributes},
    {XFRM_MSG_UPDPOLICY, "XFRM_MSG_UPDPOLICY", &policy_info, sa_and_policy_attributes},
    {XFRM_MSG_UPDSA, "XFRM_MSG_UPDSA", &sa_info, sa_and_policy_attributes},
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

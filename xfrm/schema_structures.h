// SPDX-License-Identifier: Apache-2.0
//
// The structures of XFRM's messages and attributes, field by field, for schema.cc.
//
// Threads: any.
#pragma once

#include <cstddef>
#include <netinet/in.h>
#include <sys/socket.h>

#include "xfrm/schema.h"

namespace esplane::xfrm::structures {

using enum field_kind;

// Names of values, as ip(8) has them where it has a word.

inline constexpr value_name families[] = {
    {AF_UNSPEC, "unspec"}, {AF_INET, "inet"}, {AF_INET6, "inet6"}};
inline constexpr value_name protocols[] = {
    {IPPROTO_IP, "any"},    {IPPROTO_ICMP, "icmp"},        {IPPROTO_TCP, "tcp"},
    {IPPROTO_UDP, "udp"},   {IPPROTO_ROUTING, "route2"},   {IPPROTO_ESP, "esp"},
    {IPPROTO_AH, "ah"},     {IPPROTO_ICMPV6, "ipv6-icmp"}, {IPPROTO_DSTOPTS, "hao"},
    {IPPROTO_COMP, "comp"}, {IPPROTO_RAW, "ipsec-any"}}; // 255: any of IPsec's
inline constexpr value_name modes[] = {{XFRM_MODE_TRANSPORT, "transport"},
                                       {XFRM_MODE_TUNNEL, "tunnel"},
                                       {XFRM_MODE_ROUTEOPTIMIZATION, "ro"},
                                       {XFRM_MODE_IN_TRIGGER, "in_trigger"},
                                       {XFRM_MODE_BEET, "beet"},
                                       {xfrm_mode_iptfs, "iptfs"}};
inline constexpr value_name shares[] = {{XFRM_SHARE_ANY, "any"},
                                        {XFRM_SHARE_SESSION, "session"},
                                        {XFRM_SHARE_USER, "user"},
                                        {XFRM_SHARE_UNIQUE, "unique"}};
inline constexpr value_name state_flags[] = {{XFRM_STATE_NOECN, "noecn"},
                                             {XFRM_STATE_DECAP_DSCP, "decap-dscp"},
                                             {XFRM_STATE_NOPMTUDISC, "nopmtudisc"},
                                             {XFRM_STATE_WILDRECV, "wildrecv"},
                                             {XFRM_STATE_ICMP, "icmp"},
                                             {XFRM_STATE_AF_UNSPEC, "af-unspec"},
                                             {XFRM_STATE_ALIGN4, "align4"},
                                             {XFRM_STATE_ESN, "esn"}};
inline constexpr value_name extra_flags[] = {{XFRM_SA_XFLAG_DONT_ENCAP_DSCP, "dont-encap-dscp"},
                                             {XFRM_SA_XFLAG_OSEQ_MAY_WRAP, "oseq-may-wrap"}};
inline constexpr value_name event_flags[] = {
    {XFRM_AE_RTHR, "replay-threshold"}, {XFRM_AE_RVAL, "replay-value"},
    {XFRM_AE_LVAL, "lifetime-value"},   {XFRM_AE_ETHR, "timer-threshold"},
    {XFRM_AE_CR, "replay-update"},      {XFRM_AE_CE, "timer-expired"},
    {XFRM_AE_CU, "policy-updated"}};
inline constexpr value_name directions[] = {
    {XFRM_POLICY_IN, "in"}, {XFRM_POLICY_OUT, "out"}, {XFRM_POLICY_FWD, "fwd"}};
inline constexpr value_name actions[] = {{XFRM_POLICY_ALLOW, "allow"},
                                         {XFRM_POLICY_BLOCK, "block"}};
inline constexpr value_name policy_flags[] = {{XFRM_POLICY_LOCALOK, "localok"},
                                              {XFRM_POLICY_ICMP, "icmp"},
                                              {xfrm_policy_cpu_acquire, "cpu-acquire"}};
inline constexpr value_name policy_types[] = {
    {XFRM_POLICY_TYPE_MAIN, "main"}, {XFRM_POLICY_TYPE_SUB, "sub"}, {XFRM_POLICY_TYPE_ANY, "any"}};
inline constexpr value_name defaults[] = {{XFRM_USERPOLICY_UNSPEC, "unspec"},
                                          {XFRM_USERPOLICY_BLOCK, "block"},
                                          {XFRM_USERPOLICY_ACCEPT, "accept"}};
inline constexpr value_name encapsulations[] = {
    {1, "espinudp-nonike"}, {2, "espinudp"}, {7, "espintcp"}}; // UDP_ENCAP_*, TCP_ENCAP_ESPINTCP
inline constexpr value_name offload_flags[] = {{XFRM_OFFLOAD_IPV6, "ipv6"},
                                               {XFRM_OFFLOAD_INBOUND, "inbound"},
                                               {XFRM_OFFLOAD_PACKET, "packet"}};
inline constexpr value_name sa_directions[] = {{xfrm_sa_dir_in, "in"}, {xfrm_sa_dir_out, "out"}};

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

inline constexpr field selector_fields[] = {
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
inline constexpr structure selector =
    structure_of("xfrm_selector", sizeof(xfrm_selector), selector_fields);

inline constexpr field id_fields[] = {
    FIELD(xfrm_id, daddr, address),
    FIELD(xfrm_id, spi, spi),
    FIELD(xfrm_id, proto, word, protocols),
    gap(21, 3),
};
inline constexpr structure id = structure_of("xfrm_id", sizeof(xfrm_id), id_fields);

inline constexpr field limits_fields[] = {
    FIELD(xfrm_lifetime_cfg, soft_byte_limit, limit),
    FIELD(xfrm_lifetime_cfg, hard_byte_limit, limit),
    FIELD(xfrm_lifetime_cfg, soft_packet_limit, limit),
    FIELD(xfrm_lifetime_cfg, hard_packet_limit, limit),
    FIELD(xfrm_lifetime_cfg, soft_add_expires_seconds, number),
    FIELD(xfrm_lifetime_cfg, hard_add_expires_seconds, number),
    FIELD(xfrm_lifetime_cfg, soft_use_expires_seconds, number),
    FIELD(xfrm_lifetime_cfg, hard_use_expires_seconds, number),
};
inline constexpr structure limits =
    structure_of("xfrm_lifetime_cfg", sizeof(xfrm_lifetime_cfg), limits_fields);

inline constexpr field current_fields[] = {
    FIELD(xfrm_lifetime_cur, bytes, number),
    FIELD(xfrm_lifetime_cur, packets, number),
    FIELD(xfrm_lifetime_cur, add_time, number),
    FIELD(xfrm_lifetime_cur, use_time, number),
};
inline constexpr structure current =
    structure_of("xfrm_lifetime_cur", sizeof(xfrm_lifetime_cur), current_fields);

inline constexpr field stats_fields[] = {
    FIELD(xfrm_stats, replay_window, number),
    FIELD(xfrm_stats, replay, number),
    FIELD(xfrm_stats, integrity_failed, number),
};
inline constexpr structure stats = structure_of("xfrm_stats", sizeof(xfrm_stats), stats_fields);

inline constexpr field usersa_info_fields[] = {
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
inline constexpr structure usersa_info =
    structure_of("xfrm_usersa_info", sizeof(xfrm_usersa_info), usersa_info_fields);

inline constexpr field sa_id_fields[] = {
    FIELD(xfrm_usersa_id, daddr, address),
    FIELD(xfrm_usersa_id, spi, spi),
    FIELD(xfrm_usersa_id, family, word, families),
    FIELD(xfrm_usersa_id, proto, word, protocols),
    gap(23, 1),
};
inline constexpr structure sa_id =
    structure_of("xfrm_usersa_id", sizeof(xfrm_usersa_id), sa_id_fields);

inline constexpr field spi_info_fields[] = {
    FIELD(xfrm_userspi_info, info, record, {}, &usersa_info),
    FIELD(xfrm_userspi_info, min, mask),
    FIELD(xfrm_userspi_info, max, mask),
};
inline constexpr structure spi_info =
    structure_of("xfrm_userspi_info", sizeof(xfrm_userspi_info), spi_info_fields, "info.family");

inline constexpr field aevent_fields[] = {
    FIELD(xfrm_aevent_id, sa_id, record, {}, &sa_id),
    FIELD(xfrm_aevent_id, saddr, address),
    FIELD(xfrm_aevent_id, flags, bits, event_flags),
    FIELD(xfrm_aevent_id, reqid, number),
};
inline constexpr structure aevent =
    structure_of("xfrm_aevent_id", sizeof(xfrm_aevent_id), aevent_fields, "sa_id.family");

inline constexpr field expire_fields[] = {
    FIELD(xfrm_user_expire, state, record, {}, &usersa_info),
    FIELD(xfrm_user_expire, hard, number),
    gap(225, 7),
};
inline constexpr structure expire =
    structure_of("xfrm_user_expire", sizeof(xfrm_user_expire), expire_fields, "state.family");

inline constexpr field sa_flush_fields[] = {FIELD(xfrm_usersa_flush, proto, word, protocols)};
inline constexpr structure sa_flush =
    structure_of("xfrm_usersa_flush", sizeof(xfrm_usersa_flush), sa_flush_fields);

inline constexpr field mapping_fields[] = {
    FIELD(xfrm_user_mapping, id, record, {}, &sa_id), FIELD(xfrm_user_mapping, reqid, number),
    FIELD(xfrm_user_mapping, old_saddr, address),     FIELD(xfrm_user_mapping, new_saddr, address),
    FIELD(xfrm_user_mapping, old_sport, port),        FIELD(xfrm_user_mapping, new_sport, port),
};
inline constexpr structure mapping =
    structure_of("xfrm_user_mapping", sizeof(xfrm_user_mapping), mapping_fields, "id.family");

inline constexpr field report_fields[] = {
    FIELD(xfrm_user_report, proto, word, protocols),
    gap(1, 3),
    FIELD(xfrm_user_report, sel, record, {}, &selector),
};
inline constexpr structure report =
    structure_of("xfrm_user_report", sizeof(xfrm_user_report), report_fields, "sel.family");

inline constexpr field userpolicy_info_fields[] = {
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
inline constexpr structure userpolicy_info = structure_of(
    "xfrm_userpolicy_info", sizeof(xfrm_userpolicy_info), userpolicy_info_fields, "sel.family");

inline constexpr field policy_id_fields[] = {
    FIELD(xfrm_userpolicy_id, sel, record, {}, &selector),
    FIELD(xfrm_userpolicy_id, index, number),
    FIELD(xfrm_userpolicy_id, dir, word, directions),
    gap(61, 3),
};
inline constexpr structure policy_id =
    structure_of("xfrm_userpolicy_id", sizeof(xfrm_userpolicy_id), policy_id_fields, "sel.family");

inline constexpr field policy_expire_fields[] = {
    FIELD(xfrm_user_polexpire, pol, record, {}, &userpolicy_info),
    FIELD(xfrm_user_polexpire, hard, number),
    gap(169, 7),
};
inline constexpr structure policy_expire = structure_of(
    "xfrm_user_polexpire", sizeof(xfrm_user_polexpire), policy_expire_fields, "pol.sel.family");

inline constexpr field acquire_fields[] = {
    FIELD(xfrm_user_acquire, id, record, {}, &id),
    FIELD(xfrm_user_acquire, saddr, address),
    FIELD(xfrm_user_acquire, sel, record, {}, &selector),
    FIELD(xfrm_user_acquire, policy, record, {}, &userpolicy_info),
    FIELD(xfrm_user_acquire, aalgos, mask),
    FIELD(xfrm_user_acquire, ealgos, mask),
    FIELD(xfrm_user_acquire, calgos, mask),
    FIELD(xfrm_user_acquire, seq, number),
};
inline constexpr structure acquire =
    structure_of("xfrm_user_acquire", sizeof(xfrm_user_acquire), acquire_fields, "sel.family");

inline constexpr field default_fields[] = {
    FIELD(xfrm_userpolicy_default, in, word, defaults),
    FIELD(xfrm_userpolicy_default, fwd, word, defaults),
    FIELD(xfrm_userpolicy_default, out, word, defaults),
};
inline constexpr structure default_ =
    structure_of("xfrm_userpolicy_default", sizeof(xfrm_userpolicy_default), default_fields);

inline constexpr field flags_fields[] = {{"flags", 0, 4, mask}};
inline constexpr structure flags = structure_of("u32", 4, flags_fields);

// Structures of attributes

inline constexpr field number16_fields[] = {one(2, number)};
inline constexpr structure number16 = structure_of("u16", 2, number16_fields);
inline constexpr field number32_fields[] = {one(4, number)};
inline constexpr structure number32 = structure_of("u32", 4, number32_fields);
inline constexpr field number64_fields[] = {one(8, number)};
inline constexpr structure number64 = structure_of("u64", 8, number64_fields);
inline constexpr field mask32_fields[] = {one(4, mask)};
inline constexpr structure mask32 = structure_of("u32", 4, mask32_fields);
inline constexpr field address_fields[] = {one(sizeof(xfrm_address_t), address)};
inline constexpr structure address_alone =
    structure_of("xfrm_address_t", sizeof(xfrm_address_t), address_fields);
inline constexpr field extra_flags_fields[] = {one(4, bits, extra_flags)};
inline constexpr structure extra_flags_alone = structure_of("u32", 4, extra_flags_fields);
inline constexpr field protocol_fields[] = {one(1, word, protocols)};
inline constexpr structure protocol_alone = structure_of("u8", 1, protocol_fields);
inline constexpr field sa_direction_fields[] = {one(1, word, sa_directions)};
inline constexpr structure sa_direction = structure_of("u8", 1, sa_direction_fields);

inline constexpr field algorithm_fields[] = {
    FIELD(xfrm_algo, alg_name, text),
    FIELD(xfrm_algo, alg_key_len, number),
};
inline constexpr structure algorithm =
    structure_of("xfrm_algo", sizeof(xfrm_algo), algorithm_fields);

inline constexpr field auth_fields[] = {
    FIELD(xfrm_algo_auth, alg_name, text),
    FIELD(xfrm_algo_auth, alg_key_len, number),
    FIELD(xfrm_algo_auth, alg_trunc_len, number),
};
inline constexpr structure auth =
    structure_of("xfrm_algo_auth", sizeof(xfrm_algo_auth), auth_fields);

inline constexpr field aead_fields[] = {
    FIELD(xfrm_algo_aead, alg_name, text),
    FIELD(xfrm_algo_aead, alg_key_len, number),
    FIELD(xfrm_algo_aead, alg_icv_len, number),
};
inline constexpr structure aead =
    structure_of("xfrm_algo_aead", sizeof(xfrm_algo_aead), aead_fields);

inline constexpr field encap_fields[] = {
    FIELD(xfrm_encap_tmpl, encap_type, word, encapsulations),
    FIELD(xfrm_encap_tmpl, encap_sport, port),
    FIELD(xfrm_encap_tmpl, encap_dport, port),
    gap(6, 2),
    FIELD(xfrm_encap_tmpl, encap_oa, address),
};
inline constexpr structure encap =
    structure_of("xfrm_encap_tmpl", sizeof(xfrm_encap_tmpl), encap_fields);

inline constexpr field template_fields[] = {
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
inline constexpr structure template_ =
    structure_of("xfrm_user_tmpl", sizeof(xfrm_user_tmpl), template_fields);

inline constexpr field context_fields[] = {
    FIELD(xfrm_user_sec_ctx, len, number),     FIELD(xfrm_user_sec_ctx, exttype, number),
    FIELD(xfrm_user_sec_ctx, ctx_alg, number), FIELD(xfrm_user_sec_ctx, ctx_doi, number),
    FIELD(xfrm_user_sec_ctx, ctx_len, number),
};
inline constexpr structure context =
    structure_of("xfrm_user_sec_ctx", sizeof(xfrm_user_sec_ctx), context_fields);

inline constexpr field replay_fields[] = {
    FIELD(xfrm_replay_state, oseq, number),
    FIELD(xfrm_replay_state, seq, number),
    FIELD(xfrm_replay_state, bitmap, mask),
};
inline constexpr structure replay =
    structure_of("xfrm_replay_state", sizeof(xfrm_replay_state), replay_fields);

inline constexpr field replay_esn_fields[] = {
    FIELD(xfrm_replay_state_esn, bmp_len, number),
    FIELD(xfrm_replay_state_esn, oseq, number),
    FIELD(xfrm_replay_state_esn, seq, number),
    FIELD(xfrm_replay_state_esn, oseq_hi, number),
    FIELD(xfrm_replay_state_esn, seq_hi, number),
    FIELD(xfrm_replay_state_esn, replay_window, number),
};
inline constexpr structure replay_esn =
    structure_of("xfrm_replay_state_esn", sizeof(xfrm_replay_state_esn), replay_esn_fields);

inline constexpr field policy_type_fields[] = {
    FIELD(xfrm_userpolicy_type, type, word, policy_types),
    gap(1, 1),
    FIELD(xfrm_userpolicy_type, reserved1, reserved),
    FIELD(xfrm_userpolicy_type, reserved2, reserved),
    gap(5, 1),
};
inline constexpr structure policy_type =
    structure_of("xfrm_userpolicy_type", sizeof(xfrm_userpolicy_type), policy_type_fields);

inline constexpr field migrate_fields[] = {
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
inline constexpr structure migrate =
    structure_of("xfrm_user_migrate", sizeof(xfrm_user_migrate), migrate_fields);

inline constexpr field manager_fields[] = {
    FIELD(xfrm_user_kmaddress, local, address),
    FIELD(xfrm_user_kmaddress, remote, address),
    FIELD(xfrm_user_kmaddress, reserved, field_kind::reserved),
    FIELD(xfrm_user_kmaddress, family, word, families),
    gap(38, 2),
};
inline constexpr structure manager =
    structure_of("xfrm_user_kmaddress", sizeof(xfrm_user_kmaddress), manager_fields);

inline constexpr field mark_fields[] = {FIELD(xfrm_mark, v, mask), FIELD(xfrm_mark, m, mask)};
inline constexpr structure mark = structure_of("xfrm_mark", sizeof(xfrm_mark), mark_fields);

inline constexpr field filter_fields[] = {
    FIELD(xfrm_address_filter, saddr, address),         FIELD(xfrm_address_filter, daddr, address),
    FIELD(xfrm_address_filter, family, word, families), FIELD(xfrm_address_filter, splen, number),
    FIELD(xfrm_address_filter, dplen, number),
};
inline constexpr structure filter =
    structure_of("xfrm_address_filter", sizeof(xfrm_address_filter), filter_fields);

inline constexpr field offload_fields[] = {
    FIELD(xfrm_user_offload, ifindex, integer),
    FIELD(xfrm_user_offload, flags, bits, offload_flags),
    gap(5, 3),
};
inline constexpr structure offload =
    structure_of("xfrm_user_offload", sizeof(xfrm_user_offload), offload_fields);

// Structures of the databases' own attributes

inline constexpr field sad_hash_fields[] = {
    FIELD(xfrmu_sadhinfo, sadhcnt, number),
    FIELD(xfrmu_sadhinfo, sadhmcnt, number),
};
inline constexpr structure sad_hash =
    structure_of("xfrmu_sadhinfo", sizeof(xfrmu_sadhinfo), sad_hash_fields);

inline constexpr field spd_counts_fields[] = {
    FIELD(xfrmu_spdinfo, incnt, number),   FIELD(xfrmu_spdinfo, outcnt, number),
    FIELD(xfrmu_spdinfo, fwdcnt, number),  FIELD(xfrmu_spdinfo, inscnt, number),
    FIELD(xfrmu_spdinfo, outscnt, number), FIELD(xfrmu_spdinfo, fwdscnt, number),
};
inline constexpr structure spd_counts =
    structure_of("xfrmu_spdinfo", sizeof(xfrmu_spdinfo), spd_counts_fields);

inline constexpr field spd_hash_fields[] = {
    FIELD(xfrmu_spdhinfo, spdhcnt, number),
    FIELD(xfrmu_spdhinfo, spdhmcnt, number),
};
inline constexpr structure spd_hash =
    structure_of("xfrmu_spdhinfo", sizeof(xfrmu_spdhinfo), spd_hash_fields);

inline constexpr field threshold_fields[] = {
    FIELD(xfrmu_spdhthresh, lbits, number),
    FIELD(xfrmu_spdhthresh, rbits, number),
};
inline constexpr structure threshold =
    structure_of("xfrmu_spdhthresh", sizeof(xfrmu_spdhthresh), threshold_fields);

// Structures of netlink itself

inline constexpr field outcome_fields[] = {FIELD(nlmsgerr, error, integer)};
inline constexpr structure outcome = structure_of("int", sizeof(nlmsgerr::error), outcome_fields);

inline constexpr field header_fields[] = {
    FIELD(nlmsghdr, nlmsg_len, number), FIELD(nlmsghdr, nlmsg_type, number),
    FIELD(nlmsghdr, nlmsg_flags, mask), FIELD(nlmsghdr, nlmsg_seq, number),
    FIELD(nlmsghdr, nlmsg_pid, number),
};
inline constexpr structure header = structure_of("nlmsghdr", sizeof(nlmsghdr), header_fields);

inline constexpr field capped_fields[] = {
    FIELD(nlmsgerr, error, integer),
    FIELD(nlmsgerr, msg, record, {}, &header),
};
inline constexpr structure capped = structure_of("nlmsgerr", sizeof(nlmsgerr), capped_fields);

#undef FIELD

} // namespace esplane::xfrm::structures

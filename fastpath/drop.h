// SPDX-License-Identifier: Apache-2.0
//
// Why a packet was lost.  Every early exit of the data path is one of these, counted.
#pragma once

#include <cstdint>
#include <string_view>

namespace esplane::fastpath {

enum class drop_reason : std::uint8_t {
    none,
    closed,
    // parse
    frame_malformed,
    frame_not_ip,
    vlan_unknown,
    frame_other_station,
    ip_malformed,
    ip_checksum,
    fragment,
    fragment_overlap,
    fragment_too_long,
    fragment_timeout,
    fragment_full,
    ip_scope,
    // inbound
    esp_malformed,
    sa_unknown,
    sa_encapsulation,
    sa_expired,
    replay_duplicate,
    replay_too_old,
    icv_mismatch,
    esp_padding,
    dummy,
    inner_malformed,
    inner_family,
    sa_selector,
    // classify
    policy_missing,
    policy_default,
    policy_default_out,
    policy_block,
    policy_template,
    interface_unprotected,
    // outbound
    sa_missing,
    sa_larval,
    sa_wait_full,
    sa_wait_timeout,
    sequence_exhausted,
    nonces_exhausted,
    no_room,
    too_big,
    too_big_fragment,
    transport_fragment,
    // filter
    filter_denied,
    // next hop
    ttl_exceeded,
    route_missing,
    route_denied,
    route_tunnel,
    port_missing,
    neighbour_timeout,
    hold_full,
    icmp_protected,
    icmp_no_source,
    // ports
    tx_full,
    punt_full,
    punt_missing,
    punt_limited_ike,
    punt_limited_arp_nd,
    punt_limited_icmp,
    punt_limited_other,
    // workers
    handover_full,
    spread_full,
    sa_moved,
    count_,
};

inline constexpr unsigned drop_reason_count = static_cast<unsigned>(drop_reason::count_);

struct drop_description {
    std::string_view name; ///< "icv_mismatch": stable, for machines
    std::string_view text; ///< one line for people
};

[[nodiscard]] const drop_description& describe(drop_reason r) noexcept;

} // namespace esplane::fastpath

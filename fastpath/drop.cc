// SPDX-License-Identifier: Apache-2.0
#include "fastpath/drop.h"

#include <array>

namespace esplane::fastpath {

namespace {

constexpr std::array<drop_description, drop_reason_count> table{{
    {"none", "not dropped"},
    {"closed", "the devices were guarded before this start and no policy is programmed yet"},
    {"frame_malformed", "the frame ends before its headers do"},
    {"frame_not_ip", "neither IPv4 nor IPv6, and no stack behind this port takes it"},
    {"vlan_unknown", "VLAN tags for which no interface of the machine is up on this port"},
    {"frame_other_station", "addressed to another station of the network"},
    {"ip_malformed", "IP header, extension or upper-layer header with wrong lengths"},
    {"ip_checksum", "wrong IPv4 header checksum"},
    {"fragment", "a fragment, and not one of ESP for the machine: only those are put together"},
    {"fragment_overlap", "fragments of one packet that overlap, or contradict each other"},
    {"fragment_too_long", "fragments of a packet that does not fit a buffer"},
    {"fragment_timeout", "fragments whose packet was not complete in time"},
    {"fragment_full", "fragments that made room for newer ones, or found no buffer"},
    {"ip_scope", "to pass through, with a source or destination that no router forwards"},
    {"esp_malformed", "ESP packet too short, or text not a multiple of the cipher's block"},
    {"sa_unknown", "no SA for this destination and SPI"},
    {"sa_encapsulation", "in UDP where the SA has no encapsulation, or the other way round"},
    {"sa_expired", "the SA's hard limit of bytes or packets is reached"},
    {"replay_duplicate", "sequence number seen before"},
    {"replay_too_old", "sequence number left of the anti-replay window, or 0"},
    {"icv_mismatch", "integrity check failed: forged, damaged, or wrong key"},
    {"esp_padding", "wrong padding or pad length after decryption"},
    {"dummy", "traffic flow confidentiality dummy packet (next header 59)"},
    {"inner_malformed", "decrypted well, but no IP packet inside"},
    {"inner_family", "inner IP version is not one the SA carries"},
    {"sa_selector", "inner packet outside the SA's selector"},
    {"policy_missing", "decrypted, but no policy admits the inner packet"},
    {"policy_default", "no policy covers it, and the default of `in` or `fwd` is to block"},
    {"policy_default_out", "no policy covers it, and the default of `out` is to block"},
    {"policy_block", "a policy blocks it"},
    {"policy_template", "arrived in clear, or by another SA than the policy's template asks for"},
    {"interface_unprotected", "its route leads into an interface whose policies do not protect it"},
    {"sa_missing", "a policy protects it, no SA carries it yet and nobody was there to ask"},
    {"sa_larval", "a policy protects it, no SA carries it yet and xfrm_larval_drop lets none wait"},
    {"sa_wait_full", "a policy protects it and too many packets wait for an SA already"},
    {"sa_wait_timeout", "no SA came before its ACQUIRE expired, or its policy went meanwhile"},
    {"sequence_exhausted", "the SA has used all its sequence numbers: rekey"},
    {"nonces_exhausted", "2^44 packets under one key since the daemon started: give it a new one"},
    {"no_room", "not enough headroom or tailroom in the buffer"},
    {"too_big", "larger than the path after ESP; ICMP sent to its source"},
    {"too_big_fragment",
     "larger than the path, and no room to fragment it: too many in one burst, or no buffer"},
    {"transport_fragment", "a fragment: ESP in transport mode takes whole packets only"},
    {"filter_denied", "the filter denies it (`esplane filter`)"},
    {"ttl_exceeded", "TTL or hop limit used up"},
    {"route_missing", "no route to the destination"},
    {"route_denied", "a blackhole, unreachable or prohibit route"},
    {"route_tunnel", "ESP, or an ICMP error, whose own route leads into an interface"},
    {"port_missing", "the route leaves by a device that is not a port of esplane"},
    {"neighbour_timeout", "the next hop did not answer ARP or neighbour discovery"},
    {"hold_full", "too many packets wait for a next hop to be resolved"},
    {"icmp_protected", "ICMP error not sent in clear where a policy protects or blocks its path"},
    {"icmp_no_source", "ICMP error not sent: no address of that family on the machine"},
    {"tx_full", "the device took no more frames"},
    {"punt_full", "too many packets wait for the machine's own stack"},
    {"punt_missing", "out of an SA for the machine, and the port has no way up to its stack"},
    {"punt_limited_ike", "for the machine, above the rate for IKE (--punt-limit)"},
    {"punt_limited_arp_nd", "for the machine, above the rate for ARP and neighbour discovery"},
    {"punt_limited_icmp", "for the machine, above the rate for ICMP (--punt-limit)"},
    {"punt_limited_other", "for the machine, above the rate for the rest (--punt-limit)"},
    {"handover_full", "for a worker that has too many packets of others to work on"},
    {"spread_full", "of an SA on all workers whose packets wait for one of them too long"},
    {"sa_moved", "its SA was just taken from a worker that is stuck"},
}};

} // namespace

const drop_description& describe(drop_reason r) noexcept {
    return table[static_cast<std::size_t>(r)];
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// What the BPF programs and the guard share: keys, values and counter numbers of the maps.
//
// C for both sides.  Addresses, ports and masks are in network order.
#pragma once

#include <linux/types.h>

/// Entries of `ingress_counters`: one per way out of esplane_ingress.
enum esplane_ingress_counter {
    esplane_passed_not_ip,        ///< ARP, LLDP; behind VLAN tags too
    esplane_passed_group,         ///< multicast and broadcast
    esplane_passed_nd,            ///< neighbour discovery
    esplane_passed_ike,           ///< UDP 500 and 4500
    esplane_passed_fragment,      ///< later fragments of UDP that is no ESP
    esplane_passed_local,         ///< other traffic for the machine
    esplane_passed_punted,        ///< handed up by the port itself (generic mode only)
    esplane_taken_esp,            ///< ESP for the machine, also in UDP
    esplane_taken_local,          ///< other traffic for the machine, while it is taken
    esplane_taken_transit,        ///< not for the machine
    esplane_dropped_nobody_holds, ///< for esplane, but no socket is there
    esplane_dropped_tagged,       ///< more VLAN tags than two, or a frame that ends in them
    esplane_ingress_counters,
};

/// Entries of `egress_counters`: one per way out of esplane_egress that says something.
enum esplane_egress_counter {
    esplane_denied_forwarded, ///< the kernel would have forwarded it
    esplane_denied_policy,    ///< an `out` policy protects or blocks it
    esplane_denied_unparsed,  ///< headers that cannot be read while policies exist; too many tags
    esplane_denied_all,       ///< the policies do not fit: everything in clear is dropped
    esplane_denied_changing,  ///< the rules were replaced while it was held against them
    esplane_allowed_exempt,   ///< IKE, ESP, neighbour discovery
    esplane_egress_counters,
};

/// An address of the machine; IPv4 as ::ffff:a.b.c.d.
struct esplane_address {
    __u32 word[4];
};

/// Of ESP in UDP whose first fragment came: later ones name no port.
struct esplane_fragments {
    struct esplane_address source, destination;
    __u32 id;
};

/// The one entry of `ingress_config`.
struct esplane_ingress_config {
    __u8 take_local;       ///< traffic for the machine goes to esplane too
    __u8 recognise_punted; ///< generic mode sees punted frames again: pass them
    __u8 punted_source[6]; ///< the secret source MAC address they bear
};

/// The one entry of `egress_config`.
struct esplane_egress_config {
    __u32 deny_all;
    __u32 generation; ///< of the masks in force; its last bit says which bank they are in
};

/// A VLAN tag in a tuple: its ID and what kind it is; 0 where there is none.
#define ESPLANE_TAG_ID 0x0fff
#define ESPLANE_TAG 0x1000
#define ESPLANE_TAG_SERVICE 0x2000 ///< 802.1ad

/// A packet as selectors see it, or the bits of it that a class of rules looks at.  IPv4 addresses
/// stand in word 0.  Ports as in ipsec::flow.
struct esplane_tuple {
    __u32 source[4];
    __u32 destination[4];
    __u16 source_port;
    __u16 destination_port;
    __u8 protocol;
    __u8 family; ///< 4 or 6: always compared
    __u8 zero[2];
    __u16 tags[2]; ///< outermost first
};

/// Packets that a mask applies to.
enum esplane_packet_kind {
    esplane_kind_whole = 1,    ///< ports are known
    esplane_kind_fragment = 2, ///< a later fragment: they are not
};

/// All rules that look at the same bits.
struct esplane_mask {
    struct esplane_tuple bits; ///< `family` is a value here, not a mask
    __u32 kinds;               ///< esplane_packet_kind, or-ed; 0: the mask is not in use
    __u64 best_rank;           ///< none of its rules has a lower one
};

#define ESPLANE_MAX_MASKS 64

struct esplane_mask_bank {
    __u32 count;
    __u32 rules; ///< generation of the rules that go with them
    struct esplane_mask masks[ESPLANE_MAX_MASKS];
};

/// Key of `egress_rules`: the masked tuple, the number of its mask and the rules' generation.
struct esplane_rule_key {
    struct esplane_tuple tuple;
    __u32 mask;
    __u32 generation;
};

/// Two generations are there while one replaces the other as a whole.
#define ESPLANE_MAX_RULES 262144

struct esplane_rule {
    __u64 rank; ///< priority, then position: lower wins
    __u32 deny; ///< 1: protected or blocked, so not in clear
    __u32 zero;
};

/// Entries of `share_sockets`: the IKE daemon's socket, then one for each lane.
#define ESPLANE_SHARE_DAEMON 0
#define ESPLANE_SHARE_FIRST_LANE 1
#define ESPLANE_SHARE_SOCKETS 65

/// The kernel merges fewer packets than this into one.
#define ESPLANE_SHARE_SEGMENTS 128

/// The one entry of `share_config`: whose group the program is on, and how it divides.
struct esplane_share_config {
    __u64 netns; ///< cookie of the network namespace
    __u16 port;
    __u16 family; ///< 4 or 6
    __u32 lanes;
    __u32 alone; ///< the daemon did not share the port by itself
    __u32 zero;
};

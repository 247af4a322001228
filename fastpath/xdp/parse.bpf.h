// SPDX-License-Identifier: Apache-2.0
//
// From the IP header to the upper layer: what both BPF programs share.
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define max_vlan_tags 2
#define max_extension_headers 6

static __always_inline int is_ip(__be16 type) {
    return type == bpf_htons(ETH_P_IP) || type == bpf_htons(ETH_P_IPV6);
}

static __always_inline int is_vlan_tag(__be16 type) {
    return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/// What is behind the Ethernet header and its VLAN tags.
struct network {
    __be16 type;  ///< still a tag's if there are more than max_vlan_tags
    __u32 offset; ///< from the start of the frame
};

/// The TCI and the type that follows it.
struct vlan_tag {
    __be16 tci;
    __be16 type;
};

/// Where the upper-layer header lies and what it is.
struct upper {
    __u8 protocol;
    __u32 offset;       ///< from the start of the frame
    int later_fragment; ///< not the first: there is no upper-layer header
    int fragment;       ///< the first or a later one
    __be32 fragment_id;
};

/// False where the header is malformed.
static __always_inline int upper_of_ipv4(const struct iphdr* ip, __u32 offset, struct upper* u) {
    if (ip->version != 4 || ip->ihl < 5) return 0;
    u->protocol = ip->protocol;
    u->offset = offset + ip->ihl * 4u;
    u->later_fragment = (ip->frag_off & bpf_htons(0x1fff)) != 0;
    u->fragment = (ip->frag_off & bpf_htons(0x3fff)) != 0;
    u->fragment_id = ip->id;
    return 1;
}

/// The front of each IPv6 extension header that can be skipped.
struct extension_header {
    __u8 next;
    __u8 length; ///< in 8 bytes, not counting the first 8; reserved in a fragment header
    __be16 fragment;
    __be32 fragment_id;
};

static __always_inline int is_extension_header(__u8 protocol) {
    return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
           protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_FRAGMENT;
}

/// Moves `u` behind `e`.  Behind a later fragment's header lies no header: `u` stays on the
/// protocol that the fragment header names, and the walk ends.
static __always_inline void skip_extension_header(struct upper* u,
                                                  const struct extension_header* e) {
    if (u->later_fragment) return;
    if (u->protocol == IPPROTO_FRAGMENT) {
        u->offset += 8;
        u->later_fragment = (e->fragment & bpf_htons(0xfff8)) != 0;
        u->fragment = (e->fragment & bpf_htons(0xfff9)) != 0;
        u->fragment_id = e->fragment_id;
    } else {
        u->offset += (e->length + 1u) * 8;
    }
    u->protocol = e->next;
}

static __always_inline int is_ike(__be16 port) {
    return port == bpf_htons(500) || port == bpf_htons(4500);
}

/// Router and neighbour solicitation and advertisement, redirect (RFC 4861).
static __always_inline int is_neighbour_discovery(__u8 type) {
    return type >= 133 && type <= 137;
}

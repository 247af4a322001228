// SPDX-License-Identifier: Apache-2.0
//
// Which socket of a port that an IKE daemon and esplane share takes a UDP packet (RFC 3948):
//
//   begins with an SPI ─────────────────────────────► esplane's, the lane by the SPI
//   begins with 4 zero bytes, and is one IKE message ► the daemon's
//   begins with 4 zero bytes, and is longer ─────────► esplane's; without esplane the daemon's
//   shorter (a NAT keepalive) ───────────────────────► the daemon's
//
// A packet longer than the IKE message in it is several that the kernel has merged (GRO), IKE and
// ESP of one peer among each other: esplane takes them apart and gives the daemon what is the
// daemon's.  Where the one who is to have it has no socket, the packet is dropped: never does one
// get what is the other's.
#include <linux/bpf.h>
#include <linux/types.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "fastpath/xdp/maps.h"

struct {
    __uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
    __uint(max_entries, ESPLANE_SHARE_SOCKETS);
    __type(key, __u32);
    __type(value, __u64);
} share_sockets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct esplane_share_config);
} share_config SEC(".maps");

/// What stands behind the UDP header.
struct payload {
    __be32 spi; ///< 0: the non-ESP marker
    __u8 ike[24];
    __be32 ike_length;
} __attribute__((packed));

static __always_inline int give(struct sk_reuseport_md* packet, __u32 slot) {
    return bpf_sk_select_reuseport(packet, &share_sockets, &slot, 0) == 0 ? SK_PASS : SK_DROP;
}

static __always_inline int give_lane(struct sk_reuseport_md* packet, __u32 spi) {
    const __u32 zero = 0;
    const struct esplane_share_config* config = bpf_map_lookup_elem(&share_config, &zero);
    if (!config || config->lanes == 0) return SK_DROP;
    return give(packet, ESPLANE_SHARE_FIRST_LANE + spi % config->lanes);
}

SEC("sk_reuseport")
int esplane_share(struct sk_reuseport_md* packet) {
    struct payload p;
    const __u32 at = sizeof(struct udphdr);
    if (bpf_skb_load_bytes(packet, at, &p.spi, sizeof p.spi) != 0)
        return give(packet, ESPLANE_SHARE_DAEMON);
    if (p.spi != 0) return give_lane(packet, bpf_ntohl(p.spi));
    if (bpf_skb_load_bytes(packet, at, &p, sizeof p) == 0 &&
        packet->len != at + sizeof p.spi + bpf_ntohl(p.ike_length) &&
        give_lane(packet, 0) == SK_PASS)
        return SK_PASS;
    return give(packet, ESPLANE_SHARE_DAEMON);
}

const char program_license[] SEC("license") = "Apache-2.0";

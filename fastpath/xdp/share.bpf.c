// SPDX-License-Identifier: Apache-2.0
//
// Which socket of a port that an IKE daemon and esplane share takes a UDP packet (RFC 3948):
//
//   begins with an SPI ──────────────────────────────► esplane's, the lane by the SPI
//   begins with 4 zero bytes; IKE to its end ────────► the daemon's
//   begins with 4 zero bytes; something else follows ► esplane's
//   shorter (a NAT keepalive) ───────────────────────► the daemon's
//
// A packet longer than the IKE message in it is several that the kernel has merged (GRO), perhaps
// IKE and ESP of one peer among each other.  What is IKE alone the kernel takes apart again for the
// daemon; the others esplane does, and gives the daemon what is the daemon's.  Where the one who is
// to have it has no socket, the packet is dropped: never does one get what is the other's.
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

/// Whether a packet that begins with an IKE message is nothing but IKE: one message, or several
/// merged, which are equal in length but for the last.
static __always_inline int is_all_ike(const struct sk_reuseport_md* packet, __u32 first) {
    __u32 at = sizeof(struct udphdr);
    for (int i = 0; i < ESPLANE_SHARE_SEGMENTS; ++i) {
        __be32 spi = 0;
        at += first;
        if (at >= packet->len) return at == packet->len || i > 0;
        if (bpf_skb_load_bytes(packet, at, &spi, sizeof spi) != 0 || spi != 0) return 0;
    }
    return 0;
}

SEC("sk_reuseport")
int esplane_share(struct sk_reuseport_md* packet) {
    struct payload p;
    const __u32 at = sizeof(struct udphdr);
    if (bpf_skb_load_bytes(packet, at, &p.spi, sizeof p.spi) != 0)
        return give(packet, ESPLANE_SHARE_DAEMON);
    if (p.spi != 0) return give_lane(packet, bpf_ntohl(p.spi));
    if (bpf_skb_load_bytes(packet, at, &p, sizeof p) != 0)
        return give(packet, ESPLANE_SHARE_DAEMON);
    const __u32 first = sizeof p.spi + bpf_ntohl(p.ike_length);
    if (first < sizeof p || !is_all_ike(packet, first)) return give_lane(packet, 0);
    return give(packet, ESPLANE_SHARE_DAEMON);
}

const char program_license[] SEC("license") = "Apache-2.0";

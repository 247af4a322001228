// SPDX-License-Identifier: Apache-2.0
//
// What arrives on a port's device: to the AF_XDP sockets, or on to the machine's own stack.
//
//   more than two VLAN tags, or no end to them ──────────► drop
//   not IP ─────────────────────────────────────────────► pass
//   multicast, broadcast, neighbour discovery ──────────► pass
//   for the machine:  ESP, ESP in UDP ──────────────────► esplane
//                     fragments of it behind the first ─► esplane
//                     IKE ──────────────────────────────► pass
//                     the rest: take_local ? esplane : pass
//   everything else ────────────────────────────────────► esplane
//
// Where no socket is held ("esplane" above) the packet is dropped: the program outlives the daemon.
// What cannot be parsed goes to esplane, which counts it.
//
// Up to two tags, 802.1Q or 802.1ad, make no difference: what is behind them is looked at.  A tag
// that the device took off itself is not seen here; such a frame is one without.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "fastpath/xdp/maps.h"
#include "fastpath/xdp/parse.bpf.h"

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, 256);
    __type(key, __u32);
    __type(value, __u32);
} xsks SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 16384);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct esplane_address);
    __type(value, __u8);
} local_addresses SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u16);
    __type(value, __u8);
} encap_ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 4096);
    __type(key, struct esplane_fragments);
    __type(value, __u8);
} esp_fragments SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct esplane_ingress_config);
} ingress_config SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, esplane_ingress_counters);
    __type(key, __u32);
    __type(value, __u64);
} ingress_counters SEC(".maps");

static __always_inline void count(__u32 counter) {
    __u64* value = bpf_map_lookup_elem(&ingress_counters, &counter);
    if (value) ++*value;
}

static __always_inline int pass(__u32 counter) {
    count(counter);
    return XDP_PASS;
}

static __always_inline int take(struct xdp_md* ctx, __u32 counter) {
    const long action = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_DROP);
    count(action == XDP_REDIRECT ? counter : esplane_dropped_nobody_holds);
    return (int)action;
}

static __always_inline const struct esplane_ingress_config* config(void) {
    const __u32 zero = 0;
    return bpf_map_lookup_elem(&ingress_config, &zero);
}

static __always_inline int same_mac(const __u8* a, const __u8* b) {
    return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) |
             (a[5] ^ b[5]));
}

/// UDP for the machine: ESP, IKE or neither.
static __always_inline int take_udp(struct xdp_md* ctx, const struct upper* u,
                                    const struct esplane_fragments* whole, int take_local) {
    const __u32 offset = u->offset;
    const __u8 known = 1;
    struct {
        struct udphdr udp;
        __u32 spi; // or the marker: zero before IKE
    } front = {};
    if (bpf_xdp_load_bytes(ctx, offset, &front.udp, sizeof front.udp))
        return take(ctx, esplane_taken_local);
    // A payload of at most 8 bytes is no ESP; a keepalive is one of 1 byte.
    if (bpf_ntohs(front.udp.len) > sizeof front.udp + 8 &&
        !bpf_xdp_load_bytes(ctx, offset + sizeof front.udp, &front.spi, sizeof front.spi) &&
        front.spi != 0 && bpf_map_lookup_elem(&encap_ports, &front.udp.dest)) {
        if (u->fragment) bpf_map_update_elem(&esp_fragments, whole, &known, BPF_ANY);
        return take(ctx, esplane_taken_esp);
    }
    if (is_ike(front.udp.dest)) return pass(esplane_passed_ike);
    return take_local ? take(ctx, esplane_taken_local) : pass(esplane_passed_local);
}

/// IP for an address of the machine.
static __always_inline int take_for_machine(struct xdp_md* ctx, const struct upper* u,
                                            struct esplane_fragments* whole, int take_local) {
    if (u->protocol == IPPROTO_ESP) return take(ctx, esplane_taken_esp);
    if (u->protocol == IPPROTO_UDP) {
        // The first fragment has the ports and decides for those that follow it.
        whole->id = u->fragment_id;
        if (!u->later_fragment) return take_udp(ctx, u, whole, take_local);
        return bpf_map_lookup_elem(&esp_fragments, whole) ? take(ctx, esplane_taken_esp)
                                                          : pass(esplane_passed_fragment);
    }
    return take_local ? take(ctx, esplane_taken_local) : pass(esplane_passed_local);
}

static __always_inline int ingress_ipv4(struct xdp_md* ctx, __u32 offset, int group_frame,
                                        int take_local) {
    struct iphdr ip;
    struct upper u = {};
    if (bpf_xdp_load_bytes(ctx, offset, &ip, sizeof ip) || !upper_of_ipv4(&ip, offset, &u))
        return take(ctx, esplane_taken_transit);
    if ((ip.daddr & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) || ip.daddr == 0xffffffff)
        return pass(esplane_passed_group);

    struct esplane_fragments whole = {
        {{0, 0, bpf_htonl(0xffff), ip.saddr}}, {{0, 0, bpf_htonl(0xffff), ip.daddr}}, 0};
    if (bpf_map_lookup_elem(&local_addresses, &whole.destination))
        return take_for_machine(ctx, &u, &whole, take_local);
    // Broadcast of a subnet; the kernel forwards no frame that was not sent to it alone.
    return group_frame ? pass(esplane_passed_group) : take(ctx, esplane_taken_transit);
}

static __always_inline int ingress_ipv6(struct xdp_md* ctx, __u32 offset, int group_frame,
                                        int take_local) {
    struct ipv6hdr ip;
    if (bpf_xdp_load_bytes(ctx, offset, &ip, sizeof ip) || ip.version != 6)
        return take(ctx, esplane_taken_transit);
    if (ip.daddr.in6_u.u6_addr8[0] == 0xff) return pass(esplane_passed_group);

    struct upper u = {ip.nexthdr, offset + sizeof ip, 0, 0, 0};
    __u8 type = 0;
    if (ip.nexthdr == IPPROTO_ICMPV6 && ip.hop_limit == 255 &&
        !bpf_xdp_load_bytes(ctx, u.offset, &type, sizeof type) && is_neighbour_discovery(type))
        return pass(esplane_passed_nd);

    struct esplane_fragments whole = {};
    __builtin_memcpy(&whole.source, &ip.saddr, sizeof whole.source);
    __builtin_memcpy(&whole.destination, &ip.daddr, sizeof whole.destination);
    if (!bpf_map_lookup_elem(&local_addresses, &whole.destination))
        return group_frame ? pass(esplane_passed_group) : take(ctx, esplane_taken_transit);

    for (int i = 0; i < max_extension_headers && is_extension_header(u.protocol); ++i) {
        struct extension_header e;
        if (bpf_xdp_load_bytes(ctx, u.offset, &e, sizeof e)) return take(ctx, esplane_taken_local);
        skip_extension_header(&u, &e);
    }
    return take_for_machine(ctx, &u, &whole, take_local);
}

/// Looks behind VLAN tags.  False where the frame ends in them.
static __always_inline int skip_vlan_tags(struct xdp_md* ctx, struct network* n) {
    for (int i = 0; i < max_vlan_tags && is_vlan_tag(n->type); ++i) {
        struct vlan_tag tag;
        if (bpf_xdp_load_bytes(ctx, n->offset, &tag, sizeof tag)) return 0;
        n->type = tag.type;
        n->offset += sizeof tag;
    }
    return 1;
}

SEC("xdp.frags")
int esplane_ingress(struct xdp_md* ctx) {
    const struct esplane_ingress_config* c = config();
    struct ethhdr eth;
    if (!c) return XDP_DROP;
    if (bpf_xdp_load_bytes(ctx, 0, &eth, sizeof eth)) return pass(esplane_passed_not_ip);
    if (c->recognise_punted && same_mac(eth.h_source, c->punted_source))
        return pass(esplane_passed_punted);

    const int group_frame = eth.h_dest[0] & 1;
    struct network n = {eth.h_proto, ETH_HLEN};
    if (!skip_vlan_tags(ctx, &n) || is_vlan_tag(n.type)) {
        count(esplane_dropped_tagged);
        return XDP_DROP;
    }
    if (n.type == bpf_htons(ETH_P_IP))
        return ingress_ipv4(ctx, n.offset, group_frame, c->take_local);
    if (n.type == bpf_htons(ETH_P_IPV6))
        return ingress_ipv6(ctx, n.offset, group_frame, c->take_local);
    return pass(esplane_passed_not_ip);
}

/// Runs over frames that a port hands up: they go on to the stack.
SEC("xdp")
int esplane_punt(struct xdp_md* ctx) {
    (void)ctx;
    return XDP_PASS;
}

const char program_license[] SEC("license") = "Apache-2.0";

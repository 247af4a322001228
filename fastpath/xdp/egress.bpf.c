// SPDX-License-Identifier: Apache-2.0
//
// What the machine's own stack sends on a port's device (AF_XDP transmissions do not come by).
//
//   more than two VLAN tags ──────────────────────────────────► drop
//   not IP ───────────────────────────────────────────────────► pass
//   forwarded by the kernel (it came in on some device) ──────► drop
//   IKE, ESP, neighbour discovery, multicast listener reports ► pass
//   an `out` policy protects or blocks it ────────────────────► drop
//
// Rules are a tuple space: for each mask, the masked packet is looked up in one hash; of all rules
// found the one with the lowest rank says what happens.  A later fragment shows no ports: rules
// that look at ports and deny hold for it whatever its ports, rules that allow do not.
//
// Rules change one by one, or as a whole, without a lock: masks and whole sets are written beside
// the old, the number in the configuration changes, the old are removed.  Whoever finds the number
// changed after its search may have missed a rule, and drops the packet.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "fastpath/xdp/maps.h"
#include "fastpath/xdp/parse.bpf.h"

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 2 * ESPLANE_MAX_RULES);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct esplane_rule_key);
    __type(value, struct esplane_rule);
} egress_rules SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, struct esplane_mask_bank);
} mask_banks SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct esplane_egress_config);
} egress_config SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, esplane_egress_counters);
    __type(key, __u32);
    __type(value, __u64);
} egress_counters SEC(".maps");

/// A packet as rules see it.
struct flow {
    struct esplane_tuple tuple;
    __u32 kind; ///< esplane_packet_kind
    __u8 hop_limit;
};

static __always_inline void count(__u32 counter) {
    __u64* value = bpf_map_lookup_elem(&egress_counters, &counter);
    if (value) ++*value;
}

static __always_inline int deny(__u32 counter) {
    count(counter);
    return TC_ACT_SHOT;
}

/// Puts a tag behind those there are; there is room for it.
static __always_inline void add_tag(__u16* tags, __be16 type, __u16 tci) {
    const __u16 tag = ESPLANE_TAG | (type == bpf_htons(ETH_P_8021AD) ? ESPLANE_TAG_SERVICE : 0) |
                      (tci & ESPLANE_TAG_ID);
    // Not an if with an else: the compiler makes one store of it, through a pointer that the
    // verifier refuses.
    tags[1] = tags[0] ? tag : 0;
    tags[0] = tags[0] ? tags[0] : tag;
}

/// Looks behind VLAN tags, in the frame or beside it, outermost first.  False where the frame ends
/// in them.
static __always_inline int skip_vlan_tags(struct __sk_buff* skb, struct network* n, __u16* tags) {
    if (bpf_skb_load_bytes(skb, ETH_HLEN - sizeof n->type, &n->type, sizeof n->type)) return 0;
    n->offset = ETH_HLEN;
    if (skb->vlan_present) add_tag(tags, (__be16)skb->vlan_proto, (__u16)skb->vlan_tci);
    for (int i = 0; i < max_vlan_tags && is_vlan_tag(n->type) && !tags[1]; ++i) {
        struct vlan_tag tag;
        if (bpf_skb_load_bytes(skb, n->offset, &tag, sizeof tag)) return 0;
        add_tag(tags, n->type, bpf_ntohs(tag.tci));
        n->type = tag.type;
        n->offset += sizeof tag;
    }
    return 1;
}

/// The halves of a GRE key stand for ports, where there is one (RFC 2890).
static __always_inline int parse_gre(struct __sk_buff* skb, __u32 offset,
                                     struct esplane_tuple* tuple) {
    __be16 flags;
    __be16 key[2];
    if (bpf_skb_load_bytes(skb, offset, &flags, sizeof flags)) return 0;
    if (!(flags & bpf_htons(0x2000))) return 1;
    offset += flags & bpf_htons(0x8000) ? 8 : 4; // a checksum comes first
    if (bpf_skb_load_bytes(skb, offset, key, sizeof key)) return 0;
    tuple->source_port = key[0];
    tuple->destination_port = key[1];
    return 1;
}

/// Ports, or what selectors have in their place.  False where the packet is too short.
static __always_inline int parse_ports(struct __sk_buff* skb, const struct upper* u,
                                       struct esplane_tuple* tuple) {
    __be16 ports[2] = {};
    __u8 type_code[2] = {};
    __u8 mobility_type = 0;
    switch (u->protocol) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_UDPLITE:
    case IPPROTO_SCTP:
    case IPPROTO_DCCP:
        if (bpf_skb_load_bytes(skb, u->offset, ports, sizeof ports)) return 0;
        tuple->source_port = ports[0];
        tuple->destination_port = ports[1];
        return 1;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        if (bpf_skb_load_bytes(skb, u->offset, type_code, sizeof type_code)) return 0;
        tuple->source_port = bpf_htons(type_code[0]);
        tuple->destination_port = bpf_htons(type_code[1]);
        return 1;
    case IPPROTO_MH:
        if (bpf_skb_load_bytes(skb, u->offset + 2, &mobility_type, sizeof mobility_type)) return 0;
        tuple->source_port = bpf_htons(mobility_type);
        return 1;
    case IPPROTO_GRE:
        return parse_gre(skb, u->offset, tuple);
    default:
        return 1;
    }
}

static __always_inline int parse_ipv4(struct __sk_buff* skb, __u32 offset, struct flow* f,
                                      struct upper* u) {
    struct iphdr ip;
    if (bpf_skb_load_bytes(skb, offset, &ip, sizeof ip) || !upper_of_ipv4(&ip, offset, u)) return 0;
    f->tuple.family = 4;
    f->tuple.source[0] = ip.saddr;
    f->tuple.destination[0] = ip.daddr;
    f->hop_limit = ip.ttl;
    return 1;
}

static __always_inline int parse_ipv6(struct __sk_buff* skb, __u32 offset, struct flow* f,
                                      struct upper* u) {
    struct ipv6hdr ip;
    if (bpf_skb_load_bytes(skb, offset, &ip, sizeof ip) || ip.version != 6) return 0;
    f->tuple.family = 6;
    __builtin_memcpy(f->tuple.source, &ip.saddr, sizeof f->tuple.source);
    __builtin_memcpy(f->tuple.destination, &ip.daddr, sizeof f->tuple.destination);
    f->hop_limit = ip.hop_limit;
    u->protocol = ip.nexthdr;
    u->offset = offset + sizeof ip;
    u->later_fragment = 0;
    for (int i = 0; i < max_extension_headers && is_extension_header(u->protocol); ++i) {
        struct extension_header e;
        if (u->later_fragment) return 1;
        if (bpf_skb_load_bytes(skb, u->offset, &e, sizeof e)) return 0;
        skip_extension_header(u, &e);
    }
    return u->later_fragment || !is_extension_header(u->protocol);
}

/// False where the headers cannot be read.
static __always_inline int parse(struct __sk_buff* skb, __be16 type, __u32 offset, struct flow* f) {
    struct upper u = {};
    if (type == bpf_htons(ETH_P_IP) ? !parse_ipv4(skb, offset, f, &u)
                                    : !parse_ipv6(skb, offset, f, &u))
        return 0;
    f->tuple.protocol = u.protocol;
    f->kind = u.later_fragment ? esplane_kind_fragment : esplane_kind_whole;
    return u.later_fragment || parse_ports(skb, &u, &f->tuple);
}

/// Multicast listener queries and reports (RFC 2710, RFC 3810).
static __always_inline int is_listener_discovery(__u8 type) {
    return (type >= 130 && type <= 132) || type == 143;
}

/// What may leave in clear whatever the policies say.
static __always_inline int is_exempt(const struct flow* f) {
    const struct esplane_tuple* t = &f->tuple;
    if (t->protocol == IPPROTO_ESP) return 1;
    if (f->kind != esplane_kind_whole) return 0;
    if (t->protocol == IPPROTO_UDP) return is_ike(t->source_port) || is_ike(t->destination_port);
    if (t->family != 6 || t->protocol != IPPROTO_ICMPV6) return 0;
    const __u8 type = (__u8)bpf_ntohs(t->source_port);
    return (f->hop_limit == 255 && is_neighbour_discovery(type)) ||
           (f->hop_limit == 1 && is_listener_discovery(type));
}

static __always_inline void apply_mask(struct esplane_tuple* out, const struct esplane_tuple* in,
                                       const struct esplane_tuple* bits) {
    for (int i = 0; i < 4; ++i) {
        out->source[i] = in->source[i] & bits->source[i];
        out->destination[i] = in->destination[i] & bits->destination[i];
    }
    out->source_port = in->source_port & bits->source_port;
    out->destination_port = in->destination_port & bits->destination_port;
    out->protocol = in->protocol & bits->protocol;
    out->family = in->family;
    out->tags[0] = in->tags[0] & bits->tags[0];
    out->tags[1] = in->tags[1] & bits->tags[1];
}

struct search {
    const struct esplane_mask_bank* bank;
    const struct flow* f;
    __u32 denied;
    __u64 rank;
};

/// One mask of the search; 1 ends it.
static __always_inline int search_mask(__u32 i, struct search* s) {
    if (i >= s->bank->count) return 1;
    const struct esplane_mask* mask = &s->bank->masks[i];
    if (mask->best_rank > s->rank) return 0;
    if (!(mask->kinds & s->f->kind) || mask->bits.family != s->f->tuple.family) return 0;

    struct esplane_rule_key key = {};
    apply_mask(&key.tuple, &s->f->tuple, &mask->bits);
    key.mask = i;
    key.generation = s->bank->rules;
    const struct esplane_rule* rule = bpf_map_lookup_elem(&egress_rules, &key);
    if (rule && rule->rank < s->rank) {
        s->rank = rule->rank;
        s->denied = rule->deny;
    }
    return 0;
}

/// What the rules say by the masks of one generation.
static __always_inline int judge(const struct flow* f, int readable, __u32 generation) {
    const __u32 which = generation & 1;
    struct search s = {.f = f, .rank = ~0ull};
    s.bank = bpf_map_lookup_elem(&mask_banks, &which);
    if (!s.bank) return deny(esplane_denied_all);
    if (s.bank->count == 0) return TC_ACT_UNSPEC;
    if (!readable) return deny(esplane_denied_unparsed);
    for (__u32 i = 0; i < ESPLANE_MAX_MASKS; ++i)
        if (search_mask(i, &s)) break;
    return s.denied ? deny(esplane_denied_policy) : TC_ACT_UNSPEC;
}

SEC("tc")
int esplane_egress(struct __sk_buff* skb) {
    struct flow f = {};
    struct network n;
    if (!skip_vlan_tags(skb, &n, f.tuple.tags)) return TC_ACT_UNSPEC;
    if (is_vlan_tag(n.type)) return deny(esplane_denied_unparsed);
    if (!is_ip(n.type)) return TC_ACT_UNSPEC;
    if (skb->ingress_ifindex) return deny(esplane_denied_forwarded);

    const int readable = parse(skb, n.type, n.offset, &f);
    if (readable && is_exempt(&f)) {
        count(esplane_allowed_exempt);
        return TC_ACT_UNSPEC;
    }
    const __u32 zero = 0;
    const volatile struct esplane_egress_config* c = bpf_map_lookup_elem(&egress_config, &zero);
    if (!c || c->deny_all) return deny(esplane_denied_all);
    const __u32 generation = c->generation;
    const int verdict = judge(&f, readable, generation);
    if (verdict != TC_ACT_SHOT && c->generation != generation) return deny(esplane_denied_changing);
    return verdict;
}

const char program_license[] SEC("license") = "Apache-2.0";

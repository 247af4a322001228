// SPDX-License-Identifier: Apache-2.0
#include "fastpath/parse.h"

#include <algorithm>
#include <nmmintrin.h>

#include "fastpath/path_report.h"
#include "fastpath/plain.h"
#include "fastpath/reassembly.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

constexpr unsigned ipv4_words = sizeof(wire::ipv4_header) / 4; ///< at least
constexpr std::uint32_t fragment_header_length = 8;
constexpr unsigned max_extension_headers = 8;
constexpr unsigned max_tags = 4; ///< of a frame, those of priority alone among them
constexpr std::uint16_t vid_mask = 0x0fff;
constexpr std::size_t checksum_at_tcp = 16;
constexpr std::size_t checksum_at_udp = 6;

/// Puts the whole checksum where that of the pseudo-header stands.
[[gnu::cold, gnu::noinline]] void finish_checksum(packet& p, std::size_t at) noexcept {
    std::uint8_t* l4 = p.data + p.l4_offset;
    if (wire::load<std::uint16_t>(l4 + at) == 0) return; // none at all: a folded sum is never 0
    // The field itself stands for the pseudo-header in this sum.
    wire::be16 sum = wire::checksum_finish(wire::checksum_add(0, l4, p.length - p.l4_offset));
    if (p.protocol == wire::proto_udp && sum == wire::be16()) sum = wire::be16(0xffff);
    wire::store(l4 + at, sum);
}

/// A virtual device hands over TCP and UDP whose checksum field holds only the sum of the
/// pseudo-header.  Such a field is completed; a finished one that happens to equal the sum comes
/// out as it was.
///
/// at   where the field is; the packet holds it
template <std::size_t AddressLength>
void complete_field(packet& p, const std::uint8_t* addresses, std::size_t at) noexcept {
    const std::uint64_t pseudo = wire::checksum_pseudo(
        addresses, addresses + AddressLength, AddressLength, p.protocol, p.length - p.l4_offset);
    const auto field = wire::load<std::uint16_t>(p.data + p.l4_offset + at);
    if (wire::sums_to_ones(pseudo + static_cast<std::uint16_t>(~field))) [[unlikely]]
        finish_checksum(p, at);
}

/// The halves of a GRE key stand for ports, where there is one (RFC 2890).
drop_reason parse_gre(packet& p, const std::uint8_t* gre, std::uint32_t length) noexcept {
    constexpr std::uint16_t has_checksum = 0x8000, has_key = 0x2000;
    if (length < 4) return drop_reason::ip_malformed;
    const std::uint16_t flags = wire::load<wire::be16>(gre).host();
    if ((flags & has_key) == 0) return drop_reason::none;
    const std::uint32_t key = (flags & has_checksum) != 0 ? 8 : 4;
    if (length < key + 4) return drop_reason::ip_malformed;
    p.source_port = wire::load<wire::be16>(gre + key);
    p.destination_port = wire::load<wire::be16>(gre + key + 2);
    return drop_reason::none;
}

/// Of what is neither TCP nor UDP.
[[gnu::noinline]] drop_reason parse_rare_l4(packet& p) noexcept {
    const std::uint8_t* l4 = p.data + p.l4_offset;
    const std::uint32_t length = p.length - p.l4_offset;
    switch (p.protocol) {
    case wire::proto_sctp:
    case wire::proto_dccp:
    case wire::proto_udplite:
        if (length < 8) return drop_reason::ip_malformed;
        p.source_port = wire::load<wire::be16>(l4);
        p.destination_port = wire::load<wire::be16>(l4 + 2);
        return drop_reason::none;
    case wire::proto_icmp:
    case wire::proto_icmpv6:
        if (length < 4) return drop_reason::ip_malformed;
        p.source_port = wire::be16(l4[0]);
        p.destination_port = wire::be16(l4[1]);
        return drop_reason::none;
    case wire::proto_mobility:
        if (length < 8) return drop_reason::ip_malformed;
        p.source_port = wire::be16(l4[2]);
        return drop_reason::none;
    case wire::proto_gre:
        return parse_gre(p, l4, length);
    default:
        return drop_reason::none;
    }
}

/// Ports, or what ipsec::flow has in their place.
template <std::size_t AddressLength>
drop_reason parse_l4(packet& p, const std::uint8_t* addresses, bool checksums) noexcept {
    const bool tcp = p.protocol == wire::proto_tcp;
    if (!tcp && p.protocol != wire::proto_udp) {
        p.source_port = p.destination_port = {};
        return p.protocol == wire::proto_esp ? drop_reason::none : parse_rare_l4(p);
    }
    const std::uint8_t* l4 = p.data + p.l4_offset;
    const std::uint32_t length = p.length - p.l4_offset;
    if (length < 8) [[unlikely]]
        return drop_reason::ip_malformed;
    p.source_port = wire::load<wire::be16>(l4);
    p.destination_port = wire::load<wire::be16>(l4 + 2);
    if (!checksums || (p.flags & packet_flag::l4_sum_done) != 0) return drop_reason::none;
    if (!tcp)
        complete_field<AddressLength>(p, addresses, checksum_at_udp);
    else if (length >= checksum_at_tcp + 2)
        complete_field<AddressLength>(p, addresses, checksum_at_tcp);
    return drop_reason::none;
}

/// Neither for the machine nor made by it, and the machine's stack has not let it pass.
bool passes_through(const packet& p) noexcept {
    return p.next->kind != adjacency_kind::local &&
           (p.flags & (packet_flag::created | packet_flag::from_stack)) == 0;
}

/// Whether an address lies in 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 or is the broadcast.
bool is_confined_v4(const std::uint8_t* address) noexcept {
    const std::uint8_t first = address[0];
    return first == 0 || first == 127 || (first >= 224 && first < 240) ||
           wire::load<std::uint32_t>(address) == 0xffffffff;
}

/// Whether an address is :: or ::1, or lies in fe80::/10 or ff00::/8.
bool is_confined_v6(const std::uint8_t* address) noexcept {
    if (address[0] == 0xff || (address[0] == 0xfe && (address[1] & 0xc0) == 0x80)) return true;
    return std::all_of(address, address + 15, [](std::uint8_t b) { return b == 0; }) &&
           address[15] <= 1;
}

/// Whether no router forwards the packet.
bool must_stay_v4(const packet& p) noexcept {
    const std::uint8_t* addresses = p.data + offsetof(wire::ipv4_header, source);
    return passes_through(p) && (is_confined_v4(addresses) || is_confined_v4(addresses + 4));
}

bool must_stay_v6(const packet& p, const std::uint8_t* source,
                  const std::uint8_t* destination) noexcept {
    return passes_through(p) && (is_confined_v6(source) || is_confined_v6(destination));
}

/// What must be right before the destination may be looked up.  `header` bytes are there.
///
/// summed   whether the device has found the header's checksum right
drop_reason open_ipv4(packet& p, unsigned header, bool summed) noexcept {
    const wire::ipv4_header& ip = p.ipv4();
    const unsigned total = ip.total_length.host();
    if (total < header || total > p.length) return drop_reason::ip_malformed;
    if (!summed && !wire::sums_to_ones(wire::checksum_add(0, p.data, header)))
        return drop_reason::ip_checksum;
    p.extend(static_cast<int>(total) - static_cast<int>(p.length)); // Ethernet padding
    p.family = family::ipv4;
    p.protocol = ip.protocol;
    p.tos = ip.tos;
    p.l4_offset = static_cast<std::uint16_t>(header);
    return drop_reason::none;
}

/// Its ports are not to be had from the packet alone.
drop_reason take_fragment(packet& p, bool from_wire) noexcept {
    p.source_port = p.destination_port = {};
    p.flags |= packet_flag::fragment;
    return from_wire ? drop_reason::fragment : drop_reason::none;
}

/// The rest, once p.next is known.
drop_reason parse_ipv4(packet& p, bool from_wire) noexcept {
    if (must_stay_v4(p)) return drop_reason::ip_scope;
    const std::uint16_t fragment = p.ipv4().fragment.host();
    if ((fragment & wire::ipv4_df) != 0) p.flags |= packet_flag::dont_fragment;
    if ((fragment & (wire::ipv4_mf | wire::ipv4_offset_mask)) != 0)
        return take_fragment(p, from_wire);
    return parse_l4<4>(p, p.data + offsetof(wire::ipv4_header, source), from_wire);
}

/// Walks the extension headers to what selectors compare.
drop_reason find_upper_layer(packet& p) noexcept {
    std::uint8_t next = p.ipv6().next_header;
    std::uint32_t at = sizeof(wire::ipv6_header);
    for (unsigned i = 0; i < max_extension_headers; ++i) {
        switch (next) {
        case wire::proto_hopopts:
        case wire::proto_routing:
        case wire::proto_dstopts:
            if (p.length < at + 8) return drop_reason::ip_malformed;
            next = p.data[at];
            at += (p.data[at + 1] + 1u) * 8u;
            if (at > p.length) return drop_reason::ip_malformed;
            continue;
        case wire::proto_fragment:
            if (p.length < at + fragment_header_length) return drop_reason::ip_malformed;
            p.protocol = p.data[at];
            p.l4_offset = static_cast<std::uint16_t>(at + fragment_header_length);
            return drop_reason::fragment;
        default:
            p.protocol = next;
            p.l4_offset = static_cast<std::uint16_t>(at);
            return drop_reason::none;
        }
    }
    return drop_reason::ip_malformed;
}

drop_reason open_ipv6(packet& p) noexcept {
    if (p.length < sizeof(wire::ipv6_header)) return drop_reason::ip_malformed;
    const wire::ipv6_header& ip = p.ipv6();
    const unsigned total = sizeof ip + ip.payload_length.host();
    if (total > p.length) return drop_reason::ip_malformed;
    p.extend(static_cast<int>(total) - static_cast<int>(p.length));
    p.family = family::ipv6;
    p.tos = static_cast<std::uint8_t>(ip.version_class_flow.host() >> 20);
    p.flags |= packet_flag::dont_fragment;
    return drop_reason::none;
}

drop_reason parse_ipv6(packet& p, bool from_wire) noexcept {
    const wire::ipv6_header& ip = p.ipv6();
    if (must_stay_v6(p, ip.source.data(), ip.destination.data())) return drop_reason::ip_scope;
    if (const drop_reason why = find_upper_layer(p); why != drop_reason::none)
        return why == drop_reason::fragment ? take_fragment(p, from_wire) : why;
    return parse_l4<16>(p, ip.source.data(), from_wire);
}

/// Clears the flags that parsing sets.  Returns whether the device has found the IPv4 header's
/// checksum right: that is not kept, it would be taken for the inner header's.
bool reset_flags(packet& p) noexcept {
    const bool summed = (p.flags & packet_flag::ip_sum_good) != 0;
    p.flags &= packet_flag::created | packet_flag::l4_sum_done | packet_flag::from_stack;
    return summed;
}

drop_reason open_ip(packet& p) noexcept {
    const bool summed = reset_flags(p);
    if (p.length == 0) return drop_reason::ip_malformed;
    const unsigned version = p.data[0] >> 4, words = p.data[0] & 0x0f;
    if (version == 6) return open_ipv6(p);
    if (version != 4 || words < ipv4_words || p.length < words * 4)
        return drop_reason::ip_malformed;
    return open_ipv4(p, words * 4, summed);
}

/// Bytes   of an address
template <std::size_t Bytes>
const std::uint8_t* destination_of(const packet& p) noexcept {
    return p.data + (Bytes == 4 ? offsetof(wire::ipv4_header, destination)
                                : offsetof(wire::ipv6_header, destination));
}

/// As parse_routed(), to one of several hops.
template <std::size_t Bytes>
drop_reason parse_spread(packet& p, const hop_group& to, bool from_wire) noexcept {
    p.next = &to.choose(0);
    const drop_reason why = Bytes == 4 ? parse_ipv4(p, from_wire) : parse_ipv6(p, from_wire);
    if (why == drop_reason::none) p.next = &to.choose(flow_hash_of(p));
    return why;
}

/// The rest of a packet that open_ip() took, by what its destination leads to.
template <std::size_t Bytes>
drop_reason parse_routed(packet& p, route_target to, bool from_wire) noexcept {
    if (to.is_group()) return parse_spread<Bytes>(p, to.group(), from_wire);
    p.next = &to.only();
    if (p.next->kind == adjacency_kind::local) p.flags |= packet_flag::for_machine;
    return Bytes == 4 ? parse_ipv4(p, from_wire) : parse_ipv6(p, from_wire);
}

template <std::size_t Bytes>
drop_reason parse_opened(packet& p, const fib& routes, bool from_wire) noexcept {
    const route_target to =
        routes.find<Bytes>(routes.vrf_at(p.interface), destination_of<Bytes>(p));
    return parse_routed<Bytes>(p, to, from_wire);
}

bool is_ip(std::uint16_t type) noexcept {
    return type == wire::ethertype_ipv4 || type == wire::ethertype_ipv6;
}

/// The IP packet behind `l2` bytes of Ethernet.
void strip(packet& p, std::uint32_t l2) noexcept {
    p.pull(static_cast<int>(l2));
    p.l2_length = static_cast<std::uint8_t>(l2);
}

/// The IP packet behind tags, and the interface they name.  A tag of VID 0 carries a priority
/// alone.
drop_reason strip_tags(packet& p, const fib& routes, std::uint16_t type) noexcept {
    vlan_tags tags;
    std::uint32_t at = sizeof(wire::ethernet_header);
    for (unsigned n = 0; type == wire::ethertype_8021q || type == wire::ethertype_8021ad; ++n) {
        if (n == max_tags || p.length < at + vlan_tags::tag_bytes + 1)
            return drop_reason::frame_malformed;
        const std::uint8_t* const tag = p.data + at - 2; // TPID, TCI; the type follows
        if ((wire::load<wire::be16>(tag + 2).host() & vid_mask) != 0 && !tags.push(tag))
            return drop_reason::vlan_unknown;
        at += vlan_tags::tag_bytes;
        type = wire::load<wire::be16>(p.data + at - 2).host();
    }
    if (!is_ip(type)) return drop_reason::frame_not_ip;
    if (tags.length != 0) {
        p.interface = routes.interfaces().find(p.port, tags);
        if (p.interface == interface_table::none) return drop_reason::vlan_unknown;
    }
    strip(p, at);
    return drop_reason::none;
}

/// The IP packet behind an Ethernet header.
drop_reason strip_ethernet(packet& p, const fib& routes) noexcept {
    if (p.length < sizeof(wire::ethernet_header) + 1) return drop_reason::frame_malformed;
    const auto type = wire::load<wire::be16>(p.data + offsetof(wire::ethernet_header, type)).host();
    if (!is_ip(type)) return strip_tags(p, routes, type);
    strip(p, sizeof(wire::ethernet_header));
    return drop_reason::none;
}

/// As open_plain(), of a frame.  Those with tags are not plain.
[[gnu::always_inline]] inline bool open_plain_frame(packet& p, bool ethernet) noexcept {
    if (!ethernet) return open_plain(p, 0, true);
    constexpr std::uint32_t l2 = sizeof(wire::ethernet_header);
    if (p.length < l2 + plain::least ||
        wire::load<wire::be16>(p.data + offsetof(wire::ethernet_header, type)) !=
            wire::be16(wire::ethertype_ipv4) ||
        !open_plain(p, l2, true)) [[unlikely]]
        return false;
    p.l2_length = l2;
    return true;
}

/// What open_plain_frame() leaves alone, to where its destination may be looked up.
[[gnu::noinline]] drop_reason open_frame(packet& p, const fib& routes, bool ethernet) noexcept {
    const drop_reason why = ethernet ? strip_ethernet(p, routes) : drop_reason::none;
    return why == drop_reason::none ? open_ip(p) : why;
}

/// The same, and the rest.
[[gnu::noinline]] drop_reason parse_frame(packet& p, const fib& routes, bool ethernet) noexcept {
    const drop_reason why = ethernet ? strip_ethernet(p, routes) : drop_reason::none;
    return why == drop_reason::none ? parse_ip(p, routes, true) : why;
}

/// A packet for the machine.
[[gnu::always_inline]] inline bool is_esp(const packet& p, const tables& shared) noexcept {
    return p.protocol == wire::proto_esp || is_esp_in_udp(p, shared);
}

/// Of a fragment; the first one names the port.
bool may_be_esp(packet& p, const tables& shared) noexcept {
    if ((p.flags & packet_flag::for_machine) == 0) return false;
    if (p.protocol == wire::proto_esp) return true;
    const bool later =
        p.family == family::ipv4
            ? (p.ipv4().fragment.host() & wire::ipv4_offset_mask) != 0
            : (wire::load<wire::be16>(p.data + p.l4_offset - 6).host() & 0xfff8) != 0;
    return p.protocol == wire::proto_udp &&
           (later || (read_ports(p) == drop_reason::none && is_esp_in_udp(p, shared)));
}

/// Where parse() puts packets.
struct sorted {
    packet_list& esp;
    packet_list& clear;

    [[gnu::always_inline]] void take(stage& s, packet& p) const noexcept {
        if ((p.flags & packet_flag::for_machine) != 0)
            take_for_machine(s, p);
        else
            clear.push(p);
    }
    /// What is not plain, or to be dropped.
    [[gnu::noinline]] void take(stage& s, packet& p, drop_reason why) const noexcept {
        if (why == drop_reason::none)
            take(s, p);
        else
            refuse(s, p, why);
    }

  private:
    [[gnu::always_inline]] void take_for_machine(stage& s, packet& p) const noexcept {
        if (is_esp(p, s.shared)) {
            esp.push(p);
            return;
        }
        if (p.protocol == wire::proto_icmp || p.protocol == wire::proto_icmpv6)
            hear_path_report(s, p);
        clear.push(p);
    }

    /// A fragment of ESP may be the one that makes its packet whole.
    void refuse(stage& s, packet& p, drop_reason why) const noexcept {
        if (why != drop_reason::fragment || s.fragments == nullptr || !may_be_esp(p, s.shared)) {
            s.drop(p, why);
            return;
        }
        packet* const whole = s.fragments->take(s, p);
        if (whole == nullptr) return;
        why = parse_ip(*whole, s.routes, true);
        if (why == drop_reason::none && is_esp(*whole, s.shared))
            esp.push(*whole);
        else
            s.drop(*whole, why == drop_reason::none ? drop_reason::fragment : why);
    }
};

/// While the tables lie in the near caches: one packet after the other.
void parse_each(stage& s, std::span<packet> frames, bool ethernet, const sorted& to) noexcept {
    const fib::reader_v4 routes(s.routes);
    for (packet& p : frames) {
        p.interface = p.port;
        if (!open_plain_frame(p, ethernet)) [[unlikely]] {
            to.take(s, p, parse_frame(p, s.routes, ethernet));
            continue;
        }
        route_plain(p, routes.find(p.interface, destination_of<4>(p)));
        to.take(s, p);
    }
}

/// Packets whose destinations are to be looked up together, in order.
struct lookups {
    struct table {
        family fam;
        std::uint16_t vrf;
        friend bool operator==(const table&, const table&) = default;
    };
    std::array<packet*, max_burst> packets;
    std::array<bool, max_burst> plain; ///< all but the route is known
    std::array<const std::uint8_t*, max_burst> destinations;
    std::array<table, max_burst> tables;
    std::array<route_target, max_burst> targets;
    unsigned count = 0;

    void add(packet& p, bool is_plain, std::uint16_t vrf) noexcept {
        packets[count] = &p;
        plain[count] = is_plain;
        destinations[count] =
            p.family == family::ipv4 ? destination_of<4>(p) : destination_of<16>(p);
        tables[count++] = {p.family, vrf};
    }
    /// Nearly always one run takes all.
    void resolve(const fib& routes) noexcept {
        for (unsigned from = 0, to; from < count; from = to) {
            to = from + 1;
            while (to < count && tables[to] == tables[from])
                ++to;
            const std::span run(&destinations[from], to - from);
            if (tables[from].fam == family::ipv4)
                routes.find_v4(tables[from].vrf, run, &targets[from]);
            else
                routes.find_v6(tables[from].vrf, run, &targets[from]);
        }
    }
};

/// Where they do not, all lookups wait for memory at once:
///
/// 1. Strip the frames and check the IP headers.
/// 2. Look up all destinations.
/// 3. Check what depends on the route, read the ports, sort.
void parse_together(stage& s, std::span<packet> frames, bool ethernet, const sorted& to) noexcept {
    lookups whole;
    for (packet& p : frames) {
        p.interface = p.port;
        const bool plain = open_plain_frame(p, ethernet);
        const drop_reason why = plain ? drop_reason::none : open_frame(p, s.routes, ethernet);
        if (why == drop_reason::none)
            whole.add(p, plain, s.routes.vrf_at(p.interface));
        else
            s.drop(p, why);
    }
    whole.resolve(s.routes);
    for (unsigned i = 0; i < whole.count; ++i) {
        packet& p = *whole.packets[i];
        if (whole.plain[i]) [[likely]] {
            route_plain(p, whole.targets[i]);
            to.take(s, p);
        } else {
            to.take(s, p,
                    p.family == family::ipv4 ? parse_routed<4>(p, whole.targets[i], true)
                                             : parse_routed<16>(p, whole.targets[i], true));
        }
    }
}

} // namespace

drop_reason parse_ip(packet& p, const fib& routes, bool from_wire) noexcept {
    if (const drop_reason why = open_ip(p); why != drop_reason::none) return why;
    return p.family == family::ipv4 ? parse_opened<4>(p, routes, from_wire)
                                    : parse_opened<16>(p, routes, from_wire);
}

std::uint32_t flow_hash_of(const packet& p) noexcept {
    const bool v4 = p.family == family::ipv4;
    const std::uint8_t* at =
        p.data + (v4 ? offsetof(wire::ipv4_header, source) : offsetof(wire::ipv6_header, source));
    std::uint64_t h = p.protocol;
    for (unsigned i = 0; i < (v4 ? 8u : 32u); i += 8)
        h = _mm_crc32_u64(h, wire::load<std::uint64_t>(at + i));
    std::uint32_t upper = p.source_port.network() | std::uint32_t{p.destination_port.network()}
                                                        << 16;
    if (p.protocol == wire::proto_esp && p.length >= p.l4_offset + sizeof upper)
        upper = wire::load<std::uint32_t>(p.data + p.l4_offset); // the SPI
    return spread_hash(_mm_crc32_u32(static_cast<std::uint32_t>(h), upper));
}

drop_reason read_ports(packet& p) noexcept {
    return p.family == family::ipv4 ? parse_l4<4>(p, nullptr, false)
                                    : parse_l4<16>(p, nullptr, false);
}

void complete_checksum(const packet& ip) noexcept {
    packet p = ip;
    if (open_ip(p) != drop_reason::none) return;
    if (p.family == family::ipv4) {
        const std::uint16_t fragment = p.ipv4().fragment.host();
        if ((fragment & (wire::ipv4_mf | wire::ipv4_offset_mask)) != 0) return;
        (void)parse_l4<4>(p, p.data + offsetof(wire::ipv4_header, source), true);
    } else if (find_upper_layer(p) == drop_reason::none) {
        (void)parse_l4<16>(p, p.ipv6().source.data(), true);
    }
}

bool is_esp_in_udp(const packet& p, const tables& shared) noexcept {
    if (p.protocol != wire::proto_udp || !shared.is_encap_port(p.destination_port)) return false;
    if (p.length < p.l4_offset + sizeof(wire::udp_header) + sizeof(wire::esp_header)) return false;
    const auto spi = wire::load<wire::be32>(p.data + p.l4_offset + sizeof(wire::udp_header));
    return spi != wire::be32();
}

void parse_own(stage& s, std::span<packet> packets, packet_list& clear) noexcept {
    for (packet& p : packets) {
        const adjacency* const way_out = p.next;
        p.interface = s.routes.interfaces().find_tunnel(way_out->if_id); // none: of no VRF
        if (const drop_reason why = parse_ip(p, s.routes, false); why != drop_reason::none) {
            s.drop(p, why);
            continue;
        }
        p.next = way_out;
        p.flags =
            static_cast<std::uint16_t>((p.flags & ~packet_flag::for_machine) | packet_flag::own);
        clear.push(p);
    }
}

void parse_from_stack(stage& s, std::span<packet> packets, packet_list& clear) noexcept {
    ipsec::address asked; // a burst seldom has more than one source
    bool is_own = false;
    for (packet& p : packets) {
        p.interface = p.port;
        p.flags |= packet_flag::from_stack;
        if (const drop_reason why = parse_ip(p, s.routes, false); why != drop_reason::none) {
            s.drop(p, why);
            continue;
        }
        if (const ipsec::address source = source_of(p); source != asked) {
            asked = source;
            is_own = s.routes.lookup(source).kind == adjacency_kind::local;
        }
        if (is_own) p.flags |= packet_flag::own;
        clear.push(p);
    }
}

void parse(stage& s, std::span<packet> frames, bool ethernet, packet_list& esp,
           packet_list& clear) noexcept {
    for (const packet& p : frames)
        __builtin_prefetch(p.data);
    if (s.routes.is_near())
        parse_each(s, frames, ethernet, {esp, clear});
    else
        parse_together(s, frames, ethernet, {esp, clear});
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "fastpath/coalesce.h"

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstring>
#include <nmmintrin.h>
#include <optional>

#include "lib/wire/checksum.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

namespace {

constexpr std::uint8_t plain_ipv4 = 0x45; ///< version and length, without options
constexpr std::uint16_t right_sum = 0xffff;

bool is_extension(std::uint8_t next_header) noexcept {
    switch (next_header) {
    case wire::proto_hopopts:
    case wire::proto_routing:
    case wire::proto_fragment:
    case wire::proto_dstopts:
    case wire::proto_ah:
    case wire::proto_mobility:
        return true;
    default:
        return false;
    }
}

/// What is behind the IP header; nothing where that cannot be told for sure.
std::optional<std::uint8_t> behind_ipv4(const packet& p) noexcept {
    if (p.length < sizeof(wire::ipv4_header)) return std::nullopt;
    const wire::ipv4_header& ip = p.ipv4();
    if (ip.protocol != wire::proto_tcp && ip.protocol != wire::proto_udp) return ip.protocol;
    const bool whole = (ip.fragment.host() & (wire::ipv4_mf | wire::ipv4_offset_mask)) == 0;
    if (ip.version_ihl != plain_ipv4 || ip.total_length.host() != p.length || !whole ||
        wire::checksum_fold(wire::checksum_add(0, &ip, sizeof ip)) != right_sum)
        return std::nullopt;
    return ip.protocol;
}

std::optional<std::uint8_t> behind_ipv6(const packet& p) noexcept {
    if (p.length < sizeof(wire::ipv6_header)) return std::nullopt;
    const wire::ipv6_header& ip = p.ipv6();
    if (sizeof ip + ip.payload_length.host() != p.length || is_extension(ip.next_header))
        return std::nullopt;
    return ip.next_header;
}

std::uint32_t hash_words(std::uint32_t hash, std::span<const std::uint8_t> words) noexcept {
    for (std::size_t i = 0; i + 8 <= words.size(); i += 8)
        hash =
            static_cast<std::uint32_t>(_mm_crc32_u64(hash, wire::load<std::uint64_t>(&words[i])));
    return hash;
}

/// Source and destination, one behind the other.
std::span<const std::uint8_t> addresses_of(const packet& p, bool v4) noexcept {
    return v4 ? std::span<const std::uint8_t>(p.data + offsetof(wire::ipv4_header, source), 8)
              : std::span<const std::uint8_t>(p.data + offsetof(wire::ipv6_header, source), 32);
}

/// Of the pseudo-header.  length   from the TCP or UDP header on
std::uint64_t pseudo_sum(const packet& p, bool v4, bool tcp, std::uint32_t length) noexcept {
    const auto addresses = addresses_of(p, v4);
    const std::size_t each = addresses.size() / 2;
    return wire::checksum_pseudo(addresses.data(), addresses.data() + each, each,
                                 tcp ? wire::proto_tcp : wire::proto_udp, length);
}

bool equal(const std::uint8_t* a, const std::uint8_t* b, std::size_t from, std::size_t end) {
    return std::memcmp(a + from, b + from, end - from) == 0;
}

/// But for length, ID and checksum.
bool continues_ipv4(const packet& first, const packet& p, unsigned packets) noexcept {
    const wire::ipv4_header &a = first.ipv4(), &b = p.ipv4();
    if (a.tos != b.tos || a.ttl != b.ttl || a.protocol != b.protocol || a.fragment != b.fragment ||
        a.source != b.source || a.destination != b.destination)
        return false;
    return (a.fragment.host() & wire::ipv4_df) != 0 ||
           b.id.host() == static_cast<std::uint16_t>(a.id.host() + packets);
}

/// But for the length.
bool continues_ipv6(const packet& first, const packet& p) noexcept {
    return equal(first.data, p.data, 0, offsetof(wire::ipv6_header, payload_length)) &&
           equal(first.data, p.data, offsetof(wire::ipv6_header, next_header),
                 sizeof(wire::ipv6_header));
}

/// But for the sequence number, PSH and the checksum.  The lengths are equal.
///
/// sent   bytes before `tcp`, since the first
bool continues_tcp(const std::uint8_t* first, const std::uint8_t* tcp, std::size_t length,
                   std::uint32_t sent) noexcept {
    const auto &a = *reinterpret_cast<const wire::tcp_header*>(first),
               &b = *reinterpret_cast<const wire::tcp_header*>(tcp);
    return a.source == b.source && a.destination == b.destination &&
           b.sequence.host() == a.sequence.host() + sent &&
           a.acknowledgement == b.acknowledgement && a.window == b.window && a.urgent == b.urgent &&
           equal(first, tcp, sizeof a, length);
}

bool continues_udp(const std::uint8_t* first, const std::uint8_t* udp) noexcept {
    return equal(first, udp, 0, offsetof(wire::udp_header, length));
}

/// length   of the packet from now on
void write_ip(std::uint8_t* ip, bool v4, std::uint32_t length) noexcept {
    if (!v4) {
        reinterpret_cast<wire::ipv6_header*>(ip)->payload_length.set(
            static_cast<std::uint16_t>(length - sizeof(wire::ipv6_header)));
        return;
    }
    auto& header = *reinterpret_cast<wire::ipv4_header*>(ip);
    header.total_length.set(static_cast<std::uint16_t>(length));
    header.checksum = {};
    header.checksum = wire::checksum_finish(wire::checksum_add(0, ip, sizeof header));
}

} // namespace

void coalescer::start(std::span<packet* const> packets) noexcept {
    assert(packets.size() <= max_burst);
    packets_ = packets;
    count_ = given_ = 0;
    newest_.fill(nobody);
    for (std::size_t i = 0; i < packets.size(); ++i)
        sort(look_at(*packets[i]), static_cast<std::uint8_t>(i));
}

/// Into a group of its own, or the newest of its flow.  Groups go up in the order of their first
/// packets, so a flow keeps its order as long as nothing joins a group but its newest.
void coalescer::sort(const candidate& c, std::uint8_t index) noexcept {
    std::uint8_t& newest = newest_[c.flow % newest_.size()];
    bool open = c.is == kind::mergeable;
    if (open && newest != nobody && continues(groups_[newest], c)) {
        group& g = groups_[newest];
        open = is_intact(c);
        g.verified = g.verified || is_intact(g.first);
        if (open && g.verified) {
            append(g, c, index);
            return;
        }
    }
    if (c.is == kind::unclear)
        newest_.fill(nobody);
    else if (c.is != kind::foreign)
        newest = count_;
    add_group(c, index, open);
}

void coalescer::add_group(const candidate& c, std::uint8_t index, bool open) noexcept {
    group& g = groups_[count_++];
    g.first = c;
    g.bytes = c.from->length;
    g.head = g.tail = index;
    g.packets = 1;
    g.open = open && !c.pushed;
    g.verified = false;
}

void coalescer::append(group& g, const candidate& c, std::uint8_t index) noexcept {
    behind_[g.tail] = index;
    g.tail = index;
    ++g.packets;
    g.bytes += c.payload();
    g.first.pushed = c.pushed;
    g.open = !c.pushed && c.payload() == g.first.payload();
}

/// Whether a packet, if its checksum is right, may stand at the end of a group.
bool coalescer::continues(const group& g, const candidate& c) noexcept {
    const candidate& f = g.first;
    if (!g.open || f.v4 != c.v4 || f.tcp != c.tcp || f.headers != c.headers) return false;
    if (c.payload() > f.payload() || g.bytes + c.payload() > most_bytes) return false;
    if (f.v4 ? !continues_ipv4(*f.from, *c.from, g.packets) : !continues_ipv6(*f.from, *c.from))
        return false;
    return f.tcp
               ? continues_tcp(f.l4_header(), c.l4_header(), f.headers - f.l4, g.bytes - f.headers)
               : continues_udp(f.l4_header(), c.l4_header());
}

bool coalescer::is_intact(const candidate& c) noexcept {
    const std::uint32_t length = c.from->length - c.l4;
    const std::uint64_t pseudo = pseudo_sum(*c.from, c.v4, c.tcp, length);
    return wire::checksum_fold(wire::checksum_add(pseudo, c.l4_header(), length)) == right_sum;
}

auto coalescer::look_at(const packet& p) const noexcept -> candidate {
    candidate c;
    c.from = &p;
    const unsigned version = p.length == 0 ? 0 : p.data[0] >> 4;
    c.v4 = version == 4;
    if (!c.v4 && version != 6) return c;
    const std::optional<std::uint8_t> protocol = c.v4 ? behind_ipv4(p) : behind_ipv6(p);
    if (!protocol) return c;
    c.l4 = c.v4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
    c.tcp = *protocol == wire::proto_tcp;
    if (!c.tcp && *protocol != wire::proto_udp) {
        c.is = kind::foreign;
        return c;
    }
    const std::uint32_t least = c.tcp ? sizeof(wire::tcp_header) : sizeof(wire::udp_header);
    if (p.length < c.l4 + least) return c;
    const auto ports = wire::load<std::uint32_t>(c.l4_header());
    c.flow = hash_words(ports, addresses_of(p, c.v4));
    c.is = kind::alone;
    if (c.tcp)
        look_at_tcp(c);
    else
        look_at_udp(c);
    return c;
}

void coalescer::look_at_tcp(candidate& c) const noexcept {
    const auto& tcp = *reinterpret_cast<const wire::tcp_header*>(c.l4_header());
    c.pushed = (tcp.flags & wire::tcp_psh) != 0;
    c.headers = static_cast<std::uint8_t>(c.l4 + (tcp.offset >> 4) * 4);
    const bool flags_fit = (tcp.flags & ~wire::tcp_psh) == wire::tcp_ack && (tcp.offset & 0xf) == 0;
    if (can_.tcp && flags_fit && c.headers >= c.l4 + sizeof tcp && c.headers < c.from->length)
        c.is = kind::mergeable;
}

void coalescer::look_at_udp(candidate& c) const noexcept {
    const auto& udp = *reinterpret_cast<const wire::udp_header*>(c.l4_header());
    c.headers = static_cast<std::uint8_t>(c.l4 + sizeof udp);
    if (can_.udp && udp.checksum != wire::be16() && udp.length.host() == c.from->length - c.l4 &&
        c.headers < c.from->length)
        c.is = kind::mergeable;
}

auto coalescer::next() noexcept -> batch {
    const group& g = groups_[given_++];
    std::uint8_t index = g.head;
    const std::size_t written = g.packets == 1 ? 0 : write_headers(g);
    if (written == 0) wire::store(headers_.data(), offload_header{});
    pieces_[0] = {headers_.data(), sizeof(offload_header) + written};
    for (std::size_t i = 0; i < g.packets; ++i, index = behind_[index]) {
        members_[i] = packets_[index];
        pieces_[1 + i] = {members_[i]->data + written, members_[i]->length - written};
    }
    return {{pieces_.data(), 1 + std::size_t{g.packets}}, {members_.data(), g.packets}};
}

/// Of a super-packet.  Returns how many bytes, without the offload header.
std::size_t coalescer::write_headers(const group& g) noexcept {
    const candidate& f = g.first;
    std::uint8_t* const ip = headers_.data() + sizeof(offload_header);
    std::memcpy(ip, f.from->data, f.headers);
    write_ip(ip, f.v4, g.bytes);
    const std::uint32_t length = g.bytes - f.l4;
    const auto unfinished =
        wire::be16::from_network(wire::checksum_fold(pseudo_sum(*f.from, f.v4, f.tcp, length)));
    std::uint16_t field = 0;
    if (f.tcp) {
        auto& tcp = *reinterpret_cast<wire::tcp_header*>(ip + f.l4);
        if (f.pushed) tcp.flags |= wire::tcp_psh;
        tcp.checksum = unfinished;
        field = offsetof(wire::tcp_header, checksum);
    } else {
        auto& udp = *reinterpret_cast<wire::udp_header*>(ip + f.l4);
        udp.length.set(static_cast<std::uint16_t>(length));
        udp.checksum = unfinished;
        field = offsetof(wire::udp_header, checksum);
    }
    const std::uint8_t kind_of_tcp = f.v4 ? offload_header::tcp4 : offload_header::tcp6;
    wire::store(headers_.data(),
                offload_header{.flags = offload_header::needs_checksum,
                               .kind = f.tcp ? kind_of_tcp : offload_header::udp,
                               .headers = f.headers,
                               .segment_size = static_cast<std::uint16_t>(f.payload()),
                               .checksum_start = f.l4,
                               .checksum_offset = field});
    return f.headers;
}

} // namespace esplane::fastpath

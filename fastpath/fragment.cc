// SPDX-License-Identifier: Apache-2.0
#include "fastpath/fragment.h"

#include <cstring>

#include "fastpath/next_hop.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

constexpr std::uint32_t unit = 8; ///< of a fragment offset
constexpr std::uint16_t ipv6_more = 1;

/// How a packet is cut.
struct plan {
    std::uint32_t header = 0;   ///< bytes that every piece begins with
    std::uint32_t inserted = 0; ///< bytes behind them that the whole packet does not have
    std::uint32_t step = 0;     ///< bytes of payload in every piece but the last
    std::uint32_t payload = 0;
    std::uint32_t first = 0; ///< offset of the packet's own payload: it may be a fragment itself
    bool more = false;       ///< whether others follow that
    std::uint32_t id = 0;    ///< IPv6

    [[nodiscard]] std::uint32_t pieces() const noexcept { return (payload + step - 1) / step; }
};

/// RFC 8200 section 4.5: what routers on the way look at.
std::uint32_t per_hop_headers(const packet& p) noexcept {
    std::uint32_t at = sizeof(wire::ipv6_header);
    std::uint32_t end = at;
    std::uint8_t next = p.ipv6().next_header;
    while (next == wire::proto_hopopts || next == wire::proto_routing ||
           next == wire::proto_dstopts) {
        if (at + unit > p.length) break;
        const bool ends_here = next != wire::proto_dstopts;
        next = p.data[at];
        at += (p.data[at + 1] + 1u) * unit;
        if (ends_here) end = at;
    }
    return std::min(end, p.length);
}

plan plan_for(const packet& p) noexcept {
    plan c;
    if (p.family == family::ipv4) {
        const std::uint16_t fragment = p.ipv4().fragment.host();
        c.header = (p.ipv4().version_ihl & 0x0fu) * 4u;
        c.first = (fragment & wire::ipv4_offset_mask) * unit;
        c.more = (fragment & wire::ipv4_mf) != 0;
    } else {
        c.header = per_hop_headers(p);
        c.inserted = sizeof(ipv6_fragment_header);
        c.id = wire::load<wire::be32>(p.data + p.length - sizeof(wire::be32)).host(); // of the ICV
    }
    c.payload = p.length - c.header;
    const std::uint32_t around = c.header + c.inserted;
    c.step = p.split_at >= around + unit ? (p.split_at - around) & ~(unit - 1) : 0;
    return c;
}

/// What says where in its packet a piece belongs, in front of `length` bytes of payload.
void write_header_v4(packet& piece, const plan& c, std::uint32_t offset, bool last) noexcept {
    wire::ipv4_header& ip = piece.ipv4();
    ip.total_length.set(static_cast<std::uint16_t>(piece.length));
    const std::uint32_t more = !last || c.more ? std::uint32_t{wire::ipv4_mf} : 0;
    ip.fragment.set(static_cast<std::uint16_t>(more | (c.first + offset) / unit));
    ip.checksum = {};
    ip.checksum = wire::checksum_finish(wire::checksum_add(0, piece.data, c.header));
}

/// The field of the last header before the fragment header that names what follows.
std::uint8_t& last_next_header(packet& piece, const plan& c) noexcept {
    std::uint8_t* field = &piece.ipv6().next_header;
    for (std::uint32_t at = sizeof(wire::ipv6_header); at < c.header;
         at += (piece.data[at + 1] + 1u) * unit)
        field = piece.data + at;
    return *field;
}

void write_header_v6(packet& piece, const plan& c, std::uint32_t offset, bool last) noexcept {
    piece.ipv6().payload_length.set(
        static_cast<std::uint16_t>(piece.length - sizeof(wire::ipv6_header)));
    std::uint8_t& next = last_next_header(piece, c);
    ipv6_fragment_header f{};
    f.next_header = next;
    f.offset.set(static_cast<std::uint16_t>(offset | (last ? 0 : ipv6_more)));
    f.id.set(c.id);
    wire::store(piece.data + c.header, f);
    next = wire::proto_fragment;
}

void write_header(packet& piece, const plan& c, std::uint32_t offset, bool last) noexcept {
    piece.family == family::ipv4 ? write_header_v4(piece, c, offset, last)
                                 : write_header_v6(piece, c, offset, last);
}

/// Leaves where `p` leaves.
void resemble(packet& piece, const packet& p) noexcept {
    piece.flags = p.flags;
    piece.port = p.port;
    piece.interface = p.interface;
    piece.family = p.family;
    piece.protocol = p.protocol;
    piece.tos = p.tos;
    piece.next = p.next;
    if ((p.flags & packet_flag::marked) != 0) piece.put_mark(p.mark());
}

/// The piece of `p` from `offset` on, in a buffer of its own.
void copy_piece(packet& piece, const packet& p, const plan& c, std::uint32_t offset) noexcept {
    const std::uint32_t length = std::min(c.step, c.payload - offset);
    resemble(piece, p);
    piece.extend(static_cast<int>(c.header + c.inserted + length));
    std::memcpy(piece.data, p.data, c.header);
    std::memcpy(piece.data + c.header + c.inserted, p.data + c.header + offset, length);
    write_header(piece, c, offset, offset + length == c.payload);
}

/// The first piece, where it lies.
void shorten(packet& p, const plan& c) noexcept {
    p.extend(-static_cast<int>(c.payload - c.step));
    p.pull(-static_cast<int>(c.inserted));
    std::memmove(p.data, p.data + c.inserted, c.header);
    write_header(p, c, 0, false);
}

/// Buffers for all pieces but the first, or none.
bool take_buffers(stage& s, std::span<packet> pieces, std::uint32_t room) noexcept {
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        pieces[i] = packet{};
        if (s.buffers.allocate(pieces[i], room)) continue;
        for (packet& taken : pieces.first(i)) {
            packet* const one[] = {&taken};
            taken.owner->release(one);
        }
        return false;
    }
    return true;
}

} // namespace

bool fragment(stage& s, packet& p, packet_list& pieces) noexcept {
    const plan c = plan_for(p);
    if (c.step == 0 || c.header >= p.length) return false;
    if (p.headroom < c.inserted + ethernet_length(*p.next)) return false;
    const std::uint32_t more = c.pieces() - 1;
    if (pieces.room() <= more || s.pieces + more > s.scratch.pieces.size()) return false;
    const auto others = std::span(s.scratch.pieces).subspan(s.pieces, more);
    if (!take_buffers(s, others, c.header + c.inserted + c.step)) return false;
    s.pieces += more;
    p.flags &= static_cast<std::uint16_t>(~packet_flag::split);
    for (std::uint32_t i = 0; i < more; ++i)
        copy_piece(others[i], p, c, (i + 1) * c.step);
    if (more != 0) shorten(p, c);
    pieces.push(p);
    for (packet& piece : others)
        pieces.push(piece);
    s.counters.created.add(more);
    s.counters.fragmented.add(1);
    return true;
}

} // namespace esplane::fastpath

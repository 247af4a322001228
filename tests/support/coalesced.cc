// SPDX-License-Identifier: Apache-2.0
#include "tests/support/coalesced.h"

#include <algorithm>
#include <cstring>

#include "fastpath/segment.h"
#include "lib/wire/checksum.h"
#include "lib/wire/headers.h"

namespace esplane::tests {

namespace {

using fastpath::coalescer;
using fastpath::packet;

bytes content_of(const packet& p) {
    return {p.data, p.data + p.length};
}

/// TCP or UDP straight behind IP; offsets 0 where it is something else.
struct layout {
    std::size_t l4 = 0;
    std::size_t addresses = 0, addresses_length = 0;
    std::uint8_t protocol = 0;
};
layout layout_of(const bytes& b) {
    layout l;
    if (b.size() >= 20 && b[0] == 0x45)
        l = {20, 12, 8, b[9]};
    else if (b.size() >= 40 && b[0] >> 4 == 6)
        l = {40, 8, 32, b[6]};
    const std::size_t least = l.protocol == wire::proto_tcp ? 20 : 8;
    const bool known = l.protocol == wire::proto_tcp || l.protocol == wire::proto_udp;
    return known && b.size() >= l.l4 + least ? l : layout{};
}

std::size_t checksum_at(const layout& l) {
    return l.l4 + (l.protocol == wire::proto_tcp ? 16 : 6);
}

/// 0 where the checksum in it is right.
wire::be16 sum_of(const bytes& b, const layout& l) {
    const std::size_t half = l.addresses_length / 2;
    const std::uint64_t pseudo =
        wire::checksum_pseudo(&b[l.addresses], &b[l.addresses + half], half, l.protocol,
                              static_cast<std::uint32_t>(b.size() - l.l4));
    return wire::checksum_finish(wire::checksum_add(pseudo, &b[l.l4], b.size() - l.l4));
}

/// Without what merging may change: ID, and IP's checksum with it, of IPv4 with DF.
bytes without_id(bytes b) {
    if (b.size() >= 20 && b[0] >> 4 == 4 && (b[6] & 0x40) != 0)
        for (const std::size_t at : {4, 5, 10, 11})
            b[at] = 0;
    return b;
}

/// Whether what follows IP can be told from the packet alone.
bool is_plain(const bytes& b) {
    const layout l = layout_of(b);
    if (l.l4 == 20) return wire::load<wire::be16>(&b[2]).host() == b.size() && (b[6] & 0x3f) == 0;
    return l.l4 == 40 && wire::load<wire::be16>(&b[4]).host() + 40u == b.size();
}

/// TCP, UDP, or IPv6 with extension headers, in which either may be.
bool may_be_of_flow(const bytes& b) {
    const std::uint8_t next = b[0] >> 4 == 4 ? b[9] : b[6];
    const bool extended = next == wire::proto_hopopts || next == wire::proto_routing ||
                          next == wire::proto_fragment || next == wire::proto_dstopts;
    return next == wire::proto_tcp || next == wire::proto_udp || (b[0] >> 4 == 6 && extended);
}

/// Whether one may not overtake the other: same addresses, and nothing says that they differ.
bool same_flow(const bytes& a, const bytes& b) {
    const bool v4 = !a.empty() && a[0] >> 4 == 4;
    const std::size_t header = v4 ? 20 : 40;
    if (a.size() < header || b.size() < header || a[0] >> 4 != b[0] >> 4) return false;
    if ((!v4 && a[0] >> 4 != 6) || !may_be_of_flow(a) || !may_be_of_flow(b)) return false;
    const std::ptrdiff_t from = v4 ? 12 : 8, end = v4 ? 20 : 40;
    if (!std::equal(a.begin() + from, a.begin() + end, b.begin() + from)) return false;
    if (v4 && a[9] != b[9]) return false;
    if (!is_plain(a) || !is_plain(b)) return true;
    return layout_of(a).protocol == layout_of(b).protocol &&
           std::equal(&a[header], &a[header + 4], &b[header]);
}

std::string wrong_with_super(const written& w, std::span<packet* const> members) {
    if (w.packet.size() > coalescer::most_bytes) return "a super-packet is too long";
    bytes completed = w.packet;
    fastpath::complete_checksum(completed, w.offload);
    const layout l = layout_of(completed);
    if (l.l4 == 0 || sum_of(completed, l) != wire::be16()) return "its checksum ends up wrong";
    if (w.offload.headers + w.offload.segment_size > w.packet.size()) return "it is too short";
    fastpath::segmenter cut;
    if (!cut.start_ip(w.packet, w.offload.segment_size)) return "it cannot be cut";
    for (const packet* p : members) {
        if (cut.done()) return "it is cut into fewer packets";
        bytes segment(cut.longest());
        segment.resize(cut.next(segment.data()));
        if (without_id(segment) != without_id(content_of(*p))) return "it is cut into others";
    }
    return cut.done() ? "" : "it is cut into more packets";
}

std::string wrong_with_write(const written& w, std::span<packet* const> members) {
    if (members.size() > 1) return wrong_with_super(w, members);
    const fastpath::offload_header none{};
    if (std::memcmp(&w.offload, &none, sizeof none) != 0) return "one packet with an offload";
    return w.packet == content_of(*members.front()) ? "" : "one packet is not as it came";
}

written flattened(const coalescer::batch& b) {
    bytes all;
    for (const iovec& piece : b.pieces) {
        const auto* at = static_cast<const std::uint8_t*>(piece.iov_base);
        all.insert(all.end(), at, at + piece.iov_len);
    }
    written w;
    std::memcpy(&w.offload, all.data(), sizeof w.offload);
    w.packet.assign(all.begin() + sizeof w.offload, all.end());
    w.packets = b.packets.size();
    return w;
}

} // namespace

packets_at_rest::packets_at_rest(std::vector<bytes> contents)
    : contents_(std::move(contents))
    , packets_(contents_.size()) {
    for (std::size_t i = 0; i < contents_.size(); ++i) {
        packets_[i].data = contents_[i].data();
        packets_[i].length = static_cast<std::uint32_t>(contents_[i].size());
        pointers_.push_back(&packets_[i]);
    }
}

std::string wrong_with(coalescer& merging, std::span<packet* const> packets,
                       std::vector<written>* into) {
    std::vector<packet*> up;
    for (merging.start(packets); !merging.done();) {
        const coalescer::batch b = merging.next();
        const written w = flattened(b);
        if (b.packets.empty()) return "a write of nothing";
        if (const std::string wrong = wrong_with_write(w, b.packets); !wrong.empty()) return wrong;
        up.insert(up.end(), b.packets.begin(), b.packets.end());
        if (into != nullptr) into->push_back(w);
    }
    std::vector<packet*> all(packets.begin(), packets.end()), sorted = up;
    std::ranges::sort(sorted);
    std::ranges::sort(all);
    if (sorted != all) return "not each packet goes up once";
    for (std::size_t i = 0; i < up.size(); ++i)
        for (std::size_t j = i + 1; j < up.size(); ++j) // packets lie in the order they came in
            if (up[j] < up[i] && same_flow(content_of(*up[i]), content_of(*up[j])))
                return "a packet is overtaken by one of its flow";
    return {};
}

void write_checksums(bytes& packet) {
    const layout l = layout_of(packet);
    if (l.l4 == 0) return;
    if (l.l4 == 20) {
        wire::store(&packet[10], wire::be16());
        wire::store(&packet[10], wire::checksum_finish(wire::checksum_add(0, packet.data(), 20)));
    }
    wire::store(&packet[checksum_at(l)], wire::be16());
    wire::be16 sum = sum_of(packet, l);
    if (sum == wire::be16() && l.protocol == wire::proto_udp) sum = wire::be16(0xffff);
    wire::store(&packet[checksum_at(l)], sum);
}

} // namespace esplane::tests

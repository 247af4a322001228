// SPDX-License-Identifier: Apache-2.0
#include "fastpath/segment.h"

#include <algorithm>
#include <cstring>

#include "lib/wire/checksum.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

namespace {

constexpr std::uint16_t ethertype_vlan = 0x8100, ethertype_qinq = 0x88a8;
constexpr unsigned most_tags = 2;
constexpr std::uint32_t tag_length = 4;

constexpr std::uint32_t tcp_minimum = 20;
constexpr std::uint32_t tcp_sequence_at = 4, tcp_offset_at = 12, tcp_flags_at = 13;
constexpr std::uint32_t tcp_checksum_at = 16, udp_checksum_at = 6, udp_length_at = 4;
constexpr std::uint8_t tcp_fin = 0x01, tcp_psh = 0x08, tcp_cwr = 0x80;

/// Offset of what is behind Ethernet and its tags, and its type; 0 where the frame ends before.
struct behind_ethernet {
    std::uint32_t at = 0;
    std::uint16_t type = 0;
};
behind_ethernet skip_ethernet(std::span<const std::uint8_t> frame) noexcept {
    std::uint32_t type_at = sizeof(wire::ethernet_header) - 2;
    for (unsigned tags = 0; type_at + 2 <= frame.size(); ++tags, type_at += tag_length) {
        const std::uint16_t type = wire::load<wire::be16>(&frame[type_at]).host();
        if ((type != ethertype_vlan && type != ethertype_qinq) || tags == most_tags)
            return {type_at + 2, type};
    }
    return {};
}

} // namespace

bool segmenter::start(std::span<const std::uint8_t> frame, std::uint32_t size) noexcept {
    segmenter s;
    const auto [at, type] = skip_ethernet(frame);
    s.ip_ = at;
    s.v4_ = type == wire::ethertype_ipv4;
    if (at == 0 || size == 0 || (!s.v4_ && type != wire::ethertype_ipv6)) return false;
    if (frame.size() < at + (s.v4_ ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header)))
        return false;
    const std::uint8_t* ip = &frame[at];
    s.protocol_ = s.v4_ ? ip[offsetof(wire::ipv4_header, protocol)]
                        : ip[offsetof(wire::ipv6_header, next_header)];
    s.l4_ = at + (s.v4_ ? (ip[0] & 0x0fu) * 4 : std::uint32_t{sizeof(wire::ipv6_header)});
    if (s.v4_ && s.l4_ < at + sizeof(wire::ipv4_header)) return false;
    if (s.protocol_ == wire::proto_udp) {
        s.headers_ = s.l4_ + sizeof(wire::udp_header);
    } else if (s.protocol_ == wire::proto_tcp && frame.size() >= s.l4_ + tcp_minimum) {
        s.headers_ = s.l4_ + (frame[s.l4_ + tcp_offset_at] >> 4) * 4u;
        if (s.headers_ < s.l4_ + tcp_minimum) return false;
        s.sequence_ = wire::load<wire::be32>(&frame[s.l4_ + tcp_sequence_at]).host();
    } else {
        return false;
    }
    if (frame.size() <= s.headers_) return false;
    s.frame_ = frame;
    s.at_ = s.headers_;
    s.size_ = size;
    *this = s;
    return true;
}

std::uint32_t segmenter::next(std::uint8_t* into) noexcept {
    const auto payload =
        static_cast<std::uint32_t>(std::min<std::size_t>(size_, frame_.size() - at_));
    const std::uint32_t length = headers_ + payload;
    std::memcpy(into, frame_.data(), headers_);
    std::memcpy(into + headers_, &frame_[at_], payload);
    const bool first = at_ == headers_, last = at_ + payload == frame_.size();
    write_ip(into + ip_, length - ip_);
    if (protocol_ == wire::proto_tcp)
        write_tcp(into + l4_, first, last);
    else
        wire::store(into + l4_ + udp_length_at,
                    wire::be16(static_cast<std::uint16_t>(length - l4_)));
    write_checksum(into + ip_, length - ip_);
    at_ += payload;
    ++index_;
    return length;
}

/// length   of the IP packet
void segmenter::write_ip(std::uint8_t* ip, std::uint32_t length) const noexcept {
    if (!v4_) {
        wire::store(ip + offsetof(wire::ipv6_header, payload_length),
                    wire::be16(static_cast<std::uint16_t>(length - sizeof(wire::ipv6_header))));
        return;
    }
    auto& header = *reinterpret_cast<wire::ipv4_header*>(ip);
    header.total_length.set(static_cast<std::uint16_t>(length));
    header.id.set(static_cast<std::uint16_t>(header.id.host() + index_));
    header.checksum = {};
    header.checksum = wire::checksum_finish(wire::checksum_add(0, ip, l4_ - ip_));
}

void segmenter::write_tcp(std::uint8_t* tcp, bool first, bool last) const noexcept {
    wire::store(tcp + tcp_sequence_at,
                wire::be32(sequence_ + static_cast<std::uint32_t>(at_ - headers_)));
    std::uint8_t flags = tcp[tcp_flags_at];
    if (!first) flags &= static_cast<std::uint8_t>(~tcp_cwr);
    if (!last) flags &= static_cast<std::uint8_t>(~(tcp_fin | tcp_psh));
    tcp[tcp_flags_at] = flags;
}

void segmenter::write_checksum(std::uint8_t* ip, std::uint32_t length) const noexcept {
    const std::uint32_t l4_length = length - (l4_ - ip_);
    std::uint8_t* l4 = ip + (l4_ - ip_);
    std::uint8_t* field = l4 + (protocol_ == wire::proto_tcp ? tcp_checksum_at : udp_checksum_at);
    const std::size_t address_length = v4_ ? 4 : 16;
    const std::uint8_t* addresses =
        ip + (v4_ ? offsetof(wire::ipv4_header, source) : offsetof(wire::ipv6_header, source));
    wire::store(field, wire::be16());
    const std::uint64_t pseudo = wire::checksum_pseudo(addresses, addresses + address_length,
                                                       address_length, protocol_, l4_length);
    wire::be16 sum = wire::checksum_finish(wire::checksum_add(pseudo, l4, l4_length));
    if (protocol_ == wire::proto_udp && sum == wire::be16()) sum = wire::be16(0xffff);
    wire::store(field, sum);
}

} // namespace esplane::fastpath

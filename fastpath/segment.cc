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
    const auto [at, type] = skip_ethernet(frame);
    if (type != wire::ethertype_ipv4 && type != wire::ethertype_ipv6) return false;
    return begin(frame, at, type == wire::ethertype_ipv4, size);
}

bool segmenter::start_ip(std::span<const std::uint8_t> packet, std::uint32_t size) noexcept {
    const unsigned version = packet.empty() ? 0 : packet[0] >> 4;
    return (version == 4 || version == 6) && begin(packet, 0, version == 4, size);
}

/// ip   where the IP header is
bool segmenter::begin(std::span<const std::uint8_t> frame, std::uint32_t ip, bool v4,
                      std::uint32_t size) noexcept {
    const auto minimum =
        static_cast<std::uint32_t>(v4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header));
    if (size == 0 || frame.size() < ip + minimum) return false;
    segmenter s;
    s.ip_ = ip;
    s.v4_ = v4;
    s.protocol_ = frame[ip + (v4 ? offsetof(wire::ipv4_header, protocol)
                                 : offsetof(wire::ipv6_header, next_header))];
    s.l4_ = ip + (v4 ? (frame[ip] & 0x0fu) * 4 : minimum);
    if (s.l4_ < ip + minimum) return false;
    if (s.protocol_ == wire::proto_udp) {
        s.headers_ = s.l4_ + sizeof(wire::udp_header);
    } else if (s.protocol_ == wire::proto_tcp && frame.size() >= s.l4_ + sizeof(wire::tcp_header)) {
        const auto tcp = wire::load<wire::tcp_header>(&frame[s.l4_]);
        s.headers_ = s.l4_ + (tcp.offset >> 4) * 4u;
        if (s.headers_ < s.l4_ + sizeof(wire::tcp_header)) return false;
        s.sequence_ = tcp.sequence.host();
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
    const std::uint64_t sum = wire::checksum_copy(0, into + headers_, &frame_[at_], payload);
    const bool first = at_ == headers_, last = at_ + payload == frame_.size();
    write_ip(into + ip_, length - ip_);
    if (protocol_ == wire::proto_tcp)
        write_tcp(into + l4_, first, last);
    else
        wire::store(into + l4_ + offsetof(wire::udp_header, length),
                    wire::be16(static_cast<std::uint16_t>(length - l4_)));
    write_checksum(into + ip_, length - ip_, sum);
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
    auto& header = *reinterpret_cast<wire::tcp_header*>(tcp);
    header.sequence.set(sequence_ + static_cast<std::uint32_t>(at_ - headers_));
    if (!first) header.flags &= static_cast<std::uint8_t>(~wire::tcp_cwr);
    if (!last) header.flags &= static_cast<std::uint8_t>(~(wire::tcp_fin | wire::tcp_psh));
}

/// length        of the IP packet
/// payload_sum   of what stands behind the headers, which are of even length
void segmenter::write_checksum(std::uint8_t* ip, std::uint32_t length,
                               std::uint64_t payload_sum) const noexcept {
    std::uint8_t* l4 = ip + (l4_ - ip_);
    std::uint8_t* field =
        l4 + (protocol_ == wire::proto_tcp ? offsetof(wire::tcp_header, checksum)
                                           : offsetof(wire::udp_header, checksum));
    const std::size_t address_length = v4_ ? 4 : 16;
    const std::uint8_t* addresses =
        ip + (v4_ ? offsetof(wire::ipv4_header, source) : offsetof(wire::ipv6_header, source));
    wire::store(field, wire::be16());
    const std::uint64_t sum =
        payload_sum + wire::checksum_pseudo(addresses, addresses + address_length, address_length,
                                            protocol_, length - (l4_ - ip_));
    wire::be16 checksum = wire::checksum_finish(wire::checksum_add(sum, l4, headers_ - l4_));
    if (protocol_ == wire::proto_udp && checksum == wire::be16()) checksum = wire::be16(0xffff);
    wire::store(field, checksum);
}

} // namespace esplane::fastpath

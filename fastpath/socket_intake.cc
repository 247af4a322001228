// SPDX-License-Identifier: Apache-2.0
#include "fastpath/socket_intake.h"

#include <algorithm>
#include <cstring>
#include <netinet/in.h>
#include <netinet/udp.h>

#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

constexpr std::size_t super_packet = 65536;
constexpr std::size_t stagger = 256; ///< or all buffers begin in the same cache sets
/// Segments of a message from which on a fill takes one message alone: it is a burst by itself, and
/// is cut while the caches still have it.
constexpr std::size_t large = 16;
constexpr std::size_t marker = 4;         ///< RFC 3948 section 2.2
constexpr std::size_t ike_length_at = 24; ///< RFC 7296 section 3.1
constexpr std::size_t ike_header = 28;

template <typename T>
T value_of(const cmsghdr* c) noexcept {
    T value{};
    std::memcpy(&value, CMSG_DATA(c),
                std::min<std::size_t>(sizeof value, c->cmsg_len - CMSG_LEN(0)));
    return value;
}

bool is_ike(std::span<const std::uint8_t> payload) noexcept {
    return payload.size() >= marker + ike_header &&
           wire::load<std::uint32_t>(payload.data()) == 0 &&
           wire::load<wire::be32>(payload.data() + marker + ike_length_at).host() ==
               payload.size() - marker;
}

} // namespace

socket_intake::socket_intake(std::uint16_t port, bool merged)
    : port_(port)
    , buffer_size_(merged ? super_packet : buffer_pool::frame_size)
    , stride_(buffer_size_ + stagger)
    , buffers_(std::make_unique<std::uint8_t[]>(stride_ * most_messages)) {
    for (std::size_t i = 0; i < most_messages; ++i)
        pieces_[i] = {&buffers_[i * stride_], buffer_size_};
}

void socket_intake::fill(net_way way, int fd) noexcept {
    for (std::size_t i = 0; i < wanted_; ++i) {
        msghdr& m = messages_[i].msg_hdr;
        m = {};
        m.msg_name = &names_[i];
        m.msg_namelen = sizeof names_[i];
        m.msg_iov = &pieces_[i];
        m.msg_iovlen = 1;
        m.msg_control = controls_[i].bytes.data();
        m.msg_controllen = control_bytes;
    }
    const int got =
        ::recvmmsg(fd, messages_.data(), static_cast<unsigned>(wanted_), MSG_DONTWAIT, nullptr);
    way_ = way;
    at_ = 0;
    opened_ = false;
    filled_ = got > 0 ? static_cast<std::size_t>(got) : 0;
    wanted_ = most_messages;
    counted_.messages.add(filled_);
}

auto socket_intake::read_controls(const msghdr& m) noexcept -> facts {
    facts f;
    for (const cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr;
         c = CMSG_NXTHDR(const_cast<msghdr*>(&m), const_cast<cmsghdr*>(c))) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL)
            f.lost = value_of<std::uint32_t>(c);
        else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
            f.segment = static_cast<std::uint32_t>(value_of<int>(c));
        else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            const auto info = value_of<in_pktinfo>(c);
            std::memcpy(f.destination.data(), &info.ipi_addr, sizeof info.ipi_addr);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            const auto info = value_of<in6_pktinfo>(c);
            std::memcpy(f.destination.data(), &info.ipi6_addr, sizeof info.ipi6_addr);
        } else if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) ||
                   (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS))
            f.tos = value_of<int>(c);
        else if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) ||
                 (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT))
            f.ttl = value_of<int>(c);
    }
    return f;
}

/// Reads what stands beside the message at_, and writes the header of its segments.
void socket_intake::open_message() noexcept {
    const msghdr& m = messages_[at_].msg_hdr;
    const facts f = read_controls(m);
    rest_ = {static_cast<const std::uint8_t*>(pieces_[at_].iov_base), messages_[at_].msg_len};
    segment_ = f.segment != 0 ? f.segment : messages_[at_].msg_len;
    if (f.segment != 0 && rest_.size() >= large * segment_) wanted_ = 1;
    std::uint32_t& before = lost_before_[static_cast<std::size_t>(way_)];
    if (f.lost > before) counted_.socket_full.add(f.lost - before);
    if (f.lost != 0) before = f.lost;
    if ((m.msg_flags & MSG_TRUNC) != 0) {
        counted_.too_long.add(1);
        rest_ = {};
    }
    write_header(f, names_[at_]);
    opened_ = true;
}

/// An IPv4 raw socket gives the header itself.
void socket_intake::write_header(const facts& f, const sockaddr_storage& from) noexcept {
    std::uint8_t* udp = nullptr;
    header_length_ = 0;
    if (way_ == net_way::udp_v4) {
        const auto& source = reinterpret_cast<const sockaddr_in&>(from);
        auto& ip = *reinterpret_cast<wire::ipv4_header*>(header_.data());
        ip = {};
        ip.version_ihl = 0x45;
        ip.tos = static_cast<std::uint8_t>(f.tos);
        ip.ttl = static_cast<std::uint8_t>(f.ttl);
        ip.protocol = wire::proto_udp;
        ip.source = wire::be32::from_network(source.sin_addr.s_addr);
        ip.destination = wire::load<wire::be32>(f.destination.data());
        udp = header_.data() + sizeof ip;
        wire::store(udp, source.sin_port);
    } else if (way_ != net_way::esp_v4) {
        const auto& source = reinterpret_cast<const sockaddr_in6&>(from);
        auto& ip = *reinterpret_cast<wire::ipv6_header*>(header_.data());
        ip = {};
        ip.version_class_flow.set(0x60000000u | static_cast<std::uint32_t>(f.tos & 0xff) << 20);
        ip.hop_limit = static_cast<std::uint8_t>(f.ttl);
        ip.next_header = way_ == net_way::udp_v6 ? wire::proto_udp : wire::proto_esp;
        std::memcpy(ip.source.data(), &source.sin6_addr, sizeof ip.source);
        std::memcpy(ip.destination.data(), f.destination.data(), sizeof ip.destination);
        header_length_ = sizeof ip;
        if (way_ == net_way::udp_v6) {
            udp = header_.data() + sizeof ip;
            wire::store(udp, source.sin6_port);
        }
    }
    if (udp != nullptr) {
        wire::store(udp + offsetof(wire::udp_header, destination), wire::be16(port_));
        wire::store(udp + offsetof(wire::udp_header, checksum), wire::be16());
        header_length_ =
            static_cast<std::uint32_t>(udp - header_.data() + sizeof(wire::udp_header));
    }
    if (header_length_ != 0) set_length(header_.data(), way_, segment_);
}

/// Makes a header one of `length` bytes of payload.
void socket_intake::set_length(std::uint8_t* header, net_way way, std::uint32_t length) noexcept {
    const std::uint32_t behind_ip =
        length + (is_udp(way) ? std::uint32_t{sizeof(wire::udp_header)} : 0);
    std::size_t udp = sizeof(wire::ipv6_header);
    if (is_v4(way)) {
        auto& ip = *reinterpret_cast<wire::ipv4_header*>(header);
        udp = sizeof ip;
        ip.total_length.set(static_cast<std::uint16_t>(sizeof ip + behind_ip));
        ip.checksum = {};
        ip.checksum = wire::checksum_finish(wire::checksum_add(0, header, sizeof ip));
    } else {
        reinterpret_cast<wire::ipv6_header*>(header)->payload_length.set(
            static_cast<std::uint16_t>(behind_ip));
    }
    if (is_udp(way))
        wire::store(header + udp + offsetof(wire::udp_header, length),
                    wire::be16(static_cast<std::uint16_t>(behind_ip)));
}

/// Of the message at_.
std::size_t socket_intake::segments_left() const noexcept {
    return rest_.empty() ? 0 : (rest_.size() + segment_ - 1) / segment_;
}

std::span<const std::uint8_t> socket_intake::next_segment() noexcept {
    const auto segment = rest_.first(std::min<std::size_t>(segment_, rest_.size()));
    rest_ = rest_.subspan(segment.size());
    return segment;
}

/// False: it has been dealt with.
bool socket_intake::is_esp(std::span<const std::uint8_t> payload) noexcept {
    if (!is_udp(way_)) return true;
    if (payload.size() >= sizeof(wire::esp_header) &&
        wire::load<std::uint32_t>(payload.data()) != 0)
        return true;
    if (is_ike(payload)) // whole: the daemon's, and it does not come back here
        return_ike(payload);
    else if (payload.size() == 1 && payload[0] == 0xff)
        counted_.keepalives.add(1);
    else
        counted_.not_esp.add(1);
    return false;
}

/// As if it had just arrived; the kernel computes the checksum of the IPv4 header.
void socket_intake::return_ike(std::span<const std::uint8_t> payload) noexcept {
    const int fd = is_v4(way_) ? whole_v4_ : whole_v6_;
    const std::uint32_t left = ike_allowance_.load(std::memory_order_relaxed);
    std::array<std::uint8_t, longest_header> header = header_;
    const auto length = static_cast<std::uint32_t>(payload.size());
    set_length(header.data(), way_, length);
    const std::size_t addresses = is_v4(way_) ? 4 : 16;
    const std::uint8_t* const source = header.data() + (is_v4(way_) ? 12 : 8);
    std::uint8_t* const udp = header.data() + header_length_ - sizeof(wire::udp_header);
    std::uint64_t sum =
        wire::checksum_pseudo(source, source + addresses, addresses, wire::proto_udp, length + 8);
    sum = wire::checksum_add(sum, udp, sizeof(wire::udp_header));
    wire::be16 check = wire::checksum_finish(wire::checksum_add(sum, payload.data(), length));
    if (check == wire::be16()) check = wire::be16(0xffff);
    wire::store(udp + offsetof(wire::udp_header, checksum), check);

    sockaddr_in6 six{};
    sockaddr_in four{};
    four.sin_family = AF_INET;
    six.sin6_family = AF_INET6;
    std::memcpy(&four.sin_addr, source + addresses, sizeof four.sin_addr);
    if (!is_v4(way_)) std::memcpy(&six.sin6_addr, source + addresses, sizeof six.sin6_addr);
    std::array<iovec, 2> pieces{
        iovec{header.data(), header_length_},
        iovec{const_cast<std::uint8_t*>(payload.data()), payload.size()},
    };
    msghdr m{};
    m.msg_name = is_v4(way_) ? static_cast<void*>(&four) : &six;
    m.msg_namelen = is_v4(way_) ? sizeof four : sizeof six;
    m.msg_iov = pieces.data();
    m.msg_iovlen = pieces.size();
    if (left == 0 || ::sendmsg(fd, &m, MSG_DONTWAIT) < 0) {
        counted_.ike_lost.add(1);
        return;
    }
    ike_allowance_.store(left - 1, std::memory_order_relaxed);
    counted_.ike_returned.add(1);
}

std::size_t socket_intake::cut(std::span<packet> into, buffer_pool& pool) noexcept {
    std::size_t n = 0;
    std::uint64_t bytes = 0;
    while (n < into.size() && !empty()) {
        if (!opened_) {
            open_message();
            if (n != 0 && n + segments_left() > into.size()) break; // messages stay whole
        }
        if (rest_.empty()) {
            ++at_;
            opened_ = false;
            continue;
        }
        packet& p = into[n];
        if (!pool.allocate(p, 0)) {
            counted_.no_buffer.add(1);
            break;
        }
        const auto payload = next_segment();
        const bool fits = header_length_ + payload.size() <= largest_packet;
        if (!fits) counted_.too_long.add(1);
        if (!fits || !is_esp(payload)) {
            packet* const back[] = {&p};
            pool.release(back);
            continue;
        }
        std::memcpy(p.data, header_.data(), longest_header);
        std::memcpy(p.data + header_length_, payload.data(), payload.size());
        p.extend(static_cast<int>(header_length_ + payload.size()));
        if (header_length_ != 0 && payload.size() != segment_)
            set_length(p.data, way_, static_cast<std::uint32_t>(payload.size()));
        bytes += p.length;
        ++n;
    }
    counted_.packets.add(n);
    counted_.bytes.add(bytes);
    return n;
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "fastpath/keepalive.h"

#include <array>
#include <cstring>
#include <netinet/in.h>
#include <sys/socket.h>

#include "fastpath/net_socket.h"
#include "lib/wire/checksum.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

namespace {

constexpr std::uint8_t payload = 0xff;
constexpr std::uint8_t hop_limit = 64;
constexpr std::uint16_t udp_length = sizeof(wire::udp_header) + sizeof payload;

/// What is sent, and how much of it there is.
struct keepalive {
    std::array<std::uint8_t, sizeof(wire::ipv6_header) + udp_length> bytes{};
    std::size_t length = 0;
};

wire::udp_header udp_of(const ipsec::sa& sa) noexcept {
    wire::udp_header udp{};
    udp.source = sa.encap->source_port;
    udp.destination = sa.encap->destination_port;
    udp.length.set(udp_length);
    return udp;
}

/// The kernel completes the IPv4 header; UDP does without a checksum there.
keepalive over_v4(const ipsec::sa& sa) noexcept {
    wire::ipv4_header ip{};
    ip.version_ihl = 0x45;
    ip.total_length.set(sizeof ip + udp_length);
    ip.ttl = hop_limit;
    ip.protocol = wire::proto_udp;
    ip.source = sa.source.as_v4();
    ip.destination = sa.id.destination.as_v4();
    keepalive k;
    wire::store(k.bytes.data(), ip);
    wire::store(k.bytes.data() + sizeof ip, udp_of(sa));
    k.length = sizeof ip + udp_length;
    k.bytes[k.length - 1] = payload;
    return k;
}

keepalive over_v6(const ipsec::sa& sa) noexcept {
    wire::ipv6_header ip{};
    ip.version_class_flow.set(0x60000000);
    ip.payload_length.set(udp_length);
    ip.next_header = wire::proto_udp;
    ip.hop_limit = hop_limit;
    ip.source = sa.source.bytes;
    ip.destination = sa.id.destination.bytes;
    keepalive k;
    std::uint8_t* const at = k.bytes.data() + sizeof ip;
    wire::store(k.bytes.data(), ip);
    wire::store(at, udp_of(sa));
    k.length = sizeof ip + udp_length;
    k.bytes[k.length - 1] = payload;
    std::uint64_t sum = wire::checksum_pseudo(ip.source.data(), ip.destination.data(),
                                              ip.source.size(), wire::proto_udp, udp_length);
    wire::be16 check = wire::checksum_finish(wire::checksum_add(sum, at, udp_length));
    if (check == wire::be16()) check = wire::be16(0xffff);
    wire::store(at + offsetof(wire::udp_header, checksum), check);
    return k;
}

} // namespace

result<keepalive_sender> keepalive_sender::open(std::uint32_t mark) {
    keepalive_sender sender(mark);
    net_socket_options options;
    options.mark = mark;
    for (const net_way way : {net_way::whole_v4, net_way::whole_v6}) {
        auto fd = open_net_socket(way, options, {});
        if (!fd) return tl::unexpected(fd.error());
        (is_v4(way) ? sender.v4_ : sender.v6_) = std::move(*fd);
    }
    return sender;
}

result<void> keepalive_sender::send(const ipsec::sa& sa) const {
    const bool v4 = sa.id.destination.fam == ipsec::family::ipv4;
    const int fd = (v4 ? v4_ : v6_).get();
    if (fd < 0) return fail(ENETUNREACH, "no sockets of that family");
    const std::uint32_t mark = sa.output_mark.put_on(mark_);
    if (::setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0)
        return fail_errno("SO_MARK");
    const keepalive k = v4 ? over_v4(sa) : over_v6(sa);
    sockaddr_in four{};
    four.sin_family = AF_INET;
    sockaddr_in6 six{};
    six.sin6_family = AF_INET6;
    if (v4)
        four.sin_addr.s_addr = sa.id.destination.as_v4().network();
    else
        std::memcpy(&six.sin6_addr, sa.id.destination.bytes.data(), sizeof six.sin6_addr);
    const auto* to =
        v4 ? reinterpret_cast<const sockaddr*>(&four) : reinterpret_cast<const sockaddr*>(&six);
    if (::sendto(fd, k.bytes.data(), k.length, MSG_DONTWAIT, to, v4 ? sizeof four : sizeof six) < 0)
        return fail_errno("NAT keepalive");
    return {};
}

} // namespace esplane::fastpath

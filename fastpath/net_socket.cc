// SPDX-License-Identifier: Apache-2.0
#include "fastpath/net_socket.h"

#include <cstring>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <span>
#include <sys/socket.h>

#include "lib/wire/headers.h"

namespace esplane::fastpath {

namespace {

constexpr int send_bytes = 4 << 20; ///< on their way down, of one socket
constexpr int ipv6_hdrincl = 36;    ///< linux/in6.h, which does not stand beside netinet/in.h

bool set(int fd, int level, int option, int value) noexcept {
    return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

/// Beyond the sysctl's bound where this process may.
bool set_buffer(int fd, int forced, int option, std::uint32_t bytes) noexcept {
    return set(fd, SOL_SOCKET, forced, static_cast<int>(bytes)) ||
           set(fd, SOL_SOCKET, option, static_cast<int>(bytes));
}

result<unique_fd> open_socket(net_way way) {
    const int family = is_v4(way) ? AF_INET : AF_INET6;
    const int type = is_udp(way) ? SOCK_DGRAM : SOCK_RAW;
    const int protocol = is_udp(way) ? IPPROTO_UDP : receives(way) ? IPPROTO_ESP : IPPROTO_RAW;
    unique_fd fd(::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
    if (fd.valid() || errno == EAFNOSUPPORT) return fd;
    if (errno == EPERM || errno == EACCES)
        return fail(EPERM, "raw sockets take CAP_NET_RAW: run esplaned as root");
    return fail_errno("socket");
}

result<void> set_common(int fd, const net_socket_options& o) {
    if (o.mark != 0 && !set(fd, SOL_SOCKET, SO_MARK, static_cast<int>(o.mark)))
        return errno == EPERM
                   ? fail(EPERM, "a mark on packets takes CAP_NET_ADMIN: run esplaned as root")
                   : fail_errno("SO_MARK");
    (void)set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, send_bytes);
    return {};
}

/// All that is written into the header again in front of what arrived.
bool ask_for_header(int fd, net_way way) noexcept {
    const bool header = is_v4(way) ? set(fd, IPPROTO_IP, IP_PKTINFO, 1) &&
                                         set(fd, IPPROTO_IP, IP_RECVTOS, 1) &&
                                         set(fd, IPPROTO_IP, IP_RECVTTL, 1)
                                   : set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) &&
                                         set(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1) &&
                                         set(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
    return header && set(fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
}

result<void> bind_to_port(int fd, net_way way, std::uint16_t port) {
    sockaddr_storage any{};
    if (is_v4(way)) {
        auto& a = reinterpret_cast<sockaddr_in&>(any);
        a.sin_family = AF_INET;
        a.sin_port = htons(port);
    } else {
        auto& a = reinterpret_cast<sockaddr_in6&>(any);
        a.sin6_family = AF_INET6;
        a.sin6_port = htons(port);
    }
    const socklen_t length = is_v4(way) ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&any), length) == 0) return {};
    const std::string where = "UDP port " + std::to_string(port);
    if (errno == EADDRINUSE)
        return fail(EADDRINUSE, where + ": another program has it and does not share it: start "
                                        "that one by 'esplane run', or stop it");
    return fail_errno(where);
}

result<void> set_udp(int fd, net_way way, const net_socket_options& o) {
    const bool done = set(fd, SOL_SOCKET, SO_REUSEPORT, 1) &&
                      (is_v4(way) ? set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
                                  : set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    if (!done) return fail_errno("UDP socket");
    if (o.merge) (void)set(fd, IPPROTO_UDP, UDP_GRO, 1);
    return bind_to_port(fd, way, o.port);
}

result<void> filter(int fd, std::span<sock_filter> instructions) {
    const sock_fprog program{static_cast<unsigned short>(instructions.size()), instructions.data()};
    if (::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0)
        return fail_errno("socket filter");
    return {};
}

result<void> hear_nothing(int fd) {
    sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    return filter(fd, nothing);
}

/// Every raw socket gets a copy of every packet.  IPv4's begins with the IP header.
result<void> hear_own_spis(int fd, net_way way, lane_share share) {
    constexpr std::uint32_t all = ~0u;
    sock_filter v4[] = {
        BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0),
        BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, share.lanes),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, share.lane, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, all),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    if (share.lanes == 1) return {};
    if (is_v4(way)) return filter(fd, v4);
    v4[1] = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
    return filter(fd, std::span(v4).subspan(1));
}

result<void> set_esp(int fd, net_way way, lane_share share) {
    if (is_v4(way) && !set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT))
        return fail_errno("IP_MTU_DISCOVER");
    return hear_own_spis(fd, way, share);
}

/// Of IPPROTO_RAW: nothing is received.
result<void> set_whole(int fd, net_way way) {
    if (is_v4(way) ? set(fd, IPPROTO_IP, IP_HDRINCL, 1) : set(fd, IPPROTO_IPV6, ipv6_hdrincl, 1))
        return {};
    return fail_errno("raw socket with IP headers");
}

result<void> set_all(int fd, net_way way, const net_socket_options& options, lane_share share) {
    if (auto done = set_common(fd, options); !done) return done;
    if (!receives(way)) return set_whole(fd, way);
    (void)set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, options.receive_bytes);
    if (!ask_for_header(fd, way)) return fail_errno("options for received packets");
    return is_udp(way) ? set_udp(fd, way, options) : set_esp(fd, way, share);
}

} // namespace

result<unique_fd> open_net_socket(net_way way, const net_socket_options& options,
                                  lane_share share) {
    auto fd = open_socket(way);
    if (!fd || !fd->valid()) return fd;
    if (auto done = set_all(fd->get(), way, options, share); !done)
        return tl::unexpected(done.error());
    return fd;
}

/// The filter comes first: it is in the group from bind() on.
result<unique_fd> open_stand_in(net_way way, const net_socket_options& options) {
    auto fd = open_socket(way);
    if (!fd || !fd->valid()) return fd;
    if (auto deaf = hear_nothing(fd->get()); !deaf) return tl::unexpected(deaf.error());
    if (auto done = set_udp(fd->get(), way, options); !done) return tl::unexpected(done.error());
    return fd;
}

void name_cpu(int udp_socket, unsigned cpu) noexcept {
    (void)set(udp_socket, SOL_SOCKET, SO_INCOMING_CPU, static_cast<int>(cpu));
}

super_packets super_packets_of(const net_socket_options& options) noexcept {
    const unique_fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    return {options.segment && set(fd.get(), IPPROTO_UDP, UDP_SEGMENT, 0),
            options.merge && set(fd.get(), IPPROTO_UDP, UDP_GRO, 1)};
}

std::uint32_t path_mtu(const ipsec::address& to, std::uint32_t mark) noexcept {
    constexpr std::uint16_t discard = 9; // any: nothing is sent
    const bool v4 = to.fam == ipsec::family::ipv4;
    const unique_fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (mark != 0) (void)set(fd.get(), SOL_SOCKET, SO_MARK, static_cast<int>(mark));
    sockaddr_in6 six{};
    sockaddr_in four{};
    six.sin6_family = AF_INET6;
    six.sin6_port = four.sin_port = htons(discard);
    std::memcpy(&six.sin6_addr, to.bytes.data(), sizeof six.sin6_addr);
    four.sin_family = AF_INET;
    four.sin_addr.s_addr = to.as_v4().network();
    const auto* at =
        v4 ? reinterpret_cast<const sockaddr*>(&four) : reinterpret_cast<const sockaddr*>(&six);
    if (::connect(fd.get(), at, v4 ? sizeof four : sizeof six) != 0) return 0;
    int mtu = 0;
    socklen_t length = sizeof mtu;
    const int got = v4 ? ::getsockopt(fd.get(), IPPROTO_IP, IP_MTU, &mtu, &length)
                       : ::getsockopt(fd.get(), IPPROTO_IPV6, IPV6_MTU, &mtu, &length);
    return got == 0 && mtu > 0 ? static_cast<std::uint32_t>(mtu) : 0;
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "tools/solicit.h"

#include <array>
#include <cstring>
#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/base/unique_fd.h"

namespace esplane::tools {

namespace {

// Of echo replies nobody asked for, with the checksum where the kernel does not put it in.
constexpr std::array<std::uint8_t, 8> icmp_echo_reply{0, 0, 0xff, 0xff, 0, 0, 0, 0};
constexpr std::array<std::uint8_t, 8> icmpv6_echo_reply{129, 0, 0, 0, 0, 0, 0, 0};

/// By this device, whatever the routes say.
result<unique_fd> socket_on(int ifindex, int family, int protocol) {
    unique_fd fd(::socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
    if (!fd.valid()) return fail_errno("raw socket");
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_BINDTOIFINDEX, &ifindex, sizeof ifindex) != 0)
        return fail_errno("raw socket on a device");
    return fd;
}

} // namespace

result<void> solicit(int ifindex, const ipsec::address& neighbour) {
    const bool v4 = neighbour.fam == ipsec::family::ipv4;
    const auto fd = v4 ? socket_on(ifindex, AF_INET, IPPROTO_ICMP)
                       : socket_on(ifindex, AF_INET6, IPPROTO_ICMPV6);
    if (!fd) return tl::unexpected(fd.error());
    sockaddr_in to4{};
    to4.sin_family = AF_INET;
    to4.sin_addr.s_addr = neighbour.as_v4().network();
    sockaddr_in6 to6{};
    to6.sin6_family = AF_INET6;
    to6.sin6_scope_id = static_cast<std::uint32_t>(ifindex);
    std::memcpy(&to6.sin6_addr, neighbour.bytes.data(), neighbour.bytes.size());
    const auto* to =
        v4 ? reinterpret_cast<const sockaddr*>(&to4) : reinterpret_cast<const sockaddr*>(&to6);
    const socklen_t length = v4 ? sizeof to4 : sizeof to6;
    const auto& message = v4 ? icmp_echo_reply : icmpv6_echo_reply;
    if (::sendto(fd->get(), message.data(), message.size(), 0, to, length) < 0)
        return fail_errno("soliciting");
    return {};
}

} // namespace esplane::tools

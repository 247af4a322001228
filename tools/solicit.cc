// SPDX-License-Identifier: Apache-2.0
#include "tools/solicit.h"

#include <cstring>
#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/base/unique_fd.h"

namespace esplane::tools {

namespace {

constexpr std::uint16_t discard_port = 9;

/// By this device, whatever the routes say.
result<unique_fd> socket_on(int ifindex, int family) {
    unique_fd fd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) return fail_errno("UDP socket");
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_BINDTOIFINDEX, &ifindex, sizeof ifindex) != 0)
        return fail_errno("UDP socket on a device");
    return fd;
}

} // namespace

result<void> solicit(int ifindex, const ipsec::address& neighbour) {
    const bool v4 = neighbour.fam == ipsec::family::ipv4;
    const auto fd = socket_on(ifindex, v4 ? AF_INET : AF_INET6);
    if (!fd) return tl::unexpected(fd.error());
    sockaddr_in to4{};
    to4.sin_family = AF_INET;
    to4.sin_port = wire::be16(discard_port).network();
    to4.sin_addr.s_addr = neighbour.as_v4().network();
    sockaddr_in6 to6{};
    to6.sin6_family = AF_INET6;
    to6.sin6_port = to4.sin_port;
    to6.sin6_scope_id = static_cast<std::uint32_t>(ifindex);
    std::memcpy(&to6.sin6_addr, neighbour.bytes.data(), neighbour.bytes.size());
    const auto* to =
        v4 ? reinterpret_cast<const sockaddr*>(&to4) : reinterpret_cast<const sockaddr*>(&to6);
    const socklen_t length = v4 ? sizeof to4 : sizeof to6;
    if (::sendto(fd->get(), nullptr, 0, 0, to, length) < 0) return fail_errno("soliciting");
    return {};
}

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
#include "xfrm/route_socket.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include <sys/socket.h>

namespace esplane::xfrm {

route_socket::route_socket(unique_fd fd)
    : fd_(std::move(fd))
    , datagram_(std::make_unique<datagram>()) {}

result<route_socket> route_socket::open(int receive_bytes) {
    unique_fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!fd.valid()) return fail_errno("rtnetlink socket");
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &receive_bytes, sizeof receive_bytes) !=
        0)
        (void)::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    // Lets a dump be of one link's routes alone; a kernel without it dumps all.
    const int on = 1;
    (void)::setsockopt(fd.get(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
    sockaddr_nl own{};
    own.nl_family = AF_NETLINK;
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0)
        return fail_errno("connecting to rtnetlink");
    return route_socket(std::move(fd));
}

result<void> route_socket::follow(std::span<const unsigned> groups) {
    for (const unsigned group : groups)
        if (::setsockopt(fd_.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)
            return fail_errno("following rtnetlink");
    return {};
}

result<void> route_socket::send(int type, unsigned flags, std::span<const std::byte> body) {
    nlmsghdr header{};
    header.nlmsg_len = static_cast<std::uint32_t>(NLMSG_LENGTH(body.size()));
    header.nlmsg_type = static_cast<std::uint16_t>(type);
    header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
    header.nlmsg_seq = ++sequence_;
    std::vector<std::byte> message(NLMSG_SPACE(body.size()));
    std::memcpy(message.data(), &header, sizeof header);
    std::memcpy(message.data() + NLMSG_HDRLEN, body.data(), body.size());
    if (::send(fd_.get(), message.data(), message.size(), 0) < 0)
        return fail_errno("asking rtnetlink");
    return {};
}

result<std::span<const std::byte>> route_socket::receive(bool wait) {
    for (;;) {
        sockaddr_nl from{};
        iovec piece{datagram_->bytes.data(), datagram_->bytes.size()};
        msghdr m{};
        m.msg_name = &from;
        m.msg_namelen = sizeof from;
        m.msg_iov = &piece;
        m.msg_iovlen = 1;
        const ssize_t n = ::recvmsg(fd_.get(), &m, wait ? 0 : MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::span<const std::byte>{};
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno("reading rtnetlink");
        if ((m.msg_flags & MSG_TRUNC) != 0) return fail(ENOBUFS, "rtnetlink: a message too long");
        if (from.nl_pid == 0) // the kernel, nobody else
            return std::span<const std::byte>(datagram_->bytes.data(), static_cast<std::size_t>(n));
    }
}

} // namespace esplane::xfrm

// SPDX-License-Identifier: Apache-2.0
//
// Descriptors that go with a datagram over a unix socket (SCM_RIGHTS).
#pragma once

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "lib/base/unique_fd.h"

namespace esplane {

inline constexpr std::size_t most_passed = 4;

/// Sends `data`, which is not empty, with up to most_passed descriptors.  False: errno.
[[nodiscard]] inline bool send_with_descriptors(int over, std::span<const std::uint8_t> data,
                                                std::span<const int> passed,
                                                int flags = MSG_NOSIGNAL) {
    iovec v{const_cast<std::uint8_t*>(data.data()), data.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(most_passed * sizeof(int))> control{};
    msghdr m{};
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    m.msg_control = control.data();
    m.msg_controllen = CMSG_SPACE(passed.size_bytes());
    cmsghdr* const c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(passed.size_bytes());
    std::memcpy(CMSG_DATA(c), passed.data(), passed.size_bytes());
    return ::sendmsg(over, &m, flags) == static_cast<ssize_t>(data.size());
}

[[nodiscard]] inline bool send_with_descriptor(int over, std::span<const std::uint8_t> data,
                                               int passed, int flags = MSG_NOSIGNAL) {
    return send_with_descriptors(over, data, {&passed, 1}, flags);
}

/// A datagram with the descriptor that may have come with it.
struct passed_datagram {
    ssize_t length = -1; ///< -1: errno; 0: the other end is closed
    bool truncated = false;
    unique_fd passed; ///< closed by exec
};

/// Of several descriptors the kernel closes all but the first.
[[nodiscard]] inline passed_datagram receive_with_descriptor(int from, std::span<std::uint8_t> into,
                                                             int flags = 0) {
    iovec v{into.data(), into.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr m{};
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    m.msg_control = control.data();
    m.msg_controllen = CMSG_LEN(sizeof(int)); // CMSG_SPACE has room for a second descriptor
    passed_datagram r;
    r.length = ::recvmsg(from, &m, flags | MSG_CMSG_CLOEXEC);
    if (r.length < 0) return r;
    r.truncated = (m.msg_flags & MSG_TRUNC) != 0;
    const cmsghdr* const c = CMSG_FIRSTHDR(&m);
    if (c != nullptr && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(int))) {
        int passed = -1;
        std::memcpy(&passed, CMSG_DATA(c), sizeof passed);
        r.passed = unique_fd(passed);
    }
    return r;
}

} // namespace esplane

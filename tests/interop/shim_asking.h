// SPDX-License-Identifier: Apache-2.0
//
// What programs that run under the shim ask of NETLINK_XFRM, and how they are told of their cases.
#pragma once

#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>

struct info_request {
    nlmsghdr header;
    std::uint32_t flags;
};

inline info_request ask_for_counts() {
    return {{sizeof(info_request), XFRM_MSG_GETSADINFO, NLM_F_REQUEST, 1, 0}, ~0u};
}

inline int xfrm_socket(int flags = 0) {
    return ::socket(AF_NETLINK, SOCK_RAW | flags, NETLINK_XFRM);
}

/// Says whether a reply to ask_for_counts() is readable at once: no wait after send.
inline bool answered(int fd) {
    char reply[256];
    const ssize_t length = ::recv(fd, reply, sizeof reply, MSG_DONTWAIT);
    nlmsghdr h{};
    if (length < static_cast<ssize_t>(sizeof h)) return false;
    std::memcpy(&h, reply, sizeof h);
    return h.nlmsg_type == XFRM_MSG_NEWSADINFO;
}

inline bool asks_and_is_answered(int fd) {
    const info_request r = ask_for_counts();
    return ::send(fd, &r, sizeof r, 0) == sizeof r && answered(fd);
}

inline bool asks(int fd) {
    const info_request r = ask_for_counts();
    return ::send(fd, &r, sizeof r, 0) == sizeof r;
}

inline std::uint32_t own_port(int fd) {
    sockaddr_nl a{};
    socklen_t length = sizeof a;
    const int done = ::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &length);
    return done == 0 ? a.nl_pid : ~0u;
}

inline bool ask_often(int fd) {
    bool good = true;
    for (int i = 0; i < 8; ++i)
        good = good && asks_and_is_answered(fd);
    return good;
}

/// Asks often already; closed by exec.
inline int busy_socket() {
    const int fd = xfrm_socket(SOCK_CLOEXEC);
    return ask_often(fd) ? fd : -1;
}

inline bool is_seen_by_poll(int fd) {
    pollfd p{fd, POLLIN, 0};
    return ::poll(&p, 1, 0) == 1;
}

/// Runs it, a test case, in a child; one that hangs fails.
template <bool (*Run)()>
bool apart() {
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(20);
        ::_exit(Run() ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    return status == 0;
}

/// Passes `fd` over a socket, as its only descriptor, by `send`; returns what comes out of it.
template <typename Send>
int passed_over_socket(int fd, Send send) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) != 0) return -1;
    char byte = 'x';
    iovec v{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
    mmsghdr m{};
    m.msg_hdr.msg_iov = &v;
    m.msg_hdr.msg_iovlen = 1;
    m.msg_hdr.msg_control = control;
    m.msg_hdr.msg_controllen = sizeof control;
    cmsghdr* const c = CMSG_FIRSTHDR(&m.msg_hdr);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
    int passed = -1;
    if (send(pair[0], m) == 1 && ::recvmsg(pair[1], &m.msg_hdr, 0) == 1)
        std::memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&m.msg_hdr)), sizeof passed);
    ::close(pair[0]);
    ::close(pair[1]);
    return passed;
}
inline int by_sendmsg(int fd, mmsghdr& m) {
    return static_cast<int>(::sendmsg(fd, &m.msg_hdr, 0));
}
inline int by_sendmmsg(int fd, mmsghdr& m) {
    return ::sendmmsg(fd, &m, 1, 0);
}

/// A child of the same program, with `fd` as its descriptor 9 and that as its argument.
inline pid_t spawned_with(int fd) {
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, fd, 9);
    char name[] = "child", number[] = "9";
    char* const arguments[] = {name, number, nullptr};
    pid_t child = -1;
    if (::posix_spawn(&child, "/proc/self/exe", &actions, nullptr, arguments, environ) != 0)
        child = -1;
    ::posix_spawn_file_actions_destroy(&actions);
    return child;
}

struct test_case {
    const char* name;
    bool (*run)();
};

/// "ok NAME" or "FAILED NAME" for each.  Returns main()'s status: 1 if one failed.
inline int run_cases(std::span<const test_case> cases) {
    int failures = 0;
    for (const test_case& c : cases) {
        const bool good = c.run();
        std::printf("%s %s\n", good ? "ok" : "FAILED", c.name);
        std::fflush(stdout);
        failures += good ? 0 : 1;
    }
    return failures == 0 ? 0 : 1;
}

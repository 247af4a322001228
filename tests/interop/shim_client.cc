// SPDX-License-Identifier: Apache-2.0
//
// A client of NETLINK_XFRM that does what unusual clients do, to run under the shim.
//
//   shim_client            "ok NAME" or "FAILED NAME" for each case; exit status 1 if one failed
//   shim_client FD         asks on the inherited socket FD; exit status 0 if it is answered
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "tests/interop/shim_asking.h"

namespace {

// pluto neither binds nor connects.
bool writes_without_binding() {
    const int fd = xfrm_socket();
    const info_request r = ask_for_counts();
    char reply[256];
    const bool good = ::write(fd, &r, sizeof r) == sizeof r && ::read(fd, reply, sizeof reply) > 0;
    ::close(fd);
    return good;
}

bool gathers_and_scatters() {
    const int fd = xfrm_socket();
    info_request r = ask_for_counts();
    iovec parts[] = {{&r.header, sizeof r.header}, {&r.flags, sizeof r.flags}};
    char a[8], b[248];
    iovec into[] = {{a, sizeof a}, {b, sizeof b}};
    const bool good = ::writev(fd, parts, 2) == sizeof r && ::readv(fd, into, 2) > 16;
    ::close(fd);
    return good;
}

bool sees_the_kernels_address() {
    const int fd = xfrm_socket();
    const info_request r = ask_for_counts();
    char reply[256];
    sockaddr_nl to{};
    to.nl_family = AF_NETLINK;
    sockaddr_storage from{};
    socklen_t length = sizeof from;
    bool good =
        ::sendto(fd, &r, sizeof r, 0, reinterpret_cast<sockaddr*>(&to), sizeof to) == sizeof r &&
        ::recvfrom(fd, reply, sizeof reply, 0, reinterpret_cast<sockaddr*>(&from), &length) > 0 &&
        length == 12 && from.ss_family == AF_NETLINK &&
        reinterpret_cast<sockaddr_nl&>(from).nl_pid == 0;
    to.nl_pid = 1; // another process: nobody there
    good = good && ::sendto(fd, &r, sizeof r, 0, reinterpret_cast<sockaddr*>(&to), sizeof to) < 0 &&
           errno == ECONNREFUSED;
    ::close(fd);
    return good;
}

bool peeks_at_the_length() {
    const int fd = xfrm_socket();
    const info_request r = ask_for_counts();
    bool good = ::send(fd, &r, sizeof r, 0) == sizeof r;
    iovec none{nullptr, 0};
    sockaddr_nl from{};
    msghdr m{};
    m.msg_name = &from;
    m.msg_namelen = sizeof from;
    m.msg_iov = &none;
    m.msg_iovlen = 1;
    good = good && ::recvmsg(fd, &m, MSG_PEEK | MSG_TRUNC) == 40 && m.msg_namelen == 12 &&
           (m.msg_flags & MSG_TRUNC) != 0;
    good = good && answered(fd);
    ::close(fd);
    return good;
}

bool sends_and_receives_many() {
    const int fd = xfrm_socket();
    info_request r = ask_for_counts();
    iovec out{&r, sizeof r};
    mmsghdr sent[3] = {}, received[3] = {};
    char replies[3][256];
    iovec into[3];
    for (int i = 0; i < 3; ++i) {
        sent[i].msg_hdr.msg_iov = &out;
        sent[i].msg_hdr.msg_iovlen = 1;
        into[i] = {replies[i], sizeof replies[i]};
        received[i].msg_hdr.msg_iov = &into[i];
        received[i].msg_hdr.msg_iovlen = 1;
    }
    const bool good = ::sendmmsg(fd, sent, 3, 0) == 3 &&
                      ::recvmmsg(fd, received, 3, MSG_DONTWAIT, nullptr) == 3 &&
                      received[2].msg_len == 40;
    ::close(fd);
    return good;
}

bool knows_its_own_address() {
    const int fd = xfrm_socket();
    sockaddr_nl a{};
    a.nl_family = AF_NETLINK;
    a.nl_groups = XFRMGRP_SA;
    socklen_t length = sizeof a;
    bool good = ::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 &&
                ::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &length) == 0 && length == 12 &&
                a.nl_pid == static_cast<std::uint32_t>(::getpid()) && a.nl_groups == XFRMGRP_SA;
    int value = 0;
    length = sizeof value;
    good = good && ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &length) == 0 &&
           value == AF_NETLINK && ::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &value, &length) == 0 &&
           value == NETLINK_XFRM;
    const int group = XFRMNLGRP_EXPIRE;
    good = good &&
           ::setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) == 0 &&
           ::getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, &value, &length) == 0 &&
           value == (XFRMGRP_SA | XFRMGRP_EXPIRE);
    ::close(fd);
    return good;
}

// pluto: one socket that is never bound, then one with the process's own number.
bool leaves_its_number_to_one_that_binds() {
    const int unbound = xfrm_socket(), bound = xfrm_socket(), connected = xfrm_socket();
    const auto own = static_cast<std::uint32_t>(::getpid());
    sockaddr_nl a{};
    a.nl_family = AF_NETLINK;
    bool good = own_port(unbound) == 0 &&
                ::connect(connected, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 &&
                own_port(connected) == own;
    ::close(connected);
    a.nl_pid = own;
    good = good && ::bind(bound, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 &&
           own_port(bound) == own;
    good =
        good && asks_and_is_answered(unbound) && own_port(unbound) != 0 && own_port(unbound) != own;
    ::close(unbound);
    ::close(bound);
    return good;
}

bool lives_on_in_duplicates() {
    const int first = xfrm_socket();
    const int second = ::dup(first);
    const int third = ::fcntl(first, F_DUPFD_CLOEXEC, 100);
    ::close(first);
    bool good = asks_and_is_answered(second) && asks_and_is_answered(third);
    ::dup2(second, third);
    ::close(second);
    good = good && asks_and_is_answered(third);
    ::close(third);
    return good;
}

bool is_shared_with_a_child() {
    const int fd = xfrm_socket();
    bool good = asks_and_is_answered(fd);
    const pid_t child = ::fork();
    if (child == 0) ::_exit(asks_and_is_answered(fd) ? 0 : 1);
    int status = -1;
    ::waitpid(child, &status, 0);
    good = good && status == 0 && asks_and_is_answered(fd);
    ::close(fd);
    return good;
}

// More processes than the server keeps side channels for: the first one's goes.
bool is_shared_with_many_children() {
    const int fd = xfrm_socket();
    bool good = asks_and_is_answered(fd);
    std::vector<pid_t> children;
    for (int i = 0; i < 12; ++i) {
        const pid_t child = ::fork();
        if (child == 0) {
            const bool answer = asks_and_is_answered(fd);
            ::pause(); // holds its side channel
            ::_exit(answer ? 0 : 1);
        }
        children.push_back(child);
    }
    ::usleep(300'000);
    good = good && asks_and_is_answered(fd) && asks_and_is_answered(fd);
    for (const pid_t child : children) {
        ::kill(child, SIGTERM);
        ::waitpid(child, nullptr, 0);
    }
    ::close(fd);
    return good;
}

bool knows_which_options_there_are() {
    const int fd = xfrm_socket();
    int value = 1;
    socklen_t length = sizeof value;
    bool good =
        ::setsockopt(fd, SOL_NETLINK, NETLINK_PKTINFO, &value, length) < 0 && errno == ENOPROTOOPT;
    for (const int option : {32, 40, -1})
        good = good && ::getsockopt(fd, SOL_NETLINK, option, &value, &length) < 0 &&
               errno == ENOPROTOOPT;
    ::close(fd);
    return good;
}

bool is_inherited_across_exec() {
    const int fd = xfrm_socket();
    bool good = asks_and_is_answered(fd);
    const pid_t child = ::fork();
    if (child == 0) {
        ::execl("/proc/self/exe", "shim_client", std::to_string(fd).c_str(), nullptr);
        ::_exit(127);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    good = good && status == 0 && asks_and_is_answered(fd);
    ::close(fd);
    return good;
}

bool is_not_mistaken_for_another() {
    const int fd = xfrm_socket();
    const int file = ::open("/dev/null", O_RDONLY);
    ::syscall(SYS_dup3, file, fd, 0); // behind the shim's back
    char byte = 0;
    const bool good = ::read(fd, &byte, 1) == 0;
    ::close(file);
    ::close(fd);
    return good;
}

bool serves_threads() {
    const int shared = xfrm_socket();
    std::atomic<int> good = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&] {
            const int own = xfrm_socket();
            for (int i = 0; i < 50; ++i) {
                const info_request r = ask_for_counts();
                if (asks_and_is_answered(own)) ++good;
                if (::send(shared, &r, sizeof r, 0) == sizeof r) ++good;
            }
            ::close(own);
        });
    for (auto& t : threads)
        t.join();
    int replies = 0;
    while (answered(shared))
        ++replies;
    ::close(shared);
    return good == 400 && replies == 200;
}

bool waits_when_asked_to() {
    const int fd = xfrm_socket(SOCK_NONBLOCK | SOCK_CLOEXEC);
    char byte = 0;
    bool good = ::recv(fd, &byte, 1, 0) < 0 && errno == EAGAIN;
    pollfd p{fd, POLLIN, 0};
    good = good && ::poll(&p, 1, 0) == 0;
    const info_request r = ask_for_counts();
    good = good && ::send(fd, &r, sizeof r, 0) == sizeof r && ::poll(&p, 1, 0) == 1;
    good = good && (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
    ::close(fd);
    return good;
}

bool refuses_what_is_too_long() {
    const int fd = xfrm_socket();
    const std::vector<char> big(70000);
    const bool good = ::send(fd, big.data(), big.size(), 0) < 0 && errno == EMSGSIZE;
    ::close(fd);
    return good;
}

int mark_of(int fd) {
    int mark = -1;
    socklen_t length = sizeof mark;
    return ::getsockopt(fd, SOL_SOCKET, SO_MARK, &mark, &length) == 0 ? mark : -1;
}

int set_policy(int fd, std::uint8_t direction, std::uint8_t action) {
    xfrm_userpolicy_info policy{};
    policy.dir = direction;
    policy.action = action;
    return ::setsockopt(fd, IPPROTO_IP, IP_XFRM_POLICY, &policy, sizeof policy);
}

bool marks_what_bypasses() {
    constexpr int exempt = 0xe5; // as xfrm_server was told
    const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
    const int zero = 0;
    const bool may = ::setsockopt(fd, SOL_SOCKET, SO_MARK, &zero, sizeof zero) == 0;
    bool good = set_policy(fd, XFRM_POLICY_IN, XFRM_POLICY_ALLOW) == 0 && mark_of(fd) == 0;
    good = good && (set_policy(fd, XFRM_POLICY_OUT, XFRM_POLICY_ALLOW) == 0) == may;
    good = good && mark_of(fd) == (may ? exempt : 0);
    good = good && ::setsockopt(fd, IPPROTO_IPV6, IPV6_XFRM_POLICY, nullptr, 0) == 0;
    good = good && mark_of(fd) == 0;
    ::close(fd);
    return good;
}

bool refuses_policies_of_sockets() {
    const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
    const bool good = set_policy(fd, XFRM_POLICY_OUT, XFRM_POLICY_BLOCK) < 0 && errno == EOPNOTSUPP;
    ::close(fd);
    return good;
}

bool says_that_it_cannot_mark() {
    const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
    const pid_t child = ::fork();
    if (child == 0) {
        __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
        __user_cap_data_struct none[2] = {};
        const bool refused = ::syscall(SYS_capset, &header, none) == 0 &&
                             set_policy(fd, XFRM_POLICY_OUT, XFRM_POLICY_ALLOW) < 0 &&
                             errno == EPERM;
        ::_exit(refused ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    ::close(fd);
    return status == 0;
}

bool keeps_ike_options_from_the_kernel() {
    const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
    const char policy[168] = {};
    const int espinudp = 2, on = 1;
    int value = 0;
    socklen_t length = sizeof value;
    const bool good = ::setsockopt(fd, IPPROTO_IP, 16, policy, sizeof policy) == 0 &&
                      ::setsockopt(fd, IPPROTO_IPV6, 34, policy, sizeof policy) == 0 &&
                      ::setsockopt(fd, IPPROTO_UDP, 100, &espinudp, sizeof espinudp) == 0 &&
                      ::setsockopt(fd, IPPROTO_UDP, 104, &on, sizeof on) == 0 &&
                      ::getsockopt(fd, IPPROTO_UDP, 100, &value, &length) == 0 && value == 0;
    ::close(fd);
    return good;
}

bool leaves_other_netlink_alone() {
    const int fd = ::socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    sockaddr_nl a{};
    a.nl_family = AF_NETLINK;
    int protocol = -1;
    socklen_t length = sizeof protocol;
    const bool good = ::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 &&
                      ::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 &&
                      protocol == NETLINK_ROUTE;
    ::close(fd);
    return good;
}

constexpr test_case cases[] = {
    {"a client that only writes and reads is answered", writes_without_binding},
    {"messages are gathered and scattered", gathers_and_scatters},
    {"replies come from the kernel's address", sees_the_kernels_address},
    {"the length of a reply can be peeked at", peeks_at_the_length},
    {"several messages go and come in one call", sends_and_receives_many},
    {"the socket has the address and type of a netlink socket", knows_its_own_address},
    {"an unbound socket has no number yet", leaves_its_number_to_one_that_binds},
    {"duplicates of the socket are the socket", lives_on_in_duplicates},
    {"a forked child and its parent both use the socket", is_shared_with_a_child},
    {"the first of many processes still uses the socket", is_shared_with_many_children},
    {"options that are not there are refused", knows_which_options_there_are},
    {"the socket is inherited across exec", is_inherited_across_exec},
    {"a reused descriptor number is not taken for the socket", is_not_mistaken_for_another},
    {"a non-blocking socket does not block", waits_when_asked_to},
    {"a request that is too long is refused", refuses_what_is_too_long},
    {"IKE's sockets need no IPsec policy of the kernel", keeps_ike_options_from_the_kernel},
    {"a socket that is to bypass IPsec is marked, and no more than once it is not",
     marks_what_bypasses},
    {"a socket's policy that protects or blocks is refused", refuses_policies_of_sockets},
    {"without the capability to mark a bypass fails", says_that_it_cannot_mark},
    {"sockets of other netlink families go to the kernel", leaves_other_netlink_alone},
    {"threads use one socket and their own", serves_threads},
};

} // namespace

int main(int argc, char** argv) {
    if (argc == 2) {
        const int inherited = std::atoi(argv[1]);
        return own_port(inherited) != 0 && asks_and_is_answered(inherited) ? 0 : 1;
    }
    return run_cases(cases);
}

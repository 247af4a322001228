// SPDX-License-Identifier: Apache-2.0
//
// A client of NETLINK_XFRM that opens a socket for every few questions, as iproute2 does for every
// line of a batch.  To run under the shim, which uses closed sockets again.
//
//   shim_parked            "ok NAME" or "FAILED NAME" for each case; exit status 1 if one failed
//   shim_parked FD         holds the inherited socket FD for a moment
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <filesystem>
#include <string>

#include "tests/interop/shim_asking.h"

namespace {

bool finds_nothing_of_a_closed_one() {
    int fd = busy_socket();
    const int on = 1;
    bool good = fd >= 0;
    for (int i = 0; i < 20; ++i) {
        good = good && asks(fd) && // and does not read
               ::setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on) == 0 &&
               ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &on, sizeof on) == 0;
        ::close(fd);
        int value = -1, room = 0;
        socklen_t length = sizeof value;
        fd = xfrm_socket(SOCK_CLOEXEC);
        good = good && own_port(fd) == 0 && !answered(fd) && errno == EAGAIN &&
               ::getsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &value, &length) == 0 && value == 0 &&
               ::getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, &length) == 0 && room > 4096 &&
               asks_and_is_answered(fd) && own_port(fd) != 0;
        good = good && ask_often(fd);
    }
    ::close(fd);
    return good;
}

bool is_not_what_another_became() {
    const timeval moment{0, 1000};
    const int on = 1;
    bool good = true;
    for (int i = 0; i < 4; ++i) {
        const int fd = busy_socket();
        const int loop = ::epoll_create1(EPOLL_CLOEXEC);
        epoll_event e{};
        e.events = EPOLLIN;
        good = good && (::fcntl(fd, F_GETFL) & O_NONBLOCK) == 0;
        if (i == 0) good = good && ::ioctl(fd, FIONBIO, &on) == 0;
        if (i == 1) good = good && ::fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0;
        if (i == 2)
            good = good && ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof moment) == 0;
        if (i == 3) good = good && ::epoll_ctl(loop, EPOLL_CTL_ADD, fd, &e) == 0;
        ::close(fd);
        const int next = busy_socket();
        timeval left{};
        socklen_t length = sizeof left;
        good = good && (::fcntl(next, F_GETFL) & O_NONBLOCK) == 0 &&
               ::getsockopt(next, SOL_SOCKET, SO_RCVTIMEO, &left, &length) == 0 &&
               left.tv_usec == 0 && ::epoll_ctl(loop, EPOLL_CTL_ADD, next, &e) == 0;
        ::close(next);
        ::close(loop);
    }
    return good;
}

bool leaves_its_number_when_closed() {
    const int first = busy_socket(), second = xfrm_socket(SOCK_CLOEXEC);
    const std::uint32_t own = own_port(first);
    ::close(first);
    sockaddr_nl a{};
    a.nl_family = AF_NETLINK;
    a.nl_pid = own;
    const bool good = own != 0 && ::bind(second, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 &&
                      own_port(second) == own && asks_and_is_answered(second);
    ::close(second);
    const int third = busy_socket();
    ::close(third);
    const int fourth = xfrm_socket(SOCK_CLOEXEC);
    a.nl_pid = 424242;
    const bool other = ::bind(fourth, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 &&
                       own_port(fourth) == 424242 && asks_and_is_answered(fourth);
    ::close(fourth);
    return good && other;
}

bool is_closed_behind_the_shims_back() {
    const int fd = busy_socket();
    ::close(fd);
    ::syscall(SYS_close, fd); // if it is kept for the next
    const int next = busy_socket();
    ::close(next);
    const int file = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    ::syscall(SYS_dup3, file, next, O_CLOEXEC);
    const int last = busy_socket();
    const bool good = last >= 0 && ::write(next, "x", 1) == 1;
    ::close(last);
    ::close(next);
    ::close(file);
    return good;
}

// Who has lost the right to ask has no connection from before.

int sockets_of_this_process() {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;
        count += read_symlink(entry, gone).string().starts_with("socket:") ? 1 : 0;
    }
    return count;
}

void open_and_close_often() {
    for (int i = 0; i < 10; ++i)
        ::close(busy_socket());
}

bool loses_its_rights(int (*drop)()) {
    const int before = sockets_of_this_process();
    open_and_close_often();
    if (::geteuid() != 0) return true;
    return drop() == 0 && sockets_of_this_process() == before && xfrm_socket(SOCK_CLOEXEC) < 0;
}

bool has_no_connection_as_another_user() {
    return loses_its_rights([] { return ::setresuid(65534, 65534, 65534); });
}
bool has_no_connection_as_another_user_for_a_while() {
    return loses_its_rights([] { return ::seteuid(65534); });
}
bool has_no_connection_of_one_closed_later() {
    const int fd = busy_socket();
    return loses_its_rights([] { return ::setuid(65534); }) && ::close(fd) == 0 &&
           (::geteuid() == 0 || xfrm_socket(SOCK_CLOEXEC) < 0);
}
bool has_no_connection_behind_the_shims_back() {
    open_and_close_often();
    if (::geteuid() != 0) return true;
    return ::syscall(SYS_setresuid, 65534, 65534, 65534) == 0 && xfrm_socket(SOCK_CLOEXEC) < 0;
}

// One socket, one process.

ino_t inode_of(const std::string& path) {
    struct stat st {};
    return ::stat(path.c_str(), &st) == 0 ? st.st_ino : 0;
}

/// Says whether the next socket is another than `fd` was, which is closed.
bool is_not_used_again(int fd) {
    const std::string at = "/proc/self/fd/";
    const ino_t before = inode_of(at + std::to_string(fd));
    ::close(fd);
    const int next = xfrm_socket(SOCK_CLOEXEC);
    return before != 0 && inode_of(at + std::to_string(next)) != before &&
           asks_and_is_answered(next);
}

bool is_not_what_was_passed() {
    open_and_close_often();
    const int first = busy_socket();
    bool good = passed_over_socket(first, by_sendmsg) >= 0 && is_not_used_again(first);
    const int second = busy_socket();
    good = good && passed_over_socket(second, by_sendmmsg) >= 0 && is_not_used_again(second);
    return good;
}

bool is_not_what_a_spawned_child_has() {
    open_and_close_often();
    const int fd = busy_socket();
    return spawned_with(fd) > 0 && is_not_used_again(fd);
}

bool is_not_what_a_child_of_vfork_has() {
    open_and_close_often();
    const int fd = busy_socket();
    const pid_t child = ::vfork();
    if (child == 0) {
        ::dup2(fd, 9);
        ::execl("/proc/self/exe", "shim_parked", "9", nullptr);
        ::_exit(1);
    }
    return child > 0 && is_not_used_again(fd);
}

bool is_not_what_a_forked_child_has() {
    open_and_close_often();
    const pid_t child = ::fork();
    if (child == 0) {
        const int fd = busy_socket();
        ::close(fd);
        const int again = busy_socket();
        ::_exit(again >= 0 ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    return status == 0 && busy_socket() >= 0;
}

constexpr test_case cases[] = {
    {"a new socket has nothing of a closed one", finds_nothing_of_a_closed_one},
    {"nor is it what another became", is_not_what_another_became},
    {"a closed socket leaves its number", leaves_its_number_when_closed},
    {"a socket that is closed behind the shim's back is not used again",
     is_closed_behind_the_shims_back},
    {"another user has no socket of before", apart<has_no_connection_as_another_user>},
    {"nor one who is that for a while", apart<has_no_connection_as_another_user_for_a_while>},
    {"nor has it one that is closed later", apart<has_no_connection_of_one_closed_later>},
    {"nor one who became it behind the shim's back",
     apart<has_no_connection_behind_the_shims_back>},
    {"a socket that was passed on is not used again", apart<is_not_what_was_passed>},
    {"nor one that a spawned child has", apart<is_not_what_a_spawned_child_has>},
    {"nor one that a child of vfork has", apart<is_not_what_a_child_of_vfork_has>},
    {"a forked child and its parent each have their own", apart<is_not_what_a_forked_child_has>},
};

} // namespace

int main(int argc, char**) {
    if (argc == 2) return ::usleep(2'000'000);
    return run_cases(cases);
}

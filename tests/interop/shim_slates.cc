// SPDX-License-Identifier: Apache-2.0
//
// A client of NETLINK_XFRM that asks often: it is answered without its socket, as long as nobody
// can tell.  To run under the shim, for whose slates it is.
//
//   shim_slates            "ok NAME" or "FAILED NAME" for each case; exit status 1 if one failed
//   shim_slates FD         exit status 0 if an answer is there on the inherited socket FD
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "tests/interop/shim_asking.h"

namespace {

bool is_seen_by_select(int fd) {
    fd_set set;
    timeval now{};
    FD_ZERO(&set);
    FD_SET(fd, &set);
    return ::select(fd + 1, &set, nullptr, nullptr, &now) == 1;
}

bool is_seen_by_epoll(int fd) {
    const int loop = ::epoll_create1(EPOLL_CLOEXEC);
    epoll_event e{};
    e.events = EPOLLIN;
    const bool seen =
        ::epoll_ctl(loop, EPOLL_CTL_ADD, fd, &e) == 0 && ::epoll_wait(loop, &e, 1, 0) == 1;
    ::close(loop);
    return seen;
}

bool is_told_when_it_waits() {
    const int fd = busy_socket();
    bool good = true;
    for (bool (*const seen)(int) : {is_seen_by_poll, is_seen_by_select, is_seen_by_epoll})
        for (int i = 0; i < 3; ++i)
            good = good && asks(fd) && seen(fd) && answered(fd) && !answered(fd);
    ::close(fd);
    return good;
}

bool receives_in_order() {
    const int fd = busy_socket();
    bool good = true;
    for (std::uint32_t i = 100; i < 110; ++i) {
        info_request r = ask_for_counts();
        r.header.nlmsg_seq = i;
        good = good && ::send(fd, &r, sizeof r, 0) == sizeof r;
    }
    for (std::uint32_t i = 100; i < 110; ++i) {
        nlmsghdr h{};
        good = good && ::recv(fd, &h, sizeof h, MSG_DONTWAIT) == sizeof h && h.nlmsg_seq == i;
    }
    ::close(fd);
    return good;
}

bool leaves_its_reply_to_a_child() {
    const int fd = busy_socket();
    bool good = asks(fd);
    const pid_t child = ::fork();
    if (child == 0) ::_exit(answered(fd) ? 0 : 1);
    int status = -1;
    ::waitpid(child, &status, 0);
    good = good && status == 0 && !answered(fd) && asks_and_is_answered(fd);
    ::close(fd);
    return good;
}

bool leaves_its_reply_to_a_thread() {
    const int fd = busy_socket();
    bool good = asks(fd), seen = false;
    std::thread([&] { seen = answered(fd); }).join();
    good = good && seen && !answered(fd);
    ::close(fd);
    return good;
}

// A handler may interrupt what the shim does with the same socket.
void look_around(int) {
    ::poll(nullptr, 0, 0);
}

bool waits_in_a_signals_handler() {
    using clock = std::chrono::steady_clock;
    const int fd = busy_socket();
    std::signal(SIGUSR1, look_around);
    sigevent e{};
    e.sigev_notify = SIGEV_SIGNAL;
    e.sigev_signo = SIGUSR1;
    timer_t timer;
    const itimerspec often{{0, 37'000}, {0, 37'000}};
    bool good = ::timer_create(CLOCK_MONOTONIC, &e, &timer) == 0 &&
                ::timer_settime(timer, 0, &often, nullptr) == 0;
    for (const auto end = clock::now() + std::chrono::seconds(3); good && clock::now() < end;)
        good = asks(fd) && answered(fd) && !answered(fd);
    ::timer_delete(timer);
    return good;
}

// Daemons close what they were started with; what the shim has for itself goes, too.
void close_all_but(int fd) {
    for (int i = 3; i < 1024; ++i)
        if (i != fd) ::close(i);
}

bool goes_on_alone() {
    const int fd = busy_socket();
    ::usleep(5'000); // the server sleeps
    close_all_but(fd);
    bool good = true;
    for (int i = 0; i < 8; ++i)
        good = good && asks(fd) && is_seen_by_poll(fd) && answered(fd);
    return good;
}

bool leaves_alone_what_took_its_numbers() {
    const int fd = busy_socket();
    ::usleep(5'000);
    close_all_but(fd);
    int own[2];
    bool good = ::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, own) == 0;
    for (int i = 512; i < 520; ++i)
        good = good && ::dup2(own[0], i) == i;
    for (int i = 0; i < 5; ++i)
        good = good && ::send(own[1], "a client's", 10, 0) == 10;
    good = good && asks_and_is_answered(fd);
    char text[16];
    for (int i = 0; i < 5; ++i)
        good = good && ::recv(own[0], text, sizeof text, MSG_DONTWAIT) == 10;
    return good && asks_and_is_answered(fd);
}

bool hears_of_a_reply_that_is_lost() {
    const int fd = busy_socket();
    const bool good = asks(fd);
    for (int i = 3; i < 1024; ++i)
        if (i != fd) ::syscall(SYS_close, i);
    ::poll(nullptr, 0, 0);
    char byte;
    return good && ::recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == ENOBUFS &&
           ::recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN && asks_and_is_answered(fd);
}

// Whoever has the socket next finds the reply on it.

bool ends_well(pid_t child) {
    int status = -1;
    return child > 0 && ::waitpid(child, &status, 0) == child && status == 0;
}

bool leaves_its_reply_to_a_program() {
    const int fd = busy_socket();
    if (!asks(fd) || ::dup2(fd, 9) != 9) return false;
    ::execl("/proc/self/exe", "shim_slates", "9", nullptr);
    return false;
}

bool leaves_its_reply_to_a_program_that_inherits_it() {
    const int fd = busy_socket();
    if (!asks(fd) || ::fcntl(fd, F_SETFD, 0) != 0) return false;
    ::execl("/proc/self/exe", "shim_slates", std::to_string(fd).c_str(), nullptr);
    return false;
}

bool leaves_its_reply_to_a_child_of_vfork() {
    const int fd = busy_socket();
    if (!asks(fd)) return false;
    const pid_t child = ::vfork();
    if (child == 0) {
        ::dup2(fd, 9);
        ::execl("/proc/self/exe", "shim_slates", "9", nullptr);
        ::_exit(1);
    }
    return ends_well(child);
}

bool leaves_its_reply_to_a_spawned_child() {
    const int fd = busy_socket();
    return asks(fd) && ends_well(spawned_with(fd));
}

/// Past the shim: as a process sees it that has none.
bool is_readable(int fd) {
    pollfd p{fd, POLLIN, 0};
    return ::syscall(SYS_poll, &p, 1, 0) == 1;
}

bool leaves_its_reply_to_whom_it_is_passed() {
    const int first = busy_socket(), second = busy_socket();
    return asks(first) && is_readable(passed_over_socket(first, by_sendmsg)) && asks(second) &&
           is_readable(passed_over_socket(second, by_sendmmsg));
}

bool asks_in_a_child_without_handlers() {
    const int fd = busy_socket();
    const bool waits = asks(fd);
    const auto child = static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    if (child == 0) {
        ::poll(nullptr, 0, 0);
        ::_exit(asks(fd) && asks(fd) ? 0 : 1);
    }
    return waits && ends_well(child) && answered(fd);
}

// The server looks at slates without sleeping.

using microseconds = std::chrono::duration<double, std::micro>;

microseconds time_to_ask(int fd) {
    const auto start = std::chrono::steady_clock::now();
    if (!asks_and_is_answered(fd)) return std::chrono::hours(1);
    return std::chrono::steady_clock::now() - start;
}

bool is_answered_beside_one_that_asks_without_pause() {
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(20);
        for (const int fd = busy_socket(); asks_and_is_answered(fd);) {
        }
        ::_exit(1);
    }
    ::usleep(50'000);
    std::vector<microseconds> took;
    const int fd = xfrm_socket(SOCK_CLOEXEC);
    for (int i = 0; i < 100; ++i)
        took.push_back(time_to_ask(fd));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    std::ranges::sort(took);
    return WIFSIGNALED(status) && took[took.size() / 2] < std::chrono::milliseconds(20) &&
           took.back() < std::chrono::seconds(1);
}

// Both fall asleep at about the time at which the other is asked, or answered.
bool is_answered_at_the_border_of_sleep() {
    using clock = std::chrono::steady_clock;
    const int fd = busy_socket();
    microseconds longest{};
    int pause = 40;
    for (const auto end = clock::now() + std::chrono::seconds(3); clock::now() < end;) {
        longest = std::max(longest, time_to_ask(fd));
        pause = pause == 60 ? 40 : pause + 1;
        for (const auto until = clock::now() + std::chrono::microseconds(pause);
             clock::now() < until;) {
        }
    }
    return longest < std::chrono::milliseconds(200);
}

// First what a process with threads is not given.
constexpr test_case cases[] = {
    {"a reply is seen by who waits for it", is_told_when_it_waits},
    {"replies are received in order", receives_in_order},
    {"a reply that was not received is a child's, too", leaves_its_reply_to_a_child},
    {"a handler of signals waits at any time", apart<waits_in_a_signals_handler>},
    {"a client that closes all but its socket goes on", apart<goes_on_alone>},
    {"what took the numbers of the shim's own descriptors is the client's",
     apart<leaves_alone_what_took_its_numbers>},
    {"a reply that is lost is said to be", apart<hears_of_a_reply_that_is_lost>},
    {"a reply that was not received is for the program that is executed",
     apart<leaves_its_reply_to_a_program>},
    {"also where the socket is only now inherited",
     apart<leaves_its_reply_to_a_program_that_inherits_it>},
    {"and for a child of vfork", apart<leaves_its_reply_to_a_child_of_vfork>},
    {"and for a spawned one", apart<leaves_its_reply_to_a_spawned_child>},
    {"and for whom the socket is passed to", apart<leaves_its_reply_to_whom_it_is_passed>},
    {"a child that was made behind the shim's back asks", apart<asks_in_a_child_without_handlers>},
    {"one that asks without pause delays nobody", is_answered_beside_one_that_asks_without_pause},
    {"no wake-up is lost", is_answered_at_the_border_of_sleep},
    {"a reply that was not received is a thread's, too", leaves_its_reply_to_a_thread},
};

} // namespace

int main(int argc, char** argv) {
    if (argc == 2) return answered(std::atoi(argv[1])) ? 0 : 1;
    return run_cases(cases);
}

// SPDX-License-Identifier: Apache-2.0
//
// A client of NETLINK_XFRM whose server is killed and started again, to run under the shim.
//
//   shim_restart XFRM_SERVER SOCKET      "ok NAME" or "FAILED NAME" for each case
//   shim_restart FD                      asks on the inherited socket FD; 0 if it is answered
//
//   this program, ip --shim--> xfrm_server, which dies by SIGKILL
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;

std::string server_program, server_path;
pid_t server = -1;

void start_server() {
    int out[2];
    if (::pipe2(out, O_CLOEXEC) != 0) std::abort();
    server = ::fork();
    if (server == 0) {
        ::unsetenv("LD_PRELOAD");
        ::dup2(out[1], STDOUT_FILENO);
        ::execl(server_program.c_str(), "xfrm_server", server_path.c_str(), "0", nullptr);
        ::_exit(127);
    }
    ::close(out[1]);
    char ready = 0;
    if (::read(out[0], &ready, 1) != 1) std::abort();
    ::close(out[0]);
}

/// The server may be another process's child.
void kill_server() {
    pollfd end{static_cast<int>(::syscall(SYS_pidfd_open, server, 0)), POLLIN, 0};
    ::kill(server, SIGKILL);
    ::poll(&end, 1, -1);
    ::close(end.fd);
    ::waitpid(server, nullptr, 0);
}

void restart_server() {
    kill_server();
    start_server();
}

/// Runs ip(8), under the shim as this program is.
int ip(const std::string& words) {
    return std::system(("ip " + words + " >/dev/null 2>&1").c_str());
}

const std::string some_policy = "xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out";

int xfrm_socket(std::uint32_t groups = 0, int flags = 0) {
    const int fd = ::socket(AF_NETLINK, SOCK_RAW | flags, NETLINK_XFRM);
    sockaddr_nl a{};
    a.nl_family = AF_NETLINK;
    a.nl_groups = groups;
    if (groups != 0) (void)::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a);
    return fd;
}

std::uint32_t port_of(int fd) {
    sockaddr_nl a{};
    socklen_t length = sizeof a;
    return ::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &length) == 0 ? a.nl_pid : 0;
}

bool send_ask(int fd, std::uint16_t type = XFRM_MSG_GETSADINFO, std::uint16_t flags = 0) {
    struct {
        nlmsghdr header;
        std::uint32_t body[16];
    } r{};
    r.header.nlmsg_len = type == XFRM_MSG_GETSADINFO ? 20 : sizeof r;
    r.header.nlmsg_type = type;
    r.header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
    r.body[0] = type == XFRM_MSG_GETSADINFO ? ~0u : 0;
    return ::send(fd, &r, r.header.nlmsg_len, 0) == static_cast<ssize_t>(r.header.nlmsg_len);
}

/// The type of the next message; minus errno where there is none.
int receive(int fd, int flags = MSG_DONTWAIT) {
    char reply[8192];
    const ssize_t length = ::recv(fd, reply, sizeof reply, flags);
    if (length < 0) return -errno;
    nlmsghdr h{};
    if (length < static_cast<ssize_t>(sizeof h)) return 0;
    std::memcpy(&h, reply, sizeof h);
    return h.nlmsg_type;
}

bool asks_and_is_answered(int fd) {
    return send_ask(fd) && receive(fd) == XFRM_MSG_NEWSADINFO;
}

/// Says whether it comes to be so within some seconds.
template <typename Condition>
bool comes_true(Condition&& condition) {
    const auto until = std::chrono::steady_clock::now() + 10s;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > until) return false;
        std::this_thread::sleep_for(10ms);
    }
    return true;
}

bool is_readable(int fd, int milliseconds) {
    pollfd p{fd, POLLIN, 0};
    return ::poll(&p, 1, milliseconds) != 0;
}

bool is_known_to_the_next_server() {
    const int fd = xfrm_socket();
    bool good = asks_and_is_answered(fd);
    const std::uint32_t port = port_of(fd);
    restart_server();
    good = good && asks_and_is_answered(fd) && port_of(fd) == port && port != 0;
    ::close(fd);
    return good;
}

bool waits_for_the_server() {
    const int fd = xfrm_socket(0, SOCK_NONBLOCK);
    bool good = asks_and_is_answered(fd);
    kill_server();
    const auto from = std::chrono::steady_clock::now();
    std::thread starter([] {
        std::this_thread::sleep_for(500ms);
        start_server();
    });
    good = good && asks_and_is_answered(fd) && std::chrono::steady_clock::now() - from > 400ms;
    starter.join();
    ::close(fd);
    return good;
}

bool waits_no_longer_than_for_an_answer() {
    const int fd = xfrm_socket();
    kill_server();
    const auto from = std::chrono::steady_clock::now();
    const bool good = !send_ask(fd) && errno == ENOBUFS;
    const auto waited = std::chrono::steady_clock::now() - from;
    start_server();
    const bool again = asks_and_is_answered(fd);
    ::close(fd);
    return good && again && waited > 9s && waited < 12s;
}

bool sleeps_meanwhile() {
    const int fd = xfrm_socket(XFRMGRP_POLICY, SOCK_NONBLOCK);
    const int loop = ::epoll_create1(EPOLL_CLOEXEC);
    epoll_event e{};
    e.events = EPOLLIN;
    bool good = ::epoll_ctl(loop, EPOLL_CTL_ADD, fd, &e) == 0;
    kill_server();
    good = good && ::epoll_wait(loop, &e, 1, 300) == 0 && !is_readable(fd, 0) &&
           receive(fd) == -EAGAIN;
    start_server();
    good = good && ::epoll_wait(loop, &e, 1, 3000) == 1 && receive(fd) == -ENOBUFS;
    good = good && ::epoll_wait(loop, &e, 1, 0) == 0; // once
    good = good && ip(some_policy) == 0 && ::epoll_wait(loop, &e, 1, 1000) == 1 &&
           receive(fd) == XFRM_MSG_NEWPOLICY;
    ::close(loop);
    ::close(fd);
    return good;
}

bool is_woken_from_a_blocking_read() {
    const int fd = xfrm_socket(XFRMGRP_POLICY);
    std::atomic<int> got[2] = {0, 0};
    std::thread reader([&] {
        got[0] = receive(fd, 0);
        got[1] = receive(fd, 0);
    });
    restart_server();
    const bool added = comes_true([&] { return got[0] != 0; }) && ip(some_policy) == 0;
    reader.join();
    ::close(fd);
    return added && got[0] == -ENOBUFS && got[1] == XFRM_MSG_NEWPOLICY;
}

/// More than the socket's buffers take when they are dumped; many in a datagram, none acknowledged.
bool add_many_policies(int fd) {
    struct one {
        nlmsghdr header;
        xfrm_userpolicy_info policy;
    };
    std::vector<one> batch(300);
    for (std::uint32_t i = 0; i < 9000; ++i) {
        one& o = batch[i % batch.size()];
        o = {};
        o.header = {sizeof o, XFRM_MSG_NEWPOLICY, NLM_F_REQUEST, 0, 0};
        o.policy.sel.family = AF_INET;
        o.policy.sel.daddr.a4 = i;
        o.policy.sel.prefixlen_d = 32;
        o.policy.dir = XFRM_POLICY_OUT;
        if (i % batch.size() != batch.size() - 1) continue;
        const std::size_t length = batch.size() * sizeof o;
        if (::send(fd, batch.data(), length, 0) != static_cast<ssize_t>(length)) return false;
    }
    return receive(fd) == -EAGAIN;
}

/// It hears nothing more until it has read, and then that it missed something.
bool learns_of_lost_events() {
    const int slow = xfrm_socket(XFRMGRP_POLICY), fd = xfrm_socket();
    bool good = add_many_policies(fd);
    int last = 0, heard = 0;
    while ((last = receive(slow)) == XFRM_MSG_NEWPOLICY)
        ++heard;
    good = good && heard > 100 && heard < 9000;
    if (last == -EAGAIN && is_readable(slow, 3000)) last = receive(slow);
    good = good && last == -ENOBUFS && receive(slow) == -EAGAIN;
    good = good && ip(some_policy) == 0 && is_readable(slow, 1000) &&
           receive(slow) == XFRM_MSG_NEWPOLICY;
    ::close(slow);
    ::close(fd);
    return good;
}

bool learns_of_a_lost_dump() {
    const int fd = xfrm_socket();
    bool good = add_many_policies(fd) && send_ask(fd, XFRM_MSG_GETPOLICY, NLM_F_DUMP) &&
                receive(fd) == XFRM_MSG_NEWPOLICY;
    kill_server();
    int last = 0;
    while (good && (last = receive(fd, 0)) == XFRM_MSG_NEWPOLICY) {
    }
    start_server();
    good = good && last == -ENOBUFS && asks_and_is_answered(fd);
    // A dump that was read to its end is not lost.
    good = good && send_ask(fd, XFRM_MSG_GETPOLICY, NLM_F_DUMP) && receive(fd) == NLMSG_DONE;
    restart_server();
    good = good && !is_readable(fd, 300);
    ::close(fd);
    return good;
}

/// A policy that is asked for in another thread while the server stands still, and then dies.
struct asked_of_the_dead {
    int fd;
    bool sent = false;
    std::atomic<pid_t> thread = 0;

    void run() {
        ::kill(server, SIGSTOP);
        std::thread adder([this] {
            thread = ::gettid();
            sent = send_policy(fd);
        });
        (void)comes_true([this] { return is_asleep(); }); // it waits for its answer
        restart_server();
        adder.join();
    }
    [[nodiscard]] bool is_asleep() const {
        if (thread == 0) return false;
        std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
        const std::string text{std::istreambuf_iterator<char>(file), {}};
        return text.find(") S ") != std::string::npos;
    }
    static bool send_policy(int over) {
        struct {
            nlmsghdr header;
            xfrm_userpolicy_info policy;
        } r{};
        r.header = {sizeof r, XFRM_MSG_NEWPOLICY, NLM_F_REQUEST, 0, 0};
        r.policy.sel.family = AF_INET;
        r.policy.sel.prefixlen_d = 32;
        r.policy.dir = XFRM_POLICY_OUT;
        return ::send(over, &r, sizeof r, 0) == sizeof r;
    }
};

bool is_there() {
    return ip("xfrm policy get src 0.0.0.0/0 dst 0.0.0.0/32 dir out") == 0;
}

bool is_not_answered_by_the_next() {
    asked_of_the_dead a{xfrm_socket()};
    a.run();
    const bool good = !a.sent && !is_there();
    ::close(a.fd);
    return good;
}

/// Who asks often shares memory with the server: there it is known that the request was not taken.
bool is_asked_of_the_next() {
    asked_of_the_dead a{xfrm_socket()};
    bool good = true;
    for (int i = 0; i < 8; ++i)
        good = good && asks_and_is_answered(a.fd);
    a.run();
    good = good && a.sent && is_there() && asks_and_is_answered(a.fd);
    ::close(a.fd);
    return good;
}

bool shares_with_a_child() {
    const int fd = xfrm_socket(XFRMGRP_POLICY);
    bool good = asks_and_is_answered(fd);
    int told[2], done[2];
    if (::pipe(told) != 0 || ::pipe(done) != 0) return false;
    const pid_t child = ::fork();
    if (child == 0) {
        char byte = 0;
        bool answered = true;
        for (int i = 0; i < 2; ++i) {
            (void)!::read(told[0], &byte, 1);
            answered = answered && asks_and_is_answered(fd);
            (void)!::write(done[1], "", 1);
        }
        (void)!::read(told[0], &byte, 1);
        ::_exit(answered && asks_and_is_answered(fd) ? 0 : 1);
    }
    const auto child_asks = [&] {
        char byte = 0;
        return ::write(told[1], "", 1) == 1 && ::read(done[0], &byte, 1) == 1;
    };
    good = good && child_asks();
    restart_server();
    good = good && is_readable(fd, 3000) && receive(fd) == -ENOBUFS;
    good = good && child_asks(); // now both know the server: it was told once
    good = good && receive(fd) == -EAGAIN && asks_and_is_answered(fd);
    good = good && ip(some_policy) == 0 && is_readable(fd, 1000) &&
           receive(fd) == XFRM_MSG_NEWPOLICY && receive(fd) == -EAGAIN; // not twice
    (void)!::write(told[1], "", 1);
    int status = -1;
    ::waitpid(child, &status, 0);
    for (const int end : {told[0], told[1], done[0], done[1], fd})
        ::close(end);
    return good && status == 0;
}

/// As a daemon that forks into the background.
bool goes_on_in_a_child_alone() {
    int fd = xfrm_socket(XFRMGRP_POLICY);
    const pid_t child = ::fork();
    if (child == 0) {
        const int other = xfrm_socket(); // whatever it does next
        restart_server();
        const bool good = is_readable(fd, 3000) && receive(fd) == -ENOBUFS;
        ::close(other);
        kill_server();
        ::_exit(good ? 0 : 1);
    }
    ::close(fd);
    int status = -1;
    ::waitpid(child, &status, 0);
    ::waitpid(server, nullptr, 0);
    start_server();
    return status == 0;
}

bool is_inherited_while_the_server_is_away() {
    const int fd = xfrm_socket();
    bool good = asks_and_is_answered(fd);
    kill_server();
    const pid_t child = ::fork();
    if (child == 0) {
        ::execl("/proc/self/exe", "shim_restart", std::to_string(fd).c_str(), nullptr);
        ::_exit(127);
    }
    std::this_thread::sleep_for(200ms);
    start_server();
    int status = -1;
    ::waitpid(child, &status, 0);
    good = good && status == 0 && asks_and_is_answered(fd);
    ::close(fd);
    return good;
}

bool leaves_ip_monitor_at_work() {
    const std::string output = server_path + ".monitor";
    const pid_t monitor = ::fork();
    if (monitor == 0) {
        const int file = ::open(output.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
        ::dup2(file, STDOUT_FILENO);
        ::dup2(file, STDERR_FILENO);
        ::execlp("ip", "ip", "xfrm", "monitor", "policy", nullptr);
        ::_exit(127);
    }
    const auto hears_of = [&](const std::string& net) {
        (void)ip("xfrm policy update src " + net + " dst 10.2.0.0/16 dir out");
        std::ifstream file(output);
        const std::string text{std::istreambuf_iterator<char>(file), {}};
        return text.find("src " + net) != std::string::npos;
    };
    const bool before = comes_true([&] { return hears_of("10.1.0.0/16"); });
    restart_server();
    const bool after = comes_true([&] { return hears_of("10.3.0.0/16"); });
    ::kill(monitor, SIGTERM);
    ::waitpid(monitor, nullptr, 0);
    return before && after;
}

struct test_case {
    const char* name;
    bool (*run)();
};

constexpr test_case cases[] = {
    {"a socket is answered by the next server, under its old number", is_known_to_the_next_server},
    {"a send waits for the server", waits_for_the_server},
    {"an event loop sleeps while the server is away, and hears what follows", sleeps_meanwhile},
    {"a blocking reader learns that it missed events", is_woken_from_a_blocking_read},
    {"a reader that is too slow learns that it missed events", learns_of_lost_events},
    {"the reader of a dump learns that the rest is lost", learns_of_a_lost_dump},
    {"a request that one server left is not carried out by the next", is_not_answered_by_the_next},
    {"one that a server did not take from shared memory is", is_asked_of_the_next},
    {"two processes go on with one socket, and events come once", shares_with_a_child},
    {"a child goes on without its parent", goes_on_in_a_child_alone},
    {"a socket is inherited while the server is away", is_inherited_while_the_server_is_away},
    {"ip xfrm monitor goes on", leaves_ip_monitor_at_work},
    {"a send waits no longer than for an answer", waits_no_longer_than_for_an_answer},
};

} // namespace

int main(int argc, char** argv) {
    if (argc == 2) return asks_and_is_answered(std::atoi(argv[1])) ? 0 : 1;
    if (argc != 3) {
        std::fprintf(stderr, "usage: shim_restart XFRM_SERVER SOCKET\n");
        return 2;
    }
    server_program = argv[1];
    server_path = argv[2];
    int failures = 0;
    for (const test_case& c : cases) {
        start_server();
        const bool good = c.run();
        kill_server();
        std::printf("%s %s\n", good ? "ok" : "FAILED", c.name);
        std::fflush(stdout);
        failures += good ? 0 : 1;
    }
    return failures == 0 ? 0 : 1;
}

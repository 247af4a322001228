// SPDX-License-Identifier: Apache-2.0
#include "tools/takeover.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include "tools/control_socket.h"

namespace esplane::tools {

namespace {

constexpr int limit_ms = 10'000;
constexpr std::size_t longest_line = 8192; ///< with the name of a file
constexpr std::string_view request = "takeover 2 ";
constexpr std::string_view loan = "lend 1 ";
constexpr std::string_view handed = "handed over ";
constexpr std::string_view released = "released";

std::string path_in(const std::string& run_dir) {
    return run_dir + "/takeover.sock";
}

result<ucred> peer_of(int socket) {
    ucred peer{};
    socklen_t length = sizeof peer;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return fail_errno("takeover");
    return peer;
}

bool is_ours(int socket) {
    const auto peer = peer_of(socket);
    return peer && (peer->uid == 0 || peer->uid == ::geteuid());
}

/// Descriptors go with it where there are some.
bool send_line(int socket, std::string line, const state_descriptors& with) {
    const std::array<int, 2> descriptors{with.log, with.live};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof descriptors)> control{};
    iovec text{line.data(), line.size()};
    msghdr message{};
    message.msg_iov = &text;
    message.msg_iovlen = 1;
    if (with.log >= 0) {
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        cmsghdr* const head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof descriptors);
        std::memcpy(CMSG_DATA(head), descriptors.data(), sizeof descriptors);
    }
    return ::sendmsg(socket, &message, MSG_NOSIGNAL) == std::ssize(line);
}

result<handed_state> receive(int socket) {
    std::array<char, longest_line> text;
    std::array<int, 2> descriptors{-1, -1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof descriptors)> control{};
    iovec to{text.data(), text.size()};
    msghdr message{};
    message.msg_iov = &to;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (n < 0) return fail_errno("--takeover: the daemon does not answer");
    const cmsghdr* const head = CMSG_FIRSTHDR(&message);
    const std::string line(text.data(), static_cast<std::size_t>(n));
    if (head == nullptr || head->cmsg_len != CMSG_LEN(sizeof descriptors) ||
        !line.starts_with(handed))
        return fail(EPROTO, "--takeover: " + (line.empty() ? "it gave nothing" : line));
    std::memcpy(descriptors.data(), CMSG_DATA(head), sizeof descriptors);
    return handed_state{unique_fd(descriptors[0]), unique_fd(descriptors[1]),
                        line.substr(handed.size())};
}

bool is_readable(int fd) {
    pollfd wait{fd, POLLIN, 0};
    return ::poll(&wait, 1, limit_ms) == 1;
}

/// A daemon that says nothing more is waited for until it is gone: its sockets may close before
/// all else does.
bool is_released(int socket, int process) {
    std::array<pollfd, 2> wait{{{socket, POLLIN, 0}, {process, POLLIN, 0}}};
    if (::poll(wait.data(), wait.size(), limit_ms) <= 0) return false;
    std::array<char, released.size()> word{};
    const bool said = ::recv(socket, word.data(), word.size(), MSG_DONTWAIT) == std::ssize(word) &&
                      std::string_view(word.data(), word.size()) == released;
    return said || is_readable(process);
}

result<unique_fd> reach(const std::string& run_dir) {
    auto socket = connect_to(path_in(run_dir));
    if (socket) return socket;
    return fail(ECONNREFUSED, "--takeover: no esplaned that could hand over at " +
                                  path_in(run_dir) + ": start without --takeover");
}

result<handed_state> ask(int socket, std::string for_what) {
    if (!send_line(socket, std::move(for_what), {}))
        return fail_errno("--takeover: the daemon does not listen");
    if (!is_readable(socket))
        return fail(ETIMEDOUT, "--takeover: the daemon does not answer: see `esplane status`");
    return receive(socket);
}

} // namespace

takeover_server::takeover_server(std::string path, unique_fd listener, hand_over give)
    : path_(std::move(path))
    , listener_(std::move(listener))
    , give_(std::move(give)) {}

takeover_server::~takeover_server() {
    if (!given_to_.valid()) ::unlink(path_.c_str());
}

result<std::unique_ptr<takeover_server>> takeover_server::open(const std::string& run_dir,
                                                               hand_over give) {
    auto listener = listen_on(path_in(run_dir));
    if (!listener) return tl::unexpected(listener.error());
    return std::unique_ptr<takeover_server>(
        new takeover_server(path_in(run_dir), std::move(*listener), std::move(give)));
}

/// Who connects has sent its request already, or is not served.
bool takeover_server::serve() {
    unique_fd asking(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!asking.valid() || !is_ours(asking.get())) return false;
    std::array<char, longest_line> text;
    pollfd wait{asking.get(), POLLIN, 0};
    constexpr int soon_ms = 100;
    if (::poll(&wait, 1, soon_ms) != 1) return false;
    const ssize_t n = ::recv(asking.get(), text.data(), text.size(), MSG_DONTWAIT);
    const std::string asked(text.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    const bool lends = asked.starts_with(loan);
    if (!lends && !asked.starts_with(request)) return false;
    const auto given = give_(asked.substr(lends ? loan.size() : request.size()), !lends);
    if (!given) {
        (void)send_line(asking.get(), given.error().text, {});
        return false;
    }
    (void)send_line(asking.get(), std::string(handed) + given->token,
                    *given); // who is gone is started again
    if (!lends) given_to_ = std::move(asking);
    return !lends;
}

void takeover_server::release(bool free) {
    const auto socket = static_cast<unsigned>(given_to_.get());
    (void)::close_range(STDERR_FILENO + 1, socket - 1, 0);
    (void)::close_range(socket + 1, ~0u, 0);
    if (free) (void)send_line(given_to_.get(), std::string(released), {});
}

result<handed_state> borrow_state(const std::string& run_dir, const std::string& state) {
    auto socket = reach(run_dir);
    if (!socket) return tl::unexpected(socket.error());
    return ask(socket->get(), std::string(loan) + state);
}

result<handed_state> take_over(const std::string& run_dir, const std::string& state,
                               const std::function<void(handed_state&)>& while_it_ends) {
    auto socket = reach(run_dir);
    if (!socket) return tl::unexpected(socket.error());
    const auto peer = peer_of(socket->get());
    if (!peer) return tl::unexpected(peer.error());
    const unique_fd process(static_cast<int>(::syscall(SYS_pidfd_open, peer->pid, 0)));
    if (!process.valid()) return fail_errno("--takeover");
    auto state_of_it = ask(socket->get(), std::string(request) + state);
    if (!state_of_it) return state_of_it;
    while_it_ends(*state_of_it);
    if (!is_released(socket->get(), process.get()))
        return fail(ETIMEDOUT, "--takeover: the old daemon does not end: stop it (kill)");
    return state_of_it;
}

} // namespace esplane::tools

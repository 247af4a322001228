// SPDX-License-Identifier: Apache-2.0
#include "tools/control_socket.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tools/run_dir.h"

namespace esplane::tools {

using nlohmann::json;

namespace {

constexpr int reply_timeout_s = 10;
constexpr std::size_t first_reply_room = 64 * 1024;

result<sockaddr_un> socket_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return fail(ENAMETOOLONG, path + ": too long for a socket: choose a shorter --run-dir");
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return address;
}

bool may_ask(int fd) {
    ucred peer{};
    socklen_t length = sizeof peer;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
    return peer.uid == 0 || peer.uid == ::geteuid();
}

json answer(const control_server::handler& handle, const char* request, std::size_t length) {
    if (length > control_request_limit) return {{"error", "request too long"}};
    const json parsed = json::parse(request, request + length, nullptr, false);
    if (!parsed.is_object()) return {{"error", "request is not a JSON object"}};
    return handle(parsed);
}

result<void> watch(int poller, int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (::epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno("epoll");
    return {};
}

} // namespace

result<unique_fd> listen_on(const std::string& path) {
    const auto address = socket_address(path);
    if (!address) return tl::unexpected(address.error());
    unique_fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return fail_errno(path);
    ::unlink(path.c_str());
    const mode_t mask = ::umask(0177); // the mode is right from the first moment
    const int bound =
        ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address);
    ::umask(mask);
    if (bound != 0 || ::listen(fd.get(), SOMAXCONN) != 0) return fail_errno(path);
    return fd;
}

result<unique_fd> connect_to(const std::string& path) {
    const auto address = socket_address(path);
    if (!address) return tl::unexpected(address.error());
    unique_fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (!fd.valid() ||
        ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
        return fail_errno(path);
    return fd;
}

result<std::unique_ptr<control_server>> control_server::open(const std::string& path, handler h) {
    auto listener = listen_on(path);
    if (!listener) return tl::unexpected(listener.error());
    unique_fd poller(::epoll_create1(EPOLL_CLOEXEC));
    if (!poller.valid()) return fail_errno("epoll");
    if (auto watched = watch(poller.get(), listener->get()); !watched)
        return tl::unexpected(watched.error());
    return std::unique_ptr<control_server>(
        new control_server(path, std::move(*listener), std::move(poller), std::move(h)));
}

control_server::control_server(std::string path, unique_fd listener, unique_fd poller, handler h)
    : path_(std::move(path))
    , listener_(std::move(listener))
    , poller_(std::move(poller))
    , handler_(std::move(h)) {}

control_server::~control_server() {
    ::unlink(path_.c_str());
}

void control_server::serve() {
    std::array<epoll_event, control_client_limit + 1> events{};
    const int n = ::epoll_wait(poller_.get(), events.data(), static_cast<int>(events.size()), 0);
    // Clients first: accepting may end the connection of the oldest and reuse its number.
    for (int i = 0; i < n; ++i)
        if (events[i].data.fd != listener_.get()) serve_client(events[i].data.fd);
    for (int i = 0; i < n; ++i)
        if (events[i].data.fd == listener_.get()) accept_client();
}

void control_server::accept_client() {
    unique_fd fd = acceptor_.accept(listener_.get());
    if (!fd.valid() || !may_ask(fd.get()) || !watch(poller_.get(), fd.get())) return;
    if (clients_.size() == control_client_limit) clients_.pop_front();
    clients_.push_back(std::move(fd));
}

/// One request a turn: a client that asks without end waits for the others.
void control_server::serve_client(int fd) {
    std::array<char, control_request_limit + 1> buffer;
    const ssize_t length = ::recv(fd, buffer.data(), buffer.size(), 0);
    bool alive = length > 0;
    if (alive) {
        const auto handle = [this, fd](const json& request) {
            return give_away(request, fd) ? json() : handler_(request);
        };
        const json reply = answer(handle, buffer.data(), static_cast<std::size_t>(length));
        if (reply.is_null()) return;
        const std::string text = reply.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
        alive = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL) == std::ssize(text);
    }
    if (!alive) clients_.remove_if([&](const unique_fd& client) { return client.get() == fd; });
}

bool control_server::give_away(const json& request, int fd) {
    const auto client = std::ranges::find(clients_, fd, &unique_fd::get);
    if (!taker_ || !taker_(request, *client)) return false;
    (void)::epoll_ctl(poller_.get(), EPOLL_CTL_DEL, fd, nullptr); // it may be open still
    clients_.erase(client);
    return true;
}

result<control_client> control_client::connect(const std::string& run_dir) {
    const std::string path = control_socket_path(run_dir);
    auto fd = connect_to(path);
    if (!fd && (fd.error().code == ENOENT || fd.error().code == ECONNREFUSED))
        return fail(ECONNREFUSED, "no esplaned at " + path +
                                      ": start it with `esplaned --run-dir " + run_dir + " …`");
    if (!fd && fd.error().code == EACCES)
        return fail(EACCES, path + ": permission denied: run esplane as the user of the daemon");
    if (!fd) return tl::unexpected(fd.error());
    const timeval limit{reply_timeout_s, 0};
    ::setsockopt(fd->get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd->get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    return control_client(std::move(*fd));
}

result<json> control_client::ask(const json& request) {
    const std::string text = request.dump() + "\n";
    if (::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) != std::ssize(text))
        return fail_errno("esplaned does not listen");
    const auto reply = receive();
    if (!reply) return tl::unexpected(reply.error());
    if (reply->empty())
        return fail(EPROTO, "esplaned closed the connection: may this user ask it?");
    json parsed = json::parse(*reply, nullptr, false);
    if (!parsed.is_object()) return fail(EPROTO, "esplaned gave no JSON: is it the same version?");
    if (const auto e = parsed.find("error"); e != parsed.end())
        return fail(EINVAL, e->is_string() ? e->get<std::string>() : e->dump());
    return parsed;
}

/// "" where the daemon has closed the connection.
result<std::string> control_client::receive() {
    std::string packet(first_reply_room, '\0');
    const ssize_t waiting = ::recv(fd_.get(), packet.data(), packet.size(), MSG_PEEK | MSG_TRUNC);
    if (waiting < 0) return fail_errno("esplaned does not answer");
    packet.resize(static_cast<std::size_t>(waiting));
    if (waiting > 0 && ::recv(fd_.get(), packet.data(), packet.size(), 0) != waiting)
        return fail_errno("esplaned does not answer");
    return packet;
}

result<std::string> control_client::next(int reader) {
    std::array<pollfd, 2> wait{pollfd{fd_.get(), POLLIN, 0}, pollfd{reader, 0, 0}};
    while (::poll(wait.data(), wait.size(), -1) < 0)
        if (errno != EINTR) return fail_errno("poll");
    if ((wait[1].revents & (POLLERR | POLLHUP)) != 0) return std::string();
    auto packet = receive();
    if (packet && packet->empty()) return fail(EPIPE, "esplaned has ended");
    return packet;
}

result<json> control_client::ask_all(const std::string& command, const std::string& key) {
    json all = json::array();
    json request = {{"command", command}};
    while (true) {
        auto page = ask(request);
        if (!page) return tl::unexpected(page.error());
        for (json& entry : (*page)[key])
            all.push_back(std::move(entry));
        const auto next = page->find("next");
        if (next == page->end() || next->is_null()) return json{{key, std::move(all)}};
        request["cursor"] = *next;
    }
}

} // namespace esplane::tools

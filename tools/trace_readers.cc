// SPDX-License-Identifier: Apache-2.0
#include "tools/trace_readers.h"

#include <algorithm>
#include <array>
#include <sys/epoll.h>
#include <sys/socket.h>

namespace esplane::tools {
namespace {

/// Some thousand messages: what a burst of requests makes while the reader's turn comes.
constexpr int send_buffer_bytes = 4 << 20;

bool transmit(int socket, const std::string& message) {
    return ::send(socket, message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
           std::ssize(message);
}

} // namespace

result<trace_readers> trace_readers::open() {
    unique_fd poller(::epoll_create1(EPOLL_CLOEXEC));
    if (!poller.valid()) return fail_errno("epoll");
    return trace_readers(std::move(poller));
}

void trace_readers::add(unique_fd connection) {
    // As root beyond the system's limit; else as much as that allows.
    const int fd = connection.get();
    if (::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_buffer_bytes, sizeof(int)) != 0)
        (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes, sizeof(int));
    readers_.push_back({std::move(connection)});
    watch(readers_.back(), EPOLL_CTL_ADD, EPOLLIN);
}

/// EPOLLHUP and EPOLLERR come unasked.
void trace_readers::watch(reader& r, int operation, std::uint32_t events) {
    epoll_event e{};
    e.events = events;
    e.data.ptr = &r;
    (void)::epoll_ctl(poller_.get(), operation, r.socket.get(), &e);
}

bool trace_readers::listening() const noexcept {
    return std::ranges::any_of(readers_, [](const reader& r) { return r.lost == 0; });
}

void trace_readers::lose(reader& r) {
    if (r.lost++ == 0) watch(r, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
}

void trace_readers::send(const std::string& message) {
    for (reader& r : readers_)
        if (r.lost != 0 || !transmit(r.socket.get(), message)) lose(r);
}

void trace_readers::missed(std::uint64_t messages) noexcept {
    for (reader& r : readers_)
        r.lost += messages;
}

void trace_readers::tell_lost(reader& r) {
    if (!transmit(r.socket.get(), R"({"lost":)" + std::to_string(r.lost) + "}\n")) return;
    r.lost = 0;
    watch(r, EPOLL_CTL_MOD, EPOLLIN);
}

/// A reader says nothing: what can be read of it is its end.
void trace_readers::serve() {
    std::array<epoll_event, most> ready;
    const int count = ::epoll_wait(poller_.get(), ready.data(), ready.size(), 0);
    for (int i = 0; i < count; ++i) {
        auto* const r = static_cast<reader*>(ready[static_cast<std::size_t>(i)].data.ptr);
        if ((ready[static_cast<std::size_t>(i)].events & ~std::uint32_t{EPOLLOUT}) != 0)
            readers_.remove_if([r](const reader& one) { return &one == r; });
        else
            tell_lost(*r);
    }
}

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
#include "xfrm/server.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "lib/base/pause.h"
#include "xfrm/events.h"
#include "xfrm/server_state.h"

namespace esplane::xfrm {
namespace {

constexpr int max_backlog = 64;

/// How long slates are looked at after the last request on one, and in all before it is the turn of
/// others that wait for this thread.
constexpr std::chrono::microseconds linger_for{50};
constexpr std::chrono::microseconds longest_linger{1000};
/// After that the client may be waiting for this CPU.
constexpr std::chrono::microseconds alone_for{25};

result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof a.sun_path)
        return fail(EINVAL, path + ": a socket's path must have 1 to 107 characters", "path");
    path.copy(a.sun_path, sizeof a.sun_path - 1);
    return a;
}

bool connectable(const sockaddr_un& a) {
    const unique_fd probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0;
}

result<unique_fd> listen_at(const std::string& path) {
    const auto address = address_of(path);
    if (!address) return tl::unexpected(address.error());
    if (connectable(*address))
        return fail(EADDRINUSE, path + " is served by another process: stop it first", "path");
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno("unlink " + path);
    unique_fd s(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!s.valid()) return fail_errno("socket");
    // The mode of the socket becomes that of the file, from its first moment on.
    if (::fchmod(s.get(), 0600) != 0) return fail_errno("fchmod " + path);
    if (::bind(s.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
        return fail_errno("bind " + path);
    if (::listen(s.get(), max_backlog) != 0) return fail_errno("listen " + path);
    return s;
}

} // namespace

result<void> watch(int epoll, int op, int fd, std::uint32_t events, std::uint64_t key) {
    epoll_event e{};
    e.events = events;
    e.data.u64 = key;
    if (::epoll_ctl(epoll, op, fd, &e) != 0) return fail_errno("epoll_ctl");
    return {};
}

// The loop

server::state::state(control::layer& l, std::string path, clock_source clock, unique_fd listening,
                     unique_fd epoll)
    : layer_(l)
    , dispatcher_(l)
    , path_(std::move(path))
    , clock_(std::move(clock))
    , listening_(std::move(listening))
    , epoll_(std::move(epoll))
    , buffer_(sizeof(shim_header) + SHIM_REQUEST_MAX) {
    layer_.subscribe(this);
}

server::state::~state() {
    layer_.unsubscribe(this);
    ::unlink(path_.c_str());
}

void server::state::serve() {
    std::array<epoll_event, 64> ready;
    const int count = ::epoll_wait(epoll_.get(), ready.data(), ready.size(), 0);
    for (int i = 0; i < count; ++i) {
        const epoll_event& e = ready[static_cast<std::size_t>(i)];
        const std::uint64_t number = e.data.u64 >> 32;
        const auto side = static_cast<std::uint32_t>(e.data.u64);
        if (number == 0) {
            accept_clients();
            continue;
        }
        const auto found = clients_.find(number);
        if (found == clients_.end()) continue; // disconnected a moment ago
        if (side == 0)
            serve_data(number, *found->second, e.events);
        else
            serve_side(*found->second, side);
    }
    linger();
}

/// Who has asked on a slate is likely to ask again, and to be waked costs more than to ask.
void server::state::linger() {
    using clock = std::chrono::steady_clock;
    if (hot_.empty()) return;
    const auto start = clock::now();
    for (auto now = start, last = start; now - last < linger_for && now - start < longest_linger;
         now = clock::now()) {
        if (serve_hot())
            last = clock::now();
        else if (now - last > alone_for)
            ::sched_yield();
        else
            pause_cpu();
    }
    let_sleep();
}

/// Says whether there was a request.
bool server::state::serve_hot() {
    bool any = false;
    for (const auto& [number, side] : hot_) {
        const auto found = clients_.find(number);
        any |= found != clients_.end() && serve_slate(number, *found->second, side);
    }
    return any;
}

void server::state::let_sleep() {
    for (const auto& [number, side] : hot_) {
        const auto found = clients_.find(number);
        side_channel* const s = found == clients_.end() ? nullptr : found->second->find_side(side);
        if (s != nullptr) s->board.stay_awake(false);
    }
    (void)serve_hot(); // what was asked a moment before
    hot_.clear();
}

// Events

/// Whoever hears of ACQUIREs is taken to answer them, as in the kernel.
void server::state::note_groups() {
    const auto heard = [this](std::uint32_t group) {
        return std::ranges::any_of(
            clients_, [group](const auto& one) { return one.second->in_group(group); });
    };
    layer_.answer_acquires(this, heard(XFRMNLGRP_ACQUIRE));
    layer_.hear_replays(this, heard(XFRMNLGRP_AEVENTS));
}

void server::state::on_event(const ipsec::event& e) {
    datagram d;
    std::uint32_t group = 0;
    if (tap_) {
        group = encode_event(e, d);
        tap_({traced::direction::event, d});
    }
    for (auto& [number, c] : clients_) {
        if (c->groups == 0) continue;
        if (d.empty()) group = encode_event(e, d);
        if (c->in_group(group) && !c->send_event(d)) {
            ++counters_.events_lost;
            update_interest(number, *c); // to tell it
        }
    }
}

// The public face

result<std::unique_ptr<server>> server::open(control::layer& l, std::string path,
                                             clock_source clock) {
    auto listening = listen_at(path);
    if (!listening) return tl::unexpected(listening.error());
    unique_fd epoll(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll.valid()) return fail_errno("epoll_create1");
    if (auto ok = watch(epoll.get(), EPOLL_CTL_ADD, listening->get(), EPOLLIN, key_of(0, 0)); !ok)
        return tl::unexpected(ok.error());
    return std::unique_ptr<server>(new server(std::make_unique<state>(
        l, std::move(path), std::move(clock), std::move(*listening), std::move(epoll))));
}

server::server(std::unique_ptr<state> s)
    : state_(std::move(s)) {}
server::~server() = default;
void server::set_exempt_mark(std::uint32_t mark) noexcept {
    state_->exempt_mark_ = mark;
}
void server::set_strict(bool strict) noexcept {
    state_->dispatcher_.set_strict(strict);
}
void server::set_files(proc_files& files) noexcept {
    state_->files_ = &files;
}
void server::set_tap(tap t) noexcept {
    state_->tap_ = std::move(t);
}
int server::descriptor() const noexcept {
    return state_->epoll_.get();
}
void server::serve() {
    state_->serve();
}
const server_counters& server::counters() const noexcept {
    return state_->counters_;
}

} // namespace esplane::xfrm

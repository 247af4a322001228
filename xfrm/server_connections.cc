// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>

#include "xfrm/server_state.h"

namespace esplane::xfrm {
namespace {

constexpr std::size_t max_clients = 1024;
constexpr std::size_t max_sides = 8;
constexpr int send_buffer_bytes = 1 << 20;

/// As root beyond the system's limit; else as much as that allows.
void grow_send_buffer(int fd) {
    if (::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_buffer_bytes, sizeof(int)) != 0)
        (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes, sizeof(int));
}

bool is_seqpacket(int fd) {
    const auto option = [fd](int name) {
        int value = -1;
        socklen_t length = sizeof value;
        return ::getsockopt(fd, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
    };
    return option(SO_DOMAIN) == AF_UNIX && option(SO_TYPE) == SOCK_SEQPACKET;
}

/// Where the numbers of a client's side channels begin.  Those of an earlier life of the server
/// must not be taken for them: requests that it left unread name those.
std::uint32_t first_side(moment now) noexcept {
    const std::uint64_t microseconds = now.monotonic_ns / 1000;
    return std::uint32_t{1} << 30 | (static_cast<std::uint32_t>(microseconds) & 0x3fff'ffff);
}

} // namespace

// Connections

bool server::state::may_connect(int fd, std::uint32_t& pid) const {
    ucred peer{};
    socklen_t length = sizeof peer;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
    pid = static_cast<std::uint32_t>(peer.pid);
    return peer.uid == 0 || peer.uid == ::geteuid();
}

std::uint32_t server::state::free_port(std::uint32_t wanted) {
    if (ports_.contains(wanted)) free_port_of_the_dead(wanted);
    while (wanted == 0 || ports_.contains(wanted))
        wanted = next_port_--;
    ports_.insert(wanted);
    return wanted;
}

/// A client that has closed its socket may not have been noticed yet: to itself it is gone.
void server::state::free_port_of_the_dead(std::uint32_t port) {
    const auto holder = std::ranges::find_if(
        clients_, [port](const auto& one) { return one.second->state.port_id == port; });
    if (holder == clients_.end()) return;
    pollfd p{holder->second->data.get(), 0, 0};
    if (::poll(&p, 1, 0) == 1) disconnect(holder->first);
}

/// Not 0, which is the listening socket's.
std::uint64_t server::state::free_number() {
    while (next_client_ == 0 || clients_.contains(next_client_))
        ++next_client_;
    return next_client_++;
}

void server::state::accept_clients() {
    for (int i = 0; i < turn; ++i) {
        unique_fd s = acceptor_.accept(listening_.get());
        if (!s.valid()) return;
        std::uint32_t pid = 0;
        if (!may_connect(s.get(), pid) || clients_.size() == max_clients) {
            ++counters_.refused_peers;
            continue;
        }
        grow_send_buffer(s.get());
        const std::uint64_t number = free_number();
        if (!watch(epoll_.get(), EPOLL_CTL_ADD, s.get(), EPOLLIN, key_of(number, 0))) continue;
        auto c = std::make_unique<client>(std::move(s), pid);
        c->interest = EPOLLIN;
        c->next_side = first_side(clock_());
        clients_.emplace(number, std::move(c));
        counters_.clients = clients_.size();
    }
}

void server::state::disconnect(std::uint64_t number) {
    const auto found = clients_.find(number);
    for (const side_channel& side : found->second->sides)
        unwatch(side.socket);
    unwatch(found->second->data);
    ports_.erase(found->second->state.port_id);
    clients_.erase(found);
    note_groups();
    counters_.clients = clients_.size();
}

// What they pass

/// nullptr where it cannot be watched: it is no socket.
side_channel* server::state::add_side(std::uint64_t number, client& c, unique_fd side) {
    const std::uint32_t side_number = c.next_side++;
    if (!watch(epoll_.get(), EPOLL_CTL_ADD, side.get(), EPOLLIN, key_of(number, side_number)))
        return nullptr;
    if (c.sides.size() == max_sides) {
        tell(c, c.sides.front(), shim_evicted, 0, 0);
        drop_side(c, c.sides.front().number);
    }
    c.sides.push_back({side_number, std::move(side), {}});
    return &c.sides.back();
}

bool server::state::attach(std::uint64_t number, client& c, unique_fd side) {
    const side_channel* const added = add_side(number, c, std::move(side));
    if (added != nullptr) tell(c, *added, shim_attach, 0, 0);
    return added != nullptr;
}

/// False: what was passed is no slate.  One for a side channel that is gone, or was a server's
/// before, is left alone: nobody waits.
bool server::state::share(client& c, const shim_header& h, const unique_fd& memory) {
    side_channel* const side = c.find_side(h.channel);
    slate board(memory);
    if (!board.valid()) return false;
    if (side == nullptr) return true;
    side->board = std::move(board);
    tell(c, *side, shim_share, h.id, 0);
    return true;
}

/// The connection that `c` came by becomes its side channel, and `data` takes its place; where
/// that data socket is a client's already, the connection joins that client.
server::state::reading server::state::open_data(std::uint64_t number, client& c, unique_fd data,
                                                bytes body) {
    const auto had = read_fixed<shim_had>(body);
    struct stat st {};
    if (!had || c.inode != 0 || !is_seqpacket(data.get()) || ::fstat(data.get(), &st) != 0)
        return reading::broken;
    const auto known = std::ranges::find_if(
        clients_, [&st](const auto& one) { return one.second->inode == st.st_ino; });
    unwatch(c.data);
    if (known != clients_.end()) {
        join(known->first, *known->second, std::move(c.data), *had);
        return reading::joined;
    }
    grow_send_buffer(data.get());
    if (!watch(epoll_.get(), EPOLL_CTL_ADD, data.get(), c.interest, key_of(number, 0)))
        return reading::broken;
    c.inode = st.st_ino;
    std::swap(c.data, data);
    restore(c, *had);
    const side_channel* const side = add_side(number, c, std::move(data));
    if (side == nullptr) return reading::broken;
    tell(c, *side, shim_open, 0, 0);
    return reading::taken;
}

/// A process that shares the data socket of `c` came with a connection of its own.
void server::state::join(std::uint64_t number, client& c, unique_fd connection,
                         const shim_had& had) {
    restore(c, had);
    const side_channel* const side = add_side(number, c, std::move(connection));
    if (side != nullptr) tell(c, *side, shim_open, 0, EALREADY);
}

/// Of what several processes know of the socket the latest counts, and that exactly: one that was
/// forked, or executed, before a change knows less.
void server::state::restore(client& c, const shim_had& had) {
    if (had.pid != 0) c.pid = had.pid;
    if (had.edition <= c.edition) return;
    c.edition = had.edition;
    if (c.state.port_id == 0 && had.port_id != 0) c.state.port_id = free_port(had.port_id);
    c.groups = had.groups;
    c.state.capped_acks = (had.options >> NETLINK_CAP_ACK & 1) != 0;
    c.state.extended_acks = (had.options >> NETLINK_EXT_ACK & 1) != 0;
    note_groups();
}

/// The client may hold a socket's description still: epoll would go on reporting it after our
/// descriptor is closed.
void server::state::unwatch(const unique_fd& socket) const {
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, socket.get(), nullptr);
}

void server::state::drop_side(client& c, std::uint32_t number) const {
    const auto side = std::ranges::find(c.sides, number, &side_channel::number);
    unwatch(side->socket);
    c.sides.erase(side);
}

} // namespace esplane::xfrm

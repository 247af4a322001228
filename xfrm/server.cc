// SPDX-License-Identifier: Apache-2.0
#include "xfrm/server.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

#include "lib/base/acceptor.h"
#include "xfrm/client.h"
#include "xfrm/events.h"

namespace esplane::xfrm {
namespace {

constexpr int max_backlog = 64;
constexpr std::size_t max_clients = 1024;
constexpr std::size_t max_sides = 8;
/// What one client gets done before it is the next one's turn.
constexpr int turn = 16;
constexpr int send_buffer_bytes = 1 << 20;

/// In epoll_event: a client's number and which of its sockets; 0 is the listening socket.
constexpr std::uint64_t key_of(std::uint64_t client, std::uint32_t side) noexcept {
    return client << 32 | side;
}

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

result<void> watch(int epoll, int op, int fd, std::uint32_t events, std::uint64_t key) {
    epoll_event e{};
    e.events = events;
    e.data.u64 = key;
    if (::epoll_ctl(epoll, op, fd, &e) != 0) return fail_errno("epoll_ctl");
    return {};
}

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

/// A datagram with the descriptor that may come with it.
struct received {
    ssize_t length = -1;
    bool truncated = false;
    unique_fd passed;
};

received receive(int fd, std::span<std::uint8_t> into) {
    iovec v{into.data(), into.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr m{};
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    m.msg_control = control.data();
    m.msg_controllen = CMSG_LEN(sizeof(int)); // CMSG_SPACE has room for a second descriptor
    received r;
    r.length = ::recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (r.length < 0) return r;
    r.truncated = (m.msg_flags & MSG_TRUNC) != 0;
    const cmsghdr* const c = CMSG_FIRSTHDR(&m);
    if (c != nullptr && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(int))) {
        int passed = -1;
        std::memcpy(&passed, CMSG_DATA(c), sizeof passed);
        r.passed = unique_fd(passed);
    }
    return r;
}

std::string_view text_of(bytes b) {
    return {reinterpret_cast<const char*>(b.data()), b.size()};
}

} // namespace

struct server::state final : private ipsec::listener {
    state(control::layer& l, std::string path, clock_source clock, unique_fd listening,
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
    ~state() override {
        layer_.unsubscribe(this);
        ::unlink(path_.c_str());
    }
    state(const state&) = delete;
    state& operator=(const state&) = delete;

    void serve();

    control::layer& layer_;
    dispatcher dispatcher_;
    std::string path_;
    clock_source clock_;
    unique_fd listening_;
    unique_fd epoll_;
    server_counters counters_;
    std::uint32_t exempt_mark_ = 0;
    tap tap_;
    proc_files* files_ = nullptr;

  private:
    class answers;

    void on_event(const ipsec::event& e) override;
    void note_groups();
    void show(traced::direction way, bytes whole, const client& c) const {
        if (tap_) tap_({way, whole, c.pid, c.state.port_id});
    }

    void accept_clients();
    [[nodiscard]] bool may_connect(int fd, std::uint32_t& pid) const;
    [[nodiscard]] std::uint32_t free_port(std::uint32_t wanted);
    [[nodiscard]] std::uint64_t free_number();
    void disconnect(std::uint64_t number);

    void serve_data(std::uint64_t number, client& c, std::uint32_t events);
    /// joined: the connection is another client's now.
    enum class reading { taken, nothing, joined, broken };
    [[nodiscard]] reading read_data(std::uint64_t number, client& c);
    [[nodiscard]] reading take(std::uint64_t number, client& c, received&& r);
    [[nodiscard]] side_channel* add_side(std::uint64_t number, client& c, unique_fd side);
    [[nodiscard]] bool attach(std::uint64_t number, client& c, unique_fd side);
    [[nodiscard]] reading open_data(std::uint64_t number, client& c, unique_fd data, bytes body);
    void join(std::uint64_t number, client& c, unique_fd connection, const shim_had& had);
    void restore(client& c, const shim_had& had);
    void unwatch(const unique_fd& socket) const;
    void drop_side(client& c, std::uint32_t number) const;
    void request(client& c, const shim_header& h, bytes messages);
    [[nodiscard]] bool file(client& c, const shim_header& h, std::string_view what);
    void send_dump(client& c);
    void update_interest(std::uint64_t number, client& c);

    void serve_side(client& c, std::uint32_t side);
    void control(client& c, side_channel& side, const shim_control& what);
    [[nodiscard]] std::uint32_t bind_port(client& c, std::uint32_t port);
    void tell(const client& c, const side_channel& side, std::uint16_t kind, std::uint32_t id,
              std::uint32_t status) const;

    acceptor acceptor_;
    datagram buffer_;
    std::unordered_map<std::uint64_t, std::unique_ptr<client>> clients_;
    std::uint32_t next_client_ = 1;
    std::unordered_set<std::uint32_t> ports_;
    std::uint32_t next_port_ = ~std::uint32_t{4096}; // where the kernel starts making them up
};

/// Replies to one request, until its deadline.
class server::state::answers final : public reply_sink {
  public:
    answers(state& s, client& c, std::uint64_t deadline_ns)
        : state_(s)
        , client_(c)
        , deadline_ns_(deadline_ns) {}

    [[nodiscard]] bool expired() const { return state_.clock_().monotonic_ns > deadline_ns_; }
    /// Something was not sent because the deadline had passed.
    [[nodiscard]] bool late() const noexcept { return late_; }
    /// Something was not sent, for that or for lack of room.
    [[nodiscard]] bool lost() const noexcept { return lost_; }
    void reply(datagram&& d) override {
        state_.show(traced::direction::reply, d, client_);
        late_ = late_ || expired();
        if (!late_ && client_.send_or_keep(std::move(d))) return;
        lost_ = true;
        ++state_.counters_.replies_lost;
    }

  private:
    state& state_;
    client& client_;
    std::uint64_t deadline_ns_;
    bool late_ = false;
    bool lost_ = false;
};

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
}

// Connections

bool server::state::may_connect(int fd, std::uint32_t& pid) const {
    ucred peer{};
    socklen_t length = sizeof peer;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
    pid = static_cast<std::uint32_t>(peer.pid);
    return peer.uid == 0 || peer.uid == ::geteuid();
}

std::uint32_t server::state::free_port(std::uint32_t wanted) {
    while (wanted == 0 || ports_.contains(wanted))
        wanted = next_port_--;
    ports_.insert(wanted);
    return wanted;
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

// The data socket

void server::state::serve_data(std::uint64_t number, client& c, std::uint32_t events) {
    c.flush();
    send_dump(c);
    bool alive = (events & (EPOLLHUP | EPOLLERR)) == 0;
    for (int i = 0; alive && i < turn && c.waiting.empty(); ++i) {
        const reading r = read_data(number, c);
        if (r == reading::nothing) break;
        alive = r == reading::taken;
    }
    if (alive)
        update_interest(number, c);
    else
        disconnect(number);
}

server::state::reading server::state::read_data(std::uint64_t number, client& c) {
    received r = receive(c.data.get(), buffer_);
    if (r.length < 0) return errno == EAGAIN || errno == EINTR ? reading::nothing : reading::broken;
    if (r.length == 0) return reading::broken; // it closed its socket
    const auto length = static_cast<std::size_t>(r.length);
    const reading outcome = take(number, c, std::move(r));
    wipe(buffer_.data(), length); // it may have held keys
    counters_.broken_clients += outcome == reading::broken ? 1 : 0;
    return outcome;
}

/// Acts on one datagram.  broken: it is not of the shim's protocol.
server::state::reading server::state::take(std::uint64_t number, client& c, received&& r) {
    const bytes all(buffer_.data(), static_cast<std::size_t>(r.length));
    const auto header = read_fixed<shim_header>(all);
    if (!header || r.truncated || header->magic != SHIM_MAGIC || header->version != SHIM_VERSION)
        return reading::broken;
    const bytes body = all.subspan(sizeof *header);
    if (header->kind == shim_open && r.passed.valid())
        return open_data(number, c, std::move(r.passed), body);
    if (header->kind == shim_attach && r.passed.valid())
        return attach(number, c, std::move(r.passed)) ? reading::taken : reading::broken;
    if (header->kind == shim_read || header->kind == shim_write)
        return file(c, *header, text_of(body)) ? reading::taken : reading::broken;
    if (header->kind != shim_request) return reading::broken;
    request(c, *header, body);
    return reading::taken;
}

/// nullptr where it cannot be watched: it is no socket.
side_channel* server::state::add_side(std::uint64_t number, client& c, unique_fd side) {
    const std::uint32_t side_number = c.next_side++;
    if (!watch(epoll_.get(), EPOLL_CTL_ADD, side.get(), EPOLLIN, key_of(number, side_number)))
        return nullptr;
    if (c.sides.size() == max_sides) {
        tell(c, c.sides.front(), shim_evicted, 0, 0);
        drop_side(c, c.sides.front().number);
    }
    c.sides.push_back({side_number, std::move(side)});
    return &c.sides.back();
}

bool server::state::attach(std::uint64_t number, client& c, unique_fd side) {
    const side_channel* const added = add_side(number, c, std::move(side));
    if (added != nullptr) tell(c, *added, shim_attach, 0, 0);
    return added != nullptr;
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

/// What one process knows of the socket adds to what others have told.
void server::state::restore(client& c, const shim_had& had) {
    if (had.pid != 0) c.pid = had.pid;
    if (c.state.port_id == 0 && had.port_id != 0) c.state.port_id = free_port(had.port_id);
    c.groups |= had.groups;
    c.state.capped_acks |= (had.options >> NETLINK_CAP_ACK & 1) != 0;
    c.state.extended_acks |= (had.options >> NETLINK_EXT_ACK & 1) != 0;
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

void server::state::request(client& c, const shim_header& h, bytes messages) {
    ++counters_.requests;
    if (c.find_side(h.channel) == nullptr) return; // asked of a server before, or given up
    answers out(*this, c, h.deadline_ns);
    if (out.expired()) {
        ++counters_.replies_lost;
        return;
    }
    if (c.state.port_id == 0) c.state.port_id = free_port(c.pid);
    show(traced::direction::request, messages, c);
    dispatcher_.request(messages, c.state, clock_(), out);
    if (out.lost()) c.state.dump.reset(); // its first part may be what was lost
    if (out.late()) return;               // the client's send fails by itself
    if (const side_channel* side = c.find_side(h.channel))
        tell(c, *side, shim_done, h.id, out.lost() ? ENOBUFS : 0);
}

/// A read or a write of a file.  False: it is not of the shim's protocol.
bool server::state::file(client& c, const shim_header& h, std::string_view what) {
    const bool writes = h.kind == shim_write;
    const std::size_t end = writes ? what.find('\0') : what.size();
    if (end == std::string_view::npos || what.size() > SHIM_TEXT_MAX) return false;
    const std::string_view name = what.substr(0, end);
    result<std::string> text = fail(ENOENT);
    if (files_ != nullptr && writes)
        text = files_->write(name, what.substr(end + 1)).map([] { return std::string(); });
    else if (files_ != nullptr)
        text = files_->read(name);
    const shim_text head{SHIM_MAGIC, SHIM_VERSION, h.kind, h.id,
                         text ? 0 : static_cast<std::uint32_t>(text.error().code)};
    datagram d(sizeof head);
    std::memcpy(d.data(), &head, sizeof head);
    if (text) d.insert(d.end(), text->begin(), text->end());
    if (!c.send_or_keep(std::move(d))) ++counters_.replies_lost;
    return true;
}

void server::state::send_dump(client& c) {
    for (int i = 0; i < turn && c.state.dump && c.waiting.empty(); ++i) {
        datagram d = dispatcher_.continue_dump(c.state);
        show(traced::direction::reply, d, c);
        c.send_or_keep(std::move(d));
    }
}

void server::state::update_interest(std::uint64_t number, client& c) {
    std::uint32_t wanted = 0;
    if (c.waiting.empty()) wanted |= EPOLLIN;
    if (!c.waiting.empty() || c.state.dump) wanted |= EPOLLOUT;
    if (wanted == c.interest) return;
    if (watch(epoll_.get(), EPOLL_CTL_MOD, c.data.get(), wanted, key_of(number, 0)))
        c.interest = wanted;
}

// The side channel

void server::state::serve_side(client& c, std::uint32_t number) {
    side_channel* const side = c.find_side(number);
    if (side == nullptr) return;
    shim_control what{};
    const ssize_t length = ::recv(side->socket.get(), &what, sizeof what, MSG_DONTWAIT);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (length == sizeof what && what.magic == SHIM_MAGIC && what.version == SHIM_VERSION)
        control(c, *side, what);
    else // closed, or no shim
        drop_side(c, number);
}

/// netlink_bind(): a port id once taken stays.
std::uint32_t server::state::bind_port(client& c, std::uint32_t port) {
    if (c.state.port_id != 0) return port == c.state.port_id ? 0 : EINVAL;
    if (ports_.contains(port)) return EADDRINUSE;
    c.state.port_id = free_port(port == 0 ? c.pid : port);
    return 0;
}

void server::state::control(client& c, side_channel& side, const shim_control& what) {
    std::uint32_t status = 0;
    const std::uint32_t group = what.argument;
    const bool is_group = group >= 1 && group <= 32;
    switch (what.kind) {
    case shim_bind:
        status = bind_port(c, what.argument);
        if (status == 0) c.groups = what.value;
        break;
    case shim_join:
    case shim_leave:
        if (!is_group)
            status = EINVAL;
        else if (what.kind == shim_join)
            c.groups |= std::uint32_t{1} << (group - 1);
        else
            c.groups &= ~(std::uint32_t{1} << (group - 1));
        break;
    case shim_option:
        if (what.argument == NETLINK_CAP_ACK)
            c.state.capped_acks = what.value != 0;
        else if (what.argument == NETLINK_EXT_ACK)
            c.state.extended_acks = what.value != 0;
        else
            status = ENOPROTOOPT;
        break;
    default:
        status = EOPNOTSUPP;
    }
    note_groups();
    tell(c, side, what.kind, what.id, status);
}

void server::state::tell(const client& c, const side_channel& side, std::uint16_t kind,
                         std::uint32_t id, std::uint32_t status) const {
    const shim_answer a{SHIM_MAGIC,  SHIM_VERSION,    kind,     id,          status,
                        side.number, c.state.port_id, c.groups, exempt_mark_};
    // A shim that does not take its answers stops waiting by itself.
    (void)::send(side.socket.get(), &a, sizeof a, MSG_DONTWAIT | MSG_NOSIGNAL);
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
        if (c->in_group(group) && !c->send_now(d)) ++counters_.events_lost;
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

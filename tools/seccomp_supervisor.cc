// SPDX-License-Identifier: Apache-2.0
#include "tools/seccomp_supervisor.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "lib/base/secret.h"
#include "tools/preload/emulate.h"
#include "tools/seccomp_filter.h"
#include "tools/seccomp_memory.h"
#include "xfrm/shim_protocol.h"

namespace esplane::tools {
namespace {

constexpr int most_idle = 4, most_threads = 512;
constexpr int wait_step_ms = 100; ///< how late a signal interrupts a call that waits
constexpr std::size_t longest_address = 128;
/// No datagram of the server's is longer.
constexpr std::size_t receive_room = 256 * 1024;

std::int64_t outcome(std::int64_t result) {
    return result < 0 ? -errno : result;
}

ino_t inode_of(int fd) {
    struct stat st {};
    return ::fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) ? st.st_ino : 0;
}

bool is_injected(int fd) {
    return fd >= first_injected && fd <= last_injected;
}

/// Milliseconds that a receive may wait; -1: for ever.
int longest_wait(int fd, int flags) {
    if ((flags & MSG_DONTWAIT) != 0 || (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0) return 0;
    timeval t{};
    socklen_t length = sizeof t;
    if (::getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, &length) != 0) return -1;
    const auto wait = t.tv_sec * 1000 + (t.tv_usec + 999) / 1000;
    return wait == 0 ? -1 : static_cast<int>(wait);
}

} // namespace

/// One system call of a client.
struct supervisor::call {
    const seccomp_notif& notification;
    client_memory memory;

    [[nodiscard]] int number() const { return notification.data.nr; }
    [[nodiscard]] std::uint64_t argument(int n) const { return notification.data.args[n]; }
    [[nodiscard]] int integer(int n) const { return static_cast<int>(argument(n)); }
};

namespace {

/// A value of at most `most` bytes whose length is an argument.
bool read_value(const client_memory& m, std::uint64_t at, std::uint64_t length, std::size_t most,
                std::vector<std::uint8_t>& value) {
    if (static_cast<std::uint32_t>(length) > most) return false;
    value.resize(static_cast<std::uint32_t>(length));
    return at == 0 || m.read(at, value.data(), value.size());
}

/// Writes a value as the kernel does: what fits of it, and its length.
template <typename F>
std::int64_t give_value(const client_memory& m, std::uint64_t at, std::uint64_t length_at, F&& f) {
    socklen_t length = 0;
    if (!m.read(length_at, length)) return -EFAULT;
    std::vector<std::uint8_t> value(std::min<std::size_t>(length, longest_address));
    const std::size_t room = value.size();
    length = static_cast<socklen_t>(room);
    const std::int64_t result = outcome(f(value.data(), &length));
    if (result < 0) return result;
    const bool good = m.write(at, value.data(), std::min<std::size_t>(room, length)) &&
                      m.write(length_at, length);
    return good ? result : -EFAULT;
}

/// The messages of one of the calls that send: each is what sendmsg() has.
struct message {
    msghdr header{}; ///< with the client's addresses
    std::vector<iovec> pieces;
};

bool read_message(const client_memory& m, std::uint64_t at, message& into) {
    return m.read(at, into.header) &&
           m.read_pieces(reinterpret_cast<std::uint64_t>(into.header.msg_iov),
                         into.header.msg_iovlen, into.pieces);
}

std::int64_t send_message(const client_memory& m, const message& what, int flags,
                          shim_socket* socket, int fd, const std::function<bool()>& still) {
    const std::size_t length = length_of(what.pieces);
    if (length > SHIM_REQUEST_MAX) return -EMSGSIZE;
    std::vector<std::uint8_t> bytes(length), to;
    if (!m.gather(what.pieces, bytes) ||
        !read_value(m, reinterpret_cast<std::uint64_t>(what.header.msg_name),
                    what.header.msg_namelen, longest_address, to))
        return -EFAULT;
    iovec piece{bytes.data(), bytes.size()};
    msghdr header{};
    header.msg_name = what.header.msg_name != nullptr ? to.data() : nullptr;
    header.msg_namelen = static_cast<socklen_t>(to.size());
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    // Only now is it known that the memory was this client's.
    const std::int64_t sent =
        still() ? outcome(emulate_sendmsg(socket, fd, &header, flags)) : -EINTR;
    wipe(bytes.data(), bytes.size()); // it may have held keys
    return sent;
}

} // namespace

supervisor::connection::~connection() {
    emulate_release(stands_for);
}

// Notifications

void supervisor::start() {
    emulate_start();
    spawn();
}

void supervisor::spawn() {
    if (threads_ >= most_threads) return;
    ++threads_;
    ++idle_;
    std::thread([this] { serve(); }).detach();
}

void supervisor::serve() {
    for (;;) {
        seccomp_notif n{};
        if (::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_RECV, &n) != 0) {
            // The client died meanwhile; or nobody is left, which the owner notices.
            ::poll(nullptr, 0, errno == EINTR ? 0 : 1);
            continue;
        }
        if (--idle_ == 0) spawn();
        handle(n);
        if (++idle_ <= most_idle) continue;
        --idle_;
        --threads_;
        return;
    }
}

void supervisor::handle(const seccomp_notif& n) {
    const call c{n, client_memory(static_cast<pid_t>(n.pid))};
    if (const answer a = answer_to(c)) respond(c, *a);
}

bool supervisor::respond(const call& c, std::int64_t value) const {
    seccomp_notif_resp r{};
    r.id = c.notification.id;
    r.val = value < 0 ? 0 : value;
    r.error = value < 0 ? static_cast<std::int32_t>(value) : 0;
    return ::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_SEND, &r) == 0;
}

bool supervisor::is_valid(const call& c) const {
    std::uint64_t id = c.notification.id;
    return ::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

/// The kernel does what was called: the descriptor is not one of ours.
static std::optional<std::int64_t> leave_to_kernel(int listener, std::uint64_t id) {
    seccomp_notif_resp r{};
    r.id = id;
    r.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    (void)::ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
    return std::nullopt;
}

std::shared_ptr<supervisor::connection> supervisor::find(int fd) {
    const std::lock_guard hold(mutex_);
    const auto found = connections_.find(inode_of(fd));
    return found == connections_.end() ? nullptr : found->second;
}

void supervisor::sweep() {
    const std::lock_guard hold(mutex_);
    sweep_held();
}

void supervisor::sweep_held() {
    std::erase_if(connections_,
                  [](const auto& one) { return emulate_has_ended(one.second->stands_for); });
    sweep_at_ = std::max(fewest_to_sweep, 2 * connections_.size());
}

supervisor::answer supervisor::answer_to(const call& c) {
    if (c.number() == SYS_socket) return open_socket(c);
    const int number = c.integer(0);
    if (is_injected(number)) {
        const unique_fd fd = c.memory.borrow(number);
        if (!is_valid(c)) return -EINTR;
        if (const auto with = find(fd.get())) return on_connection(c, *with, fd.get());
    }
    if (c.number() == SYS_setsockopt) return option_of_ike(c);
    if (c.number() == SYS_bind) return bind_other(c);
    return leave_to_kernel(listener_.get(), c.notification.id);
}

// Descriptors

supervisor::answer supervisor::open_socket(const call& c) {
    const int type = c.integer(1);
    const int kind = type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (kind != SOCK_RAW && kind != SOCK_DGRAM) return -ESOCKTNOSUPPORT;
    const auto user = c.memory.user(); // the server would see the supervisor's
    if (!is_valid(c)) return -EINTR;
    if (!user || (*user != 0 && *user != ::geteuid())) return -EPERM;
    int made = -1;
    shim_socket* const socket = emulate_socket(type | SOCK_CLOEXEC, c.memory.process(), &made);
    if (socket == nullptr) return -errno;
    const unique_fd fd(made);
    const auto with = std::make_shared<connection>(socket);
    {
        const std::lock_guard hold(mutex_);
        if (connections_.size() >= sweep_at_)
            sweep_held(); // a client may open one for each request
        connections_[inode_of(made)] = with;
    }
    return inject(c, made, (type & SOCK_CLOEXEC) != 0);
}

/// Gives the client a copy of `fd`; its number is what the call returns.
supervisor::answer supervisor::inject(const call& c, int fd, bool close_on_exec) {
    const std::lock_guard hold(injecting_);
    int number = first_injected;
    while (number <= last_injected && c.memory.has_descriptor(number))
        ++number;
    if (number > last_injected) return -EMFILE;
    seccomp_notif_addfd a{};
    a.id = c.notification.id;
    a.flags = SECCOMP_ADDFD_FLAG_SETFD | SECCOMP_ADDFD_FLAG_SEND;
    a.srcfd = static_cast<std::uint32_t>(fd);
    a.newfd = static_cast<std::uint32_t>(number);
    a.newfd_flags = close_on_exec ? O_CLOEXEC : 0;
    if (::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_ADDFD, &a) < 0)
        return errno == EBADF ? -EMFILE : -errno; // beyond its RLIMIT_NOFILE
    return std::nullopt;
}

supervisor::answer supervisor::option_of_ike(const call& c) {
    std::vector<std::uint8_t> value;
    const unique_fd fd = c.memory.borrow(c.integer(0));
    if (!fd.valid() || !read_value(c.memory, c.argument(3), c.argument(4), 4096, value) ||
        !is_valid(c))
        return leave_to_kernel(listener_.get(), c.notification.id);
    const bool privileged = c.integer(1) != IPPROTO_UDP;
    if (privileged && !c.memory.is_net_admin()) return -EPERM; // the supervisor may be
    if (!is_valid(c)) return -EINTR;                           // what was read may be another's
    int result = 0;
    if (!emulate_ike_option(fd.get(), c.integer(1), c.integer(2),
                            c.argument(3) != 0 ? value.data() : nullptr,
                            static_cast<socklen_t>(value.size()), &result))
        return leave_to_kernel(listener_.get(), c.notification.id);
    return outcome(result);
}

supervisor::answer supervisor::bind_other(const call& c) {
    std::vector<std::uint8_t> address;
    if (read_value(c.memory, c.argument(1), c.argument(2), longest_address, address) &&
        address.size() >= sizeof(sockaddr)) {
        const unique_fd fd = c.memory.borrow(c.integer(0));
        if (fd.valid() && is_valid(c))
            emulate_share_port(fd.get(), reinterpret_cast<const sockaddr*>(address.data()),
                               static_cast<socklen_t>(address.size()));
    }
    return leave_to_kernel(listener_.get(), c.notification.id);
}

// Calls on a data socket

supervisor::answer supervisor::on_connection(const call& c, connection& with, int fd) {
    shim_socket* const s = with.stands_for;
    std::vector<std::uint8_t> value;
    const auto as_address = [&] {
        return std::pair(reinterpret_cast<const sockaddr*>(value.data()),
                         static_cast<socklen_t>(value.size()));
    };
    switch (c.number()) {
    case SYS_bind:
    case SYS_connect: {
        if (!read_value(c.memory, c.argument(1), c.argument(2), longest_address, value))
            return -EINVAL;
        const auto [address, length] = as_address();
        return outcome(c.number() == SYS_bind ? emulate_bind(s, fd, address, length)
                                              : emulate_connect(s, fd, address, length));
    }
    case SYS_getsockname:
        return give_value(c.memory, c.argument(1), c.argument(2), [&](void* to, socklen_t* length) {
            return emulate_getsockname(s, fd, static_cast<sockaddr*>(to), length);
        });
    case SYS_getpeername:
        return give_value(c.memory, c.argument(1), c.argument(2), [&](void* to, socklen_t* length) {
            emulate_kernel_address(static_cast<sockaddr*>(to), length);
            return 0;
        });
    case SYS_setsockopt:
        if (c.integer(1) != EMULATE_NETLINK)
            return leave_to_kernel(listener_.get(), c.notification.id);
        if (!read_value(c.memory, c.argument(3), c.argument(4), longest_address, value))
            return -EINVAL;
        return outcome(emulate_setsockopt(s, fd, c.integer(2), value.data(),
                                          static_cast<socklen_t>(value.size())));
    case SYS_getsockopt:
        return give_value(c.memory, c.argument(3), c.argument(4), [&](void* to, socklen_t* length) {
            int result = 0;
            return emulate_getsockopt(s, fd, c.integer(1), c.integer(2), to, length, &result)
                       ? result
                       : ::getsockopt(fd, c.integer(1), c.integer(2), to, length);
        });
    case SYS_dup:
        return inject(c, fd, false);
    case SYS_fcntl:
        if (c.integer(1) == F_DUPFD || c.integer(1) == F_DUPFD_CLOEXEC)
            return inject(c, fd, c.integer(1) == F_DUPFD_CLOEXEC);
        return leave_to_kernel(listener_.get(), c.notification.id);
#ifdef SYS_dup2
    case SYS_dup2:
#endif
    case SYS_dup3: // where it could not be told any more, it would speak past the supervisor
        return is_injected(c.integer(1)) ? leave_to_kernel(listener_.get(), c.notification.id)
                                         : -EINVAL;
    case SYS_read:
    case SYS_readv:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
        return receive(c, with, fd);
    default:
        return send(c, with, fd);
    }
}

supervisor::answer supervisor::send(const call& c, connection& with, int fd) {
    message m;
    int flags = 0;
    const auto still = [&] { return is_valid(c); };
    const auto one = [&] { return send_message(c.memory, m, flags, with.stands_for, fd, still); };
    switch (c.number()) {
    case SYS_sendto:
        flags = c.integer(3);
        m.header.msg_name = reinterpret_cast<void*>(c.argument(4));
        m.header.msg_namelen = static_cast<socklen_t>(c.argument(5));
        [[fallthrough]];
    case SYS_write:
        m.pieces = {{reinterpret_cast<void*>(c.argument(1)), c.argument(2)}};
        return one();
    case SYS_writev:
        return c.memory.read_pieces(c.argument(1), c.argument(2), m.pieces) ? one() : -EFAULT;
    case SYS_sendmsg:
        flags = c.integer(2);
        return read_message(c.memory, c.argument(1), m) ? one() : -EFAULT;
    default:
        break;
    }
    flags = c.integer(3);
    const unsigned count = std::min<unsigned>(static_cast<unsigned>(c.argument(2)), UIO_MAXIOV);
    for (unsigned i = 0; i < count; ++i) { // sendmmsg
        const std::uint64_t at = c.argument(1) + i * sizeof(mmsghdr);
        const std::int64_t sent = read_message(c.memory, at, m) ? one() : -EFAULT;
        if (sent < 0) return i == 0 ? sent : i;
        if (!c.memory.write(at + offsetof(mmsghdr, msg_len), static_cast<unsigned>(sent)))
            return -EFAULT;
    }
    return count;
}

/// Where a receive puts what it has.
struct supervisor::destination {
    message m;
    int flags = 0;
    std::uint64_t header_at = 0;      ///< of a msghdr
    std::uint64_t name_length_at = 0; ///< of recvfrom
    std::uint64_t count_at = 0;       ///< of recvmmsg: the length goes there
};

/// Of recvmmsg: the one with that index.
bool supervisor::read_destination(const seccomp_data& d, const client_memory& memory,
                                  unsigned index, destination& to) {
    const auto& a = d.args;
    switch (d.nr) {
    case SYS_recvfrom:
        to.flags = static_cast<int>(a[3]);
        to.m.header.msg_name = reinterpret_cast<void*>(a[4]);
        to.name_length_at = a[5];
        [[fallthrough]];
    case SYS_read:
        to.m.pieces = {{reinterpret_cast<void*>(a[1]), a[2]}};
        return true;
    case SYS_readv:
        return memory.read_pieces(a[1], a[2], to.m.pieces);
    case SYS_recvmsg:
        to.flags = static_cast<int>(a[2]);
        to.header_at = a[1];
        return read_message(memory, a[1], to.m);
    default: // recvmmsg
        to.flags = static_cast<int>(a[3]) & ~MSG_WAITFORONE;
        to.header_at = a[1] + index * sizeof(mmsghdr);
        to.count_at = to.header_at + offsetof(mmsghdr, msg_len);
        return read_message(memory, to.header_at, to.m);
    }
}

bool supervisor::give_name(const client_memory& memory, const destination& to) {
    if (to.m.header.msg_name == nullptr) return true;
    sockaddr_nl kernel{};
    socklen_t length = to.m.header.msg_namelen;
    if (to.name_length_at != 0 && !memory.read(to.name_length_at, length)) return false;
    const std::size_t room = std::min<std::size_t>(length, sizeof kernel);
    length = sizeof kernel;
    emulate_kernel_address(reinterpret_cast<sockaddr*>(&kernel), &length);
    return memory.write(reinterpret_cast<std::uint64_t>(to.m.header.msg_name), &kernel, room) &&
           (to.name_length_at == 0 || memory.write(to.name_length_at, length));
}

/// Returns what the call returns.
std::int64_t supervisor::deliver(const client_memory& memory, const destination& to,
                                 std::span<const std::uint8_t> datagram) {
    const std::size_t room = length_of(to.m.pieces);
    const auto taken = std::min(room, datagram.size());
    if (!memory.scatter(to.m.pieces, datagram.first(taken)) || !give_name(memory, to))
        return -EFAULT;
    if (to.header_at != 0) {
        msghdr h = to.m.header;
        h.msg_namelen = h.msg_name != nullptr ? sizeof(sockaddr_nl) : 0;
        h.msg_controllen = 0;
        h.msg_flags = room < datagram.size() ? MSG_TRUNC : 0;
        if (!memory.write(to.header_at, h)) return -EFAULT;
    }
    const std::size_t length = (to.flags & MSG_TRUNC) != 0 ? datagram.size() : taken;
    if (to.count_at != 0 && !memory.write(to.count_at, static_cast<unsigned>(length)))
        return -EFAULT;
    return static_cast<std::int64_t>(length);
}

/// Returns once there is a datagram, or with what the call returns.
supervisor::answer supervisor::wait_for_datagram(const call& c, int fd, int longest_ms) const {
    for (int waited = 0; longest_ms < 0 || waited < longest_ms; waited += wait_step_ms) {
        pollfd p{fd, POLLIN, 0};
        if (::poll(&p, 1, wait_step_ms) > 0) return std::nullopt;
        if (!is_valid(c) || c.memory.has_signal()) return -EINTR;
    }
    return -EAGAIN;
}

supervisor::answer supervisor::receive_one(const call& c, connection& with, int fd,
                                           const destination& to) {
    std::vector<std::uint8_t> buffer(receive_room);
    for (;;) {
        const ssize_t length =
            ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT | (to.flags & MSG_PEEK));
        if (length == 0) return -ECONNRESET;
        if (length > 0) {
            const iovec v{buffer.data(), buffer.size()};
            const std::int64_t got =
                outcome(channel_received(with.stands_for, fd, &v, length, to.flags & MSG_PEEK));
            const std::span all(buffer.data(), static_cast<std::size_t>(length));
            const std::int64_t value = got < 0 ? got : deliver(c.memory, to, all);
            wipe(buffer.data(), all.size());
            return value;
        }
        if (const answer end = wait_for_datagram(c, fd, longest_wait(fd, to.flags))) return end;
    }
}

supervisor::answer supervisor::receive(const call& c, connection& with, int fd) {
    destination to;
    const bool many = c.number() == SYS_recvmmsg;
    const unsigned count =
        many ? std::min<unsigned>(static_cast<unsigned>(c.argument(2)), IOV_MAX) : 1;
    for (unsigned i = 0; i < count; ++i) {
        if (!read_destination(c.notification.data, c.memory, i, to)) return -EFAULT;
        if (i > 0 && (c.integer(3) & MSG_WAITFORONE) != 0) to.flags |= MSG_DONTWAIT;
        const auto got = receive_one(c, with, fd, to);
        if (!many) return got;
        if (*got < 0) return i == 0 ? *got : i;
    }
    return count;
}

} // namespace esplane::tools

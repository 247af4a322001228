// SPDX-License-Identifier: Apache-2.0
//
// The C library's functions as an XFRM client sees them under `esplane run`.
//
// Sockets of NETLINK_XFRM become connections to esplaned; every other descriptor goes to the
// kernel untouched, but for the small files of IPsec (intercept_files.c) and for the options by
// which IKE daemons exempt their UDP sockets from IPsec or ask the kernel to decapsulate: those do
// not reach it, since the packets do not pass its IPsec stack.  What exempts a socket from esplane
// is a mark, by which routing leads past it.  UDP sockets on the port of NAT traversal are bound so
// that esplaned can bind it as well.
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#undef _FILE_OFFSET_BITS // fcntl and fcntl64 are both defined here

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tools/preload/channel.h"
#include "tools/preload/files.h"
#include "tools/preload/link.h"
#include "tools/preload/real.h"
#include "tools/preload/registry.h"
#include "tools/preload/watch.h"
#include "xfrm/shim_protocol.h"
#include "xfrm/socket_policy.h"

enum { level_udp = 17, level_netlink = 270 };

/* Options of IKE's UDP sockets: linux/in.h, linux/in6.h and linux/udp.h. */
static const struct socket_option {
    int level, option;
} ike_options[] =
    {
        {IPPROTO_IP, 16},   /* IP_IPSEC_POLICY */
        {IPPROTO_IPV6, 34}, /* IPV6_IPSEC_POLICY */
        {level_udp, 100},   /* UDP_ENCAP */
        {level_udp, 104},   /* UDP_GRO */
},
  policy_options[] = {
      {IPPROTO_IP, 17},   /* IP_XFRM_POLICY */
      {IPPROTO_IPV6, 35}, /* IPV6_XFRM_POLICY */
};

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])

static int failed(int code) {
    errno = code;
    return -1;
}

static int real_setsockopt(int fd, int level, int option, const void* value, socklen_t length) {
    return REAL(int, setsockopt, (int, int, int, const void*, socklen_t))(fd, level, option, value,
                                                                          length);
}

__attribute__((constructor)) static void start(void) {
    registry_start(watch_forked);
    if (link_path() == NULL) return;
    registry_adopt();
    watch_forked(); /* exec leaves threads behind, too */
}

/* Where a client is about to read, write or ask. */
static struct shim_socket* find(int fd) {
    watch_again();
    return registry_find(fd);
}

// Descriptors

EXPORT int socket(int domain, int type, int protocol) {
    const int kind = type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK);
    watch_again();
    if (domain == AF_NETLINK && protocol == NETLINK_XFRM &&
        (kind == SOCK_RAW || kind == SOCK_DGRAM) && link_path() != NULL)
        return channel_open(type);
    return REAL(int, socket, (int, int, int))(domain, type, protocol);
}

EXPORT int close(int fd) {
    registry_forget(fd);
    return REAL(int, close, (int))(fd);
}

EXPORT int close_range(unsigned first, unsigned last, int flags) {
    if ((flags & (int)CLOSE_RANGE_CLOEXEC) == 0) registry_forget_range(first, last);
    return REAL(int, close_range, (unsigned, unsigned, int))(first, last, flags);
}

EXPORT void closefrom(int first) {
    registry_forget_range(first < 0 ? 0 : (unsigned)first, ~0u);
    REAL(void, closefrom, (int))(first);
}

EXPORT int dup(int fd) {
    const int copy = REAL(int, dup, (int))(fd);
    registry_copied(fd, copy);
    return copy;
}

EXPORT int dup2(int fd, int wanted) {
    const int copy = REAL(int, dup2, (int, int))(fd, wanted);
    registry_copied(fd, copy);
    return copy;
}

EXPORT int dup3(int fd, int wanted, int flags) {
    const int copy = REAL(int, dup3, (int, int, int))(fd, wanted, flags);
    registry_copied(fd, copy);
    return copy;
}

// Every command's argument fits a pointer and is passed on as one.
static int fcntl_done(int fd, int command, const void* argument, int result) {
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) registry_copied(fd, result);
    struct shim_socket* const s = command == F_SETFD && result == 0 ? registry_find(fd) : NULL;
    if (s != NULL) registry_closes_on_exec(s, ((uintptr_t)argument & FD_CLOEXEC) != 0);
    return result;
}

EXPORT int fcntl(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    void* const argument = va_arg(list, void*);
    va_end(list);
    return fcntl_done(fd, command, argument,
                      REAL(int, fcntl, (int, int, ...))(fd, command, argument));
}

EXPORT int fcntl64(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    void* const argument = va_arg(list, void*);
    va_end(list);
    return fcntl_done(fd, command, argument,
                      REAL(int, fcntl64, (int, int, ...))(fd, command, argument));
}

// Addresses

static void give_address(struct sockaddr* to, socklen_t* length, uint32_t port_id,
                         uint32_t groups) {
    if (to == NULL || length == NULL) return;
    const struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_pid = port_id, .nl_groups = groups};
    memcpy(to, &a, *length < sizeof a ? *length : sizeof a);
    *length = sizeof a;
}

/* 0 for an address of the kernel's netlink end; else -1 and errno. */
static int check_kernel_address(const void* address, socklen_t length) {
    struct sockaddr_nl a;
    if (address == NULL) return 0;
    if (length < sizeof a) return failed(EINVAL);
    memcpy(&a, address, sizeof a);
    if (a.nl_family != AF_NETLINK) return failed(EINVAL);
    return a.nl_pid == 0 ? 0 : failed(ECONNREFUSED);
}

/* The port that esplaned binds too: it tells ESP from IKE there (fastpath/xdp/port_share.h). */
enum { shared_port = 4500 };

static bool is_shared_port(const struct sockaddr* address, socklen_t length) {
    if (address == NULL) return false;
    if (length >= sizeof(struct sockaddr_in6) && address->sa_family == AF_INET6)
        return ((const struct sockaddr_in6*)address)->sin6_port == htons(shared_port);
    if (length >= sizeof(struct sockaddr_in) && address->sa_family == AF_INET)
        return ((const struct sockaddr_in*)address)->sin_port == htons(shared_port);
    return false;
}

/* Where it fails the socket is bound as it is, and esplaned finds it. */
static void let_others_bind(int fd) {
    const int on = 1;
    int protocol = 0;
    socklen_t length = sizeof protocol;
    const int saved = errno;
    if (REAL(int, getsockopt, (int, int, int, void*, socklen_t*))(fd, SOL_SOCKET, SO_PROTOCOL,
                                                                  &protocol, &length) == 0 &&
        protocol == level_udp)
        real_setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    errno = saved;
}

EXPORT int bind(int fd, const struct sockaddr* address, socklen_t length) {
    struct shim_socket* const s = registry_find(fd);
    if (s == NULL && link_path() != NULL && is_shared_port(address, length)) let_others_bind(fd);
    if (s == NULL)
        return REAL(int, bind, (int, const struct sockaddr*, socklen_t))(fd, address, length);
    struct sockaddr_nl a;
    if (address == NULL || length < sizeof a) return failed(EINVAL);
    memcpy(&a, address, sizeof a);
    if (a.nl_family != AF_NETLINK) return failed(EINVAL);
    return channel_control(s, fd, shim_bind, a.nl_pid, a.nl_groups);
}

EXPORT int connect(int fd, const struct sockaddr* address, socklen_t length) {
    struct shim_socket* const s = registry_find(fd);
    if (s == NULL)
        return REAL(int, connect, (int, const struct sockaddr*, socklen_t))(fd, address, length);
    if (check_kernel_address(address, length) != 0 || channel_ready(s, fd) != 0) return -1;
    return s->port_id != 0 ? 0 : channel_control(s, fd, shim_bind, 0, s->groups);
}

EXPORT int getsockname(int fd, struct sockaddr* address, socklen_t* length) {
    struct shim_socket* const s = registry_find(fd);
    if (s == NULL)
        return REAL(int, getsockname, (int, struct sockaddr*, socklen_t*))(fd, address, length);
    if (channel_ready(s, fd) != 0) return -1;
    give_address(address, length, s->port_id, s->groups);
    return 0;
}

EXPORT int getpeername(int fd, struct sockaddr* address, socklen_t* length) {
    if (registry_find(fd) == NULL)
        return REAL(int, getpeername, (int, struct sockaddr*, socklen_t*))(fd, address, length);
    give_address(address, length, 0, 0);
    return 0;
}

// Options

static int set_netlink_option(struct shim_socket* s, int fd, int option, const void* value,
                              socklen_t length) {
    uint32_t number = 0;
    if (length < sizeof number) return failed(EINVAL);
    memcpy(&number, value, sizeof number);
    switch (option) {
    case NETLINK_ADD_MEMBERSHIP:
        return channel_control(s, fd, shim_join, number, 0);
    case NETLINK_DROP_MEMBERSHIP:
        return channel_control(s, fd, shim_leave, number, 0);
    case NETLINK_CAP_ACK:
    case NETLINK_EXT_ACK:
        if (channel_control(s, fd, shim_option, (uint32_t)option, number) != 0) return -1;
        break;
    case NETLINK_BROADCAST_ERROR:
    case NETLINK_NO_ENOBUFS:
    case NETLINK_LISTEN_ALL_NSID:
    case NETLINK_GET_STRICT_CHK:
        break; // change nothing of what this server sends
    default:
        return failed(ENOPROTOOPT);
    }
    s->options = number != 0 ? s->options | 1u << option : s->options & ~(1u << option);
    return 0;
}

static uint32_t mark_of(int fd) {
    uint32_t mark = 0;
    socklen_t length = sizeof mark;
    REAL(int, getsockopt, (int, int, int, void*, socklen_t*))
    (fd, SOL_SOCKET, SO_MARK, &mark, &length);
    return mark;
}

static int set_mark(int fd, uint32_t mark) {
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (real_setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) == 0) return 0;
    const int saved = errno;
    if (!atomic_flag_test_and_set(&said))
        fprintf(stderr,
                "esplane: a socket cannot be marked to bypass IPsec: %s.  Give this program "
                "CAP_NET_ADMIN, or what it sends may be taken for traffic to protect\n",
                strerror(saved));
    return failed(saved);
}

/* What the socket receives reaches it past esplane as it is. */
static int set_socket_policy(int fd, const void* value, socklen_t length) {
    const enum socket_policy wanted = read_socket_policy(value, length);
    uint32_t mark = 0;
    if (wanted == socket_policy_other) return failed(EOPNOTSUPP);
    if (wanted == socket_policy_bypass_in) return 0;
    if (channel_exempt_mark(&mark) != 0) return -1;
    if (mark == 0) return 0;
    if (wanted == socket_policy_bypass_out) return set_mark(fd, mark);
    return mark_of(fd) == mark ? set_mark(fd, 0) : 0;
}

static bool is_one_of(const struct socket_option* options, size_t count, int level, int option) {
    for (size_t i = 0; i < count; i++)
        if (options[i].level == level && options[i].option == option) return true;
    return false;
}

EXPORT int setsockopt(int fd, int level, int option, const void* value, socklen_t length) {
    if (link_path() != NULL) {
        if (is_one_of(ike_options, LENGTH(ike_options), level, option)) return 0;
        if (is_one_of(policy_options, LENGTH(policy_options), level, option))
            return set_socket_policy(fd, value, length);
    }
    if (level == level_netlink) {
        struct shim_socket* const s = registry_find(fd);
        if (s != NULL) return set_netlink_option(s, fd, option, value, length);
    }
    return real_setsockopt(fd, level, option, value, length);
}

static int give_number(uint32_t number, void* value, socklen_t* length) {
    if (*length < sizeof number) return failed(EINVAL);
    memcpy(value, &number, sizeof number);
    *length = sizeof number;
    return 0;
}

EXPORT int getsockopt(int fd, int level, int option, void* restrict value,
                      socklen_t* restrict length) {
    struct shim_socket* const s =
        level == SOL_SOCKET || level == level_netlink ? registry_find(fd) : NULL;
    if (s != NULL && level == SOL_SOCKET) {
        if (option == SO_DOMAIN) return give_number(AF_NETLINK, value, length);
        if (option == SO_PROTOCOL) return give_number(NETLINK_XFRM, value, length);
        if (option == SO_TYPE) return give_number((uint32_t)s->type, value, length);
    }
    if (s != NULL && level == level_netlink) {
        if (channel_ready(s, fd) != 0) return -1;
        if (option == NETLINK_LIST_MEMBERSHIPS) return give_number(s->groups, value, length);
        if (option < 0 || option >= 32) return failed(ENOPROTOOPT);
        return give_number(s->options >> option & 1, value, length);
    }
    return REAL(int, getsockopt, (int, int, int, void*, socklen_t*))(fd, level, option, value,
                                                                     length);
}

// Sending

static ssize_t send_to_server(struct shim_socket* s, int fd, const struct msghdr* m, int flags) {
    if (check_kernel_address(m->msg_name, m->msg_namelen) != 0) return -1;
    return channel_send(s, fd, m, flags);
}

static ssize_t send_bytes(struct shim_socket* s, int fd, const void* data, size_t length,
                          int flags) {
    struct iovec v = {.iov_base = (void*)(uintptr_t)data, .iov_len = length};
    const struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    return channel_send(s, fd, &m, flags);
}

EXPORT ssize_t send(int fd, const void* data, size_t length, int flags) {
    struct shim_socket* const s = find(fd);
    if (s != NULL) return send_bytes(s, fd, data, length, flags);
    return REAL(ssize_t, send, (int, const void*, size_t, int))(fd, data, length, flags);
}

EXPORT ssize_t sendto(int fd, const void* data, size_t length, int flags, const struct sockaddr* to,
                      socklen_t to_length) {
    struct shim_socket* const s = find(fd);
    if (s == NULL)
        return REAL(ssize_t, sendto,
                    (int, const void*, size_t, int, const struct sockaddr*, socklen_t))(
            fd, data, length, flags, to, to_length);
    if (check_kernel_address(to, to_length) != 0) return -1;
    return send_bytes(s, fd, data, length, flags);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr* m, int flags) {
    struct shim_socket* const s = find(fd);
    if (s != NULL) return send_to_server(s, fd, m, flags);
    return REAL(ssize_t, sendmsg, (int, const struct msghdr*, int))(fd, m, flags);
}

EXPORT int sendmmsg(int fd, struct mmsghdr* list, unsigned count, int flags) {
    struct shim_socket* const s = find(fd);
    if (s == NULL)
        return REAL(int, sendmmsg, (int, struct mmsghdr*, unsigned, int))(fd, list, count, flags);
    for (unsigned i = 0; i < count; i++) {
        const ssize_t sent = send_to_server(s, fd, &list[i].msg_hdr, flags);
        if (sent < 0) return i == 0 ? -1 : (int)i;
        list[i].msg_len = (unsigned)sent;
    }
    return (int)count;
}

EXPORT ssize_t write(int fd, const void* data, size_t length) {
    struct shim_socket* const s = find(fd);
    ssize_t result = 0;
    if (s != NULL) return send_bytes(s, fd, data, length, 0);
    if (files_write(fd, data, length, &result)) return result;
    return REAL(ssize_t, write, (int, const void*, size_t))(fd, data, length);
}

EXPORT ssize_t writev(int fd, const struct iovec* pieces, int count) {
    struct shim_socket* const s = find(fd);
    if (s == NULL) return REAL(ssize_t, writev, (int, const struct iovec*, int))(fd, pieces, count);
    if (count < 0) return failed(EINVAL);
    const struct msghdr m = {.msg_iov = (struct iovec*)(uintptr_t)pieces,
                             .msg_iovlen = (size_t)count};
    return channel_send(s, fd, &m, 0);
}

// Receiving: natively, but a server that is gone is an error, since a netlink socket has no end,
// and the server's word that something was lost is one, too.

static ssize_t received(struct shim_socket* s, int fd, const struct iovec* into, ssize_t length,
                        size_t room, int flags) {
    if (length == 0 && (room > 0 || (flags & MSG_TRUNC) != 0)) return failed(ECONNRESET);
    return length > 0 ? channel_received(s, fd, into, length, flags) : length;
}

static ssize_t receive(struct shim_socket* s, int fd, void* into, size_t room, int flags) {
    const struct iovec v = {.iov_base = into, .iov_len = room};
    const ssize_t length = REAL(ssize_t, recv, (int, void*, size_t, int))(fd, into, room, flags);
    return received(s, fd, &v, length, room, flags);
}

EXPORT ssize_t recv(int fd, void* into, size_t room, int flags) {
    struct shim_socket* const s = find(fd);
    if (s != NULL) return receive(s, fd, into, room, flags);
    return REAL(ssize_t, recv, (int, void*, size_t, int))(fd, into, room, flags);
}

EXPORT ssize_t recvfrom(int fd, void* restrict into, size_t room, int flags,
                        struct sockaddr* restrict from, socklen_t* restrict from_length) {
    struct shim_socket* const s = find(fd);
    if (s == NULL)
        return REAL(ssize_t, recvfrom, (int, void*, size_t, int, struct sockaddr*, socklen_t*))(
            fd, into, room, flags, from, from_length);
    const ssize_t length = receive(s, fd, into, room, flags);
    if (length >= 0) give_address(from, from_length, 0, 0);
    return length;
}

EXPORT ssize_t recvmsg(int fd, struct msghdr* m, int flags) {
    ssize_t (*const real)(int, struct msghdr*, int) =
        REAL(ssize_t, recvmsg, (int, struct msghdr*, int));
    struct shim_socket* const s = find(fd);
    if (s == NULL) return real(fd, m, flags);
    size_t room = 0;
    for (size_t i = 0; i < m->msg_iovlen; i++)
        room += m->msg_iov[i].iov_len;
    struct msghdr nameless = *m; /* the kernel would give the name of the other end */
    nameless.msg_name = NULL;
    nameless.msg_namelen = 0;
    const ssize_t length = received(s, fd, m->msg_iov, real(fd, &nameless, flags), room, flags);
    if (length < 0) return -1;
    m->msg_flags = nameless.msg_flags;
    m->msg_controllen = nameless.msg_controllen;
    give_address(m->msg_name, &m->msg_namelen, 0, 0);
    return length;
}

EXPORT int recvmmsg(int fd, struct mmsghdr* list, unsigned count, int flags,
                    struct timespec* timeout) {
    if (find(fd) == NULL)
        return REAL(int, recvmmsg, (int, struct mmsghdr*, unsigned, int, struct timespec*))(
            fd, list, count, flags, timeout);
    for (unsigned i = 0; i < count; i++) {
        const int later = i > 0 && (flags & MSG_WAITFORONE) != 0 ? MSG_DONTWAIT : 0;
        const ssize_t length = recvmsg(fd, &list[i].msg_hdr, (flags & ~MSG_WAITFORONE) | later);
        if (length < 0) return i == 0 ? -1 : (int)i;
        list[i].msg_len = (unsigned)length;
    }
    return (int)count;
}

EXPORT ssize_t read(int fd, void* into, size_t room) {
    struct shim_socket* const s = find(fd);
    if (s != NULL) return receive(s, fd, into, room, 0);
    return REAL(ssize_t, read, (int, void*, size_t))(fd, into, room);
}

EXPORT ssize_t readv(int fd, const struct iovec* pieces, int count) {
    if (find(fd) == NULL)
        return REAL(ssize_t, readv, (int, const struct iovec*, int))(fd, pieces, count);
    if (count < 0) return failed(EINVAL);
    struct msghdr m = {.msg_iov = (struct iovec*)(uintptr_t)pieces, .msg_iovlen = (size_t)count};
    return recvmsg(fd, &m, 0);
}

// What programs built with _FORTIFY_SOURCE call.  The C library ends them on an overflow: so do its
// own functions below, which are called with the buffer's size where it does not do.

EXPORT ssize_t __recv_chk(int fd, void* into, size_t room, size_t size, int flags) {
    struct shim_socket* const s = find(fd);
    if (s != NULL && room <= size) return receive(s, fd, into, room, flags);
    return REAL(ssize_t, __recv_chk, (int, void*, size_t, size_t, int))(fd, into, room, size,
                                                                        flags);
}

EXPORT ssize_t __recvfrom_chk(int fd, void* restrict into, size_t room, size_t size, int flags,
                              struct sockaddr* restrict from, socklen_t* restrict from_length) {
    if (find(fd) != NULL && room <= size) return recvfrom(fd, into, room, flags, from, from_length);
    return REAL(ssize_t, __recvfrom_chk,
                (int, void*, size_t, size_t, int, struct sockaddr*, socklen_t*))(
        fd, into, room, size, flags, from, from_length);
}

EXPORT ssize_t __read_chk(int fd, void* into, size_t room, size_t size) {
    struct shim_socket* const s = find(fd);
    if (s != NULL && room <= size) return receive(s, fd, into, room, 0);
    return REAL(ssize_t, __read_chk, (int, void*, size_t, size_t))(fd, into, room, size);
}

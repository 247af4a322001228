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
#include "tools/preload/emulate.h"
#include "tools/preload/files.h"
#include "tools/preload/link.h"
#include "tools/preload/parking.h"
#include "tools/preload/real.h"
#include "tools/preload/registry.h"
#include "tools/preload/reply.h"
#include "tools/preload/watch.h"

__attribute__((constructor)) static void start(void) {
    emulate_start();
    if (link_path() == NULL) return;
    registry_adopt();
    watch_forked(); /* exec leaves threads behind, too */
}

/* Where a client is about to read, write or ask. */
static struct shim_socket* find(int fd) {
    watch_again();
    return registry_find(fd);
}

/* Where a client is about to receive: mostly what it has just asked for. */
static struct shim_socket* find_reader(int fd) {
    struct shim_socket* const s = registry_find_again(fd);
    return s != NULL && atomic_load_explicit(&s->pending, memory_order_relaxed) ? s : find(fd);
}

// Descriptors

EXPORT int socket(int domain, int type, int protocol) {
    const int kind = type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK);
    watch_again();
    if (domain == AF_NETLINK && protocol == NETLINK_XFRM &&
        (kind == SOCK_RAW || kind == SOCK_DGRAM) && link_path() != NULL)
        return channel_open(type, 0);
    const int fd = REAL(int, socket, (int, int, int))(domain, type, protocol);
    registry_forget(fd); /* closed behind the shim's back */
    return fd;
}

EXPORT int close(int fd) {
    if (parking_keep(fd)) return 0;
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

/* The copy may be for others: a child of vfork() makes one for the program that it executes. */
static void copied(int fd, int copy) {
    reply_settle_all();
    registry_copied(fd, copy);
}

EXPORT int dup(int fd) {
    const int copy = REAL(int, dup, (int))(fd);
    copied(fd, copy);
    return copy;
}

EXPORT int dup2(int fd, int wanted) {
    const int copy = REAL(int, dup2, (int, int))(fd, wanted);
    copied(fd, copy);
    return copy;
}

EXPORT int dup3(int fd, int wanted, int flags) {
    const int copy = REAL(int, dup3, (int, int, int))(fd, wanted, flags);
    copied(fd, copy);
    return copy;
}

// Every command's argument fits a pointer and is passed on as one.
static int fcntl_done(int fd, int command, const void* argument, int result) {
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) copied(fd, result);
    if (result != 0 || command == F_GETFD || command == F_GETFL) return result;
    struct shim_socket* const s = registry_find(fd);
    if (s == NULL) return result;
    if (command == F_SETFD) {
        reply_settle_all();
        registry_closes_on_exec(s, ((uintptr_t)argument & FD_CLOEXEC) != 0);
    } else
        atomic_store(&s->peculiar, true);
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

EXPORT int bind(int fd, const struct sockaddr* address, socklen_t length) {
    struct shim_socket* const s = registry_find_again(fd);
    if (s != NULL) return emulate_bind(s, fd, address, length);
    if (link_path() != NULL) emulate_share_port(fd, address, length);
    return REAL(int, bind, (int, const struct sockaddr*, socklen_t))(fd, address, length);
}

EXPORT int connect(int fd, const struct sockaddr* address, socklen_t length) {
    struct shim_socket* const s = registry_find(fd);
    if (s != NULL) return emulate_connect(s, fd, address, length);
    return REAL(int, connect, (int, const struct sockaddr*, socklen_t))(fd, address, length);
}

EXPORT int getsockname(int fd, struct sockaddr* address, socklen_t* length) {
    struct shim_socket* const s = registry_find_again(fd);
    if (s != NULL) return emulate_getsockname(s, fd, address, length);
    return REAL(int, getsockname, (int, struct sockaddr*, socklen_t*))(fd, address, length);
}

EXPORT int getpeername(int fd, struct sockaddr* address, socklen_t* length) {
    if (registry_find(fd) == NULL)
        return REAL(int, getpeername, (int, struct sockaddr*, socklen_t*))(fd, address, length);
    emulate_kernel_address(address, length);
    return 0;
}

// Options

EXPORT int setsockopt(int fd, int level, int option, const void* value, socklen_t length) {
    if (link_path() != NULL) {
        int result = 0;
        if (emulate_ike_option(fd, level, option, value, length, &result)) return result;
    }
    struct shim_socket* const s =
        level == SOL_SOCKET || level == EMULATE_NETLINK ? registry_find_again(fd) : NULL;
    if (s != NULL && level == EMULATE_NETLINK)
        return emulate_setsockopt(s, fd, option, value, length);
    if (s != NULL && emulate_socket_option(s, option, value, length)) return 0;
    return REAL(int, setsockopt, (int, int, int, const void*, socklen_t))(fd, level, option, value,
                                                                          length);
}

EXPORT int getsockopt(int fd, int level, int option, void* restrict value,
                      socklen_t* restrict length) {
    struct shim_socket* const s =
        level == SOL_SOCKET || level == EMULATE_NETLINK ? registry_find_again(fd) : NULL;
    int result = 0;
    if (s != NULL && emulate_getsockopt(s, fd, level, option, value, length, &result))
        return result;
    return REAL(int, getsockopt, (int, int, int, void*, socklen_t*))(fd, level, option, value,
                                                                     length);
}

// Sending

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
    if (emulate_check_destination(to, to_length) != 0) return -1;
    return send_bytes(s, fd, data, length, flags);
}

/* Of what passes descriptors: one of ours may be among them. */
static void pass_on(const struct msghdr* m) {
    if (m->msg_controllen == 0) return;
    reply_settle_all();
    parking_exclude_all();
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr* m, int flags) {
    struct shim_socket* const s = find(fd);
    if (s != NULL) return emulate_sendmsg(s, fd, m, flags);
    pass_on(m);
    return REAL(ssize_t, sendmsg, (int, const struct msghdr*, int))(fd, m, flags);
}

EXPORT int sendmmsg(int fd, struct mmsghdr* list, unsigned count, int flags) {
    struct shim_socket* const s = find(fd);
    if (s == NULL) {
        for (unsigned i = 0; i < count; i++)
            pass_on(&list[i].msg_hdr);
        return REAL(int, sendmmsg, (int, struct mmsghdr*, unsigned, int))(fd, list, count, flags);
    }
    for (unsigned i = 0; i < count; i++) {
        const ssize_t sent = emulate_sendmsg(s, fd, &list[i].msg_hdr, flags);
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
    struct iovec v = {.iov_base = into, .iov_len = room};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    ssize_t length;
    if (reply_take(s, &m, flags, &length)) return length;
    length = REAL(ssize_t, recv, (int, void*, size_t, int))(fd, into, room, flags);
    return received(s, fd, &v, length, room, flags);
}

EXPORT ssize_t recv(int fd, void* into, size_t room, int flags) {
    struct shim_socket* const s = find_reader(fd);
    if (s != NULL) return receive(s, fd, into, room, flags);
    return REAL(ssize_t, recv, (int, void*, size_t, int))(fd, into, room, flags);
}

EXPORT ssize_t recvfrom(int fd, void* restrict into, size_t room, int flags,
                        struct sockaddr* restrict from, socklen_t* restrict from_length) {
    struct shim_socket* const s = find_reader(fd);
    if (s == NULL)
        return REAL(ssize_t, recvfrom, (int, void*, size_t, int, struct sockaddr*, socklen_t*))(
            fd, into, room, flags, from, from_length);
    const ssize_t length = receive(s, fd, into, room, flags);
    if (length >= 0) emulate_kernel_address(from, from_length);
    return length;
}

EXPORT ssize_t recvmsg(int fd, struct msghdr* m, int flags) {
    ssize_t (*const real)(int, struct msghdr*, int) =
        REAL(ssize_t, recvmsg, (int, struct msghdr*, int));
    struct shim_socket* const s = find_reader(fd);
    if (s == NULL) return real(fd, m, flags);
    size_t room = 0;
    for (size_t i = 0; i < m->msg_iovlen; i++)
        room += m->msg_iov[i].iov_len;
    struct msghdr nameless = *m; /* the kernel would give the name of the other end */
    nameless.msg_name = NULL;
    nameless.msg_namelen = 0;
    ssize_t length;
    if (!reply_take(s, &nameless, flags, &length))
        length = received(s, fd, m->msg_iov, real(fd, &nameless, flags), room, flags);
    if (length < 0) return -1;
    m->msg_flags = nameless.msg_flags;
    m->msg_controllen = nameless.msg_controllen;
    emulate_kernel_address(m->msg_name, &m->msg_namelen);
    return length;
}

EXPORT int recvmmsg(int fd, struct mmsghdr* list, unsigned count, int flags,
                    struct timespec* timeout) {
    if (find_reader(fd) == NULL)
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
    struct shim_socket* const s = find_reader(fd);
    if (s != NULL) return receive(s, fd, into, room, 0);
    return REAL(ssize_t, read, (int, void*, size_t))(fd, into, room);
}

EXPORT ssize_t readv(int fd, const struct iovec* pieces, int count) {
    if (find_reader(fd) == NULL)
        return REAL(ssize_t, readv, (int, const struct iovec*, int))(fd, pieces, count);
    if (count < 0) return failed(EINVAL);
    struct msghdr m = {.msg_iov = (struct iovec*)(uintptr_t)pieces, .msg_iovlen = (size_t)count};
    return recvmsg(fd, &m, 0);
}

// What programs built with _FORTIFY_SOURCE call.  The C library ends them on an overflow: so do its
// own functions below, which are called with the buffer's size where it does not do.

EXPORT ssize_t __recv_chk(int fd, void* into, size_t room, size_t size, int flags) {
    struct shim_socket* const s = find_reader(fd);
    if (s != NULL && room <= size) return receive(s, fd, into, room, flags);
    return REAL(ssize_t, __recv_chk, (int, void*, size_t, size_t, int))(fd, into, room, size,
                                                                        flags);
}

EXPORT ssize_t __recvfrom_chk(int fd, void* restrict into, size_t room, size_t size, int flags,
                              struct sockaddr* restrict from, socklen_t* restrict from_length) {
    if (find_reader(fd) != NULL && room <= size)
        return recvfrom(fd, into, room, flags, from, from_length);
    return REAL(ssize_t, __recvfrom_chk,
                (int, void*, size_t, size_t, int, struct sockaddr*, socklen_t*))(
        fd, into, room, size, flags, from, from_length);
}

EXPORT ssize_t __read_chk(int fd, void* into, size_t room, size_t size) {
    struct shim_socket* const s = find_reader(fd);
    if (s != NULL && room <= size) return receive(s, fd, into, room, 0);
    return REAL(ssize_t, __read_chk, (int, void*, size_t, size_t))(fd, into, room, size);
}

// SPDX-License-Identifier: Apache-2.0
//
// The C library's functions that wait for descriptors, and those that change one in a way that the
// shim does not follow.  A reply that is ready for the next receive must be seen by the former too.
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>

#include "tools/preload/real.h"
#include "tools/preload/registry.h"
#include "tools/preload/reply.h"

EXPORT int poll(struct pollfd* fds, nfds_t count, int timeout) {
    reply_settle_all();
    return REAL(int, poll, (struct pollfd*, nfds_t, int))(fds, count, timeout);
}

EXPORT int ppoll(struct pollfd* fds, nfds_t count, const struct timespec* timeout,
                 const sigset_t* mask) {
    reply_settle_all();
    return REAL(int, ppoll, (struct pollfd*, nfds_t, const struct timespec*, const sigset_t*))(
        fds, count, timeout, mask);
}

EXPORT int __poll_chk(struct pollfd* fds, nfds_t count, int timeout, size_t size) {
    reply_settle_all();
    return REAL(int, __poll_chk, (struct pollfd*, nfds_t, int, size_t))(fds, count, timeout, size);
}

EXPORT int __ppoll_chk(struct pollfd* fds, nfds_t count, const struct timespec* timeout,
                       const sigset_t* mask, size_t size) {
    reply_settle_all();
    return REAL(int, __ppoll_chk,
                (struct pollfd*, nfds_t, const struct timespec*, const sigset_t*, size_t))(
        fds, count, timeout, mask, size);
}

EXPORT int select(int count, fd_set* restrict reads, fd_set* restrict writes,
                  fd_set* restrict others, struct timeval* restrict timeout) {
    reply_settle_all();
    return REAL(int, select, (int, fd_set*, fd_set*, fd_set*, struct timeval*))(
        count, reads, writes, others, timeout);
}

EXPORT int pselect(int count, fd_set* restrict reads, fd_set* restrict writes,
                   fd_set* restrict others, const struct timespec* restrict timeout,
                   const sigset_t* restrict mask) {
    reply_settle_all();
    return REAL(int, pselect,
                (int, fd_set*, fd_set*, fd_set*, const struct timespec*, const sigset_t*))(
        count, reads, writes, others, timeout, mask);
}

EXPORT int epoll_wait(int loop, struct epoll_event* events, int count, int timeout) {
    reply_settle_all();
    return REAL(int, epoll_wait, (int, struct epoll_event*, int, int))(loop, events, count,
                                                                       timeout);
}

EXPORT int epoll_pwait(int loop, struct epoll_event* events, int count, int timeout,
                       const sigset_t* mask) {
    reply_settle_all();
    return REAL(int, epoll_pwait, (int, struct epoll_event*, int, int, const sigset_t*))(
        loop, events, count, timeout, mask);
}

EXPORT int epoll_pwait2(int loop, struct epoll_event* events, int count,
                        const struct timespec* timeout, const sigset_t* mask) {
    reply_settle_all();
    return REAL(int, epoll_pwait2,
                (int, struct epoll_event*, int, const struct timespec*, const sigset_t*))(
        loop, events, count, timeout, mask);
}

static void note_change(int fd) {
    struct shim_socket* const s = registry_find(fd);
    if (s != NULL) atomic_store(&s->peculiar, true);
    reply_settle_all();
}

/* The set goes on watching what the kernel does not see closed. */
EXPORT int epoll_ctl(int loop, int operation, int fd, struct epoll_event* event) {
    note_change(fd);
    return REAL(int, epoll_ctl, (int, int, int, struct epoll_event*))(loop, operation, fd, event);
}

/* FIONBIO, FIONREAD, ...: the argument fits a pointer and is passed on as one. */
EXPORT int ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void* const argument = va_arg(list, void*);
    va_end(list);
    note_change(fd);
    return REAL(int, ioctl, (int, unsigned long, ...))(fd, request, argument);
}

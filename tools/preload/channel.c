// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tools/preload/real.h"
#include "xfrm/shim_protocol.h"

/* Side channels live above what clients that use select() can hold. */
enum { side_minimum = 512 };

static int real_close(int fd) {
    return REAL(int, close, (int))(fd);
}

static ssize_t real_sendmsg(int fd, const struct msghdr* m, int flags) {
    return REAL(ssize_t, sendmsg, (int, const struct msghdr*, int))(fd, m, flags);
}

static int failed(int code) {
    errno = code;
    return -1;
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

const char* channel_path(void) {
    const char* const path = getenv(SHIM_SOCKET_VARIABLE);
    return path != NULL && path[0] != '\0' ? path : NULL;
}

/* The lock of a socket is held in a stretch where a cancelled thread must not vanish. */
static bool enter(struct shim_socket* s, int* cancel) {
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, cancel);
    if (registry_hold(s)) {
        pthread_mutex_lock(&s->lock);
        return true;
    }
    pthread_setcancelstate(*cancel, NULL);
    errno = EBADF;
    return false;
}

static void leave(struct shim_socket* s, int cancel) {
    const int saved = errno;
    pthread_mutex_unlock(&s->lock);
    registry_let_go(s);
    pthread_setcancelstate(cancel, NULL);
    errno = saved;
}

/* Waits for the answer of that kind and id; those of requests given up earlier are dropped. */
static int wait_answer(struct shim_socket* s, uint16_t kind, uint32_t id, uint64_t until_ns,
                       struct shim_answer* a) {
    for (;;) {
        const uint64_t now = now_ns();
        if (now >= until_ns) return failed(ENOBUFS);
        struct pollfd p = {.fd = s->side, .events = POLLIN, .revents = 0};
        const int ready = poll(&p, 1, (int)((until_ns - now) / 1000000u) + 1);
        if (ready < 0 && errno != EINTR) return -1;
        if (ready <= 0) continue;
        const ssize_t length =
            REAL(ssize_t, recv, (int, void*, size_t, int))(s->side, a, sizeof *a, MSG_DONTWAIT);
        if (length == 0) return failed(ECONNREFUSED); /* the server is gone */
        if (length < 0 && errno != EAGAIN && errno != EINTR) return -1;
        if (length != sizeof *a || a->magic != SHIM_MAGIC || a->version != SHIM_VERSION) continue;
        if (a->kind != kind || a->id != id) continue;
        s->port_id = a->port_id;
        s->groups = a->groups;
        s->mark = a->mark;
        return 0;
    }
}

static int send_with_descriptor(int fd, const struct shim_header* h, int passed) {
    struct iovec v = {.iov_base = (void*)(uintptr_t)h, .iov_len = sizeof *h};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    memset(&control, 0, sizeof control);
    struct msghdr m = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    struct cmsghdr* const c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &passed, sizeof passed);
    return real_sendmsg(fd, &m, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static bool side_is_ours(const struct shim_socket* s) {
    struct stat st;
    return s->side >= 0 && fstat(s->side, &st) == 0 && st.st_ino == s->side_inode;
}

/* The server drops the side channels of the oldest of many processes. */
static bool side_is_dropped(const struct shim_socket* s) {
    struct pollfd p = {.fd = s->side, .events = 0, .revents = 0};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP) != 0;
}

static void close_side(struct shim_socket* s) {
    real_close(s->side);
    s->side = -1;
}

static int adopt_side(struct shim_socket* s, int side) {
    const int high = REAL(int, fcntl, (int, int, ...))(side, F_DUPFD_CLOEXEC, side_minimum);
    if (high >= 0) {
        real_close(side);
        side = high;
    }
    struct stat st;
    if (fstat(side, &st) != 0) return -1;
    s->side = side;
    s->side_inode = st.st_ino;
    return 0;
}

/* Gives the socket a side channel if it has none: new, inherited, closed by the client, or dropped
 * by the server. */
static int attach(struct shim_socket* s, int fd) {
    if (side_is_ours(s)) {
        if (!side_is_dropped(s)) return 0;
        close_side(s);
    }
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return -1;
    const struct shim_header h = {
        .magic = SHIM_MAGIC, .version = SHIM_VERSION, .kind = shim_attach};
    const int sent = send_with_descriptor(fd, &h, pair[1]);
    real_close(pair[1]);
    struct shim_answer a;
    if (sent != 0 || adopt_side(s, pair[0]) != 0) {
        real_close(pair[0]);
        return -1;
    }
    const uint64_t until = now_ns() + SHIM_ANSWER_TIMEOUT_NS + SHIM_ANSWER_GRACE_NS;
    if (wait_answer(s, shim_attach, 0, until, &a) != 0) {
        const int saved = errno;
        close_side(s);
        return failed(saved);
    }
    s->channel = a.channel;
    return 0;
}

static int unreachable(const char* path) {
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&said))
        fprintf(stderr,
                "esplane: no XFRM server at %s: %s. Is esplaned running, as this user or root?\n",
                path, strerror(errno));
    return failed(EPROTONOSUPPORT);
}

static int connect_to(const char* path, int flags) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path) return failed(ENAMETOOLONG);
    strcpy(a.sun_path, path);
    const int fd = REAL(int, socket, (int, int, int))(AF_UNIX, SOCK_SEQPACKET | flags, 0);
    if (fd < 0) return -1;
    /* For connect() and every send: a server that hangs is waited for no longer than an answer. */
    const struct timeval longest = {.tv_sec = (time_t)(SHIM_ANSWER_TIMEOUT_NS / 1000000000u)};
    REAL(int, setsockopt, (int, int, int, const void*, socklen_t))
    (fd, SOL_SOCKET, SO_SNDTIMEO, &longest, sizeof longest);
    if (REAL(int, connect, (int, const struct sockaddr*, socklen_t))(fd, (const struct sockaddr*)&a,
                                                                     sizeof a) == 0)
        return fd;
    const int saved = errno;
    real_close(fd);
    return failed(saved);
}

int channel_open(int type) {
    const char* const path = channel_path();
    const int fd = connect_to(path, type & SOCK_CLOEXEC);
    if (fd < 0) return unreachable(path);
    struct shim_socket* const s = registry_add(fd, type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (s == NULL) {
        real_close(fd);
        return failed(EMFILE);
    }
    if (channel_ready(s, fd) != 0) {
        unreachable(path);
        registry_forget(fd);
        real_close(fd);
        return failed(EPROTONOSUPPORT);
    }
    if ((type & SOCK_NONBLOCK) != 0)
        REAL(int, fcntl, (int, int, ...))(fd, F_SETFL, O_RDWR | O_NONBLOCK);
    return fd;
}

int channel_ready(struct shim_socket* s, int fd) {
    int cancel;
    if (!enter(s, &cancel)) return -1;
    const int result = attach(s, fd);
    leave(s, cancel);
    return result;
}

/* By a connection of its own: clients that set options of other sockets need not have one. */
int channel_exempt_mark(uint32_t* mark) {
    const int saved = errno;
    const int fd = channel_open(SOCK_RAW | SOCK_CLOEXEC);
    if (fd < 0) return -1;
    *mark = registry_find(fd)->mark;
    registry_forget(fd);
    real_close(fd);
    errno = saved;
    return 0;
}

static int control(struct shim_socket* s, int fd, uint16_t kind, uint32_t argument,
                   uint32_t value) {
    if (attach(s, fd) != 0) return -1;
    const struct shim_control c = {.magic = SHIM_MAGIC,
                                   .version = SHIM_VERSION,
                                   .kind = kind,
                                   .id = s->next_id++,
                                   .argument = argument,
                                   .value = value};
    if (REAL(ssize_t, send, (int, const void*, size_t, int))(s->side, &c, sizeof c, MSG_NOSIGNAL) <
        0)
        return -1;
    struct shim_answer a;
    const uint64_t until = now_ns() + SHIM_ANSWER_TIMEOUT_NS + SHIM_ANSWER_GRACE_NS;
    if (wait_answer(s, kind, c.id, until, &a) != 0) return -1;
    return a.status == 0 ? 0 : failed((int)a.status);
}

int channel_control(struct shim_socket* s, int fd, uint16_t kind, uint32_t argument,
                    uint32_t value) {
    int cancel;
    if (!enter(s, &cancel)) return -1;
    const int result = control(s, fd, kind, argument, value);
    leave(s, cancel);
    return result;
}

static ssize_t send_request(struct shim_socket* s, int fd, const struct msghdr* m, int flags) {
    if (attach(s, fd) != 0) return -1;
    struct shim_header h = {.magic = SHIM_MAGIC,
                            .version = SHIM_VERSION,
                            .kind = shim_request,
                            .channel = s->channel,
                            .id = s->next_id++,
                            .deadline_ns = now_ns() + SHIM_ANSWER_TIMEOUT_NS};
    struct iovec pieces[IOV_MAX];
    pieces[0] = (struct iovec){.iov_base = &h, .iov_len = sizeof h};
    memcpy(pieces + 1, m->msg_iov, m->msg_iovlen * sizeof *pieces);
    const struct msghdr out = {.msg_iov = pieces, .msg_iovlen = m->msg_iovlen + 1};
    const ssize_t sent = real_sendmsg(fd, &out, flags | MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN ? failed(ENOBUFS) : -1; /* no netlink send says EAGAIN */
    struct shim_answer a;
    if (wait_answer(s, shim_done, h.id, h.deadline_ns + SHIM_ANSWER_GRACE_NS, &a) != 0) return -1;
    if (a.status != 0) return failed((int)a.status);
    return sent - (ssize_t)sizeof h;
}

ssize_t channel_send(struct shim_socket* s, int fd, const struct msghdr* m, int flags) {
    size_t length = 0;
    if (m->msg_iovlen >= IOV_MAX) return failed(EMSGSIZE);
    for (size_t i = 0; i < m->msg_iovlen; i++)
        length += m->msg_iov[i].iov_len;
    if (length > SHIM_REQUEST_MAX) return failed(EMSGSIZE);
    int cancel;
    if (!enter(s, &cancel)) return -1;
    const ssize_t result = send_request(s, fd, m, flags);
    leave(s, cancel);
    return result;
}

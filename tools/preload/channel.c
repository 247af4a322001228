// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/preload/ask.h"
#include "tools/preload/link.h"
#include "tools/preload/moment.h"
#include "tools/preload/parking.h"
#include "tools/preload/real.h"
#include "tools/preload/reply.h"
#include "tools/preload/side.h"
#include "tools/preload/watch.h"
#include "xfrm/shim_protocol.h"

// What clients ask for

static int unreachable(void) {
    static atomic_flag said = ATOMIC_FLAG_INIT;
    char profile[256];
    const int code = errno;
    if (atomic_flag_test_and_set(&said)) return failed(EPROTONOSUPPORT);
    fprintf(stderr, "esplane: no XFRM server at %s: %s. ", link_path(), strerror(code));
    if (code == EACCES && link_profile(profile, sizeof profile))
        fprintf(stderr,
                "AppArmor confines this program: install esplane's rules as "
                "/etc/apparmor.d/local/%s (doc/clients.md)\n",
                profile);
    else
        fprintf(stderr, "Is esplaned running, as this user or root?\n");
    return failed(EPROTONOSUPPORT);
}

static int open_anew(int type, uint32_t pid) {
    int ends[2];
    if (link_data_socket(type & SOCK_CLOEXEC, ends) != 0) return -1;
    struct shim_socket* const s =
        registry_add(ends[0], ends[1], type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (s == NULL) {
        real_close(ends[0]);
        real_close(ends[1]);
        return failed(EMFILE);
    }
    s->pid = pid;
    if (channel_ready(s, -1) != 0) { /* nobody serves it yet who could be asked over it */
        unreachable();
        registry_forget(ends[0]);
        real_close(ends[0]);
        return failed(EPROTONOSUPPORT);
    }
    if ((type & SOCK_NONBLOCK) != 0)
        REAL(int, fcntl, (int, int, ...))(ends[0], F_SETFL, O_RDWR | O_NONBLOCK);
    return ends[0];
}

int channel_open(int type, uint32_t pid) {
    const int fd = pid == 0 ? parking_take(type) : -1;
    return fd >= 0 ? fd : open_anew(type, pid);
}

/* Where a path is that nobody serves a daemon has ended: the next may be taking over.  Who waited
 * in vain does so once. */
static int attach_anew(struct shim_socket* s, int fd) {
    static atomic_flag waited = ATOMIC_FLAG_INIT;
    const uint64_t changeover_ns = 2000000000u;
    const int result = side_attach(s, fd);
    if (result == 0 || errno != ECONNREFUSED || atomic_flag_test_and_set(&waited)) return result;
    return side_attach_until(s, fd, now_ns() + changeover_ns) == 0 ? 0 : failed(ECONNREFUSED);
}

int channel_ready(struct shim_socket* s, int fd) {
    int cancel;
    if (!side_enter(s, &cancel)) return -1;
    int result = 0;
    if (!s->opened)
        result = attach_anew(s, fd);
    else if (s->edition == 0 && s->side < 0) /* inherited */
        result = side_attach_until(s, fd, now_ns() + SHIM_ANSWER_TIMEOUT_NS);
    side_leave(s, cancel);
    return result;
}

/* By a connection of its own: clients that set options of other sockets need not have one. */
int channel_exempt_mark(uint32_t* mark) {
    const int saved = errno;
    const int fd = open_anew(SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    *mark = registry_find(fd)->mark;
    registry_forget(fd);
    real_close(fd);
    errno = saved;
    return 0;
}

/* A port id that the socket has from an earlier use is the client's when it asks for any, or for
 * that; else the socket is made as new at the server, too. */
static int bind_socket(struct shim_socket* s, int fd, uint32_t port_id, uint32_t groups) {
    const bool has = s->port_id != 0 && (port_id == 0 ? !s->bound : port_id == s->port_id);
    if (has && groups == s->groups) return 0;
    if (!s->bound && !has && s->port_id != 0) {
        if (ask_control(s, fd, shim_reset, 0, 0) != 0) return -1;
        s->told = 0;
    }
    if (s->port_id == 0) parking_clear();
    return ask_control(s, fd, shim_bind, has ? s->port_id : port_id, groups);
}

int channel_bind(struct shim_socket* s, int fd, uint32_t port_id, uint32_t groups) {
    int cancel;
    if (!side_enter(s, &cancel)) return -1;
    reply_settle(s);
    const int result = bind_socket(s, fd, port_id, groups);
    s->bound = s->bound || result == 0;
    if (side_is_watched(s)) watch_begin(s);
    side_leave(s, cancel);
    return result;
}

int channel_control(struct shim_socket* s, int fd, uint16_t kind, uint32_t argument,
                    uint32_t value) {
    int cancel;
    if (!side_enter(s, &cancel)) return -1;
    reply_settle(s);
    const int result = ask_control(s, fd, kind, argument, value);
    if (side_is_watched(s)) watch_begin(s);
    side_leave(s, cancel);
    return result;
}

static bool asks_for_dump(const struct msghdr* m) {
    struct nlmsghdr h;
    if (m->msg_iovlen == 0 || m->msg_iov[0].iov_len < sizeof h) return false;
    memcpy(&h, m->msg_iov[0].iov_base, sizeof h);
    return (h.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
}

ssize_t channel_send(struct shim_socket* s, int fd, const struct msghdr* m, int flags) {
    size_t length = 0;
    if (m->msg_iovlen >= IOV_MAX) return failed(EMSGSIZE);
    for (size_t i = 0; i < m->msg_iovlen; i++)
        length += m->msg_iov[i].iov_len;
    if (length > SHIM_REQUEST_MAX) return failed(EMSGSIZE);
    int cancel;
    if (!side_enter(s, &cancel)) return -1;
    atomic_store(&s->dumping, asks_for_dump(m));
    const ssize_t result = ask_request(s, fd, m, length, flags);
    if (result < 0) atomic_store(&s->dumping, false);
    if (side_is_watched(s)) watch_begin(s);
    side_leave(s, cancel);
    return result;
}

// Between one use of a socket and the next (parking.h)

void channel_renew(struct shim_socket* s, int type) {
    s->type = type;
    s->bound = false;
    s->quiet = true;
    atomic_store(&s->lost, false);
    s->options = 0;
    s->rooms[0] = s->rooms[1] = 0;
}

// What clients receive

static bool has_end_of_dump(const char* data, size_t length) {
    struct nlmsghdr h;
    while (length >= sizeof h) {
        memcpy(&h, data, sizeof h);
        if (h.nlmsg_type == NLMSG_DONE || h.nlmsg_type == NLMSG_ERROR) return true;
        const size_t step = NLMSG_ALIGN(h.nlmsg_len);
        if (step < sizeof h || step >= length) return false;
        data += step;
        length -= step;
    }
    return false;
}

ssize_t channel_received(struct shim_socket* s, int fd, const struct iovec* into, ssize_t length,
                         int flags) {
    const uint32_t word = SHIM_OVERRUN;
    if (length == sizeof word && into->iov_len >= sizeof word &&
        memcmp(into->iov_base, &word, sizeof word) == 0) {
        if ((flags & MSG_PEEK) != 0)
            REAL(ssize_t, recv, (int, void*, size_t, int))(fd, NULL, 0, MSG_DONTWAIT);
        return failed(ENOBUFS);
    }
    if (length > 0 && (flags & MSG_PEEK) == 0 &&
        atomic_load_explicit(&s->dumping, memory_order_relaxed) &&
        has_end_of_dump(into->iov_base,
                        (size_t)length < into->iov_len ? (size_t)length : into->iov_len))
        atomic_store(&s->dumping, false);
    return length;
}

// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/side.h"

#include <errno.h>
#include <poll.h>
#include <sys/single_threaded.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/preload/link.h"
#include "tools/preload/moment.h"
#include "tools/preload/real.h"
#include "tools/preload/reply.h"
#include "tools/preload/slate.h"

/* Where there are no threads it is this one that has the lock: a signal's handler must not wait. */
static bool lock(struct shim_socket* s) {
    return (__libc_single_threaded ? pthread_mutex_trylock(&s->lock)
                                   : pthread_mutex_lock(&s->lock)) == 0;
}

/* The lock of a socket is held in a stretch where a cancelled thread must not vanish. */
bool side_enter(struct shim_socket* s, int* cancel) {
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, cancel);
    const bool held = registry_hold(s);
    if (held && lock(s)) return true;
    if (held) registry_let_go(s);
    pthread_setcancelstate(*cancel, NULL);
    errno = held ? ENOBUFS : EBADF;
    return false;
}

void side_leave(struct shim_socket* s, int cancel) {
    const int saved = errno;
    pthread_mutex_unlock(&s->lock);
    registry_let_go(s);
    pthread_setcancelstate(cancel, NULL);
    errno = saved;
}

// Answers

void side_learn(struct shim_socket* s, const struct shim_answer* a) {
    s->port_id = a->port_id;
    s->groups = a->groups;
    s->edition = a->edition;
    s->mark = a->mark;
    atomic_store(&s->listens, a->groups != 0);
}

bool side_is_own(const struct shim_socket* s) {
    return registry_is_socket(s->side, s->side_inode);
}

/* The next answer, where one is there.  ECONNRESET: the server, or the side channel, is gone. */
static int read_answer(struct shim_socket* s, struct shim_answer* a) {
    for (;;) {
        const ssize_t length =
            REAL(ssize_t, recv, (int, void*, size_t, int))(s->side, a, sizeof *a, MSG_DONTWAIT);
        if (length == 0) return failed(ECONNRESET);
        if (length < 0) return errno == EBADF || errno == ENOTSOCK ? failed(ECONNRESET) : -1;
        if (length != sizeof *a || a->magic != SHIM_MAGIC || a->version != SHIM_VERSION) continue;
        if (a->kind == shim_evicted) atomic_store(&s->evicted, true);
        return 0;
    }
}

/* Waits for the answer of that kind and id; those of requests given up earlier are dropped. */
int side_wait(struct shim_socket* s, uint16_t kind, uint32_t id, uint64_t until_ns,
              struct shim_answer* a) {
    for (;;) {
        const uint64_t now = now_ns();
        if (now >= until_ns) return failed(ENOBUFS);
        struct pollfd p = {.fd = s->side, .events = POLLIN, .revents = 0};
        const int ready = REAL_POLL(&p, 1, (int)((until_ns - now) / 1000000u) + 1);
        if (ready < 0 && errno != EINTR) return -1;
        if (ready <= 0) continue;
        if ((p.revents & POLLNVAL) != 0) return failed(ECONNRESET);
        if (read_answer(s, a) != 0) {
            if (errno != EAGAIN && errno != EINTR) return -1;
        } else if (a->kind == kind && a->id == id) {
            side_learn(s, a);
            return 0;
        }
    }
}

/* Of words that nobody waited for in the end there are never so many that one finds no room. */
void side_drain(struct shim_socket* s) {
    struct shim_answer a;
    const int saved = errno;
    while (side_is_own(s) && read_answer(s, &a) == 0) {
    }
    errno = saved;
}

// The side channel: opened when needed, and anew when the server has ended

/* The slate is for this side channel alone.  A reply on it stays, on the data socket. */
void side_close(struct shim_socket* s) {
    reply_settle(s);
    if (s->slate != NULL) slate_drop(s->slate);
    s->slate = NULL;
    s->asked = 0;
    if (side_is_own(s)) real_close(s->side);
    s->side = -1;
}

bool side_serves(const struct shim_socket* s) {
    struct pollfd p = {.fd = s->side, .events = 0, .revents = 0};
    return side_is_own(s) && REAL_POLL(&p, 1, 0) == 0;
}

static void adopt_side(struct shim_socket* s, int side) {
    struct stat st = {.st_ino = 0};
    s->side = link_move_up(side);
    fstat(s->side, &st);
    s->side_inode = st.st_ino;
    atomic_store(&s->evicted, false);
}

/* Closes what was not answered. */
static int greeted(struct shim_socket* s, enum shim_kind kind, struct shim_answer* a) {
    const uint64_t until = now_ns() + SHIM_ANSWER_TIMEOUT_NS + SHIM_ANSWER_GRACE_NS;
    if (side_wait(s, (uint16_t)kind, 0, until, a) != 0) {
        const int saved = errno;
        side_close(s);
        return failed(saved);
    }
    s->channel = a->channel;
    return 0;
}

/* Lets the reader know, as far as there is room, that it missed events. */
static void tell_overrun(struct shim_socket* s) {
    const uint32_t word = SHIM_OVERRUN;
    if (registry_is_socket(s->kept, s->kept_inode) &&
        REAL(ssize_t, send, (int, const void*, size_t, int))(s->kept, &word, sizeof word,
                                                             MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
        errno == EAGAIN)
        return;
    atomic_store(&s->overrun, false);
}

static int open_by_path(struct shim_socket* s) {
    const struct shim_had had = {.edition = s->edition,
                                 .port_id = s->port_id,
                                 .groups = s->groups,
                                 .options = s->options,
                                 .pid = s->pid};
    const int side = link_connect();
    if (side < 0) return -1;
    if (link_pass(side, shim_open, 0, s->kept, &had, sizeof had) != 0) {
        const int saved = errno;
        real_close(side);
        return failed(saved);
    }
    adopt_side(s, side);
    struct shim_answer a;
    if (greeted(s, shim_open, &a) != 0) return -1;
    if (s->opened && a.status == 0 && s->groups != 0) atomic_store(&s->overrun, true);
    if (a.status == 0) s->told = had.edition != 0 ? had.options : 0;
    s->opened = true;
    if (atomic_load(&s->overrun)) tell_overrun(s);
    return 0;
}

static int attach_over_data(struct shim_socket* s, int fd) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return -1;
    const int sent = link_pass(fd, shim_attach, 0, pair[1], NULL, 0);
    real_close(pair[1]);
    if (sent != 0) {
        real_close(pair[0]);
        return -1;
    }
    adopt_side(s, pair[0]);
    struct shim_answer a;
    return greeted(s, shim_attach, &a);
}

/* Gives the socket a side channel if it has none: new, inherited, closed by the client, dropped by
 * the server, or of a server that has ended.  `fd` is the data socket; -1: not at hand. */
int side_attach(struct shim_socket* s, int fd) {
    if (side_serves(s)) return 0;
    side_close(s);
    if (registry_is_socket(s->kept, s->kept_inode)) {
        if (open_by_path(s) == 0) return 0;
        if (errno != EACCES && errno != EPERM) return -1;
    }
    return fd < 0 ? failed(EACCES) : attach_over_data(s, fd);
}

/* Says whether a server that is being started again may yet mend it. */
bool side_is_away(int code) {
    return code == ENOENT || code == ECONNREFUSED || code == ECONNRESET || code == EPIPE;
}

/* Waits for a server to be there. */
int side_attach_until(struct shim_socket* s, int fd, uint64_t until_ns) {
    const struct timespec moment = {.tv_nsec = 20000000};
    while (side_attach(s, fd) != 0) {
        if (!side_is_away(errno)) return -1;
        if (now_ns() >= until_ns) return failed(ENOBUFS);
        nanosleep(&moment, NULL);
    }
    return 0;
}

bool side_is_watched(const struct shim_socket* s) {
    return (atomic_load(&s->listens) || atomic_load(&s->dumping)) && !atomic_load(&s->evicted);
}

bool side_mend(struct shim_socket* s) {
    if (pthread_mutex_trylock(&s->lock) != 0) { /* a sender mends it */
        REAL_POLL(NULL, 0, 100);
        return true;
    }
    struct shim_answer a;
    while (side_is_own(s) && !side_serves(s) && read_answer(s, &a) == 0) {
    }
    if (side_is_watched(s) && !side_serves(s)) {
        if (atomic_exchange(&s->dumping, false)) atomic_store(&s->overrun, true);
        if (atomic_load(&s->listens)) side_attach(s, -1);
    }
    if (atomic_load(&s->overrun)) tell_overrun(s);
    const bool on = side_is_watched(s) || atomic_load(&s->overrun);
    pthread_mutex_unlock(&s->lock);
    return on;
}

// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/single_threaded.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/preload/link.h"
#include "tools/preload/parking.h"
#include "tools/preload/real.h"
#include "tools/preload/slate.h"
#include "tools/preload/watch.h"
#include "xfrm/shim_protocol.h"

static int real_close(int fd) {
    return REAL(int, close, (int))(fd);
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

// Answers

static void learn(struct shim_socket* s, const struct shim_answer* a) {
    s->port_id = a->port_id;
    s->groups = a->groups;
    s->edition = a->edition;
    s->mark = a->mark;
    atomic_store(&s->listens, a->groups != 0);
}

/* The next answer, where one is there.  ECONNRESET: the server, or the side channel, is gone. */
static int read_answer(struct shim_socket* s, struct shim_answer* a) {
    for (;;) {
        const ssize_t length =
            REAL(ssize_t, recv, (int, void*, size_t, int))(s->side, a, sizeof *a, MSG_DONTWAIT);
        if (length == 0) return failed(ECONNRESET);
        if (length < 0) return -1;
        if (length != sizeof *a || a->magic != SHIM_MAGIC || a->version != SHIM_VERSION) continue;
        if (a->kind == shim_evicted) atomic_store(&s->evicted, true);
        return 0;
    }
}

/* Waits for the answer of that kind and id; those of requests given up earlier are dropped. */
static int wait_answer(struct shim_socket* s, uint16_t kind, uint32_t id, uint64_t until_ns,
                       struct shim_answer* a) {
    for (;;) {
        const uint64_t now = now_ns();
        if (now >= until_ns) return failed(ENOBUFS);
        struct pollfd p = {.fd = s->side, .events = POLLIN, .revents = 0};
        const int ready = REAL_POLL(&p, 1, (int)((until_ns - now) / 1000000u) + 1);
        if (ready < 0 && errno != EINTR) return -1;
        if (ready <= 0) continue;
        if (read_answer(s, a) != 0) {
            if (errno != EAGAIN && errno != EINTR) return -1;
        } else if (a->kind == kind && a->id == id) {
            learn(s, a);
            return 0;
        }
    }
}

// A reply on the slate: to be received next, unless something else happens before

static atomic_bool some_pending; /* perhaps */

static struct iovec reply_on(const struct shim_slate* slate) {
    const uint32_t length = slate->length < SHIM_SLATE_ROOM ? slate->length : SHIM_SLATE_ROOM;
    return (struct iovec){.iov_base = (void*)(uintptr_t)slate->reply, .iov_len = length};
}

static void forget_reply(struct shim_socket* s) {
    if (!atomic_exchange(&s->pending, false)) return;
    const struct iovec reply = reply_on(s->slate);
    explicit_bzero(reply.iov_base, reply.iov_len); /* it may hold keys */
}

/* Puts it where whoever waits for the socket looks. */
static void settle(struct shim_socket* s) {
    if (!atomic_load(&s->pending)) return;
    const int saved = errno;
    const struct iovec reply = reply_on(s->slate);
    if (!registry_is_socket(s->kept, s->kept_inode) ||
        REAL(ssize_t, send, (int, const void*, size_t, int))(s->kept, reply.iov_base, reply.iov_len,
                                                             MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        atomic_store(&s->overrun, true);
    s->quiet = false;
    forget_reply(s);
    errno = saved;
}

// The side channel: opened when needed, and anew when the server has ended

/* The slate is for this side channel alone.  A reply on it stays, on the data socket. */
static void close_side(struct shim_socket* s) {
    settle(s);
    if (s->slate != NULL) slate_drop(s->slate);
    s->slate = NULL;
    s->asked = 0;
    if (registry_is_socket(s->side, s->side_inode)) real_close(s->side);
    s->side = -1;
}

static bool side_serves(const struct shim_socket* s) {
    struct pollfd p = {.fd = s->side, .events = 0, .revents = 0};
    return registry_is_socket(s->side, s->side_inode) && REAL_POLL(&p, 1, 0) == 0;
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
    if (wait_answer(s, (uint16_t)kind, 0, until, a) != 0) {
        const int saved = errno;
        close_side(s);
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
static int attach(struct shim_socket* s, int fd) {
    if (side_serves(s)) return 0;
    close_side(s);
    if (registry_is_socket(s->kept, s->kept_inode)) {
        if (open_by_path(s) == 0) return 0;
        if (errno != EACCES && errno != EPERM) return -1;
    }
    return fd < 0 ? failed(EACCES) : attach_over_data(s, fd);
}

/* Says whether a server that is being started again may yet mend it. */
static bool server_is_away(int code) {
    return code == ENOENT || code == ECONNREFUSED || code == ECONNRESET || code == EPIPE;
}

/* Waits for a server to be there. */
static int attach_until(struct shim_socket* s, int fd, uint64_t until_ns) {
    const struct timespec moment = {.tv_nsec = 20000000};
    while (attach(s, fd) != 0) {
        if (!server_is_away(errno)) return -1;
        if (now_ns() >= until_ns) return failed(ENOBUFS);
        nanosleep(&moment, NULL);
    }
    return 0;
}

bool channel_is_watched(struct shim_socket* s) {
    return (atomic_load(&s->listens) || atomic_load(&s->dumping)) && !atomic_load(&s->evicted);
}

bool channel_mend(struct shim_socket* s) {
    if (pthread_mutex_trylock(&s->lock) != 0) { /* a sender mends it */
        REAL_POLL(NULL, 0, 100);
        return true;
    }
    struct shim_answer a;
    while (s->side >= 0 && !side_serves(s) && read_answer(s, &a) == 0) {
    }
    if (channel_is_watched(s) && !side_serves(s)) {
        if (atomic_exchange(&s->dumping, false)) atomic_store(&s->overrun, true);
        if (atomic_load(&s->listens)) attach(s, -1);
    }
    if (atomic_load(&s->overrun)) tell_overrun(s);
    const bool on = channel_is_watched(s) || atomic_load(&s->overrun);
    pthread_mutex_unlock(&s->lock);
    return on;
}

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

int channel_ready(struct shim_socket* s, int fd) {
    int cancel;
    if (!enter(s, &cancel)) return -1;
    int result = 0;
    if (!s->opened)
        result = attach(s, fd);
    else if (s->edition == 0 && s->side < 0) /* inherited */
        result = attach_until(s, fd, now_ns() + SHIM_ANSWER_TIMEOUT_NS);
    leave(s, cancel);
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

/* Asked again of the next server, where one ended: to ask twice does no harm. */
static int control(struct shim_socket* s, int fd, uint16_t kind, uint32_t argument,
                   uint32_t value) {
    const uint64_t until = now_ns() + SHIM_ANSWER_TIMEOUT_NS + SHIM_ANSWER_GRACE_NS;
    for (;;) {
        if (attach_until(s, fd, until) != 0) return -1;
        const struct shim_control c = {.magic = SHIM_MAGIC,
                                       .version = SHIM_VERSION,
                                       .kind = kind,
                                       .id = s->next_id++,
                                       .argument = argument,
                                       .value = value};
        struct shim_answer a;
        if (REAL(ssize_t, send, (int, const void*, size_t, int))(s->side, &c, sizeof c,
                                                                 MSG_NOSIGNAL) >= 0 &&
            wait_answer(s, kind, c.id, until, &a) == 0)
            return a.status == 0 ? 0 : failed((int)a.status);
        if (!server_is_away(errno)) return -1;
    }
}

/* A port id that the socket has from an earlier use is the client's when it asks for any, or for
 * that; else the socket is made as new at the server, too. */
static int bind_socket(struct shim_socket* s, int fd, uint32_t port_id, uint32_t groups) {
    const bool has = s->port_id != 0 && (port_id == 0 ? !s->bound : port_id == s->port_id);
    if (has && groups == s->groups) return 0;
    if (!s->bound && !has && s->port_id != 0) {
        if (control(s, fd, shim_reset, 0, 0) != 0) return -1;
        s->told = 0;
    }
    if (s->port_id == 0) parking_clear();
    return control(s, fd, shim_bind, has ? s->port_id : port_id, groups);
}

int channel_bind(struct shim_socket* s, int fd, uint32_t port_id, uint32_t groups) {
    int cancel;
    if (!enter(s, &cancel)) return -1;
    settle(s);
    const int result = bind_socket(s, fd, port_id, groups);
    s->bound = s->bound || result == 0;
    if (channel_is_watched(s)) watch_begin(s);
    leave(s, cancel);
    return result;
}

int channel_control(struct shim_socket* s, int fd, uint16_t kind, uint32_t argument,
                    uint32_t value) {
    int cancel;
    if (!enter(s, &cancel)) return -1;
    settle(s);
    const int result = control(s, fd, kind, argument, value);
    if (channel_is_watched(s)) watch_begin(s);
    leave(s, cancel);
    return result;
}

static bool asks_for_dump(const struct msghdr* m) {
    struct nlmsghdr h;
    if (m->msg_iovlen == 0 || m->msg_iov[0].iov_len < sizeof h) return false;
    memcpy(&h, m->msg_iov[0].iov_base, sizeof h);
    return (h.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
}

/* Options are told with the first request that they matter to. */
static int tell_options(struct shim_socket* s, int fd) {
    static const uint32_t told_ones[] = {NETLINK_CAP_ACK, NETLINK_EXT_ACK};
    for (size_t i = 0; i < sizeof told_ones / sizeof *told_ones; i++) {
        const uint32_t bit = 1u << told_ones[i];
        if (((s->options ^ s->told) & bit) == 0) continue;
        if (control(s, fd, shim_option, told_ones[i], (s->options & bit) != 0) != 0) return -1;
        s->told ^= bit;
    }
    return 0;
}

/* Says whether the reply may be left on the slate: nobody else can wait for it, and nothing that
 * was sent before it can be received after it. */
static bool may_take_reply(struct shim_socket* s, int fd) {
    char byte;
    if (!__libc_single_threaded || s->groups != 0 || atomic_load(&s->dumping) ||
        atomic_load(&s->peculiar) || !atomic_load(&s->kept_from_exec))
        return false;
    if (!s->quiet)
        s->quiet = REAL(ssize_t, recv, (int, void*, size_t, int))(fd, &byte, 1,
                                                                  MSG_PEEK | MSG_DONTWAIT) < 0 &&
                   errno == EAGAIN;
    return s->quiet;
}

/* What became of an attempt to ask. */
enum attempt { answered, failed_for_good, server_had_ended };

/* A request that was under way when the server ended may have been carried out, or not. */
static enum attempt ask_on_socket(struct shim_socket* s, int fd, const struct shim_header* h,
                                  const struct msghdr* m, int flags, uint32_t* status) {
    struct iovec pieces[IOV_MAX];
    struct shim_answer a;
    pieces[0] = (struct iovec){.iov_base = (void*)(uintptr_t)h, .iov_len = sizeof *h};
    memcpy(pieces + 1, m->msg_iov, m->msg_iovlen * sizeof *pieces);
    const struct msghdr out = {.msg_iov = pieces, .msg_iovlen = m->msg_iovlen + 1};
    s->quiet = false;
    if (REAL(ssize_t, sendmsg, (int, const struct msghdr*, int))(fd, &out, flags | MSG_NOSIGNAL) <
        0) {
        if (errno == EAGAIN) errno = ENOBUFS; /* no netlink send says EAGAIN */
        return failed_for_good;
    }
    if (wait_answer(s, shim_done, h->id, h->deadline_ns + SHIM_ANSWER_GRACE_NS, &a) != 0) {
        if (server_is_away(errno)) errno = ENOBUFS;
        return failed_for_good;
    }
    *status = a.status;
    return answered;
}

static void ring(int fd, const struct shim_header* h) {
    struct shim_header bell = *h;
    bell.kind = shim_bell;
    REAL(ssize_t, send, (int, const void*, size_t, int))
    (fd, &bell, sizeof bell, MSG_NOSIGNAL);
}

/* Here it is known whether the server had the request before it ended. */
static enum attempt ask_on_slate(struct shim_socket* s, int fd, const struct shim_header* h,
                                 const struct msghdr* m, uint32_t* status) {
    struct shim_answer a;
    const bool takes = may_take_reply(s, fd);
    if (slate_ask(s->slate, h, m->msg_iov, m->msg_iovlen, takes)) ring(fd, h);
    if (!slate_look(s->slate) &&
        wait_answer(s, shim_done, h->id, h->deadline_ns + SHIM_ANSWER_GRACE_NS, &a) != 0) {
        const int code = errno;
        const bool again = slate_take_back(s->slate) && server_is_away(code);
        close_side(s);
        errno = server_is_away(code) ? ENOBUFS : code;
        return again ? server_had_ended : failed_for_good;
    }
    a = s->slate->answer;
    learn(s, &a);
    slate_read(s->slate);
    if (reply_on(s->slate).iov_len != 0) {
        atomic_store(&s->pending, true);
        atomic_store_explicit(&some_pending, true, memory_order_relaxed);
    } else
        s->quiet = false;
    *status = a.status;
    return answered;
}

/* Who asks often gets a slate.  Where it cannot be made all goes on as it was. */
static void share_slate(struct shim_socket* s, int fd) {
    int memory;
    struct shim_answer a;
    struct shim_slate* const slate = slate_make(&memory);
    if (slate == NULL) return;
    const int sent = link_pass(fd, shim_share, s->channel, memory, NULL, 0);
    real_close(memory);
    if (sent == 0 && wait_answer(s, shim_share, 0, now_ns() + SHIM_ANSWER_TIMEOUT_NS, &a) == 0)
        s->slate = slate;
    else
        slate_drop(slate);
}

static ssize_t send_request(struct shim_socket* s, int fd, const struct msghdr* m, size_t length,
                            int flags) {
    enum { asks_often = 4 };
    const uint64_t until = now_ns() + SHIM_ANSWER_TIMEOUT_NS;
    enum attempt outcome = server_had_ended;
    uint32_t status = 0;
    settle(s);
    while (outcome == server_had_ended) {
        if (s->slate == NULL && attach_until(s, fd, until) != 0) return -1;
        if (tell_options(s, fd) != 0) return -1;
        const struct shim_header h = {.magic = SHIM_MAGIC,
                                      .version = SHIM_VERSION,
                                      .kind = shim_request,
                                      .channel = s->channel,
                                      .id = s->next_id++,
                                      .deadline_ns = until};
        outcome = s->slate != NULL && length <= SHIM_SLATE_ROOM
                      ? ask_on_slate(s, fd, &h, m, &status)
                      : ask_on_socket(s, fd, &h, m, flags, &status);
    }
    if (outcome != answered) return -1;
    s->bound = true;
    if (++s->asked == asks_often) share_slate(s, fd);
    return status == 0 ? (ssize_t)length : failed((int)status);
}

ssize_t channel_send(struct shim_socket* s, int fd, const struct msghdr* m, int flags) {
    size_t length = 0;
    if (m->msg_iovlen >= IOV_MAX) return failed(EMSGSIZE);
    for (size_t i = 0; i < m->msg_iovlen; i++)
        length += m->msg_iov[i].iov_len;
    if (length > SHIM_REQUEST_MAX) return failed(EMSGSIZE);
    int cancel;
    if (!enter(s, &cancel)) return -1;
    atomic_store(&s->dumping, asks_for_dump(m));
    const ssize_t result = send_request(s, fd, m, length, flags);
    if (result < 0) atomic_store(&s->dumping, false);
    if (channel_is_watched(s)) watch_begin(s);
    leave(s, cancel);
    return result;
}

// Between one use of a socket and the next (parking.h)

void channel_forget_reply(struct shim_socket* s) {
    forget_reply(s);
}

void channel_renew(struct shim_socket* s, int type) {
    s->type = type;
    s->bound = false;
    s->quiet = true;
    s->options = 0;
    s->rooms[0] = s->rooms[1] = 0;
}

// What clients receive

static void settle_one(struct shim_socket* s, void* context) {
    int cancel;
    (void)context;
    if (!enter(s, &cancel)) return;
    settle(s);
    leave(s, cancel);
}

void channel_settle(void) {
    if (atomic_load_explicit(&some_pending, memory_order_relaxed) &&
        atomic_exchange(&some_pending, false))
        registry_each(settle_one, NULL);
}

/* Copies what fits.  Returns what a receive returns. */
static ssize_t give_reply(const struct iovec* reply, struct msghdr* into, int flags) {
    size_t given = 0;
    for (size_t i = 0; i < into->msg_iovlen && given < reply->iov_len; i++) {
        const size_t rest = reply->iov_len - given;
        const size_t step = rest < into->msg_iov[i].iov_len ? rest : into->msg_iov[i].iov_len;
        memcpy(into->msg_iov[i].iov_base, (const char*)reply->iov_base + given, step);
        given += step;
    }
    into->msg_flags = given < reply->iov_len ? MSG_TRUNC : 0;
    into->msg_controllen = 0;
    return (ssize_t)((flags & MSG_TRUNC) != 0 ? reply->iov_len : given);
}

bool channel_take(struct shim_socket* s, struct msghdr* into, int flags, ssize_t* length) {
    int cancel;
    if (!atomic_load_explicit(&s->pending, memory_order_relaxed) || !enter(s, &cancel))
        return false;
    const bool there = atomic_load(&s->pending);
    if (there) {
        const struct iovec reply = reply_on(s->slate);
        *length = give_reply(&reply, into, flags);
        if ((flags & MSG_PEEK) == 0) forget_reply(s);
    }
    leave(s, cancel);
    return there;
}

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

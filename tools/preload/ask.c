// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/ask.h"

#include <errno.h>
#include <limits.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/single_threaded.h>
#include <time.h>
#include <unistd.h>

#include "tools/preload/link.h"
#include "tools/preload/moment.h"
#include "tools/preload/real.h"
#include "tools/preload/reply.h"
#include "tools/preload/side.h"
#include "tools/preload/slate.h"

/* Asked again of the next server, where one ended: to ask twice does no harm. */
int ask_control(struct shim_socket* s, int fd, uint16_t kind, uint32_t argument, uint32_t value) {
    const uint64_t until = now_ns() + SHIM_ANSWER_TIMEOUT_NS + SHIM_ANSWER_GRACE_NS;
    for (;;) {
        if (side_attach_until(s, fd, until) != 0) return -1;
        const struct shim_control c = {.magic = SHIM_MAGIC,
                                       .version = SHIM_VERSION,
                                       .kind = kind,
                                       .id = s->next_id++,
                                       .argument = argument,
                                       .value = value};
        struct shim_answer a;
        if (REAL(ssize_t, send, (int, const void*, size_t, int))(s->side, &c, sizeof c,
                                                                 MSG_NOSIGNAL) >= 0 &&
            side_wait(s, kind, c.id, until, &a) == 0)
            return a.status == 0 ? 0 : failed((int)a.status);
        if (!side_is_away(errno)) return -1;
    }
}

/* Options are told with the first request that they matter to. */
static int tell_options(struct shim_socket* s, int fd) {
    static const uint32_t told_ones[] = {NETLINK_CAP_ACK, NETLINK_EXT_ACK};
    for (size_t i = 0; i < sizeof told_ones / sizeof *told_ones; i++) {
        const uint32_t bit = 1u << told_ones[i];
        if (((s->options ^ s->told) & bit) == 0) continue;
        if (ask_control(s, fd, shim_option, told_ones[i], (s->options & bit) != 0) != 0) return -1;
        s->told ^= bit;
    }
    return 0;
}

/* Says whether the reply may be left on the slate: nobody else can wait for it, nothing that was
 * sent before it can be received after it, and it can be put on the socket yet. */
static bool may_take_reply(struct shim_socket* s, int fd) {
    char byte;
    if (!__libc_single_threaded || s->groups != 0 || atomic_load(&s->dumping) ||
        atomic_load(&s->peculiar) || !atomic_load(&s->kept_from_exec))
        return false;
    if (!s->quiet)
        s->quiet = REAL(ssize_t, recv, (int, void*, size_t, int))(fd, &byte, 1,
                                                                  MSG_PEEK | MSG_DONTWAIT) < 0 &&
                   errno == EAGAIN;
    return s->quiet && registry_is_socket(s->kept, s->kept_inode);
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
    if (side_wait(s, shim_done, h->id, h->deadline_ns + SHIM_ANSWER_GRACE_NS, &a) != 0) {
        if (side_is_away(errno)) errno = ENOBUFS;
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

/* Where the client has closed the side channel nobody can say so; but what the server has already
 * it soon answers. */
static int sleep_on_slate(struct shim_socket* s, const struct shim_header* h) {
    const struct timespec moment = {.tv_nsec = 1000000};
    const uint64_t until = h->deadline_ns + SHIM_ANSWER_GRACE_NS;
    struct shim_answer a;
    if (side_is_own(s)) return side_wait(s, shim_done, h->id, until, &a);
    while (slate_is_at_work(s->slate) && now_ns() < until)
        nanosleep(&moment, NULL);
    return slate_is_answered(s->slate) ? 0 : failed(ECONNRESET);
}

/* Here it is known whether the server had the request before it ended. */
static enum attempt give_up_slate(struct shim_socket* s, int code) {
    const bool again = slate_take_back(s->slate) && side_is_away(code);
    side_close(s);
    errno = side_is_away(code) ? ENOBUFS : code;
    return again ? server_had_ended : failed_for_good;
}

static enum attempt ask_on_slate(struct shim_socket* s, int fd, const struct shim_header* h,
                                 const struct msghdr* m, uint32_t* status) {
    const bool takes = may_take_reply(s, fd);
    if (slate_ask(s->slate, h, m->msg_iov, m->msg_iovlen, takes)) ring(fd, h);
    if (!slate_look(s->slate) && sleep_on_slate(s, h) != 0) return give_up_slate(s, errno);
    const struct shim_answer a = s->slate->answer;
    if (a.magic != SHIM_MAGIC || a.id != h->id) return give_up_slate(s, ECONNRESET);
    side_learn(s, &a);
    if (slate_read(s->slate)) side_drain(s);
    reply_leave(s);
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
    if (sent == 0 && side_wait(s, shim_share, 0, now_ns() + SHIM_ANSWER_TIMEOUT_NS, &a) == 0)
        s->slate = slate;
    else
        slate_drop(slate);
}

ssize_t ask_request(struct shim_socket* s, int fd, const struct msghdr* m, size_t length,
                    int flags) {
    enum { asks_often = 4 };
    const uint64_t until = now_ns() + SHIM_ANSWER_TIMEOUT_NS;
    enum attempt outcome = server_had_ended;
    uint32_t status = 0;
    reply_settle(s);
    while (outcome == server_had_ended) {
        const bool fits = length <= SHIM_SLATE_ROOM;
        if ((s->slate == NULL || !fits) && side_attach_until(s, fd, until) != 0) return -1;
        if (tell_options(s, fd) != 0) return -1;
        const struct shim_header h = {.magic = SHIM_MAGIC,
                                      .version = SHIM_VERSION,
                                      .kind = shim_request,
                                      .channel = s->channel,
                                      .id = s->next_id++,
                                      .deadline_ns = until};
        outcome = s->slate != NULL && fits ? ask_on_slate(s, fd, &h, m, &status)
                                           : ask_on_socket(s, fd, &h, m, flags, &status);
    }
    if (outcome != answered) return -1;
    s->bound = true;
    if (++s->asked == asks_often) share_slate(s, fd);
    return status == 0 ? (ssize_t)length : failed((int)status);
}

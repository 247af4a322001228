// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/reply.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "tools/preload/real.h"
#include "tools/preload/side.h"
#include "xfrm/shim_protocol.h"

static atomic_bool some_pending; /* perhaps */

static struct iovec reply_on(const struct shim_slate* slate) {
    const uint32_t length = slate->length < SHIM_SLATE_ROOM ? slate->length : SHIM_SLATE_ROOM;
    return (struct iovec){.iov_base = (void*)(uintptr_t)slate->reply, .iov_len = length};
}

/* Who takes it has it alone: a signal's handler may look at any time. */
static bool claim(struct shim_socket* s) {
    return atomic_load(&s->pending) && atomic_exchange(&s->pending, false);
}

static void wipe(const struct iovec* reply) {
    explicit_bzero(reply->iov_base, reply->iov_len); /* it may hold keys */
}

void reply_forget(struct shim_socket* s) {
    if (!claim(s)) return;
    const struct iovec reply = reply_on(s->slate);
    wipe(&reply);
}

void reply_settle(struct shim_socket* s) {
    if (!claim(s)) return;
    const int saved = errno;
    const struct iovec reply = reply_on(s->slate);
    if (!registry_is_socket(s->kept, s->kept_inode) ||
        REAL(ssize_t, send, (int, const void*, size_t, int))(s->kept, reply.iov_base, reply.iov_len,
                                                             MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        atomic_store(&s->lost, true);
    s->quiet = false;
    wipe(&reply);
    errno = saved;
}

/* A signal's handler that interrupted what this thread, the only one, does with the socket can have
 * no lock, nor needs it. */
static void settle_one(struct shim_socket* s, void* context) {
    int cancel;
    (void)context;
    if (!atomic_load(&s->pending)) return;
    const int saved = errno;
    if (side_enter(s, &cancel)) {
        reply_settle(s);
        side_leave(s, cancel);
    } else if (errno == ENOBUFS)
        reply_settle(s);
    errno = saved;
}

void reply_settle_all(void) {
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

static ssize_t take(struct shim_socket* s, struct msghdr* into, int flags) {
    const struct iovec reply = reply_on(s->slate);
    const ssize_t length = give_reply(&reply, into, flags);
    if ((flags & MSG_PEEK) != 0)
        atomic_store(&s->pending, true);
    else
        wipe(&reply);
    return length;
}

static bool has_news(const struct shim_socket* s) {
    return atomic_load_explicit(&s->pending, memory_order_relaxed) ||
           atomic_load_explicit(&s->lost, memory_order_relaxed);
}

bool reply_take(struct shim_socket* s, struct msghdr* into, int flags, ssize_t* length) {
    int cancel;
    if (!has_news(s) || !side_enter(s, &cancel)) return false;
    const bool there = claim(s);
    const bool lost = !there && atomic_exchange(&s->lost, false);
    if (there) *length = take(s, into, flags);
    if (lost) *length = failed(ENOBUFS);
    side_leave(s, cancel);
    return there || lost;
}

void reply_leave(struct shim_socket* s) {
    if (reply_on(s->slate).iov_len == 0) {
        s->quiet = false;
        return;
    }
    atomic_store(&s->pending, true);
    atomic_store_explicit(&some_pending, true, memory_order_relaxed);
}

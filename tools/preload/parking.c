// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/parking.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/preload/channel.h"
#include "tools/preload/real.h"
#include "tools/preload/registry.h"
#include "tools/preload/reply.h"
#include "tools/preload/side.h"

enum { taken = -1, none = 0, first_parked = 3 /* the standard ones are closed to be made anew */ };

/* Others do not wear out the server's places for what they hardly use again. */
enum { closes_often = 4 };

static atomic_int parked_fd; /* taken: a thread is at it; none */
static atomic_uint closings; /* of sockets that could have been kept */
static struct shim_socket* parked;

/* Waits for no other thread: that one takes, or keeps, what there is. */
static bool begin(int* fd) {
    *fd = atomic_exchange(&parked_fd, taken);
    return *fd != taken;
}

static void end(int fd) {
    atomic_store(&parked_fd, fd);
}

static bool is_as_new(const struct shim_socket* s) {
    return registry_is_alone(s) && s->opened && s->pid == 0 && s->side >= 0 && s->groups == 0 &&
           !side_is_watched(s) && !atomic_load(&s->overrun) && !atomic_load(&s->lost) &&
           !atomic_load(&s->evicted) && !atomic_load(&s->watched) && !atomic_load(&s->peculiar) &&
           atomic_load(&s->kept_from_exec);
}

bool parking_keep(int fd) {
    int before;
    struct shim_socket* const s = fd >= first_parked ? registry_find(fd) : NULL;
    if (s == NULL || !is_as_new(s) || !registry_is_own() ||
        atomic_fetch_add(&closings, 1) < closes_often || !begin(&before))
        return false;
    if (before == none) {
        reply_forget(s);
        parked = registry_detach(fd);
    }
    end(before == none ? fd : before);
    return before == none;
}

/* Opened for the same user; nothing to be read on the one, no end of the other.  Who asks on a
 * slate notices by that. */
static bool is_still_good(int fd, const struct shim_socket* s) {
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = s->side, .events = 0}};
    if (!registry_is_socket(fd, s->inode) || s->user != geteuid()) return false;
    return (s->quiet && s->slate != NULL && registry_was_seen(s)) || REAL_POLL(p, 2, 0) == 0;
}

static void discard(int fd) {
    if (registry_is_socket(fd, parked->inode)) real_close(fd);
    registry_let_go(parked);
}

int parking_take(int type) {
    int fd;
    if ((type & SOCK_CLOEXEC) == 0 || (type & SOCK_NONBLOCK) != 0) return -1;
    if (atomic_load(&parked_fd) <= none || !begin(&fd)) return -1;
    const int saved = errno;
    int result = -1;
    if (fd != none && registry_is_own() && is_still_good(fd, parked)) {
        channel_renew(parked, type & ~SOCK_CLOEXEC);
        registry_attach(fd, parked);
        result = fd;
    } else if (fd != none)
        discard(fd);
    end(none);
    errno = saved;
    return result;
}

void parking_clear(void) {
    int fd;
    if (atomic_load(&parked_fd) <= none || !registry_is_own() || !begin(&fd)) return;
    if (fd != none) discard(fd);
    end(none);
}

static void exclude(struct shim_socket* s, void* context) {
    (void)context;
    atomic_store(&s->peculiar, true);
}

void parking_exclude_all(void) {
    registry_each(exclude, NULL);
    parking_clear();
}

static _Thread_local bool
    is_forking; /* this thread is at what was kept, of which nothing is left */

void parking_before_fork(void) {
    int fd;
    is_forking = begin(&fd);
    if (is_forking && fd != none) discard(fd);
}

void parking_after_fork(void) {
    if (is_forking) end(none);
    is_forking = false;
}

/* Something is kept still where the child was not made by fork(); it has been released. */
void parking_forked(void) {
    const int fd = atomic_load(&parked_fd);
    if (fd > none && registry_is_socket(fd, parked->inode)) real_close(fd);
    is_forking = false;
    end(none);
}

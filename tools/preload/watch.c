// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/watch.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>

#include "tools/preload/real.h"
#include "tools/preload/side.h"

enum { retry_ms = 100, stack_bytes = 128 * 1024 };

static atomic_bool left_behind; /* sockets listen that have no thread in this process */

struct watched {
    struct shim_socket* socket;
    ino_t inode; /* another: the entry stands for a later socket */
};

/* Sleeps until the side channel hangs up; a moment where there is none. */
static void sleep_on(const struct shim_socket* s) {
    struct pollfd p = {.fd = s->side, .events = 0};
    if (REAL_POLL(&p, 1, p.fd < 0 || atomic_load(&s->overrun) ? retry_ms : -1) < 1) return;
    if ((p.revents & POLLNVAL) != 0) REAL_POLL(NULL, 0, retry_ms);
}

/* Not held while asleep: the socket can go. */
static bool visit(const struct watched* w) {
    if (!registry_hold(w->socket)) return false;
    const bool on = w->socket->inode == w->inode && side_mend(w->socket);
    if (!on && w->socket->inode == w->inode) atomic_store(&w->socket->watched, false);
    registry_let_go(w->socket);
    return on;
}

static void* run(void* argument) {
    struct shim_socket* const s = argument;
    const struct watched w = {s, s->inode};
    registry_let_go(s);
    do
        sleep_on(s);
    while (visit(&w));
    return NULL;
}

/* The client's signals are not for this thread. */
static bool start(struct shim_socket* s) {
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, stack_bytes);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const bool started = pthread_create(&thread, &attributes, run, s) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

void watch_begin(struct shim_socket* s) {
    if (atomic_load(&s->watched) || !registry_is_own() || !registry_hold(s)) return;
    if (!atomic_exchange(&s->watched, true)) {
        if (start(s)) return; /* it lets go */
        atomic_store(&s->watched, false);
    }
    registry_let_go(s);
}

static void begin_again(struct shim_socket* s, void* context) {
    (void)context;
    if (side_is_watched(s)) watch_begin(s);
}

void watch_again(void) {
    if (!atomic_load_explicit(&left_behind, memory_order_relaxed) || !registry_is_own()) return;
    if (atomic_exchange(&left_behind, false)) registry_each(begin_again, NULL);
}

static void forget_thread(struct shim_socket* s, void* context) {
    (void)context;
    atomic_store(&s->watched, false);
    if (side_is_watched(s)) atomic_store(&left_behind, true);
}

void watch_forked(void) {
    registry_each(forget_thread, NULL);
}

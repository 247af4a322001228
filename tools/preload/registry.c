// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/registry.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/preload/real.h"

enum { table_size = 65536, pool_size = 1024, inherited_max = 1024 };

static _Atomic(struct shim_socket*) table[table_size];
static struct shim_socket pool[pool_size];
static pid_t owner; /* the process whose memory this is: differs in a child of vfork() */

static int real_close(int fd) {
    return REAL(int, close, (int))(fd);
}

static bool shares_memory_with_parent(void) {
    return getpid() != owner;
}

static bool is_inode(int fd, dev_t device, ino_t inode) {
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

bool registry_hold(struct shim_socket* s) {
    int count = atomic_load(&s->references);
    while (count > 0)
        if (atomic_compare_exchange_weak(&s->references, &count, count + 1)) return true;
    return false;
}

void registry_let_go(struct shim_socket* s) {
    const int side = s->side;
    const dev_t device = s->device;
    const ino_t side_inode = s->side_inode;
    if (atomic_fetch_sub(&s->references, 1) == 1 && side >= 0 && is_inode(side, device, side_inode))
        real_close(side);
}

struct shim_socket* registry_find(int fd) {
    if (fd < 0 || fd >= table_size) return NULL;
    struct shim_socket* const s = atomic_load_explicit(&table[fd], memory_order_acquire);
    if (s == NULL) return NULL;
    const int saved = errno;
    const bool same = is_inode(fd, s->device, s->inode);
    errno = saved;
    if (same) return s;
    registry_forget(fd);
    return NULL;
}

static struct shim_socket* take_from_pool(void) {
    for (int i = 0; i < pool_size; i++) {
        int none = 0;
        if (atomic_compare_exchange_strong(&pool[i].references, &none, 1)) return &pool[i];
    }
    return NULL;
}

struct shim_socket* registry_add(int fd, int type) {
    struct stat st;
    if (fd < 0 || fd >= table_size || fstat(fd, &st) != 0) return NULL;
    struct shim_socket* const s = take_from_pool();
    if (s == NULL) return NULL;
    s->device = st.st_dev;
    s->inode = st.st_ino;
    pthread_mutex_init(&s->lock, NULL);
    s->side = -1;
    s->next_id = 1;
    s->port_id = 0;
    s->groups = 0;
    s->type = type;
    s->options = 0;
    atomic_store_explicit(&table[fd], s, memory_order_release);
    return s;
}

void registry_copied(int original, int copy) {
    if (original == copy || copy < 0 || shares_memory_with_parent()) return;
    registry_forget(copy);
    struct shim_socket* const s = registry_find(original);
    if (s == NULL || copy >= table_size) return;
    atomic_fetch_add(&s->references, 1);
    atomic_store_explicit(&table[copy], s, memory_order_release);
}

void registry_forget(int fd) {
    if (fd < 0 || fd >= table_size) return;
    if (atomic_load_explicit(&table[fd], memory_order_relaxed) == NULL) return;
    if (shares_memory_with_parent()) return;
    struct shim_socket* const s = atomic_exchange(&table[fd], NULL);
    if (s != NULL) registry_let_go(s);
}

void registry_forget_range(unsigned first, unsigned last) {
    for (unsigned fd = first; fd <= last && fd < table_size; fd++)
        registry_forget((int)fd);
}

void registry_adopt(const char* path) {
    for (int fd = 0; fd < inherited_max; fd++) {
        struct sockaddr_un peer;
        socklen_t length = sizeof peer;
        memset(&peer, 0, sizeof peer);
        if (REAL(int, getpeername, (int, struct sockaddr*, socklen_t*))(fd, (struct sockaddr*)&peer,
                                                                        &length) == 0 &&
            peer.sun_family == AF_UNIX && strncmp(peer.sun_path, path, sizeof peer.sun_path) == 0)
            registry_add(fd, SOCK_RAW);
    }
}

/* Other threads are gone, and with them whatever they held; side channels are the parent's. */
static void after_fork_in_child(void) {
    owner = getpid();
    for (int i = 0; i < pool_size; i++) {
        struct shim_socket* const s = &pool[i];
        if (atomic_load(&s->references) == 0) continue;
        pthread_mutex_init(&s->lock, NULL);
        if (s->side >= 0 && is_inode(s->side, s->device, s->side_inode)) real_close(s->side);
        s->side = -1;
    }
}

void registry_start(void) {
    owner = getpid();
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

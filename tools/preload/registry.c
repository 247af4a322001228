// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
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
static void (*forked_hook)(void);

static int real_close(int fd) {
    return REAL(int, close, (int))(fd);
}

bool registry_is_own(void) {
    return getpid() == owner;
}

static bool is_inode(int fd, dev_t device, ino_t inode) {
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

bool registry_is_socket(int fd, ino_t inode) {
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == inode;
}

static void close_socket(int fd, ino_t inode) {
    if (registry_is_socket(fd, inode)) real_close(fd);
}

bool registry_hold(struct shim_socket* s) {
    int count = atomic_load(&s->references);
    while (count > 0)
        if (atomic_compare_exchange_weak(&s->references, &count, count + 1)) return true;
    return false;
}

void registry_let_go(struct shim_socket* s) {
    const int side = s->side, kept = s->kept;
    const ino_t side_inode = s->side_inode, kept_inode = s->kept_inode;
    if (atomic_fetch_sub(&s->references, 1) != 1) return;
    close_socket(side, side_inode);
    close_socket(kept, kept_inode);
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

struct shim_socket* registry_add(int fd, int kept, int type) {
    struct stat st, st_kept = {.st_ino = 0};
    if (fd < 0 || fd >= table_size || fstat(fd, &st) != 0) return NULL;
    if (kept >= 0 && fstat(kept, &st_kept) != 0) return NULL;
    struct shim_socket* const s = take_from_pool();
    if (s == NULL) return NULL;
    s->kept = kept;
    s->kept_inode = st_kept.st_ino;
    s->device = st.st_dev;
    s->inode = st.st_ino;
    pthread_mutex_init(&s->lock, NULL);
    s->side = -1;
    s->opened = false;
    s->next_id = 1;
    s->port_id = 0;
    s->groups = 0;
    s->pid = 0;
    s->type = type;
    s->options = 0;
    atomic_store(&s->listens, false);
    atomic_store(&s->dumping, false);
    atomic_store(&s->overrun, false);
    atomic_store(&s->evicted, false);
    atomic_store(&s->watched, false);
    atomic_store_explicit(&table[fd], s, memory_order_release);
    return s;
}

void registry_copied(int original, int copy) {
    if (original == copy || copy < 0 || !registry_is_own()) return;
    registry_forget(copy);
    struct shim_socket* const s = registry_find(original);
    if (s == NULL || copy >= table_size) return;
    atomic_fetch_add(&s->references, 1);
    atomic_store_explicit(&table[copy], s, memory_order_release);
    const int flags = REAL(int, fcntl, (int, int, ...))(copy, F_GETFD);
    registry_closes_on_exec(s, flags >= 0 && (flags & FD_CLOEXEC) != 0);
}

/* Of several descriptors one that survives is enough. */
void registry_closes_on_exec(struct shim_socket* s, bool closes) {
    if (!registry_is_socket(s->kept, s->kept_inode)) return;
    if (closes && atomic_load(&s->references) > 1) return;
    REAL(int, fcntl, (int, int, ...))(s->kept, F_SETFD, closes ? FD_CLOEXEC : 0);
}

struct shim_socket* registry_detach(int fd) {
    return atomic_exchange(&table[fd], NULL);
}

void registry_forget(int fd) {
    if (fd < 0 || fd >= table_size) return;
    if (atomic_load_explicit(&table[fd], memory_order_relaxed) == NULL) return;
    if (!registry_is_own()) return;
    struct shim_socket* const s = atomic_exchange(&table[fd], NULL);
    if (s != NULL) registry_let_go(s);
}

void registry_forget_range(unsigned first, unsigned last) {
    for (unsigned fd = first; fd <= last && fd < table_size; fd++)
        registry_forget((int)fd);
}

void registry_each(void (*visit)(struct shim_socket*, void*), void* context) {
    for (int i = 0; i < pool_size; i++) {
        if (!registry_hold(&pool[i])) continue;
        visit(&pool[i], context);
        registry_let_go(&pool[i]);
    }
}

// Descriptors from before exec

typedef int name_call(int, struct sockaddr*, socklen_t*);

/* The name of one end, where it is of our making. */
static bool read_name(name_call* call, int fd, struct sockaddr_un* name) {
    socklen_t length = sizeof *name;
    memset(name, 0, sizeof *name);
    return call(fd, (struct sockaddr*)name, &length) == 0 && name->sun_family == AF_UNIX &&
           length > offsetof(struct sockaddr_un, sun_path) + sizeof DATA_NAME &&
           memcmp(name->sun_path + 1, DATA_NAME, sizeof DATA_NAME - 1) == 0;
}

/* The server's end that goes with a client's end of that name; -1: was not inherited. */
static int find_kept(const struct pollfd* open, const struct sockaddr_un* name) {
    struct sockaddr_un own;
    for (int i = 0; i < inherited_max; i++)
        if ((open[i].revents & POLLNVAL) == 0 &&
            read_name(REAL(int, getsockname, (int, struct sockaddr*, socklen_t*)), i, &own) &&
            memcmp(own.sun_path, name->sun_path, sizeof own.sun_path) == 0)
            return i;
    return -1;
}

/* A second descriptor of one socket shares what stands for it. */
static bool is_copy_of_earlier(int fd) {
    struct stat st;
    if (fstat(fd, &st) != 0) return false;
    for (int i = 0; i < fd; i++) {
        const struct shim_socket* const s = atomic_load(&table[i]);
        if (s == NULL || s->device != st.st_dev || s->inode != st.st_ino) continue;
        registry_copied(i, fd);
        return true;
    }
    return false;
}

void registry_adopt(void) {
    struct pollfd open[inherited_max];
    struct sockaddr_un peer;
    const long most = sysconf(_SC_OPEN_MAX); /* poll() refuses more than that */
    const int count = most > 0 && most < inherited_max ? (int)most : inherited_max;
    for (int i = 0; i < inherited_max; i++)
        open[i] = (struct pollfd){.fd = i, .events = 0, .revents = POLLNVAL};
    if (poll(open, (nfds_t)count, 0) < 0) return;
    for (int i = 0; i < count; i++) {
        if ((open[i].revents & POLLNVAL) != 0 ||
            !read_name(REAL(int, getpeername, (int, struct sockaddr*, socklen_t*)), i, &peer) ||
            is_copy_of_earlier(i))
            continue;
        struct shim_socket* const s = registry_add(i, find_kept(open, &peer), SOCK_RAW);
        if (s == NULL) continue;
        s->opened = true;
        atomic_store(&s->listens, true); /* perhaps: the server knows its groups */
    }
}

/* Other threads are gone, and with them whatever they held; side channels are the parent's. */
static void after_fork_in_child(void) {
    owner = getpid();
    for (int i = 0; i < pool_size; i++) {
        struct shim_socket* const s = &pool[i];
        if (atomic_load(&s->references) == 0) continue;
        pthread_mutex_init(&s->lock, NULL);
        close_socket(s->side, s->side_inode);
        s->side = -1;
    }
    forked_hook();
}

void registry_start(void (*forked)(void)) {
    owner = getpid();
    forked_hook = forked;
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

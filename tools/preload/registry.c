// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/preload/moment.h"
#include "tools/preload/real.h"
#include "tools/preload/slate.h"

enum { table_size = 65536, pool_size = 1024, inherited_max = 1024 };

/* No more than a client needs from one call to the next. */
enum { seen_lately_ns = 50000 };

/* In shim_socket::references. */
enum { one_descriptor = 1, one_hold = 1 << 17, being_released = -1 };
_Static_assert((int)table_size < (int)one_hold, "descriptors are counted below the holds");

static _Atomic(struct shim_socket*) table[table_size];
static struct shim_socket pool[pool_size];
static atomic_int pool_used; /* entries that were ever taken are before this one */
static pid_t owner;          /* the process whose memory this is: differs in a child of vfork() */
static struct fork_hooks fork_hooks;

/* 0 in a child, however that was made, unless it shares this memory. */
static _Atomic(uint32_t) never_wiped = 1;
static _Atomic(uint32_t)* fork_mark = &never_wiped;

static void notice_fork(void);

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

/* Nobody finds the entry, and nobody takes it from the pool, while this is done. */
static void release(struct shim_socket* s) {
    close_socket(s->side, s->side_inode);
    close_socket(s->kept, s->kept_inode);
    if (s->slate != NULL) slate_drop(s->slate);
    s->slate = NULL;
    atomic_store(&s->references, 0);
}

/* Takes `what` off the count, descriptor or hold; the last one releases. */
static void drop(struct shim_socket* s, int what) {
    int count = atomic_load(&s->references);
    while (!atomic_compare_exchange_weak(&s->references, &count,
                                         count == what ? being_released : count - what)) {
    }
    if (count == what) release(s);
}

bool registry_hold(struct shim_socket* s) {
    int count = atomic_load(&s->references);
    while (count > 0)
        if (atomic_compare_exchange_weak(&s->references, &count, count + one_hold)) return true;
    return false;
}

void registry_let_go(struct shim_socket* s) {
    drop(s, one_hold);
}

static struct shim_socket* entry_of(int fd) {
    if (fd < 0 || fd >= table_size) return NULL;
    notice_fork();
    return atomic_load_explicit(&table[fd], memory_order_acquire);
}

static void note_seen(struct shim_socket* s) {
    atomic_store_explicit(&s->seen_ns, now_ns(), memory_order_relaxed);
}

static struct shim_socket* look_at(int fd, struct shim_socket* s) {
    const int saved = errno;
    const bool same = is_inode(fd, s->device, s->inode);
    errno = saved;
    if (same) {
        note_seen(s);
        return s;
    }
    registry_forget(fd);
    return NULL;
}

bool registry_was_seen(const struct shim_socket* s) {
    return now_ns() - atomic_load_explicit(&s->seen_ns, memory_order_relaxed) < seen_lately_ns;
}

struct shim_socket* registry_find(int fd) {
    struct shim_socket* const s = entry_of(fd);
    return s == NULL ? NULL : look_at(fd, s);
}

struct shim_socket* registry_find_again(int fd) {
    struct shim_socket* const s = entry_of(fd);
    return s == NULL || registry_was_seen(s) ? s : look_at(fd, s);
}

static bool closes_on_exec(int fd) {
    const int flags = REAL(int, fcntl, (int, int, ...))(fd, F_GETFD);
    return flags >= 0 && (flags & FD_CLOEXEC) != 0;
}

static struct shim_socket* take_from_pool(void) {
    for (int i = 0; i < pool_size; i++) {
        int none = 0;
        if (!atomic_compare_exchange_strong(&pool[i].references, &none, one_descriptor)) continue;
        int used = atomic_load(&pool_used);
        while (used <= i && !atomic_compare_exchange_weak(&pool_used, &used, i + 1)) {
        }
        return &pool[i];
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
    s->user = geteuid();
    s->opened = false;
    s->bound = false;
    s->quiet = true;
    s->next_id = 1;
    s->port_id = 0;
    s->groups = 0;
    s->edition = 0;
    s->pid = 0;
    s->type = type;
    s->options = s->told = 0;
    s->rooms[0] = s->rooms[1] = 0;
    s->asked = 0;
    s->slate = NULL;
    atomic_store(&s->listens, false);
    atomic_store(&s->dumping, false);
    atomic_store(&s->overrun, false);
    atomic_store(&s->evicted, false);
    atomic_store(&s->watched, false);
    note_seen(s);
    atomic_store(&s->pending, false);
    atomic_store(&s->lost, false);
    atomic_store(&s->kept_from_exec, closes_on_exec(fd));
    atomic_store(&s->peculiar, false);
    atomic_store_explicit(&table[fd], s, memory_order_release);
    return s;
}

static void add_copy(struct shim_socket* s, int copy) {
    atomic_fetch_add(&s->references, one_descriptor);
    struct shim_socket* const before = atomic_exchange(&table[copy], s);
    if (before != NULL) drop(before, one_descriptor);
    registry_closes_on_exec(s, closes_on_exec(copy));
}

/* The original is held: another thread may close it meanwhile. */
void registry_copied(int original, int copy) {
    if (original == copy || copy < 0) return;
    registry_forget(copy);
    struct shim_socket* const s = registry_find(original);
    if (s == NULL || copy >= table_size || !registry_hold(s)) return;
    atomic_store(&s->peculiar, true);
    if (registry_is_own()) add_copy(s, copy);
    registry_let_go(s);
}

/* Of several descriptors one that survives is enough. */
void registry_closes_on_exec(struct shim_socket* s, bool closes) {
    if (closes && (atomic_load(&s->references) & (one_hold - 1)) > 1) return;
    atomic_store(&s->kept_from_exec, closes);
    if (registry_is_socket(s->kept, s->kept_inode))
        REAL(int, fcntl, (int, int, ...))(s->kept, F_SETFD, closes ? FD_CLOEXEC : 0);
}

struct shim_socket* registry_detach(int fd) {
    struct shim_socket* const s = atomic_exchange(&table[fd], NULL);
    if (s == NULL) return NULL;
    atomic_fetch_add(&s->references, one_hold);
    drop(s, one_descriptor);
    return s;
}

void registry_attach(int fd, struct shim_socket* s) {
    atomic_fetch_add(&s->references, one_descriptor);
    atomic_store_explicit(&table[fd], s, memory_order_release);
    registry_let_go(s);
}

bool registry_is_alone(const struct shim_socket* s) {
    return atomic_load(&s->references) == one_descriptor;
}

void registry_forget(int fd) {
    if (fd < 0 || fd >= table_size) return;
    if (atomic_load_explicit(&table[fd], memory_order_relaxed) == NULL) return;
    if (!registry_is_own()) return;
    struct shim_socket* const s = atomic_exchange(&table[fd], NULL);
    if (s != NULL) drop(s, one_descriptor);
}

void registry_forget_range(unsigned first, unsigned last) {
    for (unsigned fd = first; fd <= last && fd < table_size; fd++)
        registry_forget((int)fd);
}

void registry_each(void (*visit)(struct shim_socket*, void*), void* context) {
    notice_fork();
    for (int i = 0; i < atomic_load(&pool_used); i++) {
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
    if (REAL_POLL(open, (nfds_t)count, 0) < 0) return;
    for (int i = 0; i < count; i++) {
        if ((open[i].revents & POLLNVAL) != 0 ||
            !read_name(REAL(int, getpeername, (int, struct sockaddr*, socklen_t*)), i, &peer) ||
            is_copy_of_earlier(i))
            continue;
        struct shim_socket* const s = registry_add(i, find_kept(open, &peer), SOCK_RAW);
        if (s == NULL) continue;
        s->opened = true;
        s->bound = true; /* if it has a port id */
        s->quiet = false;
        atomic_store(&s->peculiar, true);
        atomic_store(&s->listens, true); /* perhaps: the server knows its groups */
    }
}

static void before_fork(void) {
    fork_hooks.before();
    for (int i = 0; i < atomic_load(&pool_used); i++)
        if (atomic_load(&pool[i].references) > 0) atomic_store(&pool[i].peculiar, true);
}

/* Other threads are gone, and with them what they held; side channels and slates are the parent's.
 * What was being released is finished. */
static void after_fork_in_child(void) {
    owner = getpid();
    atomic_store(fork_mark, 1);
    for (int i = 0; i < atomic_load(&pool_used); i++) {
        struct shim_socket* const s = &pool[i];
        const int count = atomic_load(&s->references);
        if (count == 0) continue;
        pthread_mutex_init(&s->lock, NULL);
        s->slate = NULL; /* not mapped here */
        atomic_store(&s->pending, false);
        atomic_store(&s->references, count < 0 ? count : count & (one_hold - 1));
        if (atomic_load(&s->references) <= 0) {
            release(s);
            continue;
        }
        close_socket(s->side, s->side_inode);
        s->side = -1;
    }
    fork_hooks.in_child();
}

static void notice_fork(void) {
    if (atomic_load_explicit(fork_mark, memory_order_relaxed) == 0) after_fork_in_child();
}

static void make_fork_mark(void) {
    const size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void* const page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return;
    if (madvise(page, size, MADV_WIPEONFORK) != 0) {
        munmap(page, size);
        return;
    }
    fork_mark = page;
    atomic_store(fork_mark, 1);
}

void registry_start(const struct fork_hooks* hooks) {
    owner = getpid();
    fork_hooks = *hooks;
    make_fork_mark();
    pthread_atfork(before_fork, hooks->in_parent, after_fork_in_child);
}

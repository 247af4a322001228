// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tools/preload/link.h"
#include "tools/preload/real.h"

enum { use_the_kernels = -2, most_written = 8 };

static const char* const paths[] = {
    "/proc/net/xfrm_stat",
    "/proc/self/net/xfrm_stat",
    "/proc/sys/net/core/xfrm_acq_expires",
    "/proc/sys/net/core/xfrm_aevent_etime",
    "/proc/sys/net/core/xfrm_aevent_rseqth",
    "/proc/sys/net/core/xfrm_larval_drop",
};

/* What was opened to be written, recognised whatever its descriptor's number has become. */
static struct written {
    _Atomic(const char*) name; /* NULL: free */
    dev_t device;
    ino_t inode;
} written[most_written];
static atomic_uint next_written;

static int close_failed(int fd, int code) {
    real_close(fd);
    return failed(code);
}

const char* files_name(const char* path) {
    if (path == NULL || strncmp(path, "/proc/", 6) != 0 || link_path() == NULL) return NULL;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (strcmp(path, paths[i]) == 0) return strrchr(paths[i], '/') + 1;
    return NULL;
}

// Asking

struct answer {
    struct shim_text head;
    char text[SHIM_TEXT_MAX];
};

/* Sends `name` and, to write, `value`.  Returns the length of the text that comes back; ENOENT
 * where the server has no such file. */
static ssize_t ask(enum shim_kind kind, const char* name, const void* value, size_t length,
                   struct answer* a) {
    const int fd = link_connect();
    if (fd < 0) return failed(ENOENT);
    const struct timeval longest = {.tv_sec = (time_t)(SHIM_ANSWER_TIMEOUT_NS / 1000000000u)};
    REAL(int, setsockopt, (int, int, int, const void*, socklen_t))
    (fd, SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof longest);
    struct shim_header h = {
        .magic = SHIM_MAGIC, .version = SHIM_VERSION, .kind = (uint16_t)kind, .id = 1};
    struct iovec v[3] = {
        {.iov_base = &h, .iov_len = sizeof h},
        {.iov_base = (void*)(uintptr_t)name, .iov_len = strlen(name) + (kind == shim_write)},
        {.iov_base = (void*)(uintptr_t)value, .iov_len = length}};
    const struct msghdr m = {.msg_iov = v, .msg_iovlen = 3};
    if (REAL(ssize_t, sendmsg, (int, const struct msghdr*, int))(fd, &m, MSG_NOSIGNAL) < 0)
        return close_failed(fd, ENOENT);
    const ssize_t got = REAL(ssize_t, recv, (int, void*, size_t, int))(fd, a, sizeof *a, 0);
    if (got < (ssize_t)sizeof a->head || a->head.magic != SHIM_MAGIC || a->head.kind != kind)
        return close_failed(fd, ENOENT);
    real_close(fd);
    return a->head.status == 0 ? got - (ssize_t)sizeof a->head : failed((int)a->head.status);
}

static ssize_t write_value(const char* name, const void* value, size_t length) {
    struct answer a;
    if (length > SHIM_TEXT_MAX - strlen(name) - 1) return failed(EINVAL);
    return ask(shim_write, name, value, length, &a) < 0 ? -1 : (ssize_t)length;
}

// Opening

static int memory_file(const char* name, const char* text, size_t length, int flags) {
    const int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -1;
    if (REAL(ssize_t, write, (int, const void*, size_t))(fd, text, length) != (ssize_t)length ||
        lseek(fd, 0, SEEK_SET) != 0)
        return close_failed(fd, EIO);
    int (*const control)(int, int, ...) = REAL(int, fcntl, (int, int, ...));
    control(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK);
    if ((flags & O_CLOEXEC) == 0) control(fd, F_SETFD, 0);
    return fd;
}

static void remember(int fd, const char* name) {
    struct stat st;
    if (fstat(fd, &st) != 0) return;
    unsigned at = 0;
    while (at < most_written && (atomic_load(&written[at].name) == NULL ||
                                 written[at].device != st.st_dev || written[at].inode != st.st_ino))
        at++;
    if (at == most_written) at = atomic_fetch_add(&next_written, 1) % most_written;
    written[at].device = st.st_dev;
    written[at].inode = st.st_ino;
    atomic_store(&written[at].name, name);
}

int files_open(const char* path, const char* name, int flags) {
    struct answer a;
    const int saved = errno;
    const ssize_t length = ask(shim_read, name, NULL, 0, &a);
    errno = saved;
    if (length < 0) return use_the_kernels;
    const int access = flags & O_ACCMODE;
    int fd = -1;
    if (access == O_WRONLY)
        fd = REAL(int, open, (const char*, int, ...))(path, O_WRONLY | (flags & O_CLOEXEC));
    if (fd < 0) fd = memory_file(name, a.text, (size_t)length, flags);
    if (fd >= 0 && access != O_RDONLY) remember(fd, name);
    return fd;
}

bool files_write(int fd, const void* data, size_t length, ssize_t* result) {
    struct stat st;
    if (atomic_load_explicit(&next_written, memory_order_relaxed) == 0) return false;
    const int saved = errno;
    if (fstat(fd, &st) != 0) st.st_ino = 0;
    errno = saved;
    for (unsigned i = 0; i < most_written; i++) {
        const char* const name = atomic_load(&written[i].name);
        if (name == NULL || written[i].device != st.st_dev || written[i].inode != st.st_ino)
            continue;
        *result = write_value(name, data, length);
        return true;
    }
    return false;
}

static ssize_t cookie_write(void* name, const char* data, size_t length) {
    return write_value(name, data, length) < 0 ? 0 : (ssize_t)length;
}

FILE* files_fopen(const char* name, const char* mode) {
    struct answer a;
    const ssize_t length = ask(shim_read, name, NULL, 0, &a);
    errno = 0;
    if (length < 0) return NULL;
    if (mode[0] != 'r' || strchr(mode, '+') != NULL) {
        const cookie_io_functions_t io = {.write = cookie_write};
        return fopencookie((void*)(uintptr_t)name, "w", io);
    }
    const int fd = memory_file(name, a.text, (size_t)length, strchr(mode, 'e') ? O_CLOEXEC : 0);
    return fd < 0 ? NULL : fdopen(fd, mode);
}

// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/link.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/preload/real.h"
#include "tools/preload/registry.h"

/* What the shim has for itself lies above what clients that use select() can hold. */
enum { own_minimum = 512 };

/* Closes both and keeps errno. */
static int give_up(int first, int second) {
    const int saved = errno;
    real_close(first);
    if (second >= 0) real_close(second);
    errno = saved;
    return -1;
}

const char* link_path(void) {
    const char* const path = getenv(SHIM_SOCKET_VARIABLE);
    return path != NULL && path[0] != '\0' ? path : NULL;
}

/* "/usr/lib/ipsec/charon (enforce)" is in usr.lib.ipsec.charon. */
bool link_profile(char* name, size_t room) {
    int fd = -1;
    const char* const files[] = {"/proc/self/attr/apparmor/current", "/proc/self/attr/current"};
    for (int i = 0; i < 2 && fd < 0; i++)
        fd = REAL(int, open, (const char*, int, ...))(files[i], O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const ssize_t length = REAL(ssize_t, read, (int, void*, size_t))(fd, name, room - 1);
    real_close(fd);
    if (length <= 0 || name[0] != '/') return false; /* unconfined */
    name[length] = '\0';
    name[strcspn(name, " \n")] = '\0';
    memmove(name, name + 1, strlen(name));
    for (char* at = name; (at = strchr(at, '/')) != NULL;)
        *at = '.';
    return true;
}

int link_move_up(int fd) {
    const int high = REAL(int, fcntl, (int, int, ...))(fd, F_DUPFD_CLOEXEC, own_minimum);
    if (high < 0) return fd;
    real_close(fd);
    return high;
}

/* A server that hangs is waited for no longer than an answer. */
static void bound_sends(int fd) {
    const struct timeval longest = {.tv_sec = (time_t)(SHIM_ANSWER_TIMEOUT_NS / 1000000000u)};
    REAL(int, setsockopt, (int, int, int, const void*, socklen_t))
    (fd, SOL_SOCKET, SO_SNDTIMEO, &longest, sizeof longest);
}

int link_connect(void) {
    const char* const path = link_path();
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (path == NULL || strlen(path) >= sizeof a.sun_path) {
        errno = path == NULL ? ENOENT : ENAMETOOLONG;
        return -1;
    }
    strcpy(a.sun_path, path);
    const int fd = REAL(int, socket, (int, int, int))(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    bound_sends(fd);
    if (REAL(int, connect, (int, const struct sockaddr*, socklen_t))(fd, (const struct sockaddr*)&a,
                                                                     sizeof a) != 0)
        return give_up(fd, -1);
    return fd;
}

/* In the abstract namespace: no file is left behind, and nobody can connect to it. */
static int name(int fd) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    unsigned long long random;
    if (getrandom(&random, sizeof random, 0) != sizeof random) return -1;
    const int length = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, DATA_NAME "%016llx", random);
    return REAL(int, bind, (int, const struct sockaddr*, socklen_t))(
        fd, (const struct sockaddr*)&a,
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length));
}

int link_data_socket(int flags, int ends[2]) {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return -1;
    ends[1] = link_move_up(ends[1]);
    if (name(ends[1]) != 0) return give_up(ends[0], ends[1]);
    bound_sends(ends[0]);
    if ((flags & SOCK_CLOEXEC) == 0)
        for (int i = 0; i < 2; i++)
            REAL(int, fcntl, (int, int, ...))(ends[i], F_SETFD, 0);
    return 0;
}

int link_pass(int fd, enum shim_kind kind, uint32_t channel, int passed, const void* body,
              size_t length) {
    struct shim_header h = {
        .magic = SHIM_MAGIC, .version = SHIM_VERSION, .kind = (uint16_t)kind, .channel = channel};
    struct iovec v[2] = {{.iov_base = &h, .iov_len = sizeof h},
                         {.iov_base = (void*)(uintptr_t)body, .iov_len = length}};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    memset(&control, 0, sizeof control);
    struct msghdr m = {.msg_iov = v,
                       .msg_iovlen = 2,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    struct cmsghdr* const c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &passed, sizeof passed);
    return REAL(ssize_t, sendmsg, (int, const struct msghdr*, int))(fd, &m, MSG_NOSIGNAL) < 0 ? -1
                                                                                              : 0;
}

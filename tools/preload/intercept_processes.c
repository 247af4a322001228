// SPDX-License-Identifier: Apache-2.0
//
// The C library's functions that start programs with descriptors of this one, and those that change
// what this process may do, or where it finds the server: what the shim keeps of a socket beside
// its descriptor ends there.  Whether a socket is opened anew is then the server's to judge again.
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE

#include <grp.h>
#include <sched.h>
#include <spawn.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include "tools/preload/parking.h"
#include "tools/preload/real.h"
#include "tools/preload/reply.h"

static void keep_nothing(void) {
    reply_settle_all();
    parking_exclude_all();
}

// Programs.  By the actions descriptors are copied in the child, past the shim.

typedef const posix_spawn_file_actions_t* actions_argument;
typedef const posix_spawnattr_t* attributes_argument;

EXPORT int posix_spawn(pid_t* restrict pid, const char* restrict path, actions_argument actions,
                       attributes_argument restrict attributes, char* const arguments[restrict],
                       char* const environment[restrict]) {
    if (actions != NULL) keep_nothing();
    return REAL(int, posix_spawn,
                (pid_t*, const char*, actions_argument, attributes_argument, char* const*,
                 char* const*))(pid, path, actions, attributes, arguments, environment);
}

EXPORT int posix_spawnp(pid_t* restrict pid, const char* restrict file, actions_argument actions,
                        attributes_argument restrict attributes, char* const arguments[restrict],
                        char* const environment[restrict]) {
    if (actions != NULL) keep_nothing();
    return REAL(int, posix_spawnp,
                (pid_t*, const char*, actions_argument, attributes_argument, char* const*,
                 char* const*))(pid, file, actions, attributes, arguments, environment);
}

// Rights

EXPORT int setuid(uid_t user) {
    keep_nothing();
    return REAL(int, setuid, (uid_t))(user);
}

EXPORT int seteuid(uid_t user) {
    keep_nothing();
    return REAL(int, seteuid, (uid_t))(user);
}

EXPORT int setreuid(uid_t real, uid_t effective) {
    keep_nothing();
    return REAL(int, setreuid, (uid_t, uid_t))(real, effective);
}

EXPORT int setresuid(uid_t real, uid_t effective, uid_t saved) {
    keep_nothing();
    return REAL(int, setresuid, (uid_t, uid_t, uid_t))(real, effective, saved);
}

EXPORT int setfsuid(uid_t user) {
    keep_nothing();
    return REAL(int, setfsuid, (uid_t))(user);
}

EXPORT int setgroups(size_t count, const gid_t* groups) {
    keep_nothing();
    return REAL(int, setgroups, (size_t, const gid_t*))(count, groups);
}

/* Of libcap's header. */
EXPORT int capset(void* header, const void* data);
EXPORT int capset(void* header, const void* data) {
    keep_nothing();
    return REAL(int, capset, (void*, const void*))(header, data);
}

// Places

EXPORT int chroot(const char* path) {
    keep_nothing();
    return REAL(int, chroot, (const char*))(path);
}

EXPORT int setns(int fd, int kinds) {
    keep_nothing();
    return REAL(int, setns, (int, int))(fd, kinds);
}

EXPORT int unshare(int kinds) {
    keep_nothing();
    return REAL(int, unshare, (int))(kinds);
}

// SPDX-License-Identifier: Apache-2.0
//
// The C library's functions that open files, as an XFRM client sees them under `esplane run`.
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#undef _FILE_OFFSET_BITS // open and open64 are both defined here

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "tools/preload/files.h"
#include "tools/preload/real.h"

/* A path that is not among them, or that esplaned does not have, is opened natively. */
static int open_file(const char* path, int flags, int* fd) {
    const char* const name = files_name(path);
    *fd = name != NULL ? files_open(path, name, flags) : -2;
    return *fd != -2;
}

static mode_t mode_of(int flags, va_list list) {
    return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

/* The bodies of the forms of open, but for `native`: how the C library's is called. */
#define OPEN_CHECKED_OR(native)                                                                    \
    int fd;                                                                                        \
    return open_file(path, flags, &fd) ? fd : native

/* With a `mode`. */
#define OPEN_OR(native)                                                                            \
    va_list list;                                                                                  \
    va_start(list, flags);                                                                         \
    const mode_t mode = mode_of(flags, list);                                                      \
    va_end(list);                                                                                  \
    OPEN_CHECKED_OR(native)

EXPORT int open(const char* path, int flags, ...) {
    OPEN_OR(REAL(int, open, (const char*, int, ...))(path, flags, mode));
}

EXPORT int open64(const char* path, int flags, ...) {
    OPEN_OR(REAL(int, open64, (const char*, int, ...))(path, flags, mode));
}

EXPORT int openat(int directory, const char* path, int flags, ...) {
    OPEN_OR(REAL(int, openat, (int, const char*, int, ...))(directory, path, flags, mode));
}

EXPORT int openat64(int directory, const char* path, int flags, ...) {
    OPEN_OR(REAL(int, openat64, (int, const char*, int, ...))(directory, path, flags, mode));
}

static FILE* fopen_file(const char* path, const char* mode, bool* native) {
    const char* const name = files_name(path);
    const int saved = errno;
    FILE* const file = name != NULL ? files_fopen(name, mode) : NULL;
    *native = name == NULL || (file == NULL && errno == 0);
    if (*native) errno = saved;
    return file;
}

EXPORT FILE* fopen(const char* restrict path, const char* restrict mode) {
    bool native;
    FILE* const file = fopen_file(path, mode, &native);
    return native ? REAL(FILE*, fopen, (const char*, const char*))(path, mode) : file;
}

EXPORT FILE* fopen64(const char* restrict path, const char* restrict mode) {
    bool native;
    FILE* const file = fopen_file(path, mode, &native);
    return native ? REAL(FILE*, fopen64, (const char*, const char*))(path, mode) : file;
}

// What programs built with _FORTIFY_SOURCE call.

EXPORT int __open_2(const char* path, int flags) {
    OPEN_CHECKED_OR(REAL(int, __open_2, (const char*, int))(path, flags));
}

EXPORT int __open64_2(const char* path, int flags) {
    OPEN_CHECKED_OR(REAL(int, __open64_2, (const char*, int))(path, flags));
}

EXPORT int __openat_2(int directory, const char* path, int flags) {
    OPEN_CHECKED_OR(REAL(int, __openat_2, (int, const char*, int))(directory, path, flags));
}

EXPORT int __openat64_2(int directory, const char* path, int flags) {
    OPEN_CHECKED_OR(REAL(int, __openat64_2, (int, const char*, int))(directory, path, flags));
}

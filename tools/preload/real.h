/* SPDX-License-Identifier: Apache-2.0
 *
 * The C library's functions behind those that the shim puts in front of them.
 */
#pragma once

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>

/* What takes the place of a function of the C library. */
#define EXPORT __attribute__((visibility("default")))

/* Calls the next definition of `name`: REAL(int, close, (int))(fd). */
#define REAL(result, name, arguments)                                                              \
    (__extension__({                                                                               \
        static _Atomic(void*) real_;                                                               \
        void* found_ = atomic_load_explicit(&real_, memory_order_relaxed);                         \
        if (found_ == NULL) {                                                                      \
            found_ = dlsym(RTLD_NEXT, #name);                                                      \
            atomic_store_explicit(&real_, found_, memory_order_relaxed);                           \
        }                                                                                          \
        (result(*) arguments) found_;                                                              \
    }))

/* The shim's own calls must not come round to it. */
#define REAL_POLL(fds, count, timeout)                                                             \
    REAL(int, poll, (struct pollfd*, nfds_t, int))(fds, count, timeout)

static inline int real_close(int fd) {
    return REAL(int, close, (int))(fd);
}

/* What a function of the C library returns that fails. */
static inline int failed(int code) {
    errno = code;
    return -1;
}

// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/slate.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/pause.h"
#include "tools/preload/link.h"
#include "tools/preload/moment.h"
#include "tools/preload/real.h"

/* An answer that takes longer is worth a sleep.  One that takes longer than most may be waiting for
 * this CPU. */
enum { look_ns = 50000, alone_ns = 25000, looks_a_clock = 16 };

static uint32_t load(const uint32_t* word) {
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void store(uint32_t* word, uint32_t value) {
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static void close_keeping_errno(int fd) {
    const int saved = errno;
    real_close(fd);
    errno = saved;
}

struct shim_slate* slate_make(int* memory) {
    const int fd = memfd_create("esplane-slate", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return NULL;
    void* page = MAP_FAILED;
    if (ftruncate(fd, SHIM_SLATE_SIZE) == 0 &&
        REAL(int, fcntl, (int, int, ...))(fd, F_ADD_SEALS,
                                          F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        page = mmap(NULL, SHIM_SLATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        close_keeping_errno(fd);
        return NULL;
    }
    madvise(page, SHIM_SLATE_SIZE, MADV_DONTFORK); /* a child's requests are not its parent's */
    madvise(page, SHIM_SLATE_SIZE, MADV_DONTDUMP);
    *memory = link_move_up(fd);
    return page;
}

void slate_drop(struct shim_slate* slate) {
    munmap(slate, SHIM_SLATE_SIZE);
}

bool slate_ask(struct shim_slate* slate, const struct shim_header* h, const struct iovec* pieces,
               size_t count, bool takes) {
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(slate->request + length, pieces[i].iov_base, pieces[i].iov_len);
        length += pieces[i].iov_len;
    }
    slate->header = *h;
    slate->length = (uint32_t)length;
    slate->takes = takes ? 1 : 0;
    slate->asleep = 0;
    store(&slate->turn, shim_asked); /* before it is seen whether the server is awake */
    return load(&slate->awake) == 0;
}

bool slate_is_answered(struct shim_slate* slate) {
    return load(&slate->turn) == shim_answered;
}

bool slate_is_at_work(struct shim_slate* slate) {
    return load(&slate->turn) == shim_at_work;
}

bool slate_look(struct shim_slate* slate) {
    const uint64_t from = now_ns();
    for (uint64_t now = from; now - from < look_ns; now = now_ns()) {
        if (now - from > alone_ns) sched_yield();
        for (int i = 0; i < looks_a_clock; i++) {
            if (slate_is_answered(slate)) return true;
            pause_cpu();
        }
    }
    store(&slate->asleep, 1); /* before the last look */
    return slate_is_answered(slate);
}

bool slate_read(struct shim_slate* slate) {
    store(&slate->turn, shim_blank);
    return slate->asleep != 0;
}

bool slate_take_back(struct shim_slate* slate) {
    uint32_t turn = shim_asked;
    return __atomic_compare_exchange_n(&slate->turn, &turn, shim_blank, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

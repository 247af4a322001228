// SPDX-License-Identifier: Apache-2.0
#include "fastpath/barrier.h"

#include <chrono>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

namespace esplane::fastpath {

namespace {

long membarrier(int command) noexcept {
    return ::syscall(__NR_membarrier, command, 0, 0);
}

} // namespace

void barrier_on_all_threads() noexcept {
    using namespace std::chrono_literals;
    static const bool registered = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
    if (registered && membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0) return;
    std::this_thread::sleep_for(10ms);
}

} // namespace esplane::fastpath

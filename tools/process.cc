// SPDX-License-Identifier: Apache-2.0
#include "tools/process.h"

#include <fstream>
#include <sys/prctl.h>
#include <sys/resource.h>

namespace esplane::tools {

bool keep_memory_private() {
    const rlimit none{0, 0};
    return ::prctl(PR_SET_DUMPABLE, 0) == 0 && ::setrlimit(RLIMIT_CORE, &none) == 0;
}

void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

std::uint32_t read_acquire_expires(const std::string& path) {
    constexpr std::uint32_t kernel_default = 30;
    std::ifstream file(path);
    std::uint32_t seconds = 0;
    return file >> seconds ? seconds : kernel_default;
}

} // namespace esplane::tools

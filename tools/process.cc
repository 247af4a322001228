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

std::optional<std::string> read_sysctl(std::string_view name, const std::string& folder) {
    std::ifstream file(folder + std::string(name));
    std::string text;
    if (!std::getline(file, text)) return std::nullopt;
    return text;
}

} // namespace esplane::tools

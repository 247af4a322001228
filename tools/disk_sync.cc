// SPDX-License-Identifier: Apache-2.0
#include "tools/disk_sync.h"

#include <fcntl.h>
#include <system_error>
#include <thread>
#include <utility>

#include "lib/base/unique_fd.h"

namespace esplane::tools {

result<disk_sync> disk_sync::begin(int file, sync_function sync) {
    unique_fd own(::fcntl(file, F_DUPFD_CLOEXEC, 0));
    if (!own.valid()) return fail_errno("writing to a disk");
    auto outcome = std::make_shared<std::atomic<int>>(pending);
    try {
        std::thread([outcome, own = std::move(own), sync = std::move(sync)] {
            const int code = sync(own.get()) == 0 ? 0 : errno;
            outcome->store(code, std::memory_order_release);
        }).detach();
    } catch (const std::system_error& e) {
        return fail(e.code().value(), "writing to a disk: " + std::string(e.what()));
    }
    return disk_sync(std::move(outcome));
}

} // namespace esplane::tools

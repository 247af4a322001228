// SPDX-License-Identifier: Apache-2.0
#include "fastpath/retired.h"

#include <urcu-qsbr.h>

namespace esplane::fastpath {

void retired::reclaim() {
    if (waiting_.empty()) return;
    urcu_qsbr_synchronize_rcu();
    std::vector<std::function<void()>> now;
    now.swap(waiting_);
    for (const auto& release : now)
        release();
}

} // namespace esplane::fastpath

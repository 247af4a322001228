// SPDX-License-Identifier: Apache-2.0
#include "fastpath/worker_watch.h"

namespace esplane::fastpath {

worker_watch::change worker_watch::look(std::size_t worker, const worker_vitals& v,
                                        std::uint64_t now_ns) noexcept {
    sighting& s = seen_[worker];
    const std::uint64_t loops = v.loops.get();
    if (loops != s.loops || !v.running.load(std::memory_order_relaxed)) {
        const bool was_stuck = s.stuck;
        s.loops = loops;
        s.since_ns = now_ns;
        s.looks = 0;
        s.stuck = false;
        return was_stuck ? change::recovered : change::none;
    }
    ++s.looks;
    if (s.stuck || s.looks < looks || now_ns - s.since_ns < stuck_after_ns) return change::none;
    s.stuck = true;
    ++s.times;
    return change::stuck;
}

} // namespace esplane::fastpath

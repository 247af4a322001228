// SPDX-License-Identifier: Apache-2.0
#include "fastpath/quiescence.h"

#include <algorithm>
#include <mutex>
#include <thread>
#include <vector>

namespace esplane::fastpath {

namespace {

struct registry {
    std::mutex lock;
    std::vector<const reader*> readers;
};

registry& all() noexcept {
    static registry r;
    return r;
}

} // namespace

reader::reader() {
    const std::lock_guard guard(all().lock);
    online();
    all().readers.push_back(this);
}

reader::~reader() {
    const std::lock_guard guard(all().lock);
    std::erase(all().readers, this);
}

/// A period that begins in between may have found this reader offline: then it has seen what that
/// period's control took out before, because it has read the period's number.
void reader::online() noexcept {
    std::uint64_t now;
    do {
        now = detail::grace_periods.load(std::memory_order_seq_cst);
        seen_.store(now, std::memory_order_seq_cst);
    } while (detail::grace_periods.load(std::memory_order_seq_cst) != now);
}

grace_period grace_period::begin() noexcept {
    return grace_period(detail::grace_periods.fetch_add(1, std::memory_order_seq_cst) + 1);
}

bool grace_period::over() const noexcept {
    const std::lock_guard guard(all().lock);
    return std::all_of(all().readers.begin(), all().readers.end(), [&](const reader* r) {
        const std::uint64_t seen = r->seen_.load(std::memory_order_seq_cst);
        return seen == 0 || seen >= number_;
    });
}

/// A busy reader is quiescent within microseconds; one that has lost its CPU needs ours.
bool grace_period::wait(std::chrono::nanoseconds longest) const noexcept {
    using namespace std::chrono_literals;
    constexpr int spins = 64;
    for (int i = 0; i < spins; ++i) {
        if (over()) return true;
        __builtin_ia32_pause();
    }
    const auto deadline = std::chrono::steady_clock::now() + longest;
    for (auto nap = 10us; !over(); nap = std::min(2 * nap, 1000us)) {
        if (std::chrono::steady_clock::now() >= deadline) return false;
        std::this_thread::sleep_for(nap);
    }
    return true;
}

} // namespace esplane::fastpath

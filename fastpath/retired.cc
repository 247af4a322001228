// SPDX-License-Identifier: Apache-2.0
#include "fastpath/retired.h"

#include <utility>

namespace esplane::fastpath {

retired::~retired() {
    while (!waiting_.empty())
        free_front();
    while (!fresh_.empty())
        for (const auto& release : std::exchange(fresh_, {}))
            release();
}

bool retired::reclaim() {
    while (!waiting_.empty() && waiting_.front().until.over())
        free_front();
    while (!fresh_.empty()) {                 // and what a release retires in its turn
        const bool stuck = !waiting_.empty(); // it has had its time
        held_ += fresh_.size();
        waiting_.push_back({grace_period::begin(), std::exchange(fresh_, {})});
        if (stuck || !waiting_.back().until.wait(patience)) return false;
        free_front();
    }
    return waiting_.empty();
}

void retired::free_front() {
    const batch now = std::move(waiting_.front());
    waiting_.pop_front();
    held_ -= now.releases.size();
    for (const auto& release : now.releases)
        release();
}

} // namespace esplane::fastpath

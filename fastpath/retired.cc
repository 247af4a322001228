// SPDX-License-Identifier: Apache-2.0
#include "fastpath/retired.h"

namespace esplane::fastpath {

retired::~retired() {
    while (!waiting_.empty())
        free_front();
    for (const auto& release : fresh_)
        release();
}

bool retired::reclaim() {
    while (!waiting_.empty() && waiting_.front().until.over())
        free_front();
    if (fresh_.empty()) return waiting_.empty();
    const bool stuck = !waiting_.empty(); // it has had its time
    held_ += fresh_.size();
    waiting_.push_back({grace_period::begin(), std::move(fresh_)});
    fresh_.clear();
    if (stuck || !waiting_.back().until.wait(patience)) return false;
    free_front();
    return true;
}

/// What a release retires in its turn waits for the next call.
void retired::free_front() {
    const batch now = std::move(waiting_.front());
    waiting_.pop_front();
    held_ -= now.releases.size();
    for (const auto& release : now.releases)
        release();
}

} // namespace esplane::fastpath

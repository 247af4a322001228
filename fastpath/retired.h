// SPDX-License-Identifier: Apache-2.0
//
// What control has taken out of the tables and may free once every worker was quiescent.
//
// Workers register with liburcu's QSBR flavour, report quiescence once per loop and are offline
// while they sleep.  Control collects here and reclaims at the end of each request or batch, so
// retired memory is bounded by one batch.
// Threads: control.
#pragma once

#include <functional>
#include <vector>

namespace esplane::fastpath {

class retired {
  public:
    retired() = default;
    ~retired() { reclaim(); }
    retired(const retired&) = delete;
    retired& operator=(const retired&) = delete;

    /// `release` runs once no worker can still see what it frees.
    void add(std::function<void()> release) { waiting_.push_back(std::move(release)); }

    /// Waits for all workers to pass a quiescent state, then frees.  Returns at once where nothing
    /// waits.
    void reclaim();

  private:
    std::vector<std::function<void()>> waiting_;
};

} // namespace esplane::fastpath

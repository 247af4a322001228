// SPDX-License-Identifier: Apache-2.0
//
// What control has taken out of the tables and may free once every worker was quiescent.
//
// Control collects here and reclaims at the end of each request or batch, so retired memory is
// bounded by one batch.  A worker that is stuck keeps what was retired since alive: reclaim() waits
// for it a moment, then once and for all no more, until it goes on; what is held meanwhile is
// counted, and whoever adds to the tables asks full() first.
// Threads: control.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <vector>

#include "fastpath/quiescence.h"

namespace esplane::fastpath {

class retired {
  public:
    /// How long reclaim() waits for the workers.
    static constexpr std::chrono::milliseconds patience{100};
    /// Things that may be held for a worker that is stuck.
    static constexpr std::size_t limit = 100'000;

    retired() = default;
    /// No worker reads the tables any more.
    ~retired();
    retired(const retired&) = delete;
    retired& operator=(const retired&) = delete;

    /// `release` runs once no worker can still see what it frees.
    void add(std::function<void()> release) { fresh_.push_back(std::move(release)); }

    /// Frees what no worker can see any more, after waiting for them where something was retired
    /// since the last call.  False: a worker did not come by within `patience`, and something is
    /// held for it; a later call frees it.
    bool reclaim();

    /// Things that the next reclaim() will wait for.
    [[nodiscard]] std::size_t fresh() const noexcept { return fresh_.size(); }
    /// Things that are held for a worker that is stuck.
    [[nodiscard]] std::size_t held() const noexcept { return held_; }
    /// Whether nothing may be added to the tables until that worker goes on: what is not there
    /// cannot be retired either, so memory stays bounded.
    [[nodiscard]] bool full() const noexcept { return held_ >= limit; }

  private:
    struct batch {
        grace_period until;
        std::vector<std::function<void()>> releases;
    };
    void free_front();

    std::vector<std::function<void()>> fresh_; ///< since the last reclaim()
    std::deque<batch> waiting_;                ///< oldest first
    std::size_t held_ = 0;                     ///< releases in waiting_
};

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// Which workers are stuck: awake, and their loop does not move.
//
// A worker that sleeps is not stuck, and one look says nothing: control may itself have been away.
// Threads: control.
#pragma once

#include <cstdint>
#include <vector>

#include "fastpath/worker.h"

namespace esplane::fastpath {

class worker_watch {
  public:
    static constexpr std::uint64_t stuck_after_ns = 200'000'000;
    static constexpr unsigned looks = 3; ///< in that time, at least
    /// Between two looks.
    static constexpr std::uint64_t interval_ns = 50'000'000;

    explicit worker_watch(std::size_t workers)
        : seen_(workers) {}

    enum class change : std::uint8_t { none, stuck, recovered };
    /// Once per interval for each worker.
    [[nodiscard]] change look(std::size_t worker, const worker_vitals& v,
                              std::uint64_t now_ns) noexcept;
    [[nodiscard]] bool stuck(std::size_t worker) const noexcept { return seen_[worker].stuck; }
    /// How often it was.
    [[nodiscard]] std::uint64_t times_stuck(std::size_t worker) const noexcept {
        return seen_[worker].times;
    }

  private:
    struct sighting {
        std::uint64_t loops = 0;
        std::uint64_t since_ns = 0; ///< when they were first seen to be so many
        unsigned looks = 0;         ///< since then
        bool stuck = false;
        std::uint64_t times = 0;
    };
    std::vector<sighting> seen_;
};

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// Which SAs should change their worker, so that none works itself to death beside one that idles.
//
//   looks     once a second: how busy is each worker?
//   unequal   one at 80 % or more, another 30 points below, for 3 looks on end
//   moves     SAs of the busy one, the largest first that fit, up to half of the difference; none
//             that would only turn the difference round: an SA so fat is spread over all workers
//   rest      10 looks without another move: what has moved must show first
//
// Packets that arrive at one worker and belong to another cost a handover, so a small difference is
// left alone.
// Threads: control.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "lib/ipsec/sa.h"

namespace esplane::fastpath {

/// What an SA of one worker gave it to do since it was last asked about.
struct sa_load {
    ipsec::sa_id id;
    std::uint64_t work = 0; ///< in no unit: loads of one worker compare
};

class balancer {
  public:
    static constexpr double busy = 0.8;
    static constexpr double unequal = 0.3;
    static constexpr unsigned patience = 3;
    static constexpr unsigned rest = 10;

    /// From whom to whom.
    struct imbalance {
        unsigned from;
        unsigned to;
        double difference; ///< of their shares
        bool now;          ///< else: with the next look, so begin to measure SAs
    };
    /// Once a second.  busy_shares   0 to 1 for each worker; a negative one takes no part
    [[nodiscard]] std::optional<imbalance> look(std::span<const double> busy_shares) noexcept;

    /// Of the SAs of `from`, whose share is `busy_share`: which go to `to`.
    [[nodiscard]] static std::vector<ipsec::sa_id> choose(const imbalance& i, double busy_share,
                                                          std::vector<sa_load> loads);
    /// The SA that makes more than half of all; where there is one, moving helps nobody.
    [[nodiscard]] static std::optional<ipsec::sa_id> fat_one(const std::vector<sa_load>& loads);

  private:
    unsigned seen_ = 0; ///< looks in which the same two were unequal
    unsigned resting_ = 0;
    unsigned from_ = 0, to_ = 0;
};

} // namespace esplane::fastpath

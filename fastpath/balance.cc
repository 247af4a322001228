// SPDX-License-Identifier: Apache-2.0
#include "fastpath/balance.h"

#include <algorithm>
#include <numeric>

namespace esplane::fastpath {

std::optional<balancer::imbalance> balancer::look(std::span<const double> busy_shares) noexcept {
    if (resting_ != 0) {
        --resting_;
        return std::nullopt;
    }
    std::optional<unsigned> least, most;
    for (unsigned i = 0; i < busy_shares.size(); ++i) {
        if (busy_shares[i] < 0) continue;
        if (!least || busy_shares[i] < busy_shares[*least]) least = i;
        if (!most || busy_shares[i] > busy_shares[*most]) most = i;
    }
    const double difference = most ? busy_shares[*most] - busy_shares[*least] : 0;
    if (difference < unequal || busy_shares[*most] < busy) {
        seen_ = 0;
        return std::nullopt;
    }
    if (seen_ != 0 && (*most != from_ || *least != to_)) seen_ = 0;
    from_ = *most;
    to_ = *least;
    if (++seen_ < patience - 1) return std::nullopt;
    const bool now = seen_ == patience;
    if (now) {
        seen_ = 0;
        resting_ = rest;
    }
    return imbalance{from_, to_, difference, now};
}

std::vector<ipsec::sa_id> balancer::choose(const imbalance& i, double busy_share,
                                           std::vector<sa_load> loads) {
    const auto total = static_cast<double>(
        std::accumulate(loads.begin(), loads.end(), std::uint64_t{0},
                        [](std::uint64_t sum, const sa_load& l) { return sum + l.work; }));
    std::vector<ipsec::sa_id> chosen;
    if (total == 0) return chosen;
    std::sort(loads.begin(), loads.end(),
              [](const sa_load& a, const sa_load& b) { return a.work > b.work; });
    double left = i.difference / 2;
    for (const sa_load& l : loads) {
        const double share = busy_share * static_cast<double>(l.work) / total;
        // The largest may be more than half of the difference: better it than none.
        const bool improves = chosen.empty() && share < i.difference * 0.9;
        if (l.work == 0 || (share > left && !improves)) continue;
        chosen.push_back(l.id);
        left -= share;
        if (left <= 0) break;
    }
    return chosen;
}

std::optional<ipsec::sa_id> balancer::fat_one(const std::vector<sa_load>& loads) {
    std::uint64_t total = 0;
    const sa_load* largest = nullptr;
    for (const sa_load& l : loads) {
        total += l.work;
        if (largest == nullptr || l.work > largest->work) largest = &l;
    }
    if (largest == nullptr || largest->work * 2 <= total) return std::nullopt;
    return largest->id;
}

} // namespace esplane::fastpath

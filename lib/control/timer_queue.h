// SPDX-License-Identifier: Apache-2.0
//
// Deadlines by key: at most one for each, in time logarithmic in their number.
//
// A deadline that is moved or cancelled is gone at once, so what a client sets and resets does not
// pile up.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

namespace esplane::control {

class timer_queue {
  public:
    using key = std::uint64_t;

    /// Sets the one deadline of `k`, or moves it.
    void arm(key k, std::int64_t at_ns) {
        disarm(k);
        by_key_.emplace(k, at_ns);
        by_time_.emplace(at_ns, k);
    }

    void disarm(key k) {
        const auto at = by_key_.find(k);
        if (at == by_key_.end()) return;
        by_time_.erase({at->second, k});
        by_key_.erase(at);
    }

    /// Takes out a key whose deadline is not after `now_ns`, the earliest first.
    std::optional<key> take_due(std::int64_t now_ns) {
        const auto first = next_ns();
        if (!first || *first > now_ns) return std::nullopt;
        const key k = by_time_.begin()->second;
        disarm(k);
        return k;
    }

    [[nodiscard]] std::optional<std::int64_t> next_ns() const {
        if (by_time_.empty()) return std::nullopt;
        return by_time_.begin()->first;
    }

  private:
    std::unordered_map<key, std::int64_t> by_key_;
    std::set<std::pair<std::int64_t, key>> by_time_;
};

} // namespace esplane::control

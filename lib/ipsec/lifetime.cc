// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/lifetime.h"

#include <algorithm>
#include <limits>

namespace esplane::ipsec {

namespace {

constexpr std::int64_t ns_per_s = 1'000'000'000;

/// 270 years: longer limits are held to be that long, so that nanoseconds fit 63 bits.
constexpr std::uint64_t longest_s = std::uint64_t{1} << 33;

/// Walks the limits of one object and remembers the nearest one that is still to come.
class limit_walk {
  public:
    explicit limit_walk(std::int64_t now_ns) noexcept
        : now_ns_(now_ns) {}

    /// True where the limit is due.  0 is no limit.
    bool due(std::uint64_t limit_s, std::int64_t since_ns) noexcept {
        if (limit_s == 0) return false;
        const auto span_ns = static_cast<std::int64_t>(std::min(limit_s, longest_s)) * ns_per_s;
        const std::int64_t at_ns = since_ns + span_ns;
        if (at_ns <= now_ns_) return true;
        if (!next_ns_ || at_ns < *next_ns_) next_ns_ = at_ns;
        return false;
    }
    bool due(std::uint64_t limit_s, std::optional<std::int64_t> since_ns) noexcept {
        return since_ns && due(limit_s, *since_ns);
    }

    [[nodiscard]] std::optional<std::int64_t> next_ns() const noexcept { return next_ns_; }

  private:
    std::int64_t now_ns_;
    std::optional<std::int64_t> next_ns_;
};

} // namespace

std::int64_t monotonic_of(std::uint64_t realtime_s, moment now) noexcept {
    const std::uint64_t age_s = now.realtime_s > realtime_s ? now.realtime_s - realtime_s : 0;
    return static_cast<std::int64_t>(now.monotonic_ns) -
           static_cast<std::int64_t>(std::min(age_s, longest_s)) * ns_per_s;
}

lifetime_check check_time_limits(const lifetime_limits& limits, const lifetime_origin& origin,
                                 bool soft_done, std::int64_t now_ns) noexcept {
    limit_walk walk(now_ns);
    if (walk.due(limits.hard_add_s, origin.added_ns) || walk.due(limits.hard_use_s, origin.used_ns))
        return {lifetime_verdict::hard, std::nullopt};
    if (soft_done) return {lifetime_verdict::running, walk.next_ns()};
    bool soft = walk.due(limits.soft_add_s, origin.added_ns);
    soft |= walk.due(limits.soft_use_s, origin.used_ns);
    return {soft ? lifetime_verdict::soft : lifetime_verdict::running, walk.next_ns()};
}

std::optional<std::int64_t> first_time_limit(const lifetime_limits& limits,
                                             const lifetime_origin& origin) noexcept {
    constexpr std::int64_t before_all = std::numeric_limits<std::int64_t>::min();
    return check_time_limits(limits, origin, false, before_all).next_ns;
}

lifetime_verdict check_count_limits(const lifetime_limits& limits, const lifetime_current& current,
                                    bool soft_done) noexcept {
    if (current.bytes >= limits.hard_bytes || current.packets >= limits.hard_packets)
        return lifetime_verdict::hard;
    if (!soft_done &&
        (current.bytes >= limits.soft_bytes || current.packets >= limits.soft_packets))
        return lifetime_verdict::soft;
    return lifetime_verdict::running;
}

} // namespace esplane::ipsec

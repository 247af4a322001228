// SPDX-License-Identifier: Apache-2.0
#include "fastpath/succession.h"

#include <algorithm>

namespace esplane::fastpath {

namespace {

constexpr std::uint64_t sa_counts::*all_counts[] = {&sa_counts::packets, &sa_counts::bytes,
                                                    &sa_counts::integrity_failed,
                                                    &sa_counts::replay, &sa_counts::replay_too_old};

void continue_account(sa_account& next, const sa_account& old, const sa_counts& counted) noexcept {
    next.packets.set(counted.packets);
    next.bytes.set(counted.bytes);
    next.last_used.set(old.last_used.get());
}

/// What has been said is not said again.
void continue_limits(sa_limits& next, const sa_limits& old) noexcept {
    constexpr auto relaxed = std::memory_order_relaxed;
    next.use_time.set(old.use_time.get());
    next.soft_told.store(old.soft_told.load(relaxed), relaxed);
    next.hard_told.store(old.hard_told.load(relaxed), relaxed);
    next.goal.store(old.goal.load(relaxed), relaxed);
    next.given.store(old.given.load(relaxed), relaxed); // taken over twice, at worst
}

} // namespace

sa_counts& sa_counts::operator+=(const sa_counts& other) noexcept {
    for (const auto one : all_counts)
        this->*one += other.*one;
    return *this;
}

sa_counts& sa_counts::operator-=(const sa_counts& other) noexcept {
    for (const auto one : all_counts)
        this->*one -= other.*one;
    return *this;
}

sa_counts counts_of(const sa_in& sa) noexcept {
    return {sa.account.packets.get(), sa.account.bytes.get(), sa.integrity_failed.get(),
            sa.replay.get(), sa.replay_too_old.get()};
}

sa_counts counts_of(const sa_out& sa) noexcept {
    return {sa.account.packets.get(), sa.account.bytes.get()};
}

sa_counts continue_from(sa_in& next, const sa_in& old) noexcept {
    const sa_counts counted = counts_of(old);
    continue_account(next.account, old.account, counted);
    continue_limits(next.limits, old.limits);
    next.integrity_failed.set(counted.integrity_failed);
    next.replay.set(counted.replay);
    next.replay_too_old.set(counted.replay_too_old);
    if (next.window.size() == old.window.size()) next.window.copy(old.window);
    return counted;
}

sa_counts continue_from(sa_out& next, const sa_out& old, std::uint64_t margin) noexcept {
    const sa_counts counted = counts_of(old);
    continue_account(next.account, old.account, counted);
    continue_limits(next.limits, old.limits);
    const std::uint64_t sent = std::min(old.sequence_sent.get(), next.last_sequence);
    next.sequence_sent.set(sent + std::min(margin, next.last_sequence - sent));
    next.name = old.name;
    return counted;
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "tools/xfrm_stat.h"

#include <algorithm>
#include <utility>

namespace esplane::tools {

using fastpath::drop_reason;
using xfrm::stat_line;

namespace {

constexpr std::pair<drop_reason, stat_line> mapped[] = {
    // xfrm_input
    {drop_reason::sa_unknown, stat_line::in_no_states},
    {drop_reason::sa_encapsulation, stat_line::in_state_mismatch},
    {drop_reason::sa_expired, stat_line::in_state_expired},
    {drop_reason::replay_duplicate, stat_line::in_state_seq_error},
    {drop_reason::replay_too_old, stat_line::in_state_seq_error},
    {drop_reason::esp_malformed, stat_line::in_state_proto_error},
    {drop_reason::icv_mismatch, stat_line::in_state_proto_error},
    {drop_reason::esp_padding, stat_line::in_state_proto_error},
    {drop_reason::dummy, stat_line::in_state_proto_error},
    {drop_reason::inner_malformed, stat_line::in_state_mode_error},
    {drop_reason::inner_family, stat_line::in_state_mode_error},
    // __xfrm_policy_check
    {drop_reason::sa_selector, stat_line::in_state_mismatch},
    {drop_reason::policy_missing, stat_line::in_no_policies},
    {drop_reason::policy_default, stat_line::in_no_policies}, // of `out` the kernel counts none
    {drop_reason::policy_block, stat_line::in_policy_block},
    {drop_reason::policy_template, stat_line::in_template_mismatch},
    // xfrm_lookup: without anybody to ask there is no bundle, else it has no states yet
    {drop_reason::sa_missing, stat_line::out_policy_error},
    {drop_reason::sa_larval, stat_line::out_no_states},
    {drop_reason::sa_wait_full, stat_line::out_no_states},
    {drop_reason::sa_wait_timeout, stat_line::out_no_states},
    // xfrm_output
    {drop_reason::sequence_exhausted, stat_line::out_state_seq_error},
    {drop_reason::nonces_exhausted, stat_line::out_state_seq_error},
    {drop_reason::no_room, stat_line::out_error},
};

} // namespace

std::optional<stat_line> stat_line_of(drop_reason why) noexcept {
    for (const auto& [reason, line] : mapped)
        if (reason == why) return line;
    return std::nullopt;
}

xfrm::xfrm_counters xfrm_stat_of(const fastpath::worker_counters& counted) noexcept {
    xfrm::xfrm_counters sum;
    for (const auto& [reason, line] : mapped)
        sum[line] += counted.dropped[static_cast<std::size_t>(reason)].get();
    const auto moved = [&sum](stat_line from, stat_line to, std::uint64_t packets) {
        packets = std::min(packets, sum[from]); // a worker may be between the two of one packet
        sum[from] -= packets;
        sum[to] += packets;
    };
    moved(stat_line::in_policy_block, stat_line::out_policy_block, counted.blocked_out.get());
    moved(stat_line::in_state_expired, stat_line::out_state_expired, counted.expired_out.get());
    return sum;
}

} // namespace esplane::tools

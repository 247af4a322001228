// SPDX-License-Identifier: Apache-2.0
#include "tools/live_numbers.h"

#include <utility>

namespace esplane::tools {

using fastpath::lasting_kind;
using fastpath::lasting_name;
using fastpath::lasting_numbers;

void found_numbers::add(const lasting_numbers& n) {
    any = true;
    std::uint64_t& number = n.kind == lasting_kind::inbound ? received : sent;
    number = std::max(number, n.number);
    packets += n.packets;
    bytes += n.bytes;
    last_used = std::max(last_used, n.last_used);
    if (n.use_time != 0) use_time = use_time == 0 ? n.use_time : std::min(use_time, n.use_time);
}

void continue_from(ipsec::sa& s, const found_numbers& n) {
    constexpr std::uint32_t word_bits = 32;
    if (!n.any) return;
    s.replay.sent = std::max(s.replay.sent, n.sent);
    s.replay.received = std::max(s.replay.received, n.received);
    s.replay.bitmap.assign((s.replay_window + word_bits - 1) / word_bits, ~0u);
    s.current.packets = n.packets;
    s.current.bytes = n.bytes;
    s.current.use_time = n.use_time;
    s.last_used = n.last_used;
}

bool can_do_without(ipsec::direction d, bool complete) noexcept {
    return complete && d == ipsec::direction::out;
}

result<all_numbers> read_numbers(int file, const lasting_name& name) {
    all_numbers all;
    const auto read =
        fastpath::read_lasting(file, name, [&](const lasting_numbers& n) { all.of[n.id].add(n); });
    if (!read) return tl::unexpected(read.error());
    all.complete = *read;
    return all;
}

result<all_numbers> numbers_then::take(int file, const lasting_name& name) {
    then_.clear();
    all_numbers all;
    const auto read = fastpath::read_lasting(file, name, [&](const lasting_numbers& n) {
        then_.push_back(n);
        all.of[n.id].add(n);
    });
    if (!read) return tl::unexpected(read.error());
    all.complete = *read;
    return all;
}

// 1. Place by place: what is there now and was not then, or has other numbers.
// 2. Of the SAs found so the objects that are as they were.
result<all_numbers> numbers_then::changes(int file, const lasting_name& name,
                                          const std::vector<ipsec::sa_id>& wanted) const {
    all_numbers all;
    for (const ipsec::sa_id& id : wanted)
        all.of.try_emplace(id);
    std::vector<const lasting_numbers*> same;
    same.reserve(then_.size());
    auto before = then_.begin();
    const auto read = fastpath::read_lasting(file, name, [&](const lasting_numbers& n) {
        for (; before != then_.end() && before->place < n.place; ++before)
            all.of.try_emplace(before->id);
        const bool was_there = before != then_.end() && before->place == n.place;
        if (was_there && *before == n) {
            same.push_back(&*before++);
            return;
        }
        if (was_there) all.of.try_emplace((before++)->id);
        all.of[n.id].add(n);
    });
    if (!read) return tl::unexpected(read.error());
    for (; before != then_.end(); ++before)
        all.of.try_emplace(before->id);
    for (const lasting_numbers* n : same)
        if (const auto at = all.of.find(n->id); at != all.of.end()) at->second.add(*n);
    all.complete = *read;
    return all;
}

} // namespace esplane::tools

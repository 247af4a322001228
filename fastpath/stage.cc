// SPDX-License-Identifier: Apache-2.0
#include "fastpath/stage.h"

#include <algorithm>

namespace esplane::fastpath {

namespace {
constexpr std::uint64_t ns_per_token = 1'000'000'000 / creation_budget::per_second;
constexpr std::uint32_t room_for_icmp = 1500;
} // namespace

void creation_budget::refill(std::uint64_t now_ns) noexcept {
    used_ = 0;
    const std::uint64_t earned = (now_ns - filled_ns_) / ns_per_token;
    if (earned == 0) return;
    tokens_ = static_cast<std::uint32_t>(std::min<std::uint64_t>(depth, tokens_ + earned));
    hears_ = static_cast<std::uint32_t>(std::min<std::uint64_t>(depth, hears_ + earned));
    filled_ns_ = now_ns - (now_ns - filled_ns_) % ns_per_token;
}

packet* creation_budget::take() noexcept {
    if (tokens_ == 0 || used_ == spare_.size()) return nullptr;
    --tokens_;
    return &spare_[used_++];
}

void stage::hand_over(packet& p, unsigned to, handover_phase phase, const sa_name& sa) noexcept {
    if (to == sa_owner::moved) {
        drop(p, drop_reason::sa_moved);
        return;
    }
    p.note = {sa.slot & 0xffffff, static_cast<std::uint32_t>(phase), sa.serial};
    if (others != nullptr && others->push(to, p))
        counters.handed_out.add(1);
    else
        drop(p, drop_reason::handover_full);
}

packet* stage::make_packet() noexcept {
    packet* p = budget.take();
    if (p == nullptr || !buffers.allocate(*p, room_for_icmp)) {
        counters.not_created.add(1);
        return nullptr;
    }
    counters.created.add(1);
    return p;
}

} // namespace esplane::fastpath

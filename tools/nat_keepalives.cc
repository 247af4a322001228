// SPDX-License-Identifier: Apache-2.0
#include "tools/nat_keepalives.h"

#include <variant>

namespace esplane::tools {

nat_keepalives::nat_keepalives(control::layer& l, std::function<void(const ipsec::sa&)> send)
    : layer_(l)
    , send_(std::move(send)) {
    layer_.subscribe(this);
}

nat_keepalives::~nat_keepalives() {
    layer_.unsubscribe(this);
}

/// SAs that go are noticed when they are looked at.
void nat_keepalives::on_event(const ipsec::event& e) {
    if (const auto* added = std::get_if<ipsec::sa_added>(&e)) watch(added->what);
    if (const auto* updated = std::get_if<ipsec::sa_updated>(&e)) watch(updated->what);
    if (const auto* migrated = std::get_if<ipsec::policies_migrated>(&e))
        for (const ipsec::relocated_sa& s : migrated->sas)
            watch(s.now);
}

void nat_keepalives::watch(const ipsec::sa& s) {
    if (s.nat_keepalive != 0 && watched_.insert(s.id).second) due_.emplace(0, s.id);
}

/// How long until the next one; 0: now.
std::uint64_t nat_keepalives::wait_s(const ipsec::sa& s, moment now) const {
    const std::uint64_t silent = now.realtime_s > s.last_used ? now.realtime_s - s.last_used : 0;
    return silent < s.nat_keepalive ? s.nat_keepalive - silent : 0;
}

void nat_keepalives::tick(moment now) {
    constexpr std::uint64_t ns_per_s = 1'000'000'000;
    while (!due_.empty() && due_.begin()->first <= now.monotonic_ns) {
        const ipsec::sa_id id = due_.begin()->second;
        due_.erase(due_.begin());
        const ipsec::sa* s = layer_.get_sa(id);
        if (s == nullptr || s->nat_keepalive == 0 || !s->encap) {
            watched_.erase(id);
            continue;
        }
        std::uint64_t wait = wait_s(*s, now);
        if (wait == 0) {
            send_(*s);
            wait = s->nat_keepalive;
        }
        due_.emplace(now.monotonic_ns + wait * ns_per_s, id);
    }
}

std::optional<std::uint64_t> nat_keepalives::next_ns() const {
    if (due_.empty()) return std::nullopt;
    return due_.begin()->first;
}

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// When NAT keepalives are due: for outbound SAs in UDP with XFRMA_NAT_KEEPALIVE_INTERVAL, as the
// kernel's xfrm_nat_keepalive does it.
//
// One is due where an SA has sent nothing for its interval; a new SA has not.
// Threads: control.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <utility>

#include "lib/base/clock.h"
#include "lib/control/layer.h"

namespace esplane::tools {

class nat_keepalives final : public ipsec::listener {
  public:
    /// send   sends one; `l` outlives this
    nat_keepalives(control::layer& l, std::function<void(const ipsec::sa&)> send);
    ~nat_keepalives() override;
    nat_keepalives(const nat_keepalives&) = delete;
    nat_keepalives& operator=(const nat_keepalives&) = delete;

    void tick(moment now);
    /// Monotonic nanoseconds at which tick() has something to do.
    [[nodiscard]] std::optional<std::uint64_t> next_ns() const;

  private:
    void on_event(const ipsec::event& e) override;
    void watch(const ipsec::sa& s);
    [[nodiscard]] std::uint64_t wait_s(const ipsec::sa& s, moment now) const;

    control::layer& layer_;
    std::function<void(const ipsec::sa&)> send_;
    std::set<ipsec::sa_id> watched_;
    std::set<std::pair<std::uint64_t, ipsec::sa_id>>
        due_; ///< when to look, of each that is watched
};

} // namespace esplane::tools

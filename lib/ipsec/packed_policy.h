// SPDX-License-Identifier: Apache-2.0
//
// A policy's description in as few bytes as it takes (packed.h), but for what it is found by in the
// database: direction, type, index and position.
//
// Threads: as any value.
#pragma once

#include "lib/ipsec/packed.h"
#include "lib/ipsec/policy.h"

namespace esplane::ipsec {

class packed_policy {
  public:
    packed_policy() = default;
    explicit packed_policy(const policy& p);

    /// What was packed; what was not is as in an empty description.
    [[nodiscard]] policy unpack() const;
    [[nodiscard]] std::size_t size() const noexcept { return kept_.size(); }

  private:
    packed kept_;
};

} // namespace esplane::ipsec

// SPDX-License-Identifier: Apache-2.0
//
// An SA's description in as few bytes as it takes (packed.h), but for its id, which stands beside
// it.  Copies share the bytes.
//
// Threads: as any value.
#pragma once

#include "lib/ipsec/packed.h"
#include "lib/ipsec/sa.h"

namespace esplane::ipsec {

class packed_sa {
  public:
    packed_sa() = default;
    explicit packed_sa(const sa& s);
    /// All but the keys; the suite stays.
    [[nodiscard]] static packed_sa without_keys(const sa& s);

    /// What was packed, as the SA of that id.
    [[nodiscard]] sa unpack(const sa_id& id) const;
    /// All but its keys; the suite is there.
    [[nodiscard]] sa unpack_without_keys(const sa_id& id) const;
    [[nodiscard]] std::size_t size() const noexcept { return kept_.size(); }

  private:
    packed kept_;
};

} // namespace esplane::ipsec

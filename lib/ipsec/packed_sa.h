// SPDX-License-Identifier: Apache-2.0
//
// An SA's description in as few bytes as it takes: what differs from an empty description, and
// nothing else.  A database of a million SAs keeps them so, each beside its id.
//
//   [ length ][ which fields follow: 64 bits ][ field ][ field ] ...
//
// Keys are among the fields: the memory is wiped before it is given back.  It never leaves the
// process, so it has no version.  Threads: as any value.
#pragma once

#include <cstdint>
#include <memory>

#include "lib/ipsec/sa.h"

namespace esplane::ipsec {

class packed_sa {
  public:
    packed_sa() = default;
    explicit packed_sa(const sa& s)
        : packed_sa(s, s.algs) {}
    /// All but the keys; the suite stays.
    [[nodiscard]] static packed_sa without_keys(const sa& s);
    packed_sa(packed_sa&&) = default;
    packed_sa& operator=(packed_sa&&) = default;

    /// What was packed, as the SA of that id.
    [[nodiscard]] sa unpack(const sa_id& id) const;
    [[nodiscard]] std::size_t size() const noexcept;

  private:
    struct wiping {
        void operator()(std::uint8_t* packed) const noexcept;
    };
    packed_sa(const sa& s, const algorithms& algs);

    std::unique_ptr<std::uint8_t, wiping> bytes_;
};

} // namespace esplane::ipsec

// SPDX-License-Identifier: Apache-2.0
//
// The security association database (RFC 4301 section 4.4.2): descriptions by id and by age.
//
// A hash map and an ordered index: no operation takes time linear in the number of SAs.
// Threads: one.  Does not: know rules, timers or backends (lib/control does).
#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>

#include "lib/ipsec/lifetime.h"
#include "lib/ipsec/sa.h"

namespace esplane::ipsec {

class sad {
  public:
    struct entry {
        sa what;
        std::uint64_t serial = 0; ///< from 1 up in order of insertion, never given twice
        lifetime_origin origin;
    };

    /// nullptr where there is none.  Entries stay where they are until they are taken out.
    [[nodiscard]] entry* find(const sa_id& id);
    [[nodiscard]] entry* find_serial(std::uint64_t serial);
    /// The newest entry whose serial is at most `serial`; nullptr at the end of a walk.
    [[nodiscard]] entry* newest_from(std::uint64_t serial);

    /// Puts in an SA whose id is not there yet.
    entry& insert(sa s);
    /// Takes out an entry of this database.
    sa take(entry& e);

    [[nodiscard]] std::size_t size() const noexcept { return by_id_.size(); }

  private:
    struct id_hash {
        [[nodiscard]] std::size_t operator()(const sa_id& id) const noexcept;
    };

    std::unordered_map<sa_id, entry, id_hash> by_id_;
    std::map<std::uint64_t, entry*> by_serial_;
    std::uint64_t last_serial_ = 0;
};

} // namespace esplane::ipsec

// SPDX-License-Identifier: Apache-2.0
//
// A hash table of pointers that control changes while workers read it: see growing_table.
//
// What a change takes out (an entry, an outgrown array) may be freed only after all workers were
// quiescent.  Entry has a member `std::uint32_t hash`, fixed while it is in the table.
#pragma once

#include "fastpath/retired.h"
#include "lib/base/growing_table.h"

namespace esplane::fastpath {

struct hash_member {
    template <typename Entry>
    [[nodiscard]] std::uint32_t operator()(const Entry& e) const noexcept {
        return e.hash;
    }
};

/// Gives to the graveyard what is outgrown.
class retire_there {
  public:
    explicit retire_there(retired& graveyard) noexcept
        : graveyard_(&graveyard) {}
    template <typename Release>
    void operator()(Release release) const {
        graveyard_->add(release);
    }

  private:
    retired* graveyard_;
};

template <typename Entry>
class lookup_table : public growing_table<Entry, hash_member, retire_there> {
  public:
    explicit lookup_table(retired& graveyard, std::uint32_t capacity = 16)
        : growing_table<Entry, hash_member, retire_there>(retire_there(graveyard), capacity) {}
};

} // namespace esplane::fastpath

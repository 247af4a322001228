// SPDX-License-Identifier: Apache-2.0
//
// What a file of live numbers (fastpath/lasting.h) says of each SA, and what has changed in it
// since.
//
// Threads: control.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "fastpath/backend.h"
#include "fastpath/lasting.h"
#include "lib/ipsec/sa.h"

namespace esplane::tools {

/// Of an SA, all that was found in memory.
struct found_numbers {
    bool any = false;
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::uint64_t last_used = 0;
    std::uint64_t use_time = 0;

    /// An SA that was moved or spread is there more than once: the highest number counts, and
    /// packets rather twice than not at all.
    void add(const fastpath::lasting_numbers& n);
    friend bool operator==(const found_numbers&, const found_numbers&) = default;
};

struct sa_id_hash {
    std::size_t operator()(const ipsec::sa_id& id) const noexcept {
        return fastpath::hash_of_spi(id.spi, id.destination.bytes.data(), id.destination.fam) ^
               id.mark.value;
    }
};
template <typename T>
using by_sa = std::unordered_map<ipsec::sa_id, T, sa_id_hash>;

/// Of what lies below the highest number only the owner's window knew what had come: nothing of it
/// is taken again.  Ignored where nothing was found.
void continue_from(ipsec::sa& s, const found_numbers& n);

/// Nothing was sent by an outbound SA that no policy has taken: its numbers are those of the log.
///
/// complete   whether all live numbers are there
[[nodiscard]] bool can_do_without(ipsec::direction d, bool complete) noexcept;

/// The numbers of all SAs in force.
struct all_numbers {
    by_sa<found_numbers> of;
    bool complete = false; ///< all are there that a worker knew
};
/// Errors: those of read_lasting().
[[nodiscard]] result<all_numbers> read_numbers(int file, const fastpath::lasting_name& name);

/// A file as it was at one moment, while its owner went on.
class numbers_then {
  public:
    /// Errors: those of read_lasting().
    [[nodiscard]] result<all_numbers> take(int file, const fastpath::lasting_name& name);
    /// What is known now of those SAs that there was more or other of then, and of all that are in
    /// `wanted`.  Most SAs have no packet between the two: the time it takes is that of reading.
    /// Errors: those of read_lasting().
    [[nodiscard]] result<all_numbers> changes(int file, const fastpath::lasting_name& name,
                                              const std::vector<ipsec::sa_id>& wanted) const;

  private:
    std::vector<fastpath::lasting_numbers> then_; ///< in the order of their places
};

} // namespace esplane::tools

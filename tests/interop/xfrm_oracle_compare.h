// SPDX-License-Identifier: Apache-2.0
//
// Two answers to one question: made comparable, and compared.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "tests/interop/xfrm_oracle_messages.h"

namespace esplane::tests::oracle {

/// Makes the answers of one side to one session comparable: datagrams of a dump are one, SPIs that
/// were given by chance become numbers in the order they were given, times become seconds since the
/// session began or, where none passes in it, 1 for now.
class normalizer {
  public:
    /// began_s   of a session in which time passes
    explicit normalizer(std::optional<std::uint64_t> began_s)
        : began_s_(began_s) {}
    std::vector<item> operator()(const answer& a);

  private:
    void map_spis(std::vector<std::uint8_t>& payload);
    void map_times(item& i) const;
    void map_time(std::vector<std::uint8_t>& payload, std::size_t at) const;
    void map_lifetime(std::vector<std::uint8_t>& payload, std::size_t at) const;

    std::optional<std::uint64_t> began_s_;
    std::map<std::uint32_t, std::uint32_t> spis_;
};

/// What kind of difference there is; nullopt: none.
[[nodiscard]] std::optional<std::string>
difference(const question& q, const std::vector<item>& ours, const std::vector<item>& theirs);

/// Puts events side by side that came while time passed: those of one object one after the other.
void sort_later(std::vector<item>& all);
/// The same of those of a whole session, put so.  Whatever is due at a moment
/// comes once on each side.  The kernel has coarser timers for policies: so much later than
/// esplane's may those events be.
[[nodiscard]] std::optional<std::string> later_difference(const std::vector<item>& ours,
                                                          const std::vector<item>& theirs);

} // namespace esplane::tests::oracle

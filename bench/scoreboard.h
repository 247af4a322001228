// SPDX-License-Identifier: Apache-2.0
//
// What the contenders of `engine` took, and what follows from it: table, targets, JSON, comparison
// with an earlier run.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace esplane::bench {

/// Who is compared: the first word of a figure's name.
namespace who {
inline constexpr const char* path = "path";
inline constexpr const char* bare = "ipsec-mb";
inline constexpr const char* openssl = "openssl";
inline constexpr const char* rte = "librte_ipsec"; ///< with "-gcm-lookaside" and so on behind
} // namespace who

/// Best figures in ns by "WHO/SHAPE".
class scoreboard {
  public:
    void note(const std::string& who, const std::string& shape, double ns);

    /// Of one contender; of `who::rte` the best of its modes.  0: was not measured.
    [[nodiscard]] double of(const std::string& who, const std::string& shape) const;
    /// The mode of librte_ipsec that was best.
    [[nodiscard]] std::string best_mode(const std::string& shape) const;
    /// In the order they were measured.
    [[nodiscard]] const std::vector<std::string>& shapes() const noexcept { return shapes_; }

    void print_table() const;
    [[nodiscard]] bool write_json(const std::string& file) const;
    /// Against what write_json() wrote.  What there is no figure of is left out.
    [[nodiscard]] bool print_comparison(const std::string& file) const;

  private:
    std::vector<std::string> shapes_;
    std::map<std::string, double> best_;
};

/// One of the figures to reach: measured / against at most `limit`.  Either is 0 where it was not
/// measured.
struct target {
    std::string name;
    double measured;
    double against;
    double limit;
    std::string unit = "x";
};
/// A line each; false where one is short or was not measured.
[[nodiscard]] bool print_targets(const std::vector<target>& all);

} // namespace esplane::bench

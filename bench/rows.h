// SPDX-License-Identifier: Apache-2.0
//
// Figures of a benchmark that are not microbenchmarks, each beside its peer of the same run.
//
// A row function measures, bounded in time, and returns its rows; run_rows() calls them and prints.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace esplane::bench {

struct figure_row {
    enum class bound { at_most, at_least };

    std::string name; ///< "dpdk_port_cost": stable, for machines
    double measured = 0;
    std::string unit; ///< "ns", "x", "s": follows the number
    bound limit_is = bound::at_most;
    double limit = 0;
    std::string note;  ///< the figures behind it, for people
    bool there = true; ///< false: could not be measured; `note` says why

    [[nodiscard]] bool ok() const noexcept {
        return there && (limit_is == bound::at_most ? measured <= limit : measured >= limit);
    }
};

/// A row for what this machine or this build cannot measure.
[[nodiscard]] inline figure_row not_measured(std::string name, std::string why) {
    figure_row r;
    r.name = std::move(name);
    r.note = std::move(why);
    r.there = false;
    return r;
}

using figure_rows = std::vector<figure_row>;

/// Rows that are measured together.
struct row_group {
    std::string_view name;
    figure_rows (*measure)();
};

/// The program: measures all groups, in their order, and prints.
///
///   --targets    a line per target, `name measured target ok|short`; exit status 1 if one is short
///   --json F     all figures
///   --compare F  against an earlier --json
///   --only NAME  one group of rows, and no other
[[nodiscard]] int run_rows(std::string_view program, std::span<const row_group> groups, int argc,
                           char** argv);

} // namespace esplane::bench

// SPDX-License-Identifier: Apache-2.0
//
// Runs registered benchmarks and prints a table: our figure beside its peer's of the same run, best
// of all chunks, as numbers and as bars; targets and JSON where asked for.
//
//   --targets   a line per target, `name measured target ok|short`; exit status 1 if one is short
//   --json F    all figures
//   --compare   against the baseline in bench/baseline/NAME.json
#pragma once

#include <map>
#include <string>
#include <vector>

namespace esplane::bench {

/// Chunks per case; the best counts.
inline constexpr int chunks = 100;

class report {
  public:
    /// Takes the options above out of the command line; the rest goes to Google Benchmark.
    report(std::string name, int argc, char** argv);

    struct comparison {
        std::string title;
        std::string ours; ///< a registered benchmark
        std::string peer;
    };
    /// What the figures of a row are of: "path" and "crypto" otherwise.
    void name_columns(std::string ours, std::string peer) {
        ours_ = std::move(ours);
        peer_ = std::move(peer);
    }
    void row(comparison c) { rows_.push_back(std::move(c)); }

    /// ours - peer at most `ns`.
    void target_difference(const std::string& title, double ns);
    /// ours / peer at most `ratio`.
    void target_ratio(const std::string& title, double ratio);

    /// The program's exit status.
    [[nodiscard]] int run();

  private:
    struct target {
        std::string title;
        double limit;
        bool is_ratio;
    };
    void print_table() const;
    [[nodiscard]] bool print_targets() const;
    [[nodiscard]] bool write_json() const;
    [[nodiscard]] bool print_comparison() const;

    std::string name_;
    std::string ours_ = "path";
    std::string peer_ = "crypto";
    std::vector<char*> arguments_;
    bool targets_wanted_ = false;
    bool compare_wanted_ = false;
    std::string json_file_;
    std::string baseline_file_;
    std::vector<comparison> rows_;
    std::vector<target> targets_;
    std::map<std::string, double> best_ns_;
};

} // namespace esplane::bench

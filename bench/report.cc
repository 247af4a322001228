// SPDX-License-Identifier: Apache-2.0
#include "bench/report.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include <benchmark/benchmark.h>
#include <nlohmann/json.hpp>

namespace esplane::bench {

namespace {

/// Keeps the best chunk of every benchmark.
class best_of final : public benchmark::BenchmarkReporter {
  public:
    explicit best_of(std::map<std::string, double>& best)
        : best_(best) {}
    bool ReportContext(const Context&) override { return true; }
    void ReportRuns(const std::vector<Run>& runs) override {
        for (const Run& r : runs) {
            if (r.run_type != Run::RT_Iteration) continue;
            const std::string& name = r.run_name.function_name;
            const double ns = r.real_accumulated_time / static_cast<double>(r.iterations) * 1e9;
            const auto [entry, fresh] = best_.try_emplace(name, ns);
            if (!fresh) entry->second = std::min(entry->second, ns);
        }
    }

  private:
    std::map<std::string, double>& best_;
};

std::string bar(double value, double full) {
    constexpr double width = 32;
    return std::string(static_cast<std::size_t>(std::clamp(value / full * width, 0.0, width)), '#');
}

} // namespace

report::report(std::string name, int argc, char** argv)
    : name_(std::move(name)) {
    for (int i = 0; i < argc; ++i) {
        const std::string a = argv[i];
        if (a == "--targets")
            targets_wanted_ = true;
        else if (a == "--json" && i + 1 < argc)
            json_file_ = argv[++i];
        else if (a == "--compare" && i + 1 < argc) {
            compare_wanted_ = true;
            baseline_file_ = argv[++i];
        } else
            arguments_.push_back(argv[i]);
    }
}

void report::target_difference(const std::string& title, double ns) {
    targets_.push_back({title, ns, false});
}

void report::target_ratio(const std::string& title, double ratio) {
    targets_.push_back({title, ratio, true});
}

int report::run() {
    static char interleave[] = "--benchmark_enable_random_interleaving=true";
    arguments_.push_back(interleave);
    int count = static_cast<int>(arguments_.size());
    benchmark::Initialize(&count, arguments_.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments_.data())) return EXIT_FAILURE;
    best_of reporter(best_ns_);
    benchmark::RunSpecifiedBenchmarks(&reporter);
    std::erase_if(rows_, [&](const comparison& c) { // left out by --benchmark_filter
        return !best_ns_.contains(c.ours) || !best_ns_.contains(c.peer);
    });
    print_table();
    bool good = true;
    if (!json_file_.empty()) good = write_json() && good;
    if (compare_wanted_) good = print_comparison() && good;
    if (targets_wanted_) good = print_targets() && good;
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

void report::print_table() const {
    double longest = 0;
    for (const comparison& c : rows_)
        longest = std::max(longest, best_ns_.at(c.ours));
    std::printf("%-16s %9s %9s %7s %7s  %s\n", name_.c_str(), (ours_ + " ns").c_str(),
                (peer_ + " ns").c_str(), "+ ns", "ratio",
                (ours_ + " (#), of which " + peer_ + " (=)").c_str());
    for (const comparison& c : rows_) {
        const double ours = best_ns_.at(c.ours);
        const double peer = best_ns_.at(c.peer);
        std::string drawn = bar(ours, longest);
        const std::size_t part = std::min(drawn.size(), bar(peer, longest).size());
        std::fill_n(drawn.begin(), part, '=');
        std::printf("%-16s %9.1f %9.1f %7.1f %7.2f  %s\n", c.title.c_str(), ours, peer, ours - peer,
                    ours / peer, drawn.c_str());
    }
}

bool report::print_targets() const {
    bool all = true;
    const std::string over = "ns over " + peer_;
    for (const target& t : targets_) {
        const auto c = std::find_if(rows_.begin(), rows_.end(),
                                    [&](const comparison& one) { return one.title == t.title; });
        if (c == rows_.end()) {
            std::printf("%s not measured: short\n", t.title.c_str());
            all = false;
            continue;
        }
        const double ours = best_ns_.at(c->ours);
        const double peer = best_ns_.at(c->peer);
        const double measured = t.is_ratio ? ours / peer : ours - peer;
        const bool ok = measured <= t.limit;
        all = all && ok;
        std::printf("%s %.2f%s %.2f%s %s\n", t.title.c_str(), measured,
                    t.is_ratio ? "x" : over.c_str(), t.limit, t.is_ratio ? "x" : over.c_str(),
                    ok ? "ok" : "short");
    }
    return all;
}

bool report::write_json() const {
    nlohmann::json all;
    for (const auto& [name, ns] : best_ns_)
        all["best_ns"][name] = ns;
    std::ofstream out(json_file_);
    out << all.dump(2) << '\n';
    if (out.good()) return true;
    std::fprintf(stderr, "bench %s: %s cannot be written\n", name_.c_str(), json_file_.c_str());
    return false;
}

/// Ratios to the peer of the same run: machines differ, and hours.
bool report::print_comparison() const {
    std::ifstream in(baseline_file_);
    const nlohmann::json before = nlohmann::json::parse(in, nullptr, false);
    if (before.is_discarded()) {
        std::fprintf(stderr, "bench %s: %s is no baseline: write one with --json\n", name_.c_str(),
                     baseline_file_.c_str());
        return false;
    }
    for (const comparison& c : rows_) {
        const auto& ns = before["best_ns"];
        const double was = ns.value(c.ours, 0.0) / ns.value(c.peer, 1.0);
        const double is = best_ns_.at(c.ours) / best_ns_.at(c.peer);
        std::printf("%-16s %.2f x %s, was %.2f (%+.0f %%)\n", c.title.c_str(), is, peer_.c_str(),
                    was, (is / was - 1) * 100);
    }
    return true;
}

} // namespace esplane::bench

// SPDX-License-Identifier: Apache-2.0
#include "bench/rows.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include <nlohmann/json.hpp>

namespace esplane::bench {
namespace {

struct options {
    bool targets = false;
    std::string json, baseline, only;
};

/// False where the command line cannot be understood.
bool parse(int argc, char** argv, options& o) {
    for (int i = 1; i < argc; ++i) {
        const std::string_view a = argv[i];
        if (a == "--targets") {
            o.targets = true;
            continue;
        }
        std::string* const value = a == "--json"      ? &o.json
                                   : a == "--compare" ? &o.baseline
                                   : a == "--only"    ? &o.only
                                                      : nullptr;
        if (value == nullptr || i + 1 == argc) return false;
        *value = argv[++i];
    }
    return true;
}

figure_rows measure(std::span<const row_group> groups, const options& o) {
    figure_rows all;
    for (const row_group& g : groups) {
        if (!o.only.empty() && o.only != g.name) continue;
        figure_rows rows = g.measure();
        all.insert(all.end(), rows.begin(), rows.end());
    }
    return all;
}

void print_table(const figure_rows& rows) {
    for (const figure_row& r : rows)
        if (r.there)
            std::printf("%-28s %9.2f %-3s %s\n", r.name.c_str(), r.measured, r.unit.c_str(),
                        r.note.c_str());
        else
            std::printf("%-28s not measured: %s\n", r.name.c_str(), r.note.c_str());
}

bool print_targets(const figure_rows& rows) {
    bool all = true;
    for (const figure_row& r : rows) {
        if (r.there)
            std::printf("%s %.2f%s %s%.2f%s %s\n", r.name.c_str(), r.measured, r.unit.c_str(),
                        r.limit_is == figure_row::bound::at_most ? "<=" : ">=", r.limit,
                        r.unit.c_str(), r.ok() ? "ok" : "short");
        else
            std::printf("%s not measured: short\n", r.name.c_str());
        all = all && r.ok();
    }
    return all;
}

bool write_json(const figure_rows& rows, const std::string& file) {
    nlohmann::json all = nlohmann::json::object();
    for (const figure_row& r : rows)
        if (r.there) all[r.name] = {{"measured", r.measured}, {"unit", r.unit}, {"limit", r.limit}};
    std::ofstream out(file);
    out << all.dump(2) << '\n';
    if (out.good()) return true;
    std::fprintf(stderr, "bench: %s cannot be written\n", file.c_str());
    return false;
}

bool print_comparison(const figure_rows& rows, const std::string& file) {
    std::ifstream in(file);
    const nlohmann::json before = nlohmann::json::parse(in, nullptr, false);
    if (!before.is_object()) {
        std::fprintf(stderr, "bench: %s is no baseline: write one with --json\n", file.c_str());
        return false;
    }
    for (const figure_row& r : rows)
        if (r.there && before.contains(r.name))
            std::printf("%-28s %.2f%s, was %.2f\n", r.name.c_str(), r.measured, r.unit.c_str(),
                        before[r.name].value("measured", 0.0));
    return true;
}

} // namespace

int run_rows(std::string_view program, std::span<const row_group> groups, int argc, char** argv) {
    options o;
    if (!parse(argc, argv, o)) {
        std::fprintf(stderr, "usage: %.*s [--targets] [--json F] [--compare F] [--only NAME]\n",
                     static_cast<int>(program.size()), program.data());
        return 2;
    }
    const figure_rows rows = measure(groups, o);
    print_table(rows);
    bool good = true;
    if (!o.json.empty()) good = write_json(rows, o.json) && good;
    if (!o.baseline.empty()) good = print_comparison(rows, o.baseline) && good;
    if (o.targets) good = print_targets(rows) && good;
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

} // namespace esplane::bench

// SPDX-License-Identifier: Apache-2.0
//
// Benchmarks of a gateway's ports and tables: `tools/bench gateway`.
//
//   --targets    a line per target, `name measured target ok|short`; exit status 1 if one is short
//   --json F     all figures
//   --compare F  against an earlier --json
//   --only NAME  one group of rows, and no other
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string_view>

#include <nlohmann/json.hpp>

#include "bench/gateway.h"

namespace esplane::bench {
namespace {

/// Groups of rows, in the order they are measured.
struct group {
    std::string_view name;
    gateway_rows (*measure)();
};
constexpr group groups[] = {
#ifdef HAVE_DPDK
    {"dpdk", measure_dpdk_port},
#endif
#ifdef HAVE_OVERLOAD
    {"overload", measure_overload},
#endif
    {"fib", measure_fib},
    {"routes", measure_routes},
    {"", nullptr}, // ends the table
};

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

gateway_rows measure(const options& o) {
    gateway_rows all;
    for (const group& g : groups) {
        if (g.measure == nullptr || (!o.only.empty() && o.only != g.name)) continue;
        gateway_rows rows = g.measure();
        all.insert(all.end(), rows.begin(), rows.end());
    }
    return all;
}

void print_table(const gateway_rows& rows) {
    for (const gateway_row& r : rows)
        if (r.there)
            std::printf("%-28s %9.2f %-3s %s\n", r.name.c_str(), r.measured, r.unit.c_str(),
                        r.note.c_str());
        else
            std::printf("%-28s not measured: %s\n", r.name.c_str(), r.note.c_str());
}

bool print_targets(const gateway_rows& rows) {
    bool all = true;
    for (const gateway_row& r : rows) {
        if (r.there)
            std::printf("%s %.2f%s %s%.2f%s %s\n", r.name.c_str(), r.measured, r.unit.c_str(),
                        r.limit_is == gateway_row::bound::at_most ? "<=" : ">=", r.limit,
                        r.unit.c_str(), r.ok() ? "ok" : "short");
        else
            std::printf("%s not measured: short\n", r.name.c_str());
        all = all && r.ok();
    }
    return all;
}

bool write_json(const gateway_rows& rows, const std::string& file) {
    nlohmann::json all = nlohmann::json::object();
    for (const gateway_row& r : rows)
        if (r.there) all[r.name] = {{"measured", r.measured}, {"unit", r.unit}, {"limit", r.limit}};
    std::ofstream out(file);
    out << all.dump(2) << '\n';
    if (out.good()) return true;
    std::fprintf(stderr, "bench gateway: %s cannot be written\n", file.c_str());
    return false;
}

bool print_comparison(const gateway_rows& rows, const std::string& file) {
    std::ifstream in(file);
    const nlohmann::json before = nlohmann::json::parse(in, nullptr, false);
    if (!before.is_object()) {
        std::fprintf(stderr, "bench gateway: %s is no baseline: write one with --json\n",
                     file.c_str());
        return false;
    }
    for (const gateway_row& r : rows)
        if (r.there && before.contains(r.name))
            std::printf("%-28s %.2f%s, was %.2f\n", r.name.c_str(), r.measured, r.unit.c_str(),
                        before[r.name].value("measured", 0.0));
    return true;
}

int main_of(int argc, char** argv) {
    options o;
    if (!parse(argc, argv, o)) {
        std::fprintf(stderr, "usage: gateway [--targets] [--json F] [--compare F] [--only NAME]\n");
        return 2;
    }
    const gateway_rows rows = measure(o);
    print_table(rows);
    bool good = true;
    if (!o.json.empty()) good = write_json(rows, o.json) && good;
    if (!o.baseline.empty()) good = print_comparison(rows, o.baseline) && good;
    if (o.targets) good = print_targets(rows) && good;
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

} // namespace
} // namespace esplane::bench

int main(int argc, char** argv) {
    return esplane::bench::main_of(argc, argv);
}

// SPDX-License-Identifier: Apache-2.0
#include "bench/scoreboard.h"

#include <algorithm>
#include <cstdio>
#include <fstream>

#include <nlohmann/json.hpp>

namespace esplane::bench {

namespace {

/// "123.4", or nothing where there is no figure.
std::string number(double ns, const char* format = "%.1f") {
    if (ns == 0) return "";
    char text[32];
    std::snprintf(text, sizeof text, format, ns);
    return text;
}

std::string ratio(double ours, double theirs) {
    return theirs == 0 ? "" : number(ours / theirs, "%.2f");
}

} // namespace

void scoreboard::note(const std::string& who, const std::string& shape, double ns) {
    if (std::ranges::find(shapes_, shape) == shapes_.end()) shapes_.push_back(shape);
    const auto [entry, fresh] = best_.try_emplace(who + "/" + shape, ns);
    if (!fresh) entry->second = std::min(entry->second, ns);
}

std::string scoreboard::best_mode(const std::string& shape) const {
    std::string mode;
    double least = 0;
    for (const char* one :
         {"-gcm-lookaside", "-gcm-synchronous", "-mb-lookaside", "-mb-synchronous"}) {
        const auto found = best_.find(who::rte + std::string(one) + "/" + shape);
        if (found == best_.end() || (least != 0 && found->second >= least)) continue;
        least = found->second;
        mode = one + 1;
    }
    return mode;
}

double scoreboard::of(const std::string& who, const std::string& shape) const {
    std::string name = who;
    if (who == who::rte) name += "-" + best_mode(shape);
    const auto found = best_.find(name + "/" + shape);
    return found == best_.end() ? 0 : found->second;
}

void scoreboard::print_table() const {
    std::printf("%-44s %8s | %12s %5s %-15s | %8s %5s | %8s\n", "engine", "path ns", "librte_ipsec",
                "ratio", "its best mode", "ipsec-mb", "ratio", "OpenSSL");
    for (const std::string& s : shapes_) {
        const double path = of(who::path, s), rte = of(who::rte, s), bare = of(who::bare, s);
        std::printf("%-44s %8s | %12s %5s %-15s | %8s %5s | %8s\n", s.c_str(), number(path).c_str(),
                    number(rte).c_str(), ratio(path, rte).c_str(), best_mode(s).c_str(),
                    number(bare).c_str(), ratio(path, bare).c_str(),
                    number(of(who::openssl, s)).c_str());
    }
}

bool scoreboard::write_json(const std::string& file) const {
    nlohmann::json all;
    for (const auto& [name, ns] : best_)
        all["best_ns"][name] = ns;
    std::ofstream out(file);
    out << all.dump(2) << '\n';
    if (out.good()) return true;
    std::fprintf(stderr, "bench engine: %s cannot be written\n", file.c_str());
    return false;
}

/// Beside the time its ratio to ipsec-mb of the same run, where there is one: machines differ, and
/// hours.
bool scoreboard::print_comparison(const std::string& file) const {
    std::ifstream in(file);
    const nlohmann::json before = nlohmann::json::parse(in, nullptr, false);
    if (!before.is_object() || !before.contains("best_ns")) {
        std::fprintf(stderr, "bench engine: %s is no baseline: write one with --json\n",
                     file.c_str());
        return false;
    }
    const nlohmann::json& ns = before["best_ns"];
    std::printf("%-44s %8s %8s %7s | %-8s %8s\n", "path", "ns", "was", "", "ratio", "was");
    for (const std::string& s : shapes_) {
        const double now = of(who::path, s), bare = of(who::bare, s);
        const double was = ns.value(who::path + ("/" + s), 0.0);
        const double bare_was = ns.value(who::bare + ("/" + s), 0.0);
        if (now == 0 || was == 0) continue;
        std::printf("%-44s %8.1f %8.1f %+6.0f%% | %-8s %8s\n", s.c_str(), now, was,
                    (now / was - 1) * 100, ratio(now, bare).c_str(), ratio(was, bare_was).c_str());
    }
    return true;
}

bool print_targets(const std::vector<target>& all) {
    bool good = true;
    for (const target& t : all) {
        const bool there = t.measured != 0 && t.against != 0;
        const double value = there ? t.measured / t.against : 0;
        const bool ok = there && value <= t.limit;
        good = good && ok;
        if (there)
            std::printf("%s %.2f%s %.2f%s %s\n", t.name.c_str(), value, t.unit.c_str(), t.limit,
                        t.unit.c_str(), ok ? "ok" : "short");
        else
            std::printf("%s not measured: short\n", t.name.c_str());
    }
    return good;
}

} // namespace esplane::bench

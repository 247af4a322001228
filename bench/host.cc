// SPDX-License-Identifier: Apache-2.0
//
// The host's own traffic, against strongSwan's kernel-libipsec in the same run: `tools/bench host`;
// options as rows.h says.  bench/host_bed sets up both and measures, here it is judged.
#include <algorithm>
#include <array>

#include "bench/rows.h"
#include "bench/script.h"

namespace esplane::bench {
namespace {

constexpr auto at_least = figure_row::bound::at_least;
constexpr auto at_most = figure_row::bound::at_most;

/// What bench/host_bed says of one kind of measurement; not an object where it failed.
nlohmann::json measured(const std::string& what) {
    const std::string command = "ESPLANE_BUILD=" ESPLANE_BUILD_DIR
                                " timeout 600 " ESPLANE_SOURCE_DIR "/bench/host_bed " +
                                what;
    return json_of(command);
}

figure_rows all_missing(std::initializer_list<const char*> names) {
    figure_rows rows;
    for (const char* name : names)
        rows.push_back(not_measured(name, "bench/host_bed failed or needs root; run it alone"));
    return rows;
}

/// How many times kernel-libipsec's figure ours is; a `#` for each time.
figure_row times(const nlohmann::json& seen, const char* name, const char* format, double scale,
                 double limit) {
    const double ours = seen[name].value("esplane", 0.0) * scale;
    const double theirs = seen[name].value("libipsec", 1.0) * scale;
    const double ratio = ours / theirs;
    const std::string bar(static_cast<std::size_t>(std::clamp(ratio, 0.0, 40.0)), '#');
    return {name, ratio, "x", at_least, limit, text(format, ours, theirs) + "  " + bar};
}

figure_rows measure_tcp() {
    const nlohmann::json seen = measured("tcp");
    if (!seen.is_object()) return all_missing({"tcp_1", "tcp_4", "raw_tcp_1"});
    const char* speeds = "%.0f Mbit/s, kernel-libipsec %.0f";
    return {times(seen, "tcp_1", speeds, 1, 15), times(seen, "tcp_4", speeds, 1, 15),
            times(seen, "raw_tcp_1", "AF_XDP: %.0f Mbit/s, kernel-libipsec in UDP %.0f", 1, 5),
            times(seen, "raw_sockets_tcp_1", speeds, 1, 0)};
}

figure_rows measure_udp() {
    const nlohmann::json seen = measured("udp");
    if (!seen.is_object()) return all_missing({"udp_64"});
    return {times(seen, "udp_64", "%.0f thousand packets/s, kernel-libipsec %.0f", 1e-3, 4)};
}

figure_rows measure_blast() {
    const nlohmann::json seen = measured("blast");
    if (!seen.is_object()) return all_missing({"blast_delivered", "blast_rss_growth"});
    const nlohmann::json &ours = seen["blast"]["esplane"], &theirs = seen["blast"]["libipsec"];
    const auto share = [](const nlohmann::json& of) {
        return of.value("delivered", 0.0) / of.value("peak", 1.0);
    };
    return {{"blast_delivered", share(ours), "x", at_least, 0.95,
             text("of a peak of %.0f/s, %.1f x of it offered; kernel-libipsec %.2f",
                  ours.value("peak", 0.0), ours.value("offered", 0.0) / ours.value("peak", 1.0),
                  share(theirs))},
            {"blast_rss_growth", ours.value("grown_mib", 1e9), "MiB", at_most, 0,
             text("both daemons, in 30 s; kernel-libipsec's %.0f MiB in 9 s",
                  theirs.value("grown_mib", 0.0))}};
}

figure_rows measure_round_trip() {
    const nlohmann::json seen = measured("round-trip");
    if (!seen.is_object()) return all_missing({"round_trip_added"});
    const nlohmann::json& all = seen["round_trip"];
    const double clear = all.value("clear", 0.0);
    const double ours = all.value("esplane", 1e9) - clear;
    const double theirs = all.value("libipsec", 1.0) - clear;
    return {{"round_trip_added", ours / theirs, "x", at_most, 0.7,
             text("%.0f us to %.0f in clear, kernel-libipsec %.0f", ours, clear, theirs)}};
}

constexpr row_group groups[] = {
    {"tcp", measure_tcp},
    {"udp", measure_udp},
    {"blast", measure_blast},
    {"round-trip", measure_round_trip},
};

} // namespace
} // namespace esplane::bench

int main(int argc, char** argv) {
    return esplane::bench::run_rows("host", esplane::bench::groups, argc, argv);
}

// SPDX-License-Identifier: Apache-2.0
//
// Five times as much as a gateway on half a core can do: bench/overload measures, here it is
// judged.
#include <array>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "bench/gateway.h"

namespace esplane::bench {

namespace {

/// What a command prints; its status in `status`.
std::string output_of(const std::string& command, int& status) {
    std::string all;
    std::FILE* pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) return all;
    std::array<char, 4096> some;
    for (std::size_t n; (n = std::fread(some.data(), 1, some.size(), pipe)) != 0;)
        all.append(some.data(), n);
    status = ::pclose(pipe);
    return all;
}

} // namespace

gateway_rows measure_overload() {
    static constexpr const char* names[] = {"overload_delivered", "overload_rss_growth",
                                            "overload_answer_p99"};
    int status = -1;
    const std::string said = output_of("ESPLANE_BUILD=" ESPLANE_BUILD_DIR
                                       " timeout 120 " ESPLANE_SOURCE_DIR "/bench/overload",
                                       status);
    const nlohmann::json seen = nlohmann::json::parse(said, nullptr, false);
    if (status != 0 || !seen.is_object()) {
        gateway_rows rows;
        for (const char* name : names)
            rows.push_back(not_measured(name, "bench/overload failed or needs root; run it alone"));
        return rows;
    }
    const double peak = seen.value("peak", 1.0);
    const double delivered = seen.value("delivered", 0.0);
    std::array<char, 128> note;
    std::snprintf(note.data(), note.size(), "of a peak of %.0f/s, %.1f x of it offered", peak,
                  seen.value("offered", 0.0) / peak);
    gateway_row share{names[0], delivered / peak, "x", gateway_row::bound::at_least,
                      0.95,     note.data()};
    gateway_row growth{names[1], seen.value("grown_kib", 1e9),
                       "KiB",    gateway_row::bound::at_most,
                       0,        "resident memory of esplaned, before and after"};
    gateway_row answers{names[2], seen.value("answer_p99_ms", 1e9),
                        "ms",     gateway_row::bound::at_most,
                        100,      "control socket, 99th percentile"};
    return {share, growth, answers};
}

} // namespace esplane::bench

// SPDX-License-Identifier: Apache-2.0
//
// An upgrade in place under traffic: tests/interop/takeover measures, here it is judged.
#include <algorithm>
#include <vector>

#include "bench/control.h"
#include "bench/script.h"

namespace esplane::bench {

namespace {

/// sas   beside those of the tunnel
figure_row measure(const char* name, std::size_t sas, int runs) {
    const nlohmann::json seen =
        json_of(text("ESPLANE_BUILD=%s TAKEOVER_RUNS=%d timeout 240 %s --outages %zu",
                     ESPLANE_BUILD_DIR, runs, ESPLANE_SOURCE_DIR "/tests/interop/takeover", sas));
    if (!seen.is_object() || seen["outages_ms"].empty())
        return not_measured(name, "tests/interop/takeover failed or needs root; run it alone");
    auto outages = seen["outages_ms"].get<std::vector<double>>();
    std::ranges::sort(outages);
    return {name,
            outages[outages.size() / 2],
            "ms",
            figure_row::bound::at_most,
            100,
            text("%zu takeovers, %zu SAs more, %.0f to %.0f ms without ESP", outages.size(), sas,
                 outages.front(), outages.back())};
}

} // namespace

figure_rows measure_takeover() {
    return {measure("takeover", 0, 5), measure("takeover_many", 100'000, 3)};
}

} // namespace esplane::bench

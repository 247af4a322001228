// SPDX-License-Identifier: Apache-2.0
//
// An upgrade in place under traffic: tests/interop/takeover measures, here it is judged.
#include <algorithm>
#include <vector>

#include "bench/control.h"
#include "bench/script.h"

namespace esplane::bench {

figure_rows measure_takeover() {
    const nlohmann::json seen = json_of("ESPLANE_BUILD=" ESPLANE_BUILD_DIR " timeout 120 " //
                                        ESPLANE_SOURCE_DIR "/tests/interop/takeover --outages");
    if (!seen.is_object() || seen["outages_ms"].empty())
        return {
            not_measured("takeover", "tests/interop/takeover failed or needs root; run it alone")};
    auto outages = seen["outages_ms"].get<std::vector<double>>();
    std::ranges::sort(outages);
    return {{"takeover", outages[outages.size() / 2], "ms", figure_row::bound::at_most, 100,
             text("%zu takeovers, %.0f to %.0f ms without ESP", outages.size(), outages.front(),
                  outages.back())}};
}

} // namespace esplane::bench

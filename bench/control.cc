// SPDX-License-Identifier: Apache-2.0
//
// The control plane at the scale of a large gateway: `tools/bench control`; options as rows.h says.
#include <cstdlib>
#include <string_view>

#include "bench/control.h"

namespace esplane::bench {
namespace {

/// In the order they are measured.
constexpr row_group groups[] = {
    {"shim", measure_shim},         {"scale", measure_scale},       {"churn", measure_churn},
    {"accepted", measure_accepted}, {"takeover", measure_takeover},
};

} // namespace
} // namespace esplane::bench

int main(int argc, char** argv) {
    if (argc == 3 && std::string_view(argv[1]) == "round-trip")
        return esplane::bench::ask_round_trips(std::atoi(argv[2]));
    return esplane::bench::run_rows("control", esplane::bench::groups, argc, argv);
}

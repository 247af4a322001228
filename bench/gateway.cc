// SPDX-License-Identifier: Apache-2.0
//
// Benchmarks of a gateway's ports and tables: `tools/bench gateway`; options as rows.h says.
#include "bench/gateway.h"

namespace esplane::bench {
namespace {

/// In the order they are measured.
constexpr row_group groups[] = {
#ifdef HAVE_DPDK
    {"dpdk", measure_dpdk},
#endif
#ifdef HAVE_XDP
    {"xdp", measure_xdp},
#endif
#ifdef HAVE_OVERLOAD
    {"overload", measure_overload},
#endif
    {"fib", measure_fib},           {"routes", measure_routes},
};

} // namespace
} // namespace esplane::bench

int main(int argc, char** argv) {
    return esplane::bench::run_rows("gateway", esplane::bench::groups, argc, argv);
}

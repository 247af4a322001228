// SPDX-License-Identifier: Apache-2.0
//
// `esplane run --seccomp` against an XFRM server without a daemon around it.
//
//   shim_supervise SOCKET COMMAND…
#include <iostream>

#include "tools/seccomp.h"

int main(int argc, char** argv) {
    if (argc < 3) {
        std::cerr << "usage: shim_supervise SOCKET COMMAND...\n";
        return 2;
    }
    const auto status = esplane::tools::run_supervised(argv[1], {argv + 2, argv + argc});
    if (status) return *status;
    std::cerr << "shim_supervise: " << status.error().text << '\n';
    return 125;
}

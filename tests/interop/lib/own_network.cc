// SPDX-License-Identifier: Apache-2.0
//
// main() of tests that need a network namespace of their own.
#include <gtest/gtest.h>

#include <cstdio>
#include <sched.h>
#include <unistd.h>

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    if (::geteuid() != 0 || ::unshare(CLONE_NEWNET) != 0) {
        std::puts("skipped: needs root (network namespaces): run it with sudo");
        return 77;
    }
    return RUN_ALL_TESTS();
}

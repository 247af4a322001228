// SPDX-License-Identifier: Apache-2.0
#include "tools/process.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/tools/temporary_directory.h"

namespace esplane::tools {
namespace {

TEST(AcquireExpires, IsTheSysctlsNumberAndTheKernelsDefaultWithoutOne) {
    const temporary_directory directory;
    EXPECT_EQ(read_acquire_expires(directory.write("charon", "165\n")), 165u);
    EXPECT_EQ(read_acquire_expires(directory.write("broken", "many\n")), 30u);
    EXPECT_EQ(read_acquire_expires(directory.path() + "/absent"), 30u);
}

/// The exit status of a child that runs `what`.
template <typename What>
int in_a_child(What&& what) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(what());
    int status = -1;
    ::waitpid(child, &status, 0);
    return status;
}

TEST(KeepMemoryPrivate, LeavesNoCore) {
    EXPECT_EQ(in_a_child([] {
                  rlimit core{};
                  return keep_memory_private() && ::prctl(PR_GET_DUMPABLE) == 0 &&
                                 ::getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur == 0
                             ? 0
                             : 1;
              }),
              0);
}

TEST(RaiseDescriptorLimit, GoesToTheHardOne) {
    EXPECT_EQ(in_a_child([] {
                  rlimit limit{};
                  ::getrlimit(RLIMIT_NOFILE, &limit);
                  limit.rlim_cur = 64;
                  ::setrlimit(RLIMIT_NOFILE, &limit);
                  raise_descriptor_limit();
                  ::getrlimit(RLIMIT_NOFILE, &limit);
                  return limit.rlim_cur == limit.rlim_max ? 0 : 1;
              }),
              0);
}

} // namespace
} // namespace esplane::tools

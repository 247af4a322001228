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

TEST(ReadSysctl, GivesWhatTheFileSaysWhereThereIsOne) {
    const temporary_directory directory;
    (void)directory.write("xfrm_acq_expires", "165\n");
    EXPECT_EQ(read_sysctl("xfrm_acq_expires", directory.path() + "/"), "165");
    EXPECT_EQ(read_sysctl("absent", directory.path() + "/"), std::nullopt);
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

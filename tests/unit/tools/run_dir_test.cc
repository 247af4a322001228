// SPDX-License-Identifier: Apache-2.0
#include "tools/run_dir.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/unit/tools/temporary_directory.h"

namespace esplane::tools {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

mode_t mode_of(const std::string& path) {
    struct stat s {};
    return ::stat(path.c_str(), &s) == 0 ? s.st_mode & 07777 : 0;
}

TEST(RunLock, MakesADirectoryForTheOwnerAlone) {
    const temporary_directory parent;
    const std::string directory = parent.path() + "/run";
    const auto lock = run_lock::take(directory, true);
    ASSERT_TRUE(lock) << lock.error().text;
    EXPECT_EQ(mode_of(directory), 0700u);
    EXPECT_EQ(mode_of(directory + "/lock"), 0600u);
}

TEST(RunLock, IsHeldByOneAtATime) {
    const temporary_directory directory;
    {
        const auto first = run_lock::take(directory.path(), true);
        ASSERT_TRUE(first);
        const auto second = run_lock::take(directory.path(), true);
        ASSERT_FALSE(second);
        EXPECT_EQ(second.error().code, EBUSY);
        EXPECT_THAT(second.error().text, HasSubstr("another esplaned runs on this directory"));
    }
    EXPECT_TRUE(run_lock::take(directory.path(), true));
}

TEST(RunLock, RefusesADirectoryThatOthersMayWriteTo) {
    const temporary_directory directory;
    ::chmod(directory.path().c_str(), 0777);
    const auto lock = run_lock::take(directory.path(), true);
    ASSERT_FALSE(lock);
    EXPECT_THAT(lock.error().text, HasSubstr("others may write to it"));
}

TEST(RunLock, RefusesWhatIsNoDirectory) {
    const temporary_directory directory;
    const std::string file = directory.write("file", "");
    EXPECT_EQ(run_lock::take(file, true).error().code, ENOTDIR);
    EXPECT_EQ(run_lock::take(directory.path() + "/none", false).error().code, ENOENT);
    EXPECT_EQ(run_lock::take(directory.path() + "/none/deeper", true).error().code, ENOENT);
}

TEST(GuardedDevices, AreReadAsTheyWereWritten) {
    const temporary_directory directory;
    const std::vector<guarded_device> devices{{"lan", "xdp", "veth1", 4, 1},
                                              {"wan", "xdp", "veth2", 7, 1}};
    ASSERT_TRUE(write_guarded(directory.path(), devices));
    EXPECT_EQ(*read_guarded(directory.path()), devices);
    ASSERT_TRUE(write_guarded(directory.path(), {}));
    EXPECT_TRUE(read_guarded(directory.path())->empty());
    EXPECT_NE(::access((directory.path() + "/ports").c_str(), F_OK), 0);
}

TEST(GuardedDevices, AreRefusedWhereTheFileIsBroken) {
    const temporary_directory directory;
    for (const char* text :
         {"", "{}", "[", "[1]", "[{\"device\":\"veth1\"}]",
          "[{\"device\":\"veth1\",\"ifindex\":0}]", "[{\"device\":5,\"ifindex\":3}]"}) {
        directory.write("ports", text);
        const auto read = read_guarded(directory.path());
        ASSERT_FALSE(read) << text;
        EXPECT_THAT(read.error().text, HasSubstr("was it changed by hand?"));
    }
}

TEST(GuardedDevices, StayRecordedWhenADaemonComesBackWithOthers) {
    const guarded_device lan{"lan", "xdp", "veth1", 4, 1}, wan{"wan", "xdp", "veth2", 7, 1};
    const guarded_device renamed{"inside", "xdp", "veth1", 4, 1};
    const guarded_device elsewhere{"lan", "xdp", "veth1", 4, 2};
    EXPECT_THAT(merge_guarded({lan, wan, elsewhere}, {renamed}),
                ElementsAre(wan, elsewhere, renamed));
}

TEST(GuardedDevices, ThatAreGoneDoNotPileUp) {
    const std::uint64_t here = current_network_namespace();
    const guarded_device before{"wan", "xdp", "veth1", 0x7ffffff0, here};
    const guarded_device there{"lan", "xdp", "lo", 1, here};
    const guarded_device again{"wan", "xdp", "veth1", 0x7ffffff1, here};
    EXPECT_THAT(merge_guarded({before, there}, {again}), ElementsAre(there, again));
}

} // namespace
} // namespace esplane::tools

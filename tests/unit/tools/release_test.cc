// SPDX-License-Identifier: Apache-2.0
#include "tools/release.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/tools/temporary_directory.h"

namespace esplane::tools {
namespace {

using ::testing::HasSubstr;

constexpr int no_such_ifindex = 0x7ffffff0;

guarded_device absent_device() {
    return {"lan", "xdp", "gone0", no_such_ifindex, current_network_namespace()};
}

TEST(Release, ForgetsADeviceThatIsGone) {
    const temporary_directory directory;
    ASSERT_TRUE(write_guarded(directory.path(), {absent_device()}));
    const auto released = release_devices(directory.path());
    ASSERT_TRUE(released) << released.error().text;
    EXPECT_EQ(text_of_release(*released), "lan (gone0): the device is gone\n");
    EXPECT_TRUE(read_guarded(directory.path())->empty());
    EXPECT_EQ(text_of_release(*release_devices(directory.path())),
              "nothing to release: no device is guarded\n");
}

TEST(Release, KeepsADeviceOfAnotherNetworkNamespace) {
    const temporary_directory directory;
    guarded_device elsewhere = absent_device();
    ++elsewhere.network_namespace;
    ASSERT_TRUE(write_guarded(directory.path(), {elsewhere}));
    const auto released = release_devices(directory.path());
    ASSERT_TRUE(released);
    EXPECT_THAT(text_of_release(*released), HasSubstr("in another network namespace"));
    EXPECT_EQ(report_release(*released)["released"][0]["gone"], false);
    EXPECT_EQ(read_guarded(directory.path())->size(), 1u);
}

TEST(Release, IsRefusedWhileADaemonRuns) {
    const temporary_directory directory;
    const auto daemon = run_lock::take(directory.path(), false);
    ASSERT_TRUE(daemon);
    const auto released = release_devices(directory.path());
    ASSERT_FALSE(released);
    EXPECT_THAT(released.error().text, HasSubstr("stop it first"));
}

TEST(Release, AsAnotherUserThanTheDaemonsSaysWho) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
    const temporary_directory directory;
    const pid_t child = ::fork();
    if (child == 0) {
        if (::setuid(65534) != 0) ::_exit(2);
        const auto released = release_devices(directory.path());
        ::_exit(!released && released.error().text.ends_with("as root") ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
}

TEST(Release, WithoutADirectorySaysSo) {
    EXPECT_THAT(release_devices("/nonexistent").error().text, HasSubstr("no such directory"));
}

} // namespace
} // namespace esplane::tools

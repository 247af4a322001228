// SPDX-License-Identifier: Apache-2.0
#include "tools/takeover.h"

#include <csignal>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "tests/unit/tools/temporary_directory.h"

namespace esplane::tools {
namespace {

using namespace std::chrono_literals;

/// A daemon that is asked to hand over, in a process of its own.
class Takeover : public testing::Test {
  protected:
    ~Takeover() override {
        if (old_ <= 0) return;
        ::kill(old_, SIGKILL);
        if (!gone_) ::waitpid(old_, nullptr, 0);
        ::unlink((directory_.path() + "/takeover.sock").c_str());
    }

    /// free   as release() has it.  The process ends when so much time has passed
    void start_old(bool free, std::chrono::milliseconds lingers) {
        old_ = ::fork();
        if (old_ != 0) return;
        const auto server = takeover_server::open(directory_.path(), [](const std::string&, bool) {
                                const int file = ::memfd_create("state", MFD_CLOEXEC);
                                return state_descriptors{file, file, "token"};
                            }).value();
        pollfd asked{server->descriptor(), POLLIN, 0};
        (void)::poll(&asked, 1, 10'000);
        if (server->serve()) server->release(free);
        std::this_thread::sleep_for(lingers);
        ::_exit(0);
    }
    /// Once it listens.
    [[nodiscard]] result<handed_state> ask() {
        for (int tries = 0;; ++tries) {
            auto handed =
                take_over(directory_.path(), "auto", [this](handed_state&) { caught_up_ = true; });
            if (handed || handed.error().code != ECONNREFUSED || tries == 1000) return handed;
            std::this_thread::sleep_for(2ms);
        }
    }
    [[nodiscard]] bool old_is_gone() {
        gone_ = gone_ || ::waitpid(old_, nullptr, WNOHANG) == old_;
        return gone_;
    }

    const temporary_directory directory_{};
    pid_t old_ = -1;
    bool gone_ = false;
    bool caught_up_ = false;
};

TEST_F(Takeover, GoesOnWhenNothingIsInTheWayThoughTheProcessIsThere) {
    start_old(true, 10s);
    const auto handed = ask();
    ASSERT_TRUE(handed);
    EXPECT_EQ(handed->token, "token");
    EXPECT_TRUE(handed->log.valid());
    EXPECT_TRUE(caught_up_);
    EXPECT_FALSE(old_is_gone());
}

TEST_F(Takeover, WaitsForTheEndOfAProcessThatDoesNotSaySo) {
    start_old(false, 200ms);
    ASSERT_TRUE(ask());
    EXPECT_TRUE(old_is_gone());
}

} // namespace
} // namespace esplane::tools

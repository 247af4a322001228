// SPDX-License-Identifier: Apache-2.0
//
// `--state memory` against a service manager's file descriptor store, as systemd has it: what is
// stored by FDSTORE=1 under a name comes back to the next process by LISTEN_FDS.
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "tests/unit/tools/daemon_site.h"
#include "tests/unit/tools/temporary_directory.h"

namespace esplane::tools {
namespace {

/// A daemon, as far as the state knows it.
struct site {
    site(std::unique_ptr<state_place> place, const std::string& run_dir)
        : state(state_file::open({}, std::move(place), run_dir, [](const std::string&) {}).value())
        , backend(tables, kernel_random)
        , control(backend, kernel_random) {
        EXPECT_TRUE(state->prepare(backend));
        back = state->restore(control, now).value();
        control.subscribe(state.get());
    }
    ~site() { state->leave(); }
    site(const site&) = delete;
    site& operator=(const site&) = delete;

    void add(std::uint8_t n) { EXPECT_TRUE(control.add_policy(some_policy(n), {}, now)); }
    /// Its place for the daemon that takes over.
    [[nodiscard]] std::unique_ptr<state_place> hand_over() const {
        return handed_place(unique_fd(::dup(state->log_descriptor())),
                            unique_fd(::dup(state->live_descriptor())),
                            kept_place(state->place_token()).value());
    }

    std::unique_ptr<state_file> state; ///< outlives the backend, whose SAs are in its memory
    state_file::counts back;
    fastpath::tables tables;
    fastpath::user_backend backend;
    control::layer control;
};

class KeptState : public testing::Test {
  protected:
    KeptState()
        : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un name{AF_UNIX, {}};
        std::strncpy(name.sun_path, notify().c_str(), sizeof name.sun_path - 1);
        EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
    }
    ~KeptState() override { ::unlink((directory_.path() + "/state.name").c_str()); }

    /// Runs `life` in a process of its own that gets what is stored; whether it returned true.
    template <typename Life>
    bool runs(Life life) {
        const pid_t child = ::fork();
        if (child == 0) {
            give_stored();
            ::_exit(life() && !HasFailure() ? 0 : 1);
        }
        int status = 1;
        const bool ended = ::waitpid(child, &status, 0) == child;
        listen();
        return ended && status == 0;
    }
    [[nodiscard]] std::string run_dir() const { return directory_.path(); }

    std::map<std::string, unique_fd> stored_;

  private:
    [[nodiscard]] std::string notify() const { return directory_.path() + "/notify"; }

    /// As a manager does it: at 3 and on.
    void give_stored() const {
        constexpr int first = 3, aside = 100;
        std::string names;
        int n = 0;
        for (const auto& [name, fd] : stored_) {
            ::dup2(fd.get(), aside + n++);
            names += (names.empty() ? "" : ":") + name;
        }
        for (int i = 0; i < n; ++i)
            ::dup2(aside + i, first + i);
        ::setenv("NOTIFY_SOCKET", notify().c_str(), 1);
        ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
        ::setenv("LISTEN_FDS", std::to_string(n).c_str(), 1);
        ::setenv("LISTEN_FDNAMES", names.c_str(), 1);
    }

    /// Does what the messages ask for.
    void listen() {
        char text[4096];
        for (;;) {
            alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
            iovec into{text, sizeof text};
            msghdr m{};
            m.msg_iov = &into;
            m.msg_iovlen = 1;
            m.msg_control = control;
            m.msg_controllen = sizeof control;
            const ssize_t n = ::recvmsg(socket_.get(), &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
            if (n < 0) return;
            take(std::string(text, static_cast<std::size_t>(n)), CMSG_FIRSTHDR(&m));
        }
    }
    void take(const std::string& message, const cmsghdr* with) {
        const auto at = message.find("FDNAME=");
        ASSERT_NE(at, std::string::npos);
        const std::string name = message.substr(at + 7, message.find('\n', at) - at - 7);
        if (message.starts_with("FDSTOREREMOVE=1")) stored_.erase(name);
        if (!message.starts_with("FDSTORE=1")) return;
        ASSERT_NE(with, nullptr);
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(with), sizeof fd);
        stored_[name] = unique_fd(fd);
    }

    temporary_directory directory_;
    unique_fd socket_;
};

TEST_F(KeptState, ComesBackToTheNextProcessAndStoresNoMoreThanTwoFiles) {
    ASSERT_TRUE(runs([&] {
        site one(kept_place().value(), run_dir());
        one.add(1);
        return !one.back.found;
    }));
    for (std::uint8_t n = 1; n < 4; ++n) {
        ASSERT_EQ(stored_.size(), 2u);
        ASSERT_TRUE(runs([&] {
            site next(kept_place().value(), run_dir());
            next.add(static_cast<std::uint8_t>(n + 1));
            return next.back.policies == n;
        })) << int{n};
    }
}

TEST_F(KeptState, OfTakeoversOneAfterTheOtherOnlyTheLastIsStored) {
    ASSERT_TRUE(runs([&] {
        auto one = std::make_unique<site>(kept_place().value(), run_dir());
        for (std::uint8_t n = 1; n < 4; ++n) {
            one->add(n);
            one = std::make_unique<site>(one->hand_over(), run_dir());
            if (one->back.policies != n) return false;
        }
        return true;
    }));
    EXPECT_EQ(stored_.size(), 2u) << "what is left of an earlier one could come back";
    EXPECT_TRUE(runs([&] { return site(kept_place().value(), run_dir()).back.policies == 3; }));
}

TEST_F(KeptState, DoesNotComeBackOnceItIsForgotten) {
    ASSERT_TRUE(runs([&] {
        site one(kept_place().value(), run_dir());
        one.add(1);
        return true;
    }));
    forget_state(run_dir());
    EXPECT_TRUE(runs([&] {
        const site next(kept_place().value(), run_dir());
        return next.back.policies == 0 && next.back.lost == 1;
    }));
    EXPECT_TRUE(runs([&] { return site(kept_place().value(), run_dir()).back.policies == 0; }));
}

} // namespace
} // namespace esplane::tools

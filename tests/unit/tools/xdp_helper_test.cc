// SPDX-License-Identifier: Apache-2.0
#include "tools/xdp_helper.h"

#include <array>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

namespace esplane::tools {
namespace {

/// Says yes to everything, and keeps what it was asked for.
class willing final : public fastpath::privileged {
  public:
    result<fastpath::guard_parts> prepare(const std::string& device) override {
        fastpath::guard_parts parts{7, true, {}};
        for (unique_fd& fd : parts.descriptors)
            fd = unique_fd(::open(device.c_str(), O_RDONLY | O_CLOEXEC));
        return parts;
    }
    result<fastpath::guard_attached> attach(const std::string&, fastpath::xdp_wish) override {
        return fastpath::guard_attached{7, fastpath::xdp_mode::generic};
    }
    result<unique_fd> open_socket(unsigned busy_poll_us) override {
        if (busy_poll_us != 0) return fail(EOPNOTSUPP, "no busy polling");
        return unique_fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    }
    result<fastpath::attachments> release(const std::string& device) override {
        released = device;
        return fastpath::attachments{true, false, true};
    }

    std::string released;
};

/// Both ends in one process; the helper answers while `serving` lives.
class XdpHelper : public ::testing::Test {
  protected:
    XdpHelper() {
        std::array<int, 2> ends{};
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
        const timeval patience{0, 200'000};
        (void)::setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        asking_ = ends[0];
        daemon.emplace(unique_fd(ends[0]));
        helper = unique_fd(ends[1]);
    }
    [[nodiscard]] std::jthread serving() {
        return std::jthread([this](const std::stop_token& stop) {
            while (!stop.stop_requested() && serve_xdp_helper(helper.get(), means))
                std::this_thread::yield();
        });
    }
    /// Puts bytes in front of the helper as they are.
    void send(const std::string& bytes) const {
        ASSERT_EQ(::send(asking_, bytes.data(), bytes.size(), 0),
                  static_cast<ssize_t>(bytes.size()));
    }
    [[nodiscard]] bool is_answered() const {
        std::array<char, 1024> answer;
        return ::recv(asking_, answer.data(), answer.size(), 0) > 0;
    }

    willing means;
    std::optional<xdp_helper> daemon;
    unique_fd helper;

  private:
    int asking_ = -1;
};

TEST_F(XdpHelper, GivesDescriptorsAndWhatItFound) {
    const auto server = serving();
    const auto parts = daemon->prepare("/dev/null");
    ASSERT_TRUE(parts) << parts.error().text;
    EXPECT_EQ(parts->ifindex, 7);
    EXPECT_TRUE(parts->was_guarded);
    for (const unique_fd& fd : parts->descriptors)
        EXPECT_EQ(::fcntl(fd.get(), F_GETFD), FD_CLOEXEC);
    const auto off = daemon->release("eth0");
    ASSERT_TRUE(off);
    EXPECT_TRUE(off->ingress && !off->egress && off->qdisc);
    EXPECT_TRUE(daemon->open_socket(0));
}

TEST_F(XdpHelper, SaysWhatFailedInTheWordsOfWhoeverDidIt) {
    const auto server = serving();
    const auto socket = daemon->open_socket(50);
    ASSERT_FALSE(socket);
    EXPECT_EQ(socket.error().code, EOPNOTSUPP);
    EXPECT_EQ(socket.error().text, "no busy polling");
}

TEST_F(XdpHelper, DoesNotTakeALateAnswerForTheNext) {
    EXPECT_FALSE(daemon->release("eth0")); // nobody serves
    const auto server = serving();
    const auto attached = daemon->attach("eth1", fastpath::xdp_wish::automatic);
    ASSERT_TRUE(attached) << attached.error().text;
    EXPECT_EQ(attached->ifindex, 7);
    EXPECT_EQ(attached->mode, fastpath::xdp_mode::generic);
}

TEST_F(XdpHelper, AnswersWhatIsNoRequestAndStays) {
    const auto server = serving();
    for (const std::string& bytes :
         {std::string("x"), std::string(4096, '\xff'), std::string(512, '\0')}) {
        send(bytes);
        EXPECT_TRUE(is_answered());
    }
    EXPECT_TRUE(daemon->open_socket(0));
    EXPECT_TRUE(means.released.empty());
}

TEST_F(XdpHelper, DoesNotWaitForWhoeverDoesNotReadItsAnswers) {
    constexpr int more_than_fit = 2000;
    for (int i = 0; i < more_than_fit; ++i) {
        send("x");
        ASSERT_TRUE(serve_xdp_helper(helper.get(), means)) << i;
    }
    while (is_answered()) {
    }
    const auto server = serving();
    EXPECT_TRUE(daemon->open_socket(0));
}

TEST_F(XdpHelper, ThatIsGoneIsSaidSo) {
    helper = unique_fd();
    const auto socket = daemon->open_socket(0);
    ASSERT_FALSE(socket);
    EXPECT_EQ(socket.error().text, "the privileged helper is gone: restart both");
}

} // namespace
} // namespace esplane::tools

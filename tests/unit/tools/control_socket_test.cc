// SPDX-License-Identifier: Apache-2.0
#include "tools/control_socket.h"

#include <atomic>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <thread>

#include "tests/unit/lib/no_descriptors.h"
#include "tests/unit/tools/temporary_directory.h"
#include "tools/run_dir.h"

namespace esplane::tools {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

/// A daemon that serves its control socket on a thread.
class ControlSocket : public ::testing::Test {
  protected:
    void SetUp() override {
        auto opened = control_server::open(control_socket_path(directory_.path()),
                                           [](const json& request) { return reply(request); });
        ASSERT_TRUE(opened) << opened.error().text;
        server_ = std::move(*opened);
        thread_ = std::thread([this] {
            while (!stop_) {
                pollfd wait{server_->descriptor(), POLLIN, 0};
                if (::poll(&wait, 1, 10) > 0) server_->serve();
            }
        });
    }
    void TearDown() override {
        stop_ = true;
        if (thread_.joinable()) thread_.join();
    }

    static json reply(const json& request) {
        const std::string command = request.value("command", "");
        if (command == "fail") return {{"error", "no such thing"}};
        if (command == "large") return {{"text", std::string(100'000, 'x')}};
        if (command == "count") {
            const auto from = request.value("cursor", 0);
            return {{"numbers", {from, from + 1}}, {"next", from < 8 ? json(from + 2) : json()}};
        }
        return {{"echo", request}};
    }
    control_client connect() {
        auto client = control_client::connect(directory_.path());
        EXPECT_TRUE(client) << client.error().text;
        return std::move(*client);
    }
    unique_fd raw_client() {
        return std::move(*connect_to(control_socket_path(directory_.path())));
    }

    temporary_directory directory_;
    std::unique_ptr<control_server> server_;
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

std::string send_and_receive(const unique_fd& fd, const std::string& request) {
    EXPECT_EQ(::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL), std::ssize(request));
    std::string reply(1024, '\0');
    const ssize_t length = ::recv(fd.get(), reply.data(), reply.size(), 0);
    reply.resize(length < 0 ? 0 : static_cast<std::size_t>(length));
    return reply;
}

TEST_F(ControlSocket, AnswersARequest) {
    EXPECT_EQ((*connect().ask({{"command", "status"}}))["echo"]["command"], "status");
}

TEST_F(ControlSocket, CarriesTheDaemonsErrorLine) {
    EXPECT_EQ(connect().ask({{"command", "fail"}}).error().text, "no such thing");
}

TEST_F(ControlSocket, CarriesRepliesLongerThanTheFirstGuess) {
    EXPECT_EQ((*connect().ask({{"command", "large"}}))["text"].get<std::string>().size(), 100'000u);
}

TEST_F(ControlSocket, JoinsPages) {
    EXPECT_EQ((*connect().ask_all("count", "numbers"))["numbers"],
              json({0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST_F(ControlSocket, IsReachableByTheOwnerAlone) {
    struct stat s {};
    ASSERT_EQ(::stat(control_socket_path(directory_.path()).c_str(), &s), 0);
    EXPECT_EQ(s.st_mode & 0777, 0600u);
}

TEST_F(ControlSocket, SaysWhatIsWrongWithARequest) {
    const unique_fd fd = raw_client();
    EXPECT_EQ(send_and_receive(fd, "hello"), "{\"error\":\"request is not a JSON object\"}\n");
    EXPECT_EQ(send_and_receive(fd, "[1]"), "{\"error\":\"request is not a JSON object\"}\n");
    EXPECT_EQ(send_and_receive(fd, std::string(5000, '[')), "{\"error\":\"request too long\"}\n");
    EXPECT_EQ(send_and_receive(fd, "{}\n"), "{\"echo\":{}}\n");
}

TEST_F(ControlSocket, AClientThatDoesNotReadIsCutOffAndDelaysNobody) {
    const unique_fd stalled = raw_client();
    const std::string request = "{\"command\":\"large\"}";
    for (int i = 0; i < 1000; ++i)
        if (::send(stalled.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) break;
    EXPECT_LT(::send(stalled.get(), request.data(), request.size(), MSG_NOSIGNAL), 0);
    EXPECT_TRUE(connect().ask({{"command", "status"}}));
}

TEST_F(ControlSocket, TheLongestConnectedMakesRoomForANewClient) {
    std::vector<unique_fd> idle;
    for (std::size_t i = 0; i < control_client_limit; ++i)
        idle.push_back(raw_client());
    EXPECT_TRUE(connect().ask({{"command", "status"}}));
    EXPECT_EQ(send_and_receive(idle.back(), "{}"), "{\"echo\":{}}\n");
    char byte = 0;
    EXPECT_EQ(::recv(idle.front().get(), &byte, 1, 0), 0);
}

TEST_F(ControlSocket, IsGoneWithItsServer) {
    TearDown();
    server_.reset();
    const auto client = control_client::connect(directory_.path());
    ASSERT_FALSE(client);
    EXPECT_EQ(client.error().text, "no esplaned at " + directory_.path() +
                                       "/control.sock: start it with `esplaned --run-dir " +
                                       directory_.path() + " …`");
}

TEST(ControlSocketPath, TooLongIsRefusedWithALine) {
    const auto fd = listen_on("/tmp/" + std::string(200, 'x'));
    ASSERT_FALSE(fd);
    EXPECT_THAT(fd.error().text, HasSubstr("choose a shorter --run-dir"));
}

TEST(ControlServer, AConnectionThatFindsNoDescriptorIsTurnedAwayAndTheNextIsTaken) {
    const temporary_directory directory;
    const std::string path = control_socket_path(directory.path());
    const auto server = *control_server::open(path, [](const json&) { return json::object(); });
    const auto serve = [&] {
        pollfd p{server->descriptor(), POLLIN, 0};
        for (int i = 0; i < 10 && ::poll(&p, 1, 0) > 0; ++i)
            server->serve();
        return ::poll(&p, 1, 0) == 0;
    };
    const unique_fd waiting = std::move(*connect_to(path));
    {
        const no_descriptors left;
        EXPECT_TRUE(serve());
    }
    char byte = 0;
    EXPECT_EQ(::recv(waiting.get(), &byte, 1, MSG_DONTWAIT), 0);
    const unique_fd next = std::move(*connect_to(path));
    EXPECT_TRUE(serve());
    EXPECT_EQ(::recv(next.get(), &byte, 1, MSG_DONTWAIT), -1);
}

} // namespace
} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// A server at a path of its own, and clients of it whose shim is spoken by hand.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "lib/base/descriptor_passing.h"
#include "tests/unit/lib/fake_backend.h"
#include "tests/unit/xfrm/requests.h"
#include "xfrm/server.h"
#include "xfrm/shim_protocol.h"

namespace esplane::xfrm {

inline int connected(const std::string& path) {
    const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    path.copy(a.sun_path, sizeof a.sun_path - 1);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0) return fd;
    ::close(fd);
    return -1;
}

class XfrmServer : public ::testing::Test {
  protected:
    XfrmServer() {
        char name[] = "/tmp/esplane-xfrm-XXXXXX";
        directory_ = ::mkdtemp(name);
        server_ = open().value();
    }
    ~XfrmServer() override { std::filesystem::remove_all(directory_); }

    [[nodiscard]] std::string path() const { return directory_ + "/xfrm"; }
    result<std::unique_ptr<server>> open() {
        return server::open(layer_, path(), [this] { return now_; });
    }
    /// Until there is nothing to do.
    void serve() {
        pollfd p{server_->descriptor(), POLLIN, 0};
        for (int i = 0; i < 1000 && ::poll(&p, 1, 0) > 0; ++i)
            server_->serve();
    }

    moment now_{1'000'000'000, 1'700'000'000};
    control::fake_backend backend_;
    control::layer layer_{backend_, [](auto into) { std::ranges::fill(into, 1); }};
    std::string directory_;
    std::unique_ptr<server> server_;
};

/// The shim's end, spoken by hand.
class shim {
  public:
    shim(const std::string& path, std::function<void()> serve)
        : serve_(std::move(serve))
        , data_(connected(path)) {
        attach();
    }

    void attach() {
        int pair[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
        send_attach({pair[1]});
        server_end = unique_fd(pair[1]);
        if (!keeps_server_end) server_end = unique_fd();
        side_ = unique_fd(pair[0]);
        serve_();
        greeting = answer();
    }
    void send_attach(const std::vector<int>& passed) {
        const shim_header h{SHIM_MAGIC, SHIM_VERSION, shim_attach, 0, 0, 0};
        ASSERT_TRUE(send_with_descriptors(
            data_.get(), {reinterpret_cast<const std::uint8_t*>(&h), sizeof h}, passed));
    }

    /// The server's next word on the side channel; kind 0: none.
    shim_answer answer() {
        shim_answer a{};
        if (::recv(side_.get(), &a, sizeof a, MSG_DONTWAIT) != sizeof a) a.kind = 0;
        return a;
    }
    shim_answer control(std::uint16_t kind, std::uint32_t argument, std::uint32_t value = 0) {
        const shim_control c{SHIM_MAGIC, SHIM_VERSION, kind, 1, argument, value};
        EXPECT_EQ(::send(side_.get(), &c, sizeof c, 0), static_cast<ssize_t>(sizeof c));
        serve_();
        return answer();
    }
    void send(const datagram& d, std::uint64_t deadline_ns = ~std::uint64_t{0}) {
        const shim_header h{SHIM_MAGIC,       SHIM_VERSION, shim_request,
                            greeting.channel, ++id_,        deadline_ns};
        datagram all(reinterpret_cast<const std::uint8_t*>(&h),
                     reinterpret_cast<const std::uint8_t*>(&h) + sizeof h);
        all.insert(all.end(), d.begin(), d.end());
        raw(all);
    }
    void raw(const datagram& d) {
        EXPECT_EQ(::send(data_.get(), d.data(), d.size(), 0), static_cast<ssize_t>(d.size()));
    }
    /// The next datagram; empty where there is none.
    datagram receive() {
        datagram d(65536);
        const ssize_t length = ::recv(data_.get(), d.data(), d.size(), MSG_DONTWAIT);
        d.resize(length < 0 ? 0 : static_cast<std::size_t>(length));
        return d;
    }
    /// The error of the one reply to a request; -1 where there is another answer.
    int ask(const datagram& d) {
        send(d);
        serve_();
        EXPECT_EQ(answer().id, id_);
        const datagram reply = receive();
        const auto messages = messages_of(reply);
        return messages.size() == 1 && messages[0].header.nlmsg_type == NLMSG_ERROR
                   ? view(messages[0]).error
                   : -1;
    }
    bool closed() {
        char byte = 0;
        return ::recv(data_.get(), &byte, 1, MSG_DONTWAIT) == 0;
    }

    [[nodiscard]] unique_fd take_side() { return std::move(side_); }

    // A slate

    /// The server's answer; kind 0: none.
    shim_answer share(int size = SHIM_SLATE_SIZE, int seals = F_SEAL_SHRINK) {
        const unique_fd memory(::memfd_create("slate", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        EXPECT_EQ(::ftruncate(memory.get(), size), 0);
        EXPECT_EQ(::fcntl(memory.get(), F_ADD_SEALS, seals), 0);
        page = static_cast<shim_slate*>(
            ::mmap(nullptr, SHIM_SLATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0));
        const shim_header h = header(shim_share);
        EXPECT_TRUE(send_with_descriptor(
            data_.get(), {reinterpret_cast<const std::uint8_t*>(&h), sizeof h}, memory.get()));
        serve_();
        return answer();
    }
    void write(const datagram& d, bool takes) {
        page->header = header(shim_request);
        std::ranges::copy(d, page->request);
        page->length = static_cast<std::uint32_t>(d.size());
        page->takes = takes ? 1 : 0;
        page->asleep = 0;
        page->turn = shim_asked;
    }
    void ring() {
        const shim_header h = header(shim_bell);
        raw({reinterpret_cast<const std::uint8_t*>(&h),
             reinterpret_cast<const std::uint8_t*>(&h) + sizeof h});
    }
    void ask_on_slate(const datagram& d, bool takes) {
        write(d, takes);
        ring();
        serve_();
        EXPECT_EQ(page->turn, shim_answered);
        EXPECT_EQ(page->answer.id, id_ - 1); // the bell has one, too
        EXPECT_EQ(page->awake, 0u);
    }
    [[nodiscard]] datagram reply() const { return {page->reply, page->reply + page->length}; }

    shim_slate* page = nullptr; ///< the test's own

    shim_answer greeting{};
    bool keeps_server_end = false;
    unique_fd server_end; ///< a copy, while the client keeps one

  private:
    shim_header header(std::uint16_t kind) {
        return {SHIM_MAGIC, SHIM_VERSION, kind, greeting.channel, ++id_, ~std::uint64_t{0}};
    }

    std::function<void()> serve_;
    unique_fd data_;
    unique_fd side_;
    std::uint32_t id_ = 100;
};

class XfrmClients : public XfrmServer {
  protected:
    datagram kept_; ///< what messages_of() points into
    std::unique_ptr<shim> client() {
        return std::make_unique<shim>(path(), [this] { serve(); });
    }
    void fill(std::uint32_t count) {
        for (std::uint32_t spi = 1; spi <= count; ++spi)
            ASSERT_TRUE(layer_.add_sa(resolved(example_sa(spi)), {}, now_));
    }
    static ipsec::sa resolved(ipsec::sa s) {
        EXPECT_TRUE(ipsec::resolve(s.algs));
        return s;
    }
};

/// A shim that passes its data socket over a connection: the client's descriptor outlives servers.
class lasting_shim {
  public:
    explicit lasting_shim(std::function<void()> serve)
        : serve_(std::move(serve)) {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
            std::abort();
        data_ = unique_fd(ends[0]);
        kept_ = unique_fd(ends[1]);
    }

    /// The answer to shim_open; kind 0: none.
    shim_answer open(const std::string& path, shim_had had, int passed) {
        side_ = unique_fd(connected(path));
        const struct {
            shim_header header;
            shim_had had;
        } word{{SHIM_MAGIC, SHIM_VERSION, shim_open, 0, 0, 0}, had};
        EXPECT_TRUE(send_with_descriptor(
            side_.get(),
            {reinterpret_cast<const std::uint8_t*>(&word), sizeof word.header + sizeof word.had},
            passed));
        serve_();
        shim_answer a{};
        if (::recv(side_.get(), &a, sizeof a, MSG_DONTWAIT) != sizeof a) a.kind = 0;
        return a;
    }
    shim_answer open(const std::string& path, shim_had had = {}) {
        return open(path, had, kept_.get());
    }
    void send(const datagram& d, std::uint32_t channel) {
        const shim_header h{SHIM_MAGIC, SHIM_VERSION, shim_request, channel, 1, ~std::uint64_t{0}};
        datagram all(sizeof h);
        std::memcpy(all.data(), &h, sizeof h);
        all.insert(all.end(), d.begin(), d.end());
        EXPECT_EQ(::send(data_.get(), all.data(), all.size(), 0), static_cast<ssize_t>(all.size()));
    }
    void share(std::uint32_t channel) {
        const unique_fd memory(::memfd_create("slate", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        EXPECT_EQ(::ftruncate(memory.get(), SHIM_SLATE_SIZE), 0);
        EXPECT_EQ(::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
        const shim_header h{SHIM_MAGIC, SHIM_VERSION, shim_share, channel, 0, 0};
        EXPECT_TRUE(send_with_descriptor(
            data_.get(), {reinterpret_cast<const std::uint8_t*>(&h), sizeof h}, memory.get()));
    }
    [[nodiscard]] bool has_received() const {
        char byte = 0;
        return ::recv(data_.get(), &byte, 1, MSG_DONTWAIT) > 0;
    }

  private:
    std::function<void()> serve_;
    unique_fd data_, kept_, side_;
};

} // namespace esplane::xfrm

// SPDX-License-Identifier: Apache-2.0
//
// Streams over the control socket: who reads them, what they carry, what people are shown of it.
#include "tools/trace.h"

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/lib/fake_backend.h"
#include "tests/unit/tools/temporary_directory.h"
#include "tools/control_socket.h"
#include "tools/run_dir.h"
#include "tools/trace_report.h"
#include "tools/trace_text.h"
#include "xfrm/print.h"

namespace esplane::tools {
namespace {

using nlohmann::json;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

struct ends {
    unique_fd ours, theirs;
};

ends connected_pair() {
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    return {unique_fd(pair[0]), unique_fd(pair[1])};
}

/// The next packet; "" where there is none.
std::string packet(int fd) {
    std::string text(1 << 16, '\0');
    const ssize_t length = ::recv(fd, text.data(), text.size(), MSG_DONTWAIT);
    text.resize(length < 0 ? 0 : static_cast<std::size_t>(length));
    return text;
}

// Readers

class TraceReaders : public ::testing::Test {
  protected:
    unique_fd reader() {
        ends e = connected_pair();
        readers_.add(std::move(e.ours));
        return std::move(e.theirs);
    }
    /// Sends until somebody has lost something; how many got through.
    std::uint64_t overwhelm() {
        const std::string large(10'000, 'x');
        std::uint64_t sent = 0;
        for (; readers_.listening(); ++sent)
            readers_.send(large);
        return sent - 1;
    }
    trace_readers readers_ = std::move(*trace_readers::open());
};

TEST_F(TraceReaders, EachGetsEveryMessage) {
    const unique_fd one = reader(), other = reader();
    readers_.send("a");
    readers_.send("b");
    for (const unique_fd* fd : {&one, &other}) {
        EXPECT_EQ(packet(fd->get()), "a");
        EXPECT_EQ(packet(fd->get()), "b");
    }
}

TEST_F(TraceReaders, ASlowOneLosesMessagesAndIsToldHowMany) {
    const unique_fd slow = reader();
    const std::uint64_t taken = overwhelm();
    EXPECT_FALSE(readers_.listening());
    readers_.send("lost too");
    readers_.missed(5);
    readers_.serve();
    for (std::uint64_t i = 0; i < taken; ++i)
        ASSERT_EQ(packet(slow.get()).size(), 10'000u) << i;
    EXPECT_EQ(packet(slow.get()), "");
    readers_.serve();
    EXPECT_EQ(packet(slow.get()), "{\"lost\":7}\n");
    EXPECT_TRUE(readers_.listening());
    readers_.send("after");
    EXPECT_EQ(packet(slow.get()), "after");
}

TEST_F(TraceReaders, ASlowOneTakesNothingFromOthers) {
    const unique_fd slow = reader(), quick = reader();
    const std::string large(10'000, 'x');
    for (int i = 0; i < 2000; ++i) {
        readers_.send(large);
        ASSERT_EQ(packet(quick.get()), large) << i;
    }
    EXPECT_TRUE(readers_.listening());
}

TEST_F(TraceReaders, OneThatIsGoneIsLetGo) {
    unique_fd gone = reader();
    readers_.serve();
    EXPECT_FALSE(readers_.empty());
    gone = unique_fd();
    readers_.send("to nobody");
    readers_.serve();
    EXPECT_TRUE(readers_.empty());
}

// The stream of what happens

class Trace : public ::testing::Test {
  protected:
    Trace() {
        server_ = std::move(
            *xfrm::server::open(layer_, directory_.path() + "/xfrm", [] { return moment{}; }));
        trace_ = std::move(*trace::make(layer_, server_.get()));
    }
    unique_fd follow(const char* command) {
        ends e = connected_pair();
        EXPECT_TRUE(trace_->take({{"command", command}}, e.ours));
        return std::move(e.theirs);
    }
    static ipsec::sa example() {
        ipsec::sa s;
        s.id = {ipsec::address::v4(wire::be32(0x0a010002)), wire::be32(0x1001), 50};
        s.source = ipsec::address::v4(wire::be32(0x0a010001));
        s.algs.aead = {"rfc4106(gcm(aes))", secret(std::vector<std::uint8_t>(20, 0x41)), 128};
        EXPECT_TRUE(ipsec::resolve(s.algs));
        return s;
    }

    temporary_directory directory_;
    control::fake_backend backend_;
    control::layer layer_{backend_, [](auto into) { std::ranges::fill(into, 1); }};
    std::unique_ptr<xfrm::server> server_;
    std::unique_ptr<trace> trace_;
};

TEST_F(Trace, OtherRequestsAreNotTaken) {
    ends e = connected_pair();
    EXPECT_FALSE(trace_->take({{"command", "status"}}, e.ours));
    EXPECT_FALSE(trace_->take(json::object(), e.ours));
    EXPECT_TRUE(e.ours.valid());
}

TEST_F(Trace, WithoutAServerThereIsNoTalkToFollow) {
    auto alone = std::move(*trace::make(layer_, nullptr));
    ends e = connected_pair();
    EXPECT_TRUE(alone->take({{"command", "trace"}}, e.ours));
    EXPECT_THAT(packet(e.theirs.get()), HasSubstr("serves no XFRM clients"));
}

TEST_F(Trace, TooManyReadersAreRefused) {
    std::vector<unique_fd> readers;
    for (std::size_t i = 0; i < trace_readers::most; ++i)
        readers.push_back(follow("monitor"));
    const unique_fd refused = follow("monitor");
    EXPECT_THAT(packet(refused.get()), HasSubstr("end one of them"));
}

TEST_F(Trace, EventsAreShownAsMessagesAndInWords) {
    const unique_fd talk = follow("trace"), events = follow("monitor");
    EXPECT_EQ(packet(talk.get()), "{\"streaming\":\"trace\"}\n");
    EXPECT_EQ(packet(events.get()), "{\"streaming\":\"monitor\"}\n");
    ASSERT_TRUE(layer_.add_sa(example(), {4711, 9}, {}));
    const json message = json::parse(packet(talk.get()));
    EXPECT_EQ(message.at("type"), "XFRM_MSG_NEWSA");
    EXPECT_EQ(message.at("way"), "event");
    EXPECT_EQ(message.at("fixed").at("id").at("spi"), "0x00001001");
    const json event = json::parse(packet(events.get()));
    EXPECT_EQ(event.at("event"), "sa_added");
    EXPECT_EQ(event.at("sa").at("spi"), "0x00001001");
    EXPECT_EQ(event.at("by").at("seq"), 9);
}

TEST_F(Trace, NoPacketHoldsAKey) {
    const unique_fd talk = follow("trace"), events = follow("monitor");
    ASSERT_TRUE(layer_.add_sa(example(), {}, {}));
    std::string all;
    for (const unique_fd* fd : {&talk, &events})
        for (std::string one = packet(fd->get()); !one.empty(); one = packet(fd->get()))
            all += one;
    EXPECT_THAT(all, HasSubstr("160 bits"));
    EXPECT_THAT(all, Not(HasSubstr("AAAA")));
    EXPECT_THAT(all, Not(HasSubstr("41414141")));
}

TEST_F(Trace, NobodyIsShownAnythingAfterTheLastReader) {
    unique_fd events = follow("monitor");
    (void)packet(events.get());
    events = unique_fd();
    trace_->serve();
    ASSERT_TRUE(layer_.add_sa(example(), {}, {}));
    const unique_fd again = follow("monitor");
    EXPECT_EQ(packet(again.get()), "{\"streaming\":\"monitor\"}\n");
    EXPECT_EQ(packet(again.get()), "");
}

TEST(TraceOverTheControlSocket, AStreamComesBesideOrdinaryAnswers) {
    temporary_directory directory;
    auto server =
        std::move(*control_server::open(control_socket_path(directory.path()), [](const json&) {
            return json{{"plain", 1}};
        }));
    unique_fd taken;
    server->set_taker([&taken](const json& request, unique_fd& connection) {
        if (!request.contains("stream")) return false;
        taken = std::move(connection);
        return true;
    });
    const unique_fd stream(std::move(*connect_to(control_socket_path(directory.path()))));
    const unique_fd plain(std::move(*connect_to(control_socket_path(directory.path()))));
    ASSERT_GT(::send(stream.get(), "{\"stream\":1}", 12, 0), 0);
    ASSERT_GT(::send(plain.get(), "{}", 2, 0), 0);
    for (int i = 0; i < 4; ++i)
        server->serve();
    ASSERT_TRUE(taken.valid());
    EXPECT_EQ(packet(plain.get()), "{\"plain\":1}\n");
    ASSERT_GT(::send(taken.get(), "x", 1, 0), 0);
    EXPECT_EQ(packet(stream.get()), "x");
    ASSERT_GT(::send(stream.get(), "{}", 2, 0), 0);
    server->serve();
    EXPECT_EQ(packet(stream.get()), "") << "the server must not read a stream's connection";
}

// What people are shown

std::string text_of_recording(const std::string& file) {
    std::ifstream in(std::string(ESPLANE_GOLDEN "/") + file, std::ios::binary);
    const xfrm::datagram whole{std::istreambuf_iterator<char>(in), {}};
    ordered_json message = {{"time_us", 0}, {"way", "request"}, {"pid", 7}, {"command", "ip"}};
    message.update(report_message(xfrm::print(xfrm::decode(whole).messages.at(0))));
    return text_of_message(message);
}

TEST(TraceText, ARequestIsABlockOfItsFieldsAndAttributes) {
    const std::string text = text_of_recording("000-newsa-esp-tunnel-v4-gcm128-req-newsa.bin");
    EXPECT_THAT(text, HasSubstr(" ip[7] request XFRM_MSG_NEWSA seq "));
    EXPECT_THAT(text, HasSubstr("REQUEST|ACK\n"));
    EXPECT_THAT(text, HasSubstr("\n    id: daddr 10.1.0.2, spi 0x"));
    EXPECT_THAT(text, HasSubstr("\n    XFRMA_ALG_AEAD: alg_name rfc4106(gcm(aes)), alg_key_len "
                                "160, alg_icv_len 128, key 160 bits\n"));
    EXPECT_THAT(text, Not(HasSubstr("infinite")));
}

TEST(TraceText, AnErrorSaysWhatAndOfWhat) {
    const std::string text = text_of_recording("099-newsa-exists-rep-error.bin");
    EXPECT_THAT(text, HasSubstr("error: File exists (-17)\n    of XFRM_MSG_NEWSA seq "));
    EXPECT_THAT(text_of_recording("002-newsa-esp-tunnel-v4-gcm128-rep-error.bin"),
                EndsWith("\n    done\n"));
}

TEST(TraceText, EachTemplateHasALine) {
    const std::string text =
        text_of_recording("158-newpolicy-bundle-comp-esp-ah-req-newpolicy.bin");
    EXPECT_THAT(text, HasSubstr("    XFRMA_TMPL: id (daddr 10.1.0.2, proto comp)"));
    EXPECT_THAT(text, HasSubstr("    XFRMA_TMPL: id (proto esp)"));
}

TEST(TraceText, WhatWasLostIsSaid) {
    EXPECT_THAT(text_of_message({{"lost", 7}}), StartsWith("(7 lost"));
    EXPECT_THAT(text_of_event({{"lost", 7}}), StartsWith("(7 lost"));
}

TEST(TraceText, EveryRecordingHasAText) {
    std::ifstream index(ESPLANE_GOLDEN "/index.tsv");
    std::string line;
    int texts = 0;
    while (std::getline(index, line)) {
        const std::string file = line.substr(0, line.find('\t'));
        if (file.starts_with("#") || file.find("-xfrmi-") != file.npos) continue;
        EXPECT_THAT(text_of_recording(file), EndsWith("\n")) << file;
        ++texts;
    }
    EXPECT_GT(texts, 300);
}

TEST(TraceText, AnEventIsOneLine) {
    ipsec::policy p;
    p.index = 9;
    p.sel.source = p.sel.destination = ipsec::address::v4(wire::be32(0x0a010000));
    p.sel.source_prefix = p.sel.destination_prefix = 16;
    ordered_json event = report_event(ipsec::policy_expired{p, true, {}});
    event["time_us"] = 0;
    const std::string text = text_of_event(event);
    EXPECT_THAT(text, HasSubstr(" hard: policy expired: out bypass 10.1.0.0/16 -> 10.1.0.0/16 "
                                "priority 0 index 9\n"));
}

} // namespace
} // namespace esplane::tools

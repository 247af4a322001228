// SPDX-License-Identifier: Apache-2.0
#include "xfrm/proc.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "lib/base/unique_fd.h"
#include "tests/unit/lib/fake_backend.h"
#include "xfrm/server.h"
#include "xfrm/shim_protocol.h"

namespace esplane::xfrm {
namespace {

TEST(XfrmStat, HasTheLinesOfTheKernel) {
    std::ifstream file("/proc/net/xfrm_stat");
    if (!file) GTEST_SKIP() << "this kernel has no /proc/net/xfrm_stat";
    std::ostringstream all;
    all << file.rdbuf();
    std::istringstream lines(all.str());
    std::string expected;
    for (std::string line; std::getline(lines, line);)
        expected += line.substr(0, line.find('\t')) + "\t0\n";
    const std::string ours = xfrm_stat_text({});
    // Kernels before 6.14 lack the last two lines.
    EXPECT_EQ(ours.substr(0, expected.size()), expected);
}

TEST(XfrmStat, CountsInTheLineThatIsNamed) {
    xfrm_counters c;
    c[stat_line::in_error] = 1;
    c[stat_line::out_bundle_check_error] = 18'446'744'073'709'551'615u;
    c[stat_line::out_no_queue_space] = 3;
    const std::string text = xfrm_stat_text(c);
    EXPECT_TRUE(text.starts_with("XfrmInError             \t1\n")) << text;
    EXPECT_NE(text.find("XfrmOutBundleCheckError \t18446744073709551615\n"), text.npos) << text;
    EXPECT_TRUE(text.ends_with("XfrmOutNoQueueSpace     \t3\n")) << text;
    EXPECT_EQ(name_of(stat_line::forward_header_error), "XfrmFwdHdrError");
    EXPECT_EQ(name_of(stat_line::out_state_direction_error), "XfrmOutStateDirError");
}

class ProcFiles : public ::testing::Test {
  protected:
    std::string read(std::string_view name) { return files_.read(name).value_or("none"); }
    int refusal(std::string_view name, std::string_view text) {
        const auto done = files_.write(name, text);
        return done ? 0 : done.error().code;
    }

    control::fake_backend backend_;
    control::layer layer_{backend_, [](auto into) { std::ranges::fill(into, 1); }};
    std::map<std::string, std::string, std::less<>> kernel_;
    xfrm_counters counted_;
    proc_files files_{layer_,
                      [this](std::string_view name) -> std::optional<std::string> {
                          const auto at = kernel_.find(name);
                          if (at == kernel_.end()) return std::nullopt;
                          return at->second;
                      },
                      [this] { return counted_; }};
};

TEST_F(ProcFiles, HaveTheDefaultsOfTheKernelWhereItHasNone) {
    EXPECT_EQ(read("xfrm_acq_expires"), "30\n");
    EXPECT_EQ(read("xfrm_aevent_etime"), "10\n");
    EXPECT_EQ(read("xfrm_aevent_rseqth"), "2\n");
    EXPECT_EQ(read("xfrm_larval_drop"), "0\n");
}

TEST_F(ProcFiles, ShowWhatTheKernelHasUntilAClientWrites) {
    kernel_["xfrm_acq_expires"] = "165\n";
    kernel_["xfrm_aevent_rseqth"] = "many\n";
    EXPECT_EQ(read("xfrm_acq_expires"), "165\n");
    EXPECT_EQ(read("xfrm_aevent_rseqth"), "2\n");
    EXPECT_EQ(layer_.current_sysctls().acq_expires, 165u);
    ASSERT_TRUE(files_.write("xfrm_acq_expires", "60"));
    kernel_["xfrm_acq_expires"] = "5\n";
    EXPECT_EQ(read("xfrm_acq_expires"), "60\n");
}

TEST_F(ProcFiles, FollowTheKernel200TimesASecondAtMost) {
    kernel_["xfrm_acq_expires"] = "165\n";
    files_.follow_kernel({1'000'000'000, 0});
    EXPECT_EQ(layer_.current_sysctls().acq_expires, 165u);
    kernel_["xfrm_acq_expires"] = "5\n";
    files_.follow_kernel({1'004'999'999, 0});
    EXPECT_EQ(layer_.current_sysctls().acq_expires, 165u);
    files_.follow_kernel({1'005'000'000, 0});
    EXPECT_EQ(layer_.current_sysctls().acq_expires, 5u);
}

TEST_F(ProcFiles, LetPacketsWaitWhateverTheKernelDoes) {
    kernel_["xfrm_larval_drop"] = "1\n";
    EXPECT_EQ(read("xfrm_larval_drop"), "0\n");
    ASSERT_TRUE(files_.write("xfrm_larval_drop", "1\n"));
    EXPECT_EQ(read("xfrm_larval_drop"), "1\n");
}

TEST_F(ProcFiles, AreWhatTheLayerUses) {
    ASSERT_TRUE(files_.write("xfrm_aevent_etime", " 0x20\n"));
    ASSERT_TRUE(files_.write("xfrm_aevent_rseqth", "32"));
    ASSERT_TRUE(files_.write("xfrm_larval_drop", "1"));
    EXPECT_EQ(layer_.current_sysctls(), (control::sysctls{30, 32, 32, 1}));
    (void)backend_.taken_calls();
    layer_.answer_acquires(nullptr, true);
    EXPECT_EQ(backend_.taken_calls(), (std::vector<std::string>{"await_sas without packets 30"}));
    ASSERT_TRUE(files_.write("xfrm_larval_drop", "0"));
    EXPECT_EQ(backend_.taken_calls(), (std::vector<std::string>{"await_sas 30"}));
}

TEST_F(ProcFiles, RefuseWhatIsNoNumber) {
    for (const char* text : {"", "\n", "many", "-1", "12x", "2147483648", "99999999999999999999"})
        EXPECT_EQ(refusal("xfrm_acq_expires", text), EINVAL) << text;
    EXPECT_EQ(read("xfrm_acq_expires"), "30\n");
    EXPECT_EQ(refusal("xfrm_acq_expires", "2147483647"), 0);
    EXPECT_EQ(refusal("xfrm_aevent_etime", "4294967295"), 0);
    EXPECT_EQ(refusal("xfrm_aevent_etime", "4294967296"), EINVAL);
    EXPECT_EQ(refusal("xfrm_aevent_rseqth", "1 2"), 0) << "the first counts, as in the kernel";
    EXPECT_EQ(read("xfrm_aevent_rseqth"), "1\n");
}

TEST_F(ProcFiles, KnowNoOthers) {
    EXPECT_EQ(refusal("xfrm_acq_expire", "1"), ENOENT);
    EXPECT_EQ(refusal("xfrm_stat", "1"), EACCES);
    EXPECT_EQ(files_.read("../../etc/passwd").error().code, ENOENT);
    EXPECT_EQ(files_.read("").error().code, ENOENT);
}

TEST_F(ProcFiles, CountAsOfTheRead) {
    counted_[stat_line::in_no_states] = 7;
    EXPECT_EQ(read("xfrm_stat"), xfrm_stat_text(counted_));
}

/// What the shim does in the place of open(), read() and write().
class ProcFilesOfAServer : public ProcFiles {
  protected:
    ProcFilesOfAServer() {
        char name[] = "/tmp/esplane-files-XXXXXX";
        directory_ = ::mkdtemp(name);
        server_ = server::open(layer_, directory_ + "/xfrm", [] { return moment{}; }).value();
        server_->set_files(files_);
        data_ = unique_fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        sockaddr_un a{};
        a.sun_family = AF_UNIX;
        (directory_ + "/xfrm").copy(a.sun_path, sizeof a.sun_path - 1);
        EXPECT_EQ(::connect(data_.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a), 0);
    }
    ~ProcFilesOfAServer() override { std::filesystem::remove_all(directory_); }

    struct reply {
        std::uint32_t status = ~0u;
        std::string text;
    };
    reply ask(std::uint16_t kind, const std::string& body) {
        const shim_header h{SHIM_MAGIC, SHIM_VERSION, kind, 0, ++id_, ~std::uint64_t{0}};
        std::string all(reinterpret_cast<const char*>(&h), sizeof h);
        all += body;
        EXPECT_EQ(::send(data_.get(), all.data(), all.size(), 0), std::ssize(all));
        pollfd p{server_->descriptor(), POLLIN, 0};
        for (int i = 0; i < 100 && ::poll(&p, 1, 0) > 0; ++i)
            server_->serve();
        std::string answer(2 * SHIM_TEXT_MAX, 0);
        const ssize_t length = ::recv(data_.get(), answer.data(), answer.size(), MSG_DONTWAIT);
        shim_text t{};
        if (length < static_cast<ssize_t>(sizeof t)) return {};
        std::memcpy(&t, answer.data(), sizeof t);
        EXPECT_EQ(t.magic, SHIM_MAGIC);
        EXPECT_EQ(t.version, SHIM_VERSION);
        EXPECT_EQ(t.kind, kind);
        EXPECT_EQ(t.id, id_);
        return {t.status, answer.substr(sizeof t, static_cast<std::size_t>(length) - sizeof t)};
    }

    std::string directory_;
    std::unique_ptr<server> server_;
    unique_fd data_;
    std::uint32_t id_ = 0;
};

TEST_F(ProcFilesOfAServer, AreReadAndWrittenThroughItsSocket) {
    counted_[stat_line::in_no_states] = 7;
    EXPECT_EQ(ask(shim_read, "xfrm_stat").text, xfrm_stat_text(counted_));
    EXPECT_EQ(ask(shim_write, std::string("xfrm_acq_expires\0"
                                          "165\n",
                                          21))
                  .status,
              0u);
    const reply read = ask(shim_read, "xfrm_acq_expires");
    EXPECT_EQ(read.status, 0u);
    EXPECT_EQ(read.text, "165\n");
}

TEST_F(ProcFilesOfAServer, SayWhatIsWrong) {
    EXPECT_EQ(ask(shim_read, "xfrm_nothing").status, static_cast<std::uint32_t>(ENOENT));
    EXPECT_EQ(ask(shim_write, std::string("xfrm_stat\0", 10)).status,
              static_cast<std::uint32_t>(EACCES));
    EXPECT_EQ(ask(shim_write, std::string("xfrm_larval_drop\0no", 19)).status,
              static_cast<std::uint32_t>(EINVAL));
    EXPECT_EQ(server_->counters().broken_clients, 0u);
}

TEST_F(ProcFilesOfAServer, DisconnectWhoSpeaksAnotherProtocol) {
    EXPECT_EQ(ask(shim_write, "xfrm_larval_drop").status, ~0u) << "no 0 byte";
    EXPECT_EQ(server_->counters().broken_clients, 1u);
}

TEST_F(ProcFilesOfAServer, DisconnectWhoWritesWithoutEnd) {
    EXPECT_EQ(ask(shim_read, std::string(SHIM_TEXT_MAX + 1, 'x')).status, ~0u);
    EXPECT_EQ(server_->counters().broken_clients, 1u);
}

} // namespace
} // namespace esplane::xfrm

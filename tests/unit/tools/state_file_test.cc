// SPDX-License-Identifier: Apache-2.0
#include "tools/state_file.h"

#include <fstream>
#include <sys/stat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/tools/daemon_site.h"
#include "tests/unit/tools/temporary_directory.h"
#include "tools/live_numbers.h"
#include "tools/sealing.h"

namespace esplane::tools {
namespace {

using ::testing::HasSubstr;

std::string read_all(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_all(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    ::chmod(path.c_str(), 0600);
}

using site = daemon_site;

class StateFile : public testing::Test {
  protected:
    StateFile() {
        std::string pattern = "/dev/shm/state_file_test.XXXXXX";
        directory_ = ::mkdtemp(pattern.data());
    }
    ~StateFile() override {
        for (const char* name : {"/state", "/live", "/state.new", "/live.new", "/state.name"})
            ::unlink((directory_ + name).c_str());
        ::rmdir(directory_.c_str());
    }
    std::string log() const { return directory_ + "/state"; }

    std::string directory_;
};

TEST_F(StateFile, BringsBackWhatWasThere) {
    {
        site one(directory_);
        EXPECT_FALSE(one.back.found);
        ASSERT_TRUE(one.control.add_sa(some_sa(1), {}, now));
        ASSERT_TRUE(one.control.add_sa(some_sa(2), {}, now));
        ASSERT_TRUE(one.control.add_sa(some_sa(3), {}, now));
        ASSERT_TRUE(one.control.delete_sa(some_sa(2).id, {}));
        ASSERT_TRUE(one.control.add_policy(some_policy(1), {}, now));
        ASSERT_TRUE(one.control.add_policy(some_policy(2), {}, now));
        ASSERT_TRUE(one.control.delete_policy({.sel = some_policy(1).sel}, {}));
        one.control.set_defaults({ipsec::policy_action::block, ipsec::policy_action::allow,
                                  ipsec::policy_action::block});
    }
    site two(directory_);
    EXPECT_TRUE(two.back.found);
    EXPECT_EQ(two.back.sas, 2u);
    EXPECT_EQ(two.back.policies, 1u);
    const ipsec::sa* s = two.control.get_sa(some_sa(1).id);
    ASSERT_NE(s, nullptr);
    EXPECT_TRUE(s->algs.aead.key.equals(some_sa(1).algs.aead.key));
    EXPECT_EQ(s->replay.sent, 17u);
    EXPECT_EQ(s->replay.received, 1000u);
    EXPECT_EQ(s->replay.bitmap, (std::vector<std::uint32_t>{~0u, ~0u})) << "nothing comes again";
    EXPECT_EQ(s->current.add_time, now.realtime_s);
    EXPECT_EQ(two.control.get_sa(some_sa(2).id), nullptr);
    const ipsec::policy* p = two.control.get_policy({.sel = some_policy(2).sel});
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(p->index >> 3, 1u) << "its index stays";
    EXPECT_EQ(two.control.defaults()[0], ipsec::policy_action::block);
}

TEST_F(StateFile, KeepsWhatAnEarlierDaemonHadBroughtBack) {
    {
        site one(directory_);
        ASSERT_TRUE(one.control.add_sa(some_sa(1), {}, now));
    }
    { site two(directory_); }
    site three(directory_);
    EXPECT_EQ(three.back.sas, 1u);
}

TEST_F(StateFile, PoliciesKeepTheirOrderOverManyRestarts) {
    const auto add = [](site& to, std::uint8_t n) {
        ASSERT_TRUE(to.control.add_policy(some_policy(n), {}, now));
    };
    {
        site one(directory_);
        for (int i = 0; i < 20; ++i) {
            add(one, 1);
            ASSERT_TRUE(one.control.delete_policy({.sel = some_policy(1).sel}, {}));
        }
        add(one, 1);
        add(one, 2);
    }
    {
        site two(directory_);
        add(two, 3);
        ASSERT_TRUE(two.control.expire_policy({.sel = some_policy(1).sel}, false, {}));
    }
    site three(directory_);
    std::vector<wire::be32> order;
    control::cursor c;
    while (const ipsec::policy* p = three.control.next_policy(c))
        order.push_back(p->sel.source.as_v4());
    EXPECT_EQ(order, (std::vector<wire::be32>{some_policy(3).sel.source.as_v4(),
                                              some_policy(2).sel.source.as_v4(),
                                              some_policy(1).sel.source.as_v4()}))
        << "newest first";
}

/// Looks for the live numbers of an SA whenever the log has heard of something.
class live_look final : public ipsec::listener {
  public:
    live_look(int live, const fastpath::lasting_name& name, const ipsec::sa_id& id)
        : live_(live)
        , name_(name)
        , id_(id) {}
    void on_event(const ipsec::event& /*e*/) override {
        const auto all = read_numbers(live_, name_);
        seen.push_back(all && all->of.contains(id_));
    }
    std::vector<bool> seen;

  private:
    int live_;
    fastpath::lasting_name name_;
    ipsec::sa_id id_;
};

TEST_F(StateFile, TheLogSaysThatAnSaIsGoneBeforeItsNumbersAre) {
    site one(directory_);
    const std::string file = read_all(log());
    const auto session =
        control::read_journal({reinterpret_cast<const std::uint8_t*>(file.data()), file.size()},
                              [](const control::journal_session&) { return nullptr; })
            ->last;
    live_look look(one.state->live_descriptor(), session.name, some_sa(1).id);
    one.control.subscribe(&look);
    ASSERT_TRUE(one.control.add_sa(some_sa(1), {}, now));
    ASSERT_TRUE(one.control.delete_sa(some_sa(1).id, {}));
    ASSERT_TRUE(one.control.add_sa(some_sa(1), {}, now));
    one.control.flush_sas(0, {});
    EXPECT_EQ(look.seen, std::vector<bool>(4, true)) << "without, an outbound one begins anew";
    one.control.unsubscribe(&look);
}

TEST_F(StateFile, HasNoSasWithoutTheirNumbersAndNeverTheSameNonces) {
    {
        site one(directory_);
        ASSERT_TRUE(one.control.add_sa(some_sa(1), {}, now));
        ASSERT_TRUE(one.control.add_policy(some_policy(1), {}, now));
    }
    const auto base = [&] {
        const std::string file = read_all(log());
        return control::read_journal(
                   {reinterpret_cast<const std::uint8_t*>(file.data()), file.size()},
                   [](const control::journal_session&) { return nullptr; })
            ->last.nonce_base;
    };
    const std::uint64_t before = base();
    ASSERT_EQ(::unlink((directory_ + "/live").c_str()), 0);
    {
        site two(directory_);
        EXPECT_FALSE(two.back.found);
        EXPECT_EQ(two.back.lost, 2u);
        EXPECT_EQ(base() - before, fastpath::nonce_space::range);
    }
    site three(directory_);
    EXPECT_TRUE(three.back.found);
    EXPECT_EQ(three.back.sas + three.back.policies, 0u) << "what was lost does not come later";
}

TEST_F(StateFile, RefusesWhatOthersMayReadAndWhatIsCorrupted) {
    {
        site one(directory_);
        ASSERT_TRUE(one.control.add_sa(some_sa(1), {}, now));
        ASSERT_TRUE(one.control.add_sa(some_sa(2), {}, now));
    }
    ::chmod(log().c_str(), 0640);
    EXPECT_THAT(site(directory_).failure, HasSubstr("must be this user's alone"));
    std::string file = read_all(log());
    file[120] = static_cast<char>(file[120] ^ 1);
    write_all(log(), file);
    EXPECT_THAT(site(directory_).failure, HasSubstr("corrupted at byte"));
}

TEST_F(StateFile, ShowsNoKeyWhereItIsSealed) {
    const temporary_directory keys;
    state_options options;
    options.key_path = keys.path() + "/key";
    write_all(options.key_path, std::string(64, 'a') + "\n");
    {
        site one(directory_, options);
        ASSERT_TRUE(one.control.add_sa(some_sa(1), {}, now));
    }
    EXPECT_EQ(read_all(log()).find(key_bytes), std::string::npos);
    EXPECT_THAT(site(directory_).failure, HasSubstr("give its key with --state-key"));
    EXPECT_EQ(site(directory_, options).back.sas, 1u);
    write_all(options.key_path, std::string(64, 'b') + "\n");
    EXPECT_THAT(site(directory_, options).failure, HasSubstr("sealed with another key"));
    ::chmod(options.key_path.c_str(), 0644);
    EXPECT_THAT(site(directory_, options).failure, HasSubstr("others may read it"));
}

TEST_F(StateFile, ASealedFileOnADiskIsTakenAndAReadableOneIsNot) {
    const temporary_directory disk;
    struct stat st {};
    ASSERT_EQ(::stat(disk.path().c_str(), &st), 0);
    if (is_in_memory(disk.path())) GTEST_SKIP() << "no disk under the temporary directory";
    state_options options;
    options.log_path = disk.path() + "/log";
    EXPECT_THAT(site(directory_, options).failure, HasSubstr("keys must not lie there readable"));
    options.key_path = disk.path() + "/key";
    write_all(options.key_path, std::string(32, 'k'));
    {
        site one(directory_, options);
        ASSERT_TRUE(one.control.add_sa(some_sa(1), {}, now));
    }
    EXPECT_EQ(site(directory_, options).back.sas, 1u);
}

TEST_F(StateFile, IsWrittenAnewWhenMostOfItIsPast) {
    {
        site one(directory_);
        ASSERT_TRUE(one.control.add_policy(some_policy(9), {}, now));
        for (std::uint32_t spi = 1; spi <= 600; ++spi)
            ASSERT_TRUE(one.control.add_sa(some_sa(spi), {}, now));
        for (int i = 0; i < 20'000; ++i) {
            ASSERT_TRUE(one.control.add_policy(some_policy(1), {}, now));
            ASSERT_TRUE(one.control.delete_policy({.sel = some_policy(1).sel}, {}));
            (void)one.state->tend(now);
        }
        struct stat st {};
        ASSERT_EQ(::stat(log().c_str(), &st), 0);
        EXPECT_LT(st.st_size, 4 << 20);
    }
    site two(directory_);
    EXPECT_EQ(two.back.sas, 600u);
    EXPECT_EQ(two.back.policies, 1u);
    control::cursor c;
    EXPECT_EQ(two.control.next_sa(c)->id.spi, wire::be32(600)) << "the newest is the newest still";
}

TEST_F(StateFile, WhatWasForgottenDoesNotComeBackWhereverItLies) {
    const temporary_directory other;
    state_options options;
    options.log_path = directory_ + "/elsewhere";
    {
        site one(other.path(), options);
        ASSERT_TRUE(one.control.add_sa(some_sa(1), {}, now));
    }
    EXPECT_EQ(site(other.path(), options).back.sas, 1u);
    forget_state(other.path());
    site two(other.path(), options);
    EXPECT_EQ(two.back.sas, 0u);
    EXPECT_EQ(two.back.lost, 1u);
    EXPECT_EQ(two.state->stands().lost, 1u) << "and it is told";
    for (const char* name : {"/elsewhere", "/elsewhere.live"})
        ::unlink((directory_ + name).c_str());
}

TEST_F(StateFile, ARewritingThatFailsLeavesTheLogAsItIs) {
    {
        site one(directory_);
        ASSERT_TRUE(one.control.add_policy(some_policy(9), {}, now));
        ASSERT_EQ(::mkdir((directory_ + "/state.new").c_str(), 0700), 0);
        for (int i = 0; i < 5000; ++i) {
            ASSERT_TRUE(one.control.add_policy(some_policy(1), {}, now));
            ASSERT_TRUE(one.control.delete_policy({.sel = some_policy(1).sel}, {}));
            (void)one.state->tend(now);
        }
        EXPECT_TRUE(one.state->stands().written);
    }
    ASSERT_EQ(::rmdir((directory_ + "/state.new").c_str()), 0);
    EXPECT_EQ(site(directory_).back.policies, 1u);
}

TEST(StateOptions, NameAPlace) {
    for (const char* text : {"off", "auto", "memory", "/var/x"})
        EXPECT_EQ(parse_state(text)->text(), text);
    EXPECT_FALSE(parse_state("off")->on);
    EXPECT_TRUE(parse_state("auto")->automatic());
    EXPECT_TRUE(parse_state("memory")->kept_by_manager);
    EXPECT_EQ(parse_state("/var/x")->log_path, "/var/x");
    EXPECT_FALSE(parse_state(""));
}

} // namespace
} // namespace esplane::tools

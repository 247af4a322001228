// SPDX-License-Identifier: Apache-2.0
//
// The state where a disk hangs, or where there is no room.
#include <chrono>
#include <condition_variable>
#include <fcntl.h>
#include <fstream>
#include <mutex>
#include <sys/mman.h>
#include <sys/stat.h>

#include <gtest/gtest.h>

#include "tests/unit/tools/daemon_site.h"
#include "tests/unit/tools/temporary_directory.h"

namespace esplane::tools {
namespace {

using namespace std::chrono_literals;

/// Said to be one.  Whoever waits for it while it hangs waits long.
class disk {
  public:
    void hang(bool yes) {
        const std::lock_guard lock(mutex_);
        hangs_ = yes;
        changed_.notify_all();
    }
    /// What came of it, as fdatasync().
    int sync() {
        std::unique_lock lock(mutex_);
        ++syncs_;
        changed_.notify_all();
        changed_.wait_for(lock, long_time, [this] { return !hangs_; });
        return 0;
    }
    [[nodiscard]] bool was_asked(int times) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, long_time, [&] { return syncs_ >= times; });
    }
    [[nodiscard]] int syncs() {
        const std::lock_guard lock(mutex_);
        return syncs_;
    }

    static constexpr auto long_time = 10s;

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool hangs_ = false;
    int syncs_ = 0;
};

/// Files in memory that can be kept from growing.
struct files {
    std::array<unique_fd, 2> put;
    std::shared_ptr<disk> under; ///< null: it is memory
};

class sealable_place final : public state_place {
  public:
    explicit sealable_place(files& all)
        : all_(all) {}

    result<unique_fd> find(state_part p) override { return copy_of(of(p).get()); }
    result<unique_fd> create(state_part /*p*/) override {
        return unique_fd(::memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    }
    result<void> put(state_part p, int fd) override {
        of(p) = copy_of(fd);
        return {};
    }
    void drop(state_part p) override { of(p) = unique_fd(); }
    std::string name() const override { return "test"; }
    bool on_disk() const override { return all_.under != nullptr; }
    sync_function sync() const override {
        return [under = all_.under](int) { return under->sync(); };
    }

  private:
    static unique_fd copy_of(int fd) { return unique_fd(fd < 0 ? -1 : ::dup(fd)); }
    unique_fd& of(state_part p) { return all_.put[static_cast<std::size_t>(p)]; }

    files& all_;
};

void keep_from_growing(int fd) {
    ASSERT_EQ(::fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
}

class StateTrouble : public testing::Test {
  protected:
    StateTrouble() {
        options_.key_path = directory_.path() + "/key";
        std::ofstream(options_.key_path) << std::string(32, 'k');
        ::chmod(options_.key_path.c_str(), 0600);
    }
    ~StateTrouble() override {
        for (const char* name : {"/key", "/state.name"})
            ::unlink((directory_.path() + name).c_str());
    }

    std::unique_ptr<daemon_site> start() {
        return std::make_unique<daemon_site>(directory_.path(),
                                             std::make_unique<sealable_place>(files_), options_);
    }
    /// Until the log is to be written anew.
    static void change_much(daemon_site& site) {
        for (int i = 0; i < 8000; ++i) {
            ASSERT_TRUE(site.control.add_policy(some_policy(1), {}, now));
            ASSERT_TRUE(site.control.delete_policy({.sel = some_policy(1).sel}, {}));
            (void)site.state->tend(now);
        }
    }
    static moment after(std::uint64_t seconds) {
        return {now.monotonic_ns + seconds * 1'000'000'000, now.realtime_s + seconds};
    }

    const temporary_directory directory_;
    state_options options_;
    files files_;
};

class HangingDisk : public StateTrouble {
  protected:
    HangingDisk() { files_.under = disk_; }
    ~HangingDisk() override { disk_->hang(false); }

    /// A daemon whose new log waits for the disk.
    std::unique_ptr<daemon_site> waiting_site() {
        auto site = start();
        disk_->hang(true);
        change_much(*site);
        EXPECT_TRUE(disk_->was_asked(2)) << "at the start, and now";
        return site;
    }
    static constexpr auto soon = disk::long_time / 2;

    const std::shared_ptr<disk> disk_ = std::make_shared<disk>();
};

TEST_F(HangingDisk, IsNotWaitedForByADaemonThatGivesTheLogUp) {
    const auto began = std::chrono::steady_clock::now();
    const auto site = waiting_site();
    keep_from_growing(site->state->log_descriptor());
    ASSERT_TRUE(site->control.add_policy(some_policy(2), {}, now));
    EXPECT_FALSE(site->state->stands().written);
    EXPECT_LT(std::chrono::steady_clock::now() - began, soon);
}

TEST_F(HangingDisk, IsNotWaitedForByADaemonThatEnds) {
    const auto began = std::chrono::steady_clock::now();
    waiting_site().reset();
    EXPECT_LT(std::chrono::steady_clock::now() - began, soon);
}

TEST_F(HangingDisk, IsAskedAgainOnceItHasAnswered) {
    const auto site = waiting_site();
    keep_from_growing(site->state->log_descriptor());
    ASSERT_TRUE(site->control.add_policy(some_policy(2), {}, now));
    (void)site->state->tend(after(20));
    EXPECT_EQ(disk_->syncs(), 2) << "one that hangs is enough";
    disk_->hang(false);
    for (std::uint64_t s = 40; s < 2000 && !site->state->stands().written; s += 20) {
        (void)site->state->tend(after(s));
        std::this_thread::sleep_for(1ms);
    }
    EXPECT_TRUE(site->state->stands().written);
    EXPECT_EQ(disk_->syncs(), 3);
}

TEST_F(StateTrouble, ASaWithoutRoomForItsNumbersIsLostAndToldSo) {
    std::uint32_t sas = 0;
    {
        const auto one = start();
        ASSERT_TRUE(one->control.add_sa(some_sa(++sas), {}, now));
        keep_from_growing(one->state->live_descriptor());
        while (one->state->stands().not_lasting == 0)
            ASSERT_TRUE(one->control.add_sa(some_sa(++sas), {}, now));
    }
    const auto two = start();
    EXPECT_EQ(two->back.sas, sas - 1);
    EXPECT_EQ(two->back.lost, 1u);
    EXPECT_EQ(two->control.get_sa(some_sa(sas).id), nullptr);
}

TEST_F(StateTrouble, AnOutboundSaThatNoPolicyHasTakenNeedsNoNumbers) {
    ipsec::sa out = some_sa(1);
    out.dir = ipsec::direction::out;
    {
        const auto one = start();
        ASSERT_TRUE(one->control.add_sa(out.clone(), {}, now));
    }
    const auto two = start();
    EXPECT_EQ(two->back.sas, 1u);
    EXPECT_EQ(two->back.lost, 0u);
    ASSERT_NE(two->control.get_sa(out.id), nullptr);
    EXPECT_EQ(two->control.get_sa(out.id)->replay.sent, 17u);
}

} // namespace
} // namespace esplane::tools

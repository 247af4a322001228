// SPDX-License-Identifier: Apache-2.0
#include "fastpath/lasting.h"

#include <fcntl.h>
#include <map>
#include <memory>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "fastpath/sa.h"
#include "lib/wire/endian.h"

namespace esplane::tests {
namespace {

using namespace fastpath;

constexpr lasting_name some_name{1, 2, 3};

class LastingMemory : public testing::Test {
  protected:
    LastingMemory()
        : file_(::memfd_create("live", MFD_CLOEXEC | MFD_ALLOW_SEALING))
        , memory_(lasting_memory::make(unique_fd(::dup(file_.get())), some_name).value()) {}

    std::unique_ptr<sa_in> inbound(std::uint32_t spi) {
        std::unique_ptr<sa_in> sa(new (*memory_) sa_in);
        sa->spi = wire::be32(spi);
        sa->destination = ipsec::address::v4(wire::be32(0x0a000001));
        sa->window = ipsec::replay_window(64);
        sa->in_force.store(true);
        return sa;
    }
    std::map<std::uint32_t, lasting_numbers> found() {
        std::map<std::uint32_t, lasting_numbers> all;
        const auto read = read_lasting(file_.get(), some_name,
                                       [&](const lasting_numbers& n) { all[n.id.spi.host()] = n; });
        EXPECT_EQ(read.value(), memory_->short_of() == 0);
        return all;
    }

    unique_fd file_;
    std::unique_ptr<lasting_memory> memory_;
};

/// The same as version 1 wrote it: chunks of 1 MiB at once behind a header of 4 KiB.  Of a file
/// whose chunks are at most half full.
unique_fd as_version_1(int file) {
    constexpr std::ptrdiff_t header = 4096, half = lasting_memory::chunk_size / 2;
    std::vector<std::uint8_t> now(static_cast<std::size_t>(::lseek(file, 0, SEEK_END)));
    EXPECT_EQ(::pread(file, now.data(), now.size(), 0), std::ssize(now));
    std::vector<std::uint8_t> before(now.begin(), now.begin() + header);
    EXPECT_EQ(std::exchange(before[8], std::uint8_t{1}), 2) << "its version";
    wire::store(before.data() + 12, static_cast<std::uint32_t>(half));
    for (std::ptrdiff_t at = 2 * half; at < std::ssize(now); at += 2 * half)
        before.insert(before.end(), now.begin() + at, now.begin() + at + half);
    unique_fd made(::memfd_create("before", MFD_CLOEXEC));
    EXPECT_EQ(::write(made.get(), before.data(), before.size()), std::ssize(before));
    return made;
}

TEST_F(LastingMemory, ShowsWhatWasCountedToWhoComesLater) {
    const auto in = inbound(7);
    ASSERT_EQ(in->window.commit(41), ipsec::replay_verdict::fresh);
    in->account.packets.add(3);
    in->account.bytes.add(300);
    in->limits.use_time.set(99);
    std::unique_ptr<sa_out> out(new (*memory_) sa_out);
    out->id = {ipsec::address::v4(wire::be32(0x0a000002)), wire::be32(8), 50, {1, 2}};
    out->sequence_sent.set(1234);
    out->in_force.store(true);
    const auto all = found();
    ASSERT_EQ(all.size(), 2u);
    EXPECT_EQ(all.at(7).kind, lasting_kind::inbound);
    EXPECT_EQ(all.at(7).number, 41u);
    EXPECT_EQ(all.at(7).packets, 3u);
    EXPECT_EQ(all.at(7).bytes, 300u);
    EXPECT_EQ(all.at(7).use_time, 99u);
    EXPECT_EQ(all.at(7).id.destination, in->destination);
    EXPECT_EQ(all.at(8).number, 1234u);
    EXPECT_EQ(all.at(8).id, out->id);
}

TEST_F(LastingMemory, OutlivesAProcessThatIsKilled) {
    auto in = inbound(7);
    const pid_t child = ::fork();
    if (child == 0) {
        for (std::uint64_t n = 1; n <= 100'000; ++n)
            (void)in->window.commit(n);
        ::kill(::getpid(), SIGKILL);
    }
    ASSERT_GT(child, 0);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(found().at(7).number, 100'000u);
}

TEST_F(LastingMemory, KnowsNothingOfWhatWasFreedOrIsNotInForce) {
    auto freed = inbound(7);
    const auto ended = inbound(8);
    ended->in_force.store(false);
    freed.reset();
    EXPECT_TRUE(found().empty());
    const auto next = inbound(9);
    EXPECT_EQ(next->window.highest(), 0u) << "memory is handed out anew without what was there";
}

TEST_F(LastingMemory, StaysAsItIsOnceItIsDetached) {
    auto in = inbound(7);
    ASSERT_EQ(in->window.commit(41), ipsec::replay_verdict::fresh);
    memory_->detach();
    ASSERT_EQ(in->window.commit(42), ipsec::replay_verdict::fresh);
    in.reset();
    EXPECT_EQ(found().at(7).number, 41u);
}

TEST_F(LastingMemory, GrowsByMoreThanAChunk) {
    std::vector<std::unique_ptr<sa_in>> all;
    for (std::uint32_t spi = 1; spi <= 10'000; ++spi)
        all.push_back(inbound(spi));
    EXPECT_EQ(found().size(), 10'000u);
    EXPECT_EQ(memory_->short_of(), 0u);
}

TEST_F(LastingMemory, OfTheVersionBeforeIsRead) {
    constexpr std::uint32_t sas = 1000;
    std::vector<std::unique_ptr<sa_in>> all;
    for (std::uint32_t spi = 1; spi <= sas; ++spi) {
        all.push_back(inbound(spi));
        ASSERT_EQ(all.back()->window.commit(spi + 1), ipsec::replay_verdict::fresh);
    }
    std::unique_ptr<sa_out> out(new (*memory_) sa_out); // in a second chunk
    out->id.spi = wire::be32(sas + 1);
    out->sequence_sent.set(sas + 2);
    out->in_force.store(true);
    std::map<std::uint32_t, std::uint64_t> numbers;
    const unique_fd before = as_version_1(file_.get());
    const auto read = read_lasting(before.get(), some_name, [&](const lasting_numbers& n) {
        numbers[n.id.spi.host()] = n.number;
    });
    EXPECT_FALSE(read.value()) << "it did not always say that some were missing";
    ASSERT_EQ(numbers.size(), sas + 1);
    for (const auto& [spi, number] : numbers)
        EXPECT_EQ(number, spi + 1);
}

TEST_F(LastingMemory, SaysThatThereWasNoRoomForSome) {
    ASSERT_EQ(::fcntl(file_.get(), F_ADD_SEALS, F_SEAL_GROW), 0);
    const auto in = inbound(7);
    EXPECT_EQ(memory_->short_of(), 1u);
    EXPECT_TRUE(found().empty());
}

TEST_F(LastingMemory, IsRefusedWhereItIsNotThisStates) {
    const auto none = [](const lasting_numbers&) {};
    EXPECT_FALSE(read_lasting(file_.get(), lasting_name{9}, none));
    const unique_fd other(::memfd_create("other", MFD_CLOEXEC));
    EXPECT_FALSE(read_lasting(other.get(), some_name, none));
    ASSERT_EQ(::ftruncate(other.get(), 1 << 20), 0);
    EXPECT_FALSE(read_lasting(other.get(), some_name, none));
}

} // namespace
} // namespace esplane::tests

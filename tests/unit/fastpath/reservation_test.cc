// SPDX-License-Identifier: Apache-2.0
#include "fastpath/reservation.h"

#include <cstdio>
#include <cstdlib>
#include <sys/resource.h>

#include <gtest/gtest.h>

#include "lib/base/sanitizer.h"
#include "tests/support/lab.h"

namespace esplane::fastpath::reservation_test {
namespace {

using tests::lab;

constexpr std::uint32_t pairs = 20'000;

/// Of this thread, since it began.
long page_faults() {
    rusage used{};
    ::getrusage(RUSAGE_THREAD, &used);
    return used.ru_minflt;
}

/// An SA to a peer of its own.
ipsec::sa sa_of(std::uint32_t n) {
    ipsec::sa s;
    s.id = {ipsec::address::v4(wire::be32(0x14000000 + n)), wire::be32(0x10000000 + n),
            wire::proto_esp};
    s.source = *ipsec::address::parse("192.168.77.1");
    s.reqid = n + 1;
    s.replay_window = 32;
    s.replay.bitmap.resize(1);
    s.algs = tests::make_algorithms(ipsec::suite::aes128_gcm16, n + 1);
    return s;
}

/// A policy of two hosts that asks for it.
ipsec::policy policy_of(std::uint32_t n) {
    ipsec::policy p;
    p.sel.fam = ipsec::family::ipv4;
    p.sel.source = ipsec::address::v4(wire::be32(0x0a000000 + n));
    p.sel.destination = ipsec::address::v4(wire::be32(0x1e000000 + n));
    p.sel.source_prefix = p.sel.destination_prefix = 32;
    ipsec::template_ t;
    t.fam = ipsec::family::ipv4;
    t.source = *ipsec::address::parse("192.168.77.1");
    t.id.destination = ipsec::address::v4(wire::be32(0x14000000 + n));
    t.reqid = n + 1;
    p.templates.push_back(t);
    return p;
}

void add_pairs(lab& gateway) {
    for (std::uint32_t n = 0; n < pairs; ++n) {
        ASSERT_TRUE(gateway.control.add_sa(sa_of(n), {}, gateway.clock));
        gateway.add_policy(policy_of(n));
    }
}

/// For a process that did nothing before: memory that others have had is no reservation's.
[[noreturn, maybe_unused]] void exit_with_verdict() {
    const bool reserved = reserve_memory(pairs, lasting_memory::of_this_process()).has_value();
    lab gateway(1);
    const long before = page_faults();
    add_pairs(gateway);
    const long faults = page_faults() - before;
    std::fprintf(stderr, "%ld page faults\n", faults);
    std::_Exit(reserved && !testing::Test::HasFailure() && faults < pairs / 20 ? EXIT_SUCCESS
                                                                               : EXIT_FAILURE);
}

/// A page is not much more than a pair takes.  Not under a sanitizer, whose malloc is its own.
#if !defined(ESPLANE_ASAN) && !defined(__SANITIZE_THREAD__)
TEST(ReservationDeathTest, SparesWhatItIsForThePageFaults) {
    GTEST_FLAG_SET(death_test_style, "threadsafe"); // which runs this program anew
    EXPECT_EXIT(exit_with_verdict(), testing::ExitedWithCode(EXIT_SUCCESS), "");
}
#endif

TEST(Reservation, OfMoreThanTheMachineHasTakesNothing) {
    const std::size_t before = huge_memory::now().reserved;
    const auto done =
        reserve_memory(std::size_t{1} << 36, lasting_memory::of_this_process()); // 360 TB
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ENOMEM);
    EXPECT_NE(done.error().text.find(" and the machine has "), std::string::npos)
        << done.error().text;
    EXPECT_EQ(huge_memory::now().reserved, before);
}

} // namespace
} // namespace esplane::fastpath::reservation_test

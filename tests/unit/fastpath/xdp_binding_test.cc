// SPDX-License-Identifier: Apache-2.0
//
// Which way an AF_XDP port takes, by what drivers answer.
#include <array>
#include <cerrno>

#include <gtest/gtest.h>

#include "fastpath/xdp/binding.h"
#include "fastpath/xdp/large_buffers.h"

namespace esplane::fastpath {
namespace {

constexpr binding zero_copy{true, false};
constexpr binding copy{false, false};

/// A driver that answers zero-copy and copy with these errors; 0 takes it.
struct driver {
    int to_zero_copy = 0;
    int to_copy = 0;
    std::vector<binding> tried{};

    result<void> operator()(const binding& b) {
        tried.push_back(b);
        const int code = b.zero_copy ? to_zero_copy : to_copy;
        if (code == 0) return {};
        return fail(code, "refused");
    }
};

result<binding> bind(driver& d, xdp_wish wish, xdp_mode program = xdp_mode::native) {
    const auto ways = bindings_to_try(wish, program, false);
    return bind_first(ways, std::ref(d));
}

TEST(XdpBinding, ZeroCopyIsTakenWhereTheDriverHasIt) {
    driver d;
    EXPECT_EQ(*bind(d, xdp_wish::automatic), zero_copy);
    EXPECT_EQ(d.tried.size(), 1U);
}

TEST(XdpBinding, CopyIsNextWhateverWayADriverSaysThatItCannot) {
    for (const int code : {EOPNOTSUPP, EINVAL, ENXIO, ENOMEM, EIO}) {
        driver d{.to_zero_copy = code};
        EXPECT_EQ(*bind(d, xdp_wish::automatic), copy) << code;
        EXPECT_EQ(d.tried, (std::vector{zero_copy, copy}));
    }
}

TEST(XdpBinding, WhatNoOtherWayMendsEndsTheSearch) {
    for (const int code : {EBUSY, EPERM, ENODEV, ENOBUFS}) {
        driver d{.to_zero_copy = code};
        EXPECT_EQ(bind(d, xdp_wish::automatic).error().code, code);
        EXPECT_EQ(d.tried.size(), 1U);
    }
}

TEST(XdpBinding, AWishIsMetOrRefused) {
    driver poor{.to_zero_copy = EOPNOTSUPP};
    EXPECT_EQ(bind(poor, xdp_wish::zero_copy).error().code, EOPNOTSUPP);
    driver rich;
    EXPECT_EQ(*bind(rich, xdp_wish::copy), copy);
    EXPECT_EQ(rich.tried, std::vector{copy});
}

TEST(XdpBinding, BehindTheDriverThereIsNoZeroCopy) {
    driver d;
    EXPECT_EQ(*bind(d, xdp_wish::automatic, xdp_mode::generic), copy);
    EXPECT_EQ(*bind(d, xdp_wish::generic, xdp_mode::generic), copy);
    EXPECT_EQ(bind(d, xdp_wish::zero_copy, xdp_mode::generic).error().code, EOPNOTSUPP);
}

TEST(XdpBinding, LargeFramesWantSeveralBuffersInEveryWay) {
    for (const binding& b : bindings_to_try(xdp_wish::automatic, xdp_mode::native, true))
        EXPECT_TRUE(b.multi_buffer);
    EXPECT_EQ(bindings_to_try(xdp_wish::automatic, xdp_mode::native, true).size(), 2U);
}

TEST(XdpBinding, ABondTakesItsProgramBehindTheDriverUnlessToldOtherwise) {
    using modes = std::vector<xdp_mode>;
    EXPECT_EQ(modes_to_try(xdp_wish::automatic, false),
              (modes{xdp_mode::native, xdp_mode::generic}));
    EXPECT_EQ(modes_to_try(xdp_wish::automatic, true), modes{xdp_mode::generic});
    EXPECT_EQ(modes_to_try(xdp_wish::copy, true), modes{xdp_mode::native});
}

TEST(XdpBinding, ModesAreReadAndNamedAlike) {
    EXPECT_EQ(*parse_xdp_wish("zero-copy"), xdp_wish::zero_copy);
    EXPECT_EQ(*parse_xdp_wish("auto"), xdp_wish::automatic);
    EXPECT_EQ(parse_xdp_wish("fast").error().text,
              "no mode \"fast\": choose auto, zero-copy, copy or generic");
    EXPECT_EQ(name_of(xdp_mode::native, zero_copy), "zero-copy");
    EXPECT_EQ(name_of(xdp_mode::native, copy), "copy");
    EXPECT_EQ(name_of(xdp_mode::generic, {false, true}), "generic, multi-buffer");
}

TEST(LargeBuffers, EachIsGivenOutOnceUntilItIsBack) {
    large_buffers buffers(3);
    std::array<packet, 4> p;
    for (int again = 0; again < 2; ++again) {
        for (std::size_t i = 0; i < 3; ++i)
            ASSERT_TRUE(buffers.allocate(p[i], 9000));
        EXPECT_FALSE(buffers.allocate(p[3], 0));
        EXPECT_NE(p[0].data, p[1].data);
        EXPECT_NE(p[1].data, p[2].data);
        std::array<packet*, 3> all{&p[0], &p[1], &p[2]};
        buffers.release(all);
    }
    EXPECT_FALSE(buffers.allocate(p[0], large_buffers::buffer_size));
}

} // namespace
} // namespace esplane::fastpath

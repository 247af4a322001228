// SPDX-License-Identifier: Apache-2.0
//
// A packet port against the kernel, in a network namespace of its own.  Needs root; skips (77)
// without it.
//
//   packet_port -- a0 ------ b0
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <sched.h>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "fastpath/port_packet.h"

namespace esplane::fastpath {
namespace {

void run(const std::string& command) {
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
}

class PacketPort : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
        run("ip link add a0 type veth peer name b0");
        run("ip link set a0 up");
        run("ip link set b0 up");
        run("echo 0 > /proc/sys/net/ipv4/ip_forward");
        auto opened = packet_port::open({"wan", "a0"}, *pool_, 1);
        ASSERT_TRUE(opened) << opened.error().text;
        port_ = std::move(*opened);
        (void)port_->tend();
    }

    /// Frames of these lengths, as one burst.  Returns how many were taken.
    std::size_t send(const std::vector<std::uint32_t>& lengths) {
        std::vector<packet> packets(lengths.size());
        std::vector<packet*> frames;
        for (std::size_t i = 0; i < lengths.size(); ++i) {
            EXPECT_TRUE(pool_->allocate(packets[i], lengths[i]));
            packets[i].extend(static_cast<int>(lengths[i]));
            std::fill_n(packets[i].data, lengths[i], std::uint8_t{0xfe});
            frames.push_back(&packets[i]);
        }
        const std::size_t taken = port_->send(0, frames);
        pool_->release(std::span(frames).subspan(taken));
        return taken;
    }
    std::uint64_t extended(const std::string& name) const {
        for (const named_count& one : port_->extended_counters())
            if (one.name == name) return one.value;
        return ~std::uint64_t{0};
    }

    static constexpr std::uint32_t buffers = 256;
    std::unique_ptr<buffer_pool> pool_ = buffer_pool::make(buffers).value();
    std::unique_ptr<packet_port> port_;
};

TEST_F(PacketPort, AFrameTooLongForTheDeviceIsLostAloneAndCounted) {
    EXPECT_EQ(send({100, 1500, 2000, 100, 2000, 1514}), 6u);
    const port_counters c = port_->counters();
    EXPECT_EQ(c.tx_packets, 4u);
    EXPECT_EQ(c.tx_bytes, 100u + 1500 + 100 + 1514);
    EXPECT_EQ(c.tx_full, 0u);
    EXPECT_EQ(extended("tx_too_long"), 2u);
    EXPECT_EQ(pool_->free_frames(), buffers);
}

TEST_F(PacketPort, SaysWhatItsDeviceLacks) {
    EXPECT_TRUE(port_->up());
    EXPECT_EQ(port_->why_down(), "");
    run("ip link set b0 down");
    EXPECT_TRUE(port_->tend().value());
    EXPECT_FALSE(port_->up());
    EXPECT_EQ(port_->why_down(), "its device has no link");
    EXPECT_EQ(send({100}), 0u);
    run("ip link set a0 down");
    EXPECT_FALSE(port_->tend().value());
    EXPECT_EQ(port_->why_down(), "its device is switched off: 'ip link set dev a0 up'");
    run("ip link del a0");
    EXPECT_FALSE(port_->tend().value());
    EXPECT_EQ(port_->why_down(), "its device is gone");
}

} // namespace
} // namespace esplane::fastpath

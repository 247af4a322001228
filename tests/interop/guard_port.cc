// SPDX-License-Identifier: Apache-2.0
//
// An AF_XDP port between the two programs: frames of every size, queues, a device that goes.
#include <cstring>
#include <memory>
#include <sched.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <net/if.h>

#include "fastpath/link_state.h"
#include "fastpath/xdp/port_xdp.h"
#include "fastpath/xdp/privileged.h"
#include "tests/interop/guard_bed.h"

namespace esplane::fastpath {
namespace {

class GuardedPort : public GuardPrograms {
  protected:
    void SetUp() override {
        GuardPrograms::SetUp();
        pool_ = std::move(*buffer_pool::make(4096));
    }
    void TearDown() override {
        port_.reset();
        GuardPrograms::TearDown();
    }
    result<void> open_port(xdp_port_options options = {}) {
        options.name = options.device = "x0";
        auto opened = xdp_port::open(options, *pool_, *guard_);
        if (!opened) return tl::unexpected(opened.error());
        port_ = std::move(*opened);
        return {};
    }
    /// Asks for a second.
    std::size_t receive_within(std::span<packet> burst) {
        for (int i = 0; i < 100; ++i) {
            if (const std::size_t n = port_->receive(0, burst); n != 0) return n;
            ::usleep(10'000);
        }
        return 0;
    }
    /// A socket that gets what the port sends, for a second.
    static unique_fd listen_at_peer() {
        unique_fd socket(::socket(AF_PACKET, SOCK_RAW, 0));
        sockaddr_ll at{};
        at.sll_family = AF_PACKET;
        at.sll_protocol = wire::be16(wire::ethertype_ipv4).network();
        at.sll_ifindex = static_cast<int>(::if_nametoindex("x1"));
        const timeval second{1, 0};
        EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
        (void)::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
        return socket;
    }

    std::unique_ptr<buffer_pool> pool_;
    std::unique_ptr<xdp_port> port_;
};

TEST_F(GuardedPort, ADaemonThatSeesAnotherRunIsRefusedTooWhileThePortIsOpen) {
    const auto refused_elsewhere = [] {
        return ::unshare(CLONE_NEWNS) == 0 && hide_run() && !guard::open("x0") &&
               guard::release("x0").error().code == EBUSY;
    };
    EXPECT_FALSE(in_child(refused_elsewhere));
    ASSERT_TRUE(guard_->attach()); // released just now
    ASSERT_TRUE(open_port());
    EXPECT_TRUE(in_child(refused_elsewhere));
}

/// And waits for the link: the kernel says up to a second later that there is one.
int set_mtu(std::size_t mtu) {
    const std::string n = std::to_string(mtu);
    const std::string command = "ip link set x0 mtu " + n + " && ip link set x1 mtu " + n + " up";
    const int status = std::system(command.c_str());
    for (int i = 0; i < 500 && link_of("x0") != link_state::up; ++i)
        ::usleep(10'000);
    return status;
}

TEST_F(GuardedPort, TheLargestMtuOfOneBufferFitsTheWayUp) {
    ASSERT_EQ(set_mtu(xdp_port::largest_mtu), 0);
    ASSERT_TRUE(open_port());
    EXPECT_FALSE(port_->bound().multi_buffer);
    const bytes largest(xdp_port::largest_mtu + sizeof(wire::ethernet_header), 0xff);
    punt_queue queue(guard_->punt_program(), guard_->ifindex(), {});
    EXPECT_TRUE(queue.push(largest, false));
    EXPECT_EQ(queue.hand_up().taken, 1U);
}

TEST_F(GuardedPort, AnMtuAboveTheLargestIsRefused) {
    ASSERT_EQ(set_mtu(xdp_port::largest_multi_buffer_mtu + 1), 0);
    const auto refused = open_port();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EMSGSIZE);
}

/// A frame as the other end of the veth sends it.
void send_from_peer(const bytes& frame) {
    const unique_fd socket(::socket(AF_PACKET, SOCK_RAW, 0));
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_ifindex = static_cast<int>(::if_nametoindex("x1"));
    EXPECT_EQ(::sendto(socket.get(), frame.data(), frame.size(), 0,
                       reinterpret_cast<const sockaddr*>(&to), sizeof to),
              static_cast<ssize_t>(frame.size()))
        << std::strerror(errno);
}

/// A frame whose every byte behind the headers says where it stands.
bytes counting_frame(std::size_t payload) {
    bytes content(payload);
    for (std::size_t i = 0; i < payload; ++i)
        content[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
    return frame({.to = "10.2.0.10", .payload = content});
}

TEST_F(GuardedPort, FramesInSeveralBuffersArriveAndLeaveWhole) {
    ASSERT_EQ(set_mtu(9000), 0);
    ASSERT_TRUE(open_port());
    EXPECT_EQ(port_->mode(), "copy, multi-buffer");
    std::uint64_t linearised = 0;
    for (const std::size_t payload : {64, 3000, 3500, 3700, 3900, 7700, 8980}) {
        const bytes sent = counting_frame(payload);
        std::array<packet, 8> burst;
        (void)port_->receive(0, burst); // fills the ring
        send_from_peer(sent);
        ASSERT_EQ(receive_within(burst), 1U) << payload;
        const packet& p = burst[0];
        EXPECT_EQ(bytes(p.data, p.data + p.length), sent);
        EXPECT_GE(p.tailroom, 256U);
        linearised += p.owner != pool_.get();

        const unique_fd sniffer = listen_at_peer();
        packet* const back = &burst[0];
        ASSERT_EQ(port_->send(0, {&back, 1}), 1U);
        port_->flush(0);
        bytes seen(20000);
        const ssize_t n = ::recv(sniffer.get(), seen.data(), seen.size(), 0);
        seen.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
        EXPECT_EQ(seen, sent);
    }
    EXPECT_EQ(linearised, 4U);
    EXPECT_EQ(port_->counters().rx_linearised, linearised);
    EXPECT_EQ(port_->counters().tx_copied, linearised);
    port_->flush(0);
    EXPECT_LE(pool_->count() - pool_->free_frames(), xsk::ring_size); // those in the fill ring
}

TEST_F(GuardedPort, WhatTheKernelCountsOfASocketIsTold) {
    ASSERT_EQ(set_mtu(1500), 0);
    ASSERT_TRUE(open_port());
    send_from_peer(frame({.to = "10.2.0.10"})); // nothing is in the fill ring yet
    std::uint64_t empty = 0;
    for (const named_count& c : port_->extended_counters())
        if (c.name == "xdp_rx_fill_ring_empty_descs") empty = c.value;
    EXPECT_GE(empty, 1U);
    EXPECT_EQ(port_->extended_counters().size(), 6U);
}

int option_of(const unique_fd& socket, int option) {
    int value = -1;
    socklen_t size = sizeof value;
    EXPECT_EQ(::getsockopt(socket.get(), SOL_SOCKET, option, &value, &size), 0);
    return value;
}

TEST_F(GuardedPort, AModeThatIsAskedForIsTheOneOrNone) {
    const auto refused = open_port({.wish = xdp_wish::zero_copy}); // no veth has it
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EOPNOTSUPP);
    EXPECT_NE(refused.error().text.find("use mode=auto"), std::string::npos);
    ASSERT_TRUE(open_port({.wish = xdp_wish::copy}));
    EXPECT_EQ(port_->mode(), "copy");
    port_.reset();
    EXPECT_EQ(guard_->attach(xdp_wish::generic).error().code, EBUSY); // it is there in another
}

TEST(BusyPolling, IsSetOnTheSocketForAsLongAsAskedFor) {
    own_privileges means;
    for (const unsigned us : {0U, 20U}) {
        const auto socket = means.open_socket(us);
        ASSERT_TRUE(socket) << socket.error().text;
        EXPECT_EQ(option_of(*socket, SO_BUSY_POLL), static_cast<int>(us));
        EXPECT_EQ(option_of(*socket, SO_PREFER_BUSY_POLL), us != 0);
    }
}

TEST_F(GuardedPort, ThatPollsBusilyReceivesAndSends) {
    ASSERT_EQ(set_mtu(1500), 0);
    ASSERT_TRUE(open_port({.busy_poll_us = 20}));
    std::array<packet, 8> burst;
    (void)port_->receive(0, burst); // fills the ring
    const bytes sent = frame({.to = "10.2.0.10"});
    send_from_peer(sent);
    ASSERT_EQ(receive_within(burst), 1U);
    const unique_fd sniffer = listen_at_peer();
    packet* const back = &burst[0];
    ASSERT_EQ(port_->send(0, {&back, 1}), 1U);
    port_->flush(0);
    bytes seen(2000);
    EXPECT_EQ(::recv(sniffer.get(), seen.data(), seen.size(), 0),
              static_cast<ssize_t>(sent.size()));
}

TEST_F(GuardedPort, ThereAreLanesForTheQueuesAndEachSends) {
    ASSERT_EQ(std::system("ip link set x1 up && ethtool -L x0 rx 2 tx 2"), 0);
    ASSERT_TRUE(open_port({.workers = 4}));
    ASSERT_EQ(port_->lanes(), 2U);
    EXPECT_EQ(port_->queues(), 2U);
    for (unsigned lane = 0; lane < 2; ++lane) {
        std::array<packet, 8> burst;
        (void)port_->receive(lane, burst);
        const unique_fd sniffer = listen_at_peer();
        packet out;
        ASSERT_TRUE(pool_->allocate(out, 100));
        const bytes content = frame({.to = "10.2.0.10"});
        std::memcpy(out.data, content.data(), content.size());
        out.extend(static_cast<int>(content.size()));
        packet* const one = &out;
        EXPECT_EQ(port_->send(lane, {&one, 1}), 1U);
        port_->flush(lane);
        bytes seen(2000);
        EXPECT_EQ(::recv(sniffer.get(), seen.data(), seen.size(), 0),
                  static_cast<ssize_t>(content.size()));
    }
}

TEST_F(GuardedPort, ADeviceThatVanishesAndComesBackIsTakenUpAgain) {
    ASSERT_EQ(set_mtu(1500), 0);
    ASSERT_TRUE(open_port());
    std::array<packet, 8> burst;
    (void)port_->receive(0, burst);
    const std::size_t in_ring = pool_->count() - pool_->free_frames();
    const int before = port_->ifindex();
    for (int again = 0; again < 3; ++again) {
        ASSERT_FALSE(*port_->tend());
        ASSERT_EQ(std::system("ip link del x0"), 0);
        EXPECT_TRUE(*port_->tend());
        EXPECT_FALSE(port_->up());
        EXPECT_FALSE(*port_->tend());
        ASSERT_EQ(std::system("ip link add x0 type veth peer name x1 && ip link set x0 up"), 0);
        EXPECT_FALSE(*port_->tend()) << "the lane has not let its queue be yet";
        EXPECT_TRUE(find_attachments(port_->ifindex()).ingress) << "but the guard is there";
        EXPECT_TRUE(find_attachments(port_->ifindex()).egress);
        ASSERT_EQ(set_mtu(1500), 0);
        EXPECT_EQ(port_->receive(0, burst), 0U);
        const auto back = port_->tend();
        ASSERT_TRUE(back) << back.error().text;
        EXPECT_TRUE(*back);
        EXPECT_TRUE(port_->up());
        EXPECT_NE(port_->ifindex(), before);
        (void)port_->receive(0, burst);
        send_from_peer(frame({.to = "10.2.0.10"}));
        ASSERT_EQ(receive_within(burst), 1U);
        packet* const got = &burst[0];
        pool_->release({&got, 1});
        EXPECT_EQ(pool_->count() - pool_->free_frames(), in_ring) << "no frame is lost";
    }
}

} // namespace
} // namespace esplane::fastpath

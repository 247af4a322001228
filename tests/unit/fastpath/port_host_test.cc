// SPDX-License-Identifier: Apache-2.0
//
// The machine as a port, over datagram sockets in the place of a TUN device's queues.
#include "fastpath/port_host.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <sys/socket.h>

#include "lib/wire/checksum.h"
#include "tests/support/coalesced.h"
#include "tests/support/lab.h"

namespace esplane::tests::port_host_test {
namespace {

using fastpath::host_port;
using fastpath::offload_header;
using ipsec::family;

/// A host port with one lane, and the kernel's end of it.
struct machine {
    explicit machine(fastpath::buffer_pool& pool, bool udp = true) {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
            throw std::runtime_error("socketpair");
        std::vector<unique_fd> queues;
        queues.emplace_back(ends[0]);
        kernel = unique_fd(ends[1]);
        port = host_port::over(
            fastpath::tun_queues::over(std::move(queues), {.tcp = true, .udp = udp}),
            {.name = "host", .device = "ipsec0"}, pool);
    }

    void sends(const offload_header& o, const bytes& packet) const {
        bytes all(sizeof o);
        std::memcpy(all.data(), &o, sizeof o);
        all.insert(all.end(), packet.begin(), packet.end());
        ASSERT_EQ(::send(kernel.get(), all.data(), all.size(), 0),
                  static_cast<ssize_t>(all.size()));
    }
    /// What came up, a write each.
    std::vector<written> came_up() const {
        std::vector<written> all;
        bytes buffer(70000);
        for (ssize_t n; (n = ::recv(kernel.get(), buffer.data(), buffer.size(), 0)) > 0;) {
            written& w = all.emplace_back();
            std::memcpy(&w.offload, buffer.data(), sizeof w.offload);
            w.packet.assign(buffer.begin() + sizeof w.offload, buffer.begin() + n);
        }
        return all;
    }
    std::uint64_t extended(const std::string& name) const {
        for (const fastpath::named_count& c : port->extended_counters())
            if (c.name == name) return c.value;
        return ~std::uint64_t{0};
    }

    unique_fd kernel;
    std::unique_ptr<host_port> port;
};

/// UDP of `payload` bytes that stands for segments of `size`.
bytes super_packet(std::size_t payload) {
    bytes b = make_packet({.length = static_cast<std::uint32_t>(28 + payload)});
    for (std::size_t i = 28; i < b.size(); ++i)
        b[i] = static_cast<std::uint8_t>(i * 31 >> 3);
    return b;
}
offload_header cut_into(std::uint16_t size) {
    return {.flags = offload_header::needs_checksum,
            .kind = offload_header::udp,
            .headers = 28,
            .segment_size = size,
            .checksum_start = 20,
            .checksum_offset = 6};
}

/// Loops of receive() until one gives nothing or `bursts` are over; buffers go back.
std::vector<bytes> receive(machine& m, std::size_t burst, unsigned bursts = 100) {
    std::vector<bytes> all;
    std::array<fastpath::packet, fastpath::max_burst> into;
    unsigned empty = 0;
    while (bursts-- != 0 && empty < 4) { // an idle port is asked every few loops
        const std::size_t n = m.port->receive(0, std::span(into).first(burst));
        empty = n == 0 ? empty + 1 : 0;
        for (fastpath::packet& p : std::span(into).first(n)) {
            EXPECT_GE(p.headroom, 256u);
            all.emplace_back(p.data, p.data + p.length);
            fastpath::packet* const one[] = {&p};
            p.owner->release(one);
        }
    }
    return all;
}

struct HostPort : testing::Test {
    std::unique_ptr<fastpath::buffer_pool> pool = *fastpath::buffer_pool::make(256);
};

TEST_F(HostPort, ASuperPacketIsCutAndWhatABurstDoesNotHoldComesNext) {
    machine m(*pool);
    const bytes whole = super_packet(30000);
    m.sends(cut_into(1000), whole);
    m.sends({}, make_packet({.number = 9}));
    const std::vector<bytes> first = receive(m, 7, 1);
    EXPECT_EQ(first.size(), 7u);
    std::vector<bytes> all = receive(m, 7);
    all.insert(all.begin(), first.begin(), first.end());
    ASSERT_EQ(all.size(), 31u);
    EXPECT_EQ(number_of(all.back()), 9u);
    bytes payload;
    for (std::size_t i = 0; i < 30; ++i)
        payload.insert(payload.end(), all[i].begin() + 28, all[i].end());
    EXPECT_TRUE(std::equal(payload.begin(), payload.end(), whole.begin() + 28, whole.end()));
    EXPECT_EQ(m.extended("rx_segmented"), 1u);
    EXPECT_EQ(m.port->counters().rx_packets, 31u);
    EXPECT_EQ(pool->free_frames(), pool->count());
}

TEST_F(HostPort, ABurstEndsWithALargeSuperPacketButNotWithASmallOne) {
    machine m(*pool);
    m.sends(cut_into(1000), super_packet(20000));
    m.sends(cut_into(1000), super_packet(3000));
    m.sends({}, make_packet({.number = 1}));
    m.sends(cut_into(1000), super_packet(20000));
    m.sends({}, make_packet({.number = 2}));
    EXPECT_EQ(receive(m, 64, 1).size(), 20u);
    EXPECT_EQ(receive(m, 64, 1).size(), 24u);
    EXPECT_EQ(receive(m, 64, 1).size(), 1u);
}

TEST_F(HostPort, AChecksumThatWasLeftToTheDeviceIsCompleted) {
    machine m(*pool);
    const bytes right = make_packet({.length = 777});
    bytes unfinished = right;
    const std::uint64_t pseudo =
        wire::checksum_pseudo(&right[12], &right[16], 4, wire::proto_udp, 757);
    wire::store(&unfinished[26], wire::be16::from_network(wire::checksum_fold(pseudo)));
    offload_header o = cut_into(0);
    o.kind = offload_header::not_merged;
    m.sends(o, unfinished);
    EXPECT_EQ(receive(m, 64), std::vector<bytes>{right});
}

TEST(TunQueues, AreNotReplacedByFewer) {
    const auto queues = [](unsigned count) {
        std::vector<unique_fd> all;
        while (all.size() < count)
            all.emplace_back(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        return fastpath::tun_queues::over(std::move(all), {});
    };
    auto two = queues(2);
    const auto replaced = two.replace_by(queues(1));
    ASSERT_FALSE(replaced);
    EXPECT_EQ(replaced.error().code, EBUSY);
    EXPECT_TRUE(two.replace_by(queues(2)));
}

TEST_F(HostPort, WhatDoesNotFitABufferOrCannotBeCutIsRefusedAlone) {
    machine m(*pool);
    bytes icmp = super_packet(9000);
    icmp[9] = wire::proto_icmp;
    m.sends({}, super_packet(host_port::largest_mtu - 28 + 1));
    m.sends(cut_into(host_port::largest_mtu), super_packet(9000));
    m.sends(cut_into(1000), icmp);
    m.sends(cut_into(0), super_packet(9000));
    m.sends({}, super_packet(host_port::largest_mtu - 28));
    EXPECT_EQ(receive(m, 64), std::vector<bytes>{super_packet(host_port::largest_mtu - 28)});
    EXPECT_EQ(m.extended("rx_refused"), 4u);
}

TEST_F(HostPort, WithoutBuffersNothingIsLost) {
    machine m(*pool);
    std::vector<fastpath::packet> all(pool->count());
    for (fastpath::packet& p : all)
        ASSERT_TRUE(pool->allocate(p, 0));
    m.sends(cut_into(1000), super_packet(3000));
    m.sends({}, make_packet({}));
    EXPECT_TRUE(receive(m, 64).empty());
    EXPECT_GT(m.port->counters().rx_no_buffer, 0u);
    for (fastpath::packet& p : all) {
        fastpath::packet* const one[] = {&p};
        pool->release(one);
    }
    EXPECT_EQ(receive(m, 64).size(), 4u);
}

TEST_F(HostPort, WhatFollowsEachOtherGoesUpInOneWriteIfTheKernelTakesIt) {
    std::vector<bytes> burst;
    for (std::uint32_t i = 0; i < 100; ++i)
        burst.push_back(make_packet({.length = 500, .number = i}));
    const packets_at_rest packets(burst);
    for (const bool udp : {true, false}) {
        machine m(*pool, udp);
        std::size_t taken = 0; // a socket's queue is shorter than a device's
        std::vector<written> up;
        for (std::size_t at = 0; at < 100; at += 5) {
            taken += m.port->punt(0, packets.all().subspan(at, 5));
            for (const written& w : m.came_up())
                up.push_back(w);
        }
        EXPECT_EQ(taken, 100u);
        EXPECT_EQ(up.size(), udp ? 20u : 100u);
        EXPECT_EQ(up.front().packet.size(), udp ? 28 + 5 * 472u : 500u);
        EXPECT_EQ(m.port->counters().punted, 100u);
        EXPECT_EQ(m.extended("punt_merged"), udp ? 20u : 0u);
        EXPECT_EQ(m.port->lacking().empty(), udp);
    }
}

TEST_F(HostPort, MoreThanABurstGoesUpInOneCall) {
    std::vector<bytes> burst;
    for (std::uint32_t i = 0; i < 128; ++i)
        burst.push_back(make_packet({.length = 100, .number = i}));
    const packets_at_rest packets(burst);
    machine m(*pool);
    EXPECT_EQ(m.port->punt(0, packets.all()), 128u);
    EXPECT_EQ(m.came_up().size(), 2u);
}

TEST_F(HostPort, WhatTheKernelRefusesIsCounted) {
    const packets_at_rest packets({make_packet({}), make_packet({.source_port = 7})});
    machine m(*pool);
    m.kernel = {};
    EXPECT_EQ(m.port->punt(0, packets.all()), 0u);
    EXPECT_EQ(m.port->counters().punt_full, 2u);
    EXPECT_EQ(m.port->counters().punted, 0u);
}

TEST_F(HostPort, WhatIsSentGivesItsBuffersBack) {
    machine m(*pool);
    std::array<fastpath::packet, 10> packets;
    std::array<fastpath::packet*, 10> pointers;
    for (std::uint32_t i = 0; i < 10; ++i) {
        const bytes b = make_packet({.number = i});
        ASSERT_TRUE(pool->allocate(packets[i], 64));
        std::memcpy(packets[i].data, b.data(), b.size());
        packets[i].extend(static_cast<int>(b.size()));
        pointers[i] = &packets[i];
    }
    EXPECT_EQ(m.port->send(0, pointers), 10u);
    EXPECT_EQ(m.came_up().size(), 1u);
    EXPECT_EQ(m.port->counters().tx_packets, 10u);
    EXPECT_EQ(pool->free_frames(), pool->count());
}

/// A gateway that is itself spoken to through a tunnel, with a host port of one lane.
struct host_lab : lab {
    explicit host_lab(unsigned worker_count = 1)
        : lab(1, 1024, worker_count)
        , host(*pool) {
        fastpath::port* const all[] = {ports[0].get(), ports[1].get(), interfaces.get(),
                                       host.port.get()};
        for (unsigned i = 0; i < worker_count; ++i)
            workers[i] = *fastpath::worker::make(
                tables, *pool, all, {.index = i, .punts = fastpath::punt_rates{{1, 1, 1, 1}}},
                &mesh);
        worker = workers[0].get();
        add_tunnel({});
    }
    machine host;
};

/// ESP for the gateway itself: 300 bytes of UDP each.
std::vector<frame> esp_for_gateway(std::uint32_t count) {
    lab peer(2);
    peer.add_tunnel({});
    std::vector<frame> burst;
    for (std::uint32_t i = 0; i < count; ++i)
        burst.push_back(make_packet({.from = 2, .to = 1, .host = 1, .length = 300, .number = i}));
    peer.push(lab::plain, burst);
    return peer.sent(lab::secure);
}

TEST(HostPortInThePath, WhatComesOutOfAnSaGoesUpByItInOnePieceWithoutALimit) {
    for (const unsigned lane : {0u, 1u}) { // lane 1's worker has no lane of the host port
        host_lab gateway(2);
        gateway.push(lab::secure, esp_for_gateway(60), lane);
        const std::vector<written> up = gateway.host.came_up();
        ASSERT_EQ(up.size(), 1u);
        EXPECT_EQ(up[0].packet.size(), 28 + 60 * 272u);
        EXPECT_TRUE(gateway.punted(lab::secure).empty());
        EXPECT_EQ(gateway.worker->counters().punted.get(), 60u);
        EXPECT_EQ(gateway.workers[1]->counters().handed_out.get(), 60 * lane);
        for (const auto& w : gateway.workers)
            EXPECT_TRUE(w->counters().balanced());
        EXPECT_EQ(gateway.pool->free_frames(), gateway.pool->count());
    }
}

TEST(HostPortInThePath, WhatCameInClearGoesUpByItsPort) {
    host_lab gateway;
    const std::vector<frame> esp = esp_for_gateway(1);
    gateway.push(lab::secure, {make_packet({.from = 3, .to = 1, .host = 1}), esp.at(0)});
    EXPECT_EQ(gateway.punted(lab::secure).size(), 1u);
    EXPECT_EQ(gateway.host.came_up().size(), 1u);
}

TEST(HostPortInThePath, WhatTheKernelRefusesIsADropThatIsCounted) {
    host_lab gateway;
    gateway.host.kernel = {};
    gateway.push(lab::secure, esp_for_gateway(1));
    EXPECT_EQ(gateway.drops(fastpath::drop_reason::punt_full), 1u);
    EXPECT_TRUE(gateway.worker->counters().balanced());
    EXPECT_EQ(gateway.pool->free_frames(), gateway.pool->count());
}

} // namespace
} // namespace esplane::tests::port_host_test

// SPDX-License-Identifier: Apache-2.0
//
// DPDK ports over rings of this process: what is sent on one is received on it again.  No huge
// pages, no root, no network.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/resource.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "fastpath/buffer_pool.h"
#include "tests/unit/fastpath/dpdk_ports.h"

// What drivers call to tell of an event; DPDK keeps the declarations to itself.
extern "C" {
struct rte_eth_dev;
rte_eth_dev* rte_eth_dev_allocated(const char* name);
int rte_eth_dev_callback_process(rte_eth_dev* device, rte_eth_event_type event, void* argument);
}

namespace esplane::fastpath {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(EalCommandLine, UsesHugePagesWhereThereAreSomeAndNoneWhereNot) {
    EXPECT_THAT(eal_command_line({}, {true, 0}),
                ElementsAre("esplaned", "-l", "0", "--no-telemetry", "--in-memory", "-m", "256",
                            "--no-pci"));
    EXPECT_THAT(eal_command_line({}, {false, 3}),
                ElementsAre("esplaned", "-l", "3", "--no-telemetry", "--no-huge", "--no-shconf",
                            "-m", "256", "--no-pci"));
}

TEST(EalCommandLine, ProbesTheFunctionsOfThePortsAndNoOther) {
    const auto line = eal_command_line({"", {"0000:3b:00.0", "0000:3b:00.1,a=b"}}, {true, 0});
    EXPECT_THAT(line, Not(Contains("--no-pci")));
    EXPECT_THAT(std::vector(line.end() - 4, line.end()),
                ElementsAre("-a", "0000:3b:00.0", "-a", "0000:3b:00.1,a=b"));
}

TEST(EalCommandLine, LeavesOutWhatTheOperatorSpeaksOf) {
    EXPECT_THAT(eal_command_line({"-m 64 --no-huge"}, {true, 0}), Not(Contains("--in-memory")));
    EXPECT_THAT(eal_command_line({"--huge-dir=/mnt"}, {false, 0}), Not(Contains("--no-huge")));
    EXPECT_THAT(
        eal_command_line({"-l1"}, {true, 0}),
        ElementsAre("esplaned", "--no-telemetry", "--in-memory", "-m", "256", "--no-pci", "-l1"));
    EXPECT_THAT(eal_command_line({" -b  0000:00:1.0 --telemetry"}, {true, 0}),
                ElementsAre("esplaned", "-l", "0", "--in-memory", "-m", "256", "-b", "0000:00:1.0",
                            "--telemetry"));
}

/// In a process of its own: EAL is of no use to it afterwards.
TEST(EalDeathTest, SaysWhatToDoWhereThereIsNotSoMuchMemory) {
    const auto start = [] {
        const rlimit little{std::size_t{1} << 30, std::size_t{1} << 30};
        (void)::setrlimit(RLIMIT_AS, &little);
        const auto started = start_eal({"--no-huge --no-shconf -m 4096"});
        std::fputs(started ? "it started" : started.error().text.c_str(), stderr);
        std::_Exit(0);
    };
    EXPECT_EXIT(start(), ::testing::ExitedWithCode(0), "does not start: .*: free some, or ask");
}

TEST(SocketEnd, IsTheServersWhereADeviceListens) {
    EXPECT_EQ(socket_end_of("net_memif0", "socket=/run/m"), socket_end::client);
    EXPECT_EQ(socket_end_of("net_memif0", "role=server,socket=/run/m"), socket_end::server);
    EXPECT_EQ(socket_end_of("net_vhost0", "iface=/run/v"), socket_end::server);
    EXPECT_EQ(socket_end_of("net_vhost0", "iface=/run/v,client=1"), socket_end::client);
    EXPECT_EQ(socket_end_of("net_virtio_user0", "path=/run/v"), socket_end::client);
    EXPECT_EQ(socket_end_of("net_virtio_user0", "path=/run/v,server=1"), socket_end::server);
    EXPECT_EQ(socket_end_of("net_pcap0", "rx_pcap=/run/v"), socket_end::none);
}

TEST_F(DpdkPort, MovesAnMbufInAndOutWithoutACopy) {
    const auto port = open("net_ring_a");
    packet sent = packet_with(memory, "a frame of some bytes");
    const std::uint64_t handle = sent.handle;
    const std::uint8_t* const data = sent.data;
    ASSERT_EQ(send(*port, sent), 1u);
    ASSERT_EQ(port->receive(0, burst), 1u);
    const packet& p = burst[0];
    EXPECT_EQ(p.handle, handle);
    EXPECT_EQ(p.data, data);
    EXPECT_EQ(text_of(p), "a frame of some bytes");
    EXPECT_EQ(p.owner, &memory);
    EXPECT_EQ(p.flags, 0);
    EXPECT_EQ(port->counters().tx_copied, 0u);
    release(burst[0]);
}

TEST_F(DpdkPort, SendsWhatThePathMadeOfAFrame) {
    const auto port = open("net_ring_b");
    packet p = packet_with(memory, "inner");
    p.pull(-6);
    std::memcpy(p.data, "outer ", 6);
    p.extend(4);
    std::memcpy(p.data + 11, " end", 4);
    ASSERT_EQ(send(*port, p), 1u);
    ASSERT_EQ(port->receive(0, burst), 1u);
    EXPECT_EQ(text_of(burst[0]), "outer inner end");
    EXPECT_GE(burst[0].headroom, mbuf_memory::headroom);
    EXPECT_GE(burst[0].tailroom, mbuf_memory::room_behind);
    release(burst[0]);
}

TEST_F(DpdkPort, CopiesFramesOfOtherOwnersAndGivesTheirBuffersBack) {
    const auto port = open("net_ring_c");
    auto pool = std::move(*buffer_pool::make(64));
    packet p = packet_with(*pool, "from an AF_XDP port");
    const std::size_t before = pool->free_frames();
    ASSERT_EQ(send(*port, p), 1u);
    EXPECT_EQ(pool->free_frames(), before + 1);
    EXPECT_EQ(port->counters().tx_copied, 1u);
    ASSERT_EQ(port->receive(0, burst), 1u);
    EXPECT_EQ(text_of(burst[0]), "from an AF_XDP port");
    EXPECT_EQ(burst[0].owner, &memory);
    release(burst[0]);
}

TEST_F(DpdkPort, KeepsTheOrderOfFramesOfDifferentOwners) {
    const auto port = open("net_ring_d");
    auto pool = std::move(*buffer_pool::make(64));
    std::vector<packet> packets;
    std::vector<packet*> list;
    for (unsigned i = 0; i < 100; ++i)
        packets.push_back(i % 3 == 0 ? packet_with(*pool, std::to_string(i))
                                     : packet_with(memory, std::to_string(i)));
    for (packet& p : packets)
        list.push_back(&p);
    ASSERT_EQ(port->send(0, list), 100u);
    for (unsigned expected = 0; expected < 100;) {
        const std::size_t n = port->receive(0, burst);
        ASSERT_GT(n, 0u);
        for (std::size_t i = 0; i < n; ++i, ++expected) {
            EXPECT_EQ(text_of(burst[i]), std::to_string(expected));
            release(burst[i]);
        }
    }
}

TEST_F(DpdkPort, LeavesToTheCallerWhatTheRingDoesNotTake) {
    const auto port = open("net_ring_e");
    std::size_t taken = 0, given = 0;
    packet p;
    for (; given < 2000; ++given) {
        p = packet_with(memory, "x");
        const std::size_t n = send(*port, p);
        taken += n;
        if (n == 0) break;
    }
    ASSERT_LT(given, 2000u) << "the ring never filled";
    EXPECT_EQ(text_of(p), "x");
    release(p);
    EXPECT_EQ(port->counters().tx_packets, taken);
    EXPECT_EQ(port->counters().tx_full, 1u);
}

TEST_F(DpdkPort, LinearisesAFrameInSeveralMbufs) {
    const auto port = open("net_ring_f");
    auto* pool = *memory.make_pool("pieces", 63, 100, -1);
    put_chain(*port, pool, 3, 100);
    ASSERT_EQ(port->receive(0, burst), 1u);
    EXPECT_EQ(text_of(burst[0]),
              std::string(100, 'a') + std::string(100, 'b') + std::string(100, 'c'));
    EXPECT_EQ(port->counters().rx_linearised, 1u);
    release(burst[0]);
}

/// As drivers have it that receive many frames into one buffer.
TEST_F(DpdkPort, SendsAFrameFromMemoryThatIsNotTheMbufs) {
    const auto port = open("net_ring_external");
    packet p = packet_with(memory, "");
    auto* const m = reinterpret_cast<rte_mbuf*>(p.handle);
    std::array<std::uint8_t, 2048> outside{};
    rte_mbuf_ext_shared_info owner{};
    bool given_back = false;
    owner.free_cb = [](void*, void* flag) { *static_cast<bool*>(flag) = true; };
    owner.fcb_opaque = &given_back;
    rte_mbuf_ext_refcnt_set(&owner, 1);
    rte_pktmbuf_attach_extbuf(m, outside.data(), RTE_BAD_IOVA, outside.size(), &owner);
    m->data_off = 256;
    std::memset(rte_pktmbuf_append(m, 60), 'x', 60);
    ASSERT_EQ(rte_eth_tx_burst(number_of(*port), 0, const_cast<rte_mbuf**>(&m), 1), 1);

    ASSERT_EQ(port->receive(0, burst), 1u);
    ASSERT_EQ(burst[0].data, outside.data() + 256);
    ASSERT_EQ(send(*port, burst[0]), 1u);
    ASSERT_EQ(port->receive(0, burst), 1u);
    release(burst[0]);
    EXPECT_TRUE(given_back);
}

TEST_F(DpdkPort, DropsAndCountsAFrameThatFitsNoBuffer) {
    const auto port = open("net_ring_g");
    auto* pool = *memory.make_pool("large", 63, 2000, -1);
    put_chain(*port, pool, 4, 2000);
    EXPECT_EQ(port->receive(0, burst), 0u);
    EXPECT_EQ(port->counters().rx_packets, 0u);
    EXPECT_EQ(extended(*port, "rx_oversized"), 1u);
    EXPECT_EQ(port->counters().rx_no_buffer, 0u);
}

/// The path writes into what it receives.
TEST_F(DpdkPort, CopiesAFrameThatAnotherHoldsToo) {
    const auto port = open("net_ring_shared");
    packet sent = frame_with("held twice");
    rte_mbuf_refcnt_update(mbuf_of(sent), 1);
    put(*port, mbuf_of(sent));
    ASSERT_EQ(port->receive(0, burst), 1u);
    EXPECT_NE(burst[0].handle, sent.handle);
    EXPECT_EQ(text_of(burst[0]), "held twice");
    std::memset(burst[0].data, 'x', burst[0].length);
    EXPECT_EQ(text_of(sent), "held twice");
    EXPECT_EQ(rte_mbuf_refcnt_read(mbuf_of(sent)), 1) << "the port still holds it";
    EXPECT_EQ(extended(*port, "rx_shared"), 1u);
    EXPECT_EQ(port->counters().rx_linearised, 0u);
    release(sent);
    release(burst[0]);
}

TEST_F(DpdkPort, CopiesAClone) {
    const auto port = open("net_ring_clone");
    packet original = frame_with("the original");
    rte_mbuf* const clone = rte_pktmbuf_clone(mbuf_of(original), mbuf_of(original)->pool);
    ASSERT_NE(clone, nullptr);
    put(*port, clone);
    ASSERT_EQ(port->receive(0, burst), 1u);
    EXPECT_EQ(text_of(burst[0]), "the original");
    std::memset(burst[0].data, 'x', burst[0].length);
    EXPECT_EQ(text_of(original), "the original");
    EXPECT_EQ(rte_mbuf_refcnt_read(mbuf_of(original)), 1);
    EXPECT_EQ(extended(*port, "rx_shared"), 1u);
    release(original);
    release(burst[0]);
}

TEST_F(DpdkPort, CountsWhatItCannotCopyForWantOfABuffer) {
    const auto port = open("net_ring_empty");
    auto* pool = *memory.make_pool("elsewhere", 63, 100, -1);
    std::vector<packet> taken;
    for (packet p; memory.allocate(p, 1);)
        taken.push_back(p);
    put_chain(*port, pool, 2, 10);
    EXPECT_EQ(port->receive(0, burst), 0u);
    EXPECT_EQ(port->counters().rx_no_buffer, 1u);
    EXPECT_EQ(extended(*port, "rx_oversized"), 0u);
    for (packet& p : taken)
        release(p);
    EXPECT_EQ(rte_mempool_avail_count(pool), 63u) << "what was lost is kept";
}

struct said_by_device {
    std::uint64_t offload_flags;
    std::uint32_t packet_type;
    int flags; ///< packet_flag
};

TEST_F(DpdkPort, BelievesTheDeviceThatAChecksumIsRightAndNothingElse) {
    const auto port = open("net_ring_sums");
    constexpr std::uint64_t ip = RTE_MBUF_F_RX_IP_CKSUM_GOOD, l4 = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    const said_by_device all[] = {
        {0, 0, 0},
        {ip, 0, packet_flag::ip_sum_good},
        {l4, 0, packet_flag::l4_sum_done},
        {ip | l4, RTE_PTYPE_L3_IPV4, packet_flag::ip_sum_good | packet_flag::l4_sum_done},
        {RTE_MBUF_F_RX_IP_CKSUM_BAD | l4, 0, packet_flag::l4_sum_done},
        {ip | RTE_MBUF_F_RX_L4_CKSUM_BAD, 0, packet_flag::ip_sum_good},
        {RTE_MBUF_F_RX_IP_CKSUM_NONE | RTE_MBUF_F_RX_L4_CKSUM_NONE, 0, 0},
        {ip | l4, RTE_PTYPE_TUNNEL_GRE, 0}, // of the inner headers
        {ip, RTE_PTYPE_TUNNEL_ESP, packet_flag::ip_sum_good},
    };
    for (const said_by_device& one : all)
        for (const bool shared : {false, true}) {
            packet p = frame_with("x");
            mbuf_of(p)->ol_flags = one.offload_flags;
            mbuf_of(p)->packet_type = one.packet_type;
            if (shared) rte_mbuf_refcnt_update(mbuf_of(p), 1);
            put(*port, mbuf_of(p));
            ASSERT_EQ(port->receive(0, burst), 1u);
            EXPECT_EQ(burst[0].flags, one.flags) << one.offload_flags << ' ' << one.packet_type;
            release(burst[0]);
            if (shared) release(p);
        }
}

TEST_F(DpdkPort, TakesAsManyLanesAsTheDeviceHasQueues) {
    EXPECT_EQ(open("net_ring_h", "", 4)->lanes(), 4u);
    const empty_capture capture;
    EXPECT_EQ(open("net_pcap_h", "rx_pcap=" + capture.file, 4)->lanes(), 1u);
}

TEST_F(DpdkPort, ShowsTheCountersOfTheDriver) {
    const auto port = open("net_ring_i");
    packet p = packet_with(memory, "x");
    ASSERT_EQ(send(*port, p), 1u);
    ASSERT_EQ(port->receive(0, burst), 1u);
    release(burst[0]);
    std::uint64_t good = 0;
    for (const named_count& c : port->extended_counters())
        if (c.name == "tx_good_packets") good = c.value;
    EXPECT_EQ(good, 1u);
}

void pull_out(const char* device) {
    rte_eth_dev_callback_process(rte_eth_dev_allocated(device), RTE_ETH_EVENT_INTR_RMV, nullptr);
}

TEST_F(DpdkPort, IsDownFromTheMomentItsDeviceIsPulledOut) {
    const auto port = open("net_ring_j");
    ASSERT_TRUE(port->up());
    packet p = packet_with(memory, "in the ring");
    ASSERT_EQ(send(*port, p), 1u);
    pull_out("net_ring_j");
    EXPECT_FALSE(port->up());
    EXPECT_EQ(port->receive(0, burst), 0u);
    packet late = packet_with(memory, "late");
    EXPECT_EQ(send(*port, late), 0u);
    release(late);
}

TEST_F(DpdkPort, ComesBackWithItsDevice) {
    const auto port = open("net_ring_k");
    pull_out("net_ring_k");
    ASSERT_TRUE(port->tend());
    EXPECT_TRUE(port->up()) << "the device is in its slot again";
    packet p = packet_with(memory, "after it came back");
    ASSERT_EQ(send(*port, p), 1u);
    ASSERT_EQ(port->receive(0, burst), 1u);
    EXPECT_EQ(text_of(burst[0]), "after it came back");
    release(burst[0]);
}

TEST_F(DpdkPort, SaysWhyItStaysDownAndGoesOnTrying) {
    const empty_capture capture;
    const auto port = open("net_pcap_k", "rx_pcap=" + capture.file);
    ASSERT_TRUE(port->up());
    capture.remove();
    pull_out("net_pcap_k");
    EXPECT_EQ(port->tend().value_or(false), true) << "it has gone down";
    const auto again = port->tend();
    ASSERT_FALSE(again);
    EXPECT_THAT(again.error().text, HasSubstr(capture.file));
    capture.write();
    EXPECT_EQ(port->tend().value_or(false), true) << "it has come up";
    EXPECT_TRUE(port->up());
}

TEST_F(DpdkPort, SaysInOneLineWhyADeviceCannotBeOpened) {
    EXPECT_THAT(error_of("net_nonsense0"),
                AllOf(HasSubstr("net_nonsense0"), HasSubstr("no driver has such a name")));
    EXPECT_THAT(error_of("0000:3b:00.0"), HasSubstr("dpdk-devbind.py -b vfio-pci 0000:3b:00.0"));
    EXPECT_THAT(error_of("net_pcap1", "iface=nodevice"), HasSubstr("nodevice"));
    for (const char* device : {"net_nonsense0", "0000:3b:00.0"})
        EXPECT_THAT(error_of(device), Not(HasSubstr("\n")));
}

} // namespace
} // namespace esplane::fastpath

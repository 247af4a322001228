// SPDX-License-Identifier: Apache-2.0
//
// DPDK ports over rings of this process: what is sent on one is received on it again.  No huge
// pages, no root, no network.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <numeric>
#include <thread>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "fastpath/buffer_pool.h"
#include "fastpath/dpdk/eal.h"
#include "fastpath/dpdk/port_dpdk.h"
#include "tests/support/lab.h"

// What drivers call to tell of an event; DPDK keeps the declarations to itself.
extern "C" {
struct rte_eth_dev;
rte_eth_dev* rte_eth_dev_allocated(const char* name);
int rte_eth_dev_callback_process(rte_eth_dev* device, rte_eth_event_type event, void* argument);
}

namespace esplane::fastpath {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;
using ::testing::UnorderedElementsAreArray;

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

TEST(SocketEnd, IsTheServersWhereADeviceListens) {
    EXPECT_EQ(socket_end_of("net_memif0", "socket=/run/m"), socket_end::client);
    EXPECT_EQ(socket_end_of("net_memif0", "role=server,socket=/run/m"), socket_end::server);
    EXPECT_EQ(socket_end_of("net_vhost0", "iface=/run/v"), socket_end::server);
    EXPECT_EQ(socket_end_of("net_vhost0", "iface=/run/v,client=1"), socket_end::client);
    EXPECT_EQ(socket_end_of("net_virtio_user0", "path=/run/v"), socket_end::client);
    EXPECT_EQ(socket_end_of("net_virtio_user0", "path=/run/v,server=1"), socket_end::server);
    EXPECT_EQ(socket_end_of("net_pcap0", "rx_pcap=/run/v"), socket_end::none);
}

class DpdkPort : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        const auto started = start_eal({});
        ASSERT_TRUE(started) << started.error().text;
    }

    std::unique_ptr<dpdk_port> open(const std::string& device, const std::string& arguments = "",
                                    unsigned lanes = 1) {
        auto port = dpdk_port::open({device, device, arguments, port_role::plain, lanes}, memory,
                                    std::nullopt);
        EXPECT_TRUE(port) << port.error().text;
        return port ? std::move(*port) : nullptr;
    }
    std::string error_of(const std::string& device, const std::string& arguments = "") {
        const auto port = dpdk_port::open({"p", device, arguments}, memory, std::nullopt);
        return port ? "" : port.error().text;
    }

    /// A packet of `owner` with a text in it.
    static packet packet_with(buffer_owner& owner, const std::string& text) {
        packet p;
        EXPECT_TRUE(owner.allocate(p, 128));
        std::memcpy(p.data, text.data(), text.size());
        p.extend(static_cast<int>(text.size()));
        return p;
    }
    static std::string text_of(const packet& p) {
        return {reinterpret_cast<const char*>(p.data), p.length};
    }
    static std::size_t send(dpdk_port& port, packet& p) {
        packet* const one[] = {&p};
        return port.send(0, one);
    }
    static void release(packet& p) {
        packet* const one[] = {&p};
        p.owner->release(one);
    }
    static std::uint16_t number_of(const dpdk_port& port) {
        std::uint16_t id = 0;
        EXPECT_EQ(rte_eth_dev_get_port_by_name(port.device().c_str(), &id), 0);
        return id;
    }
    /// Puts a frame of `pieces` mbufs, `bytes` in each, on a ring.
    static void put_chain(const dpdk_port& port, rte_mempool* pool, unsigned pieces,
                          std::uint16_t bytes) {
        rte_mbuf* head = rte_pktmbuf_alloc(pool);
        std::memset(rte_pktmbuf_append(head, bytes), 'a', bytes);
        for (unsigned i = 1; i < pieces; ++i) {
            rte_mbuf* next = rte_pktmbuf_alloc(pool);
            std::memset(rte_pktmbuf_append(next, bytes), 'a' + static_cast<int>(i), bytes);
            ASSERT_EQ(rte_pktmbuf_chain(head, next), 0);
        }
        put(port, head);
    }
    /// Puts a frame on a ring as it is.
    static void put(const dpdk_port& port, rte_mbuf* m) {
        ASSERT_EQ(rte_eth_tx_burst(number_of(port), 0, &m, 1), 1);
    }
    /// A frame of ours, its mbuf complete: to be put on a ring.
    packet frame_with(const std::string& text) {
        packet p = packet_with(memory, text);
        (void)rte_pktmbuf_append(mbuf_of(p), static_cast<std::uint16_t>(text.size()));
        return p;
    }
    static std::uint64_t extended(const dpdk_port& port, const std::string& name) {
        for (const named_count& c : port.extended_counters())
            if (c.name == name) return c.value;
        ADD_FAILURE() << "nothing counts " << name;
        return 0;
    }
    static rte_mbuf* mbuf_of(const packet& p) { return reinterpret_cast<rte_mbuf*>(p.handle); }

    mbuf_memory memory;
    std::array<packet, max_burst> burst;
};

/// A capture file without frames: a device with one queue, that is there while the file is.
struct empty_capture {
    empty_capture() { write(); }
    ~empty_capture() { remove(); }
    empty_capture(const empty_capture&) = delete;
    empty_capture& operator=(const empty_capture&) = delete;
    void write() const {
        const std::uint32_t header[] = {0xa1b2c3d4, 0x00040002, 0, 0, 65535, 1};
        std::ofstream(file, std::ios::binary)
            .write(reinterpret_cast<const char*>(header), sizeof header);
    }
    void remove() const { std::remove(file.c_str()); }
    std::string file = ::testing::TempDir() + "dpdk_test." + std::to_string(::getpid()) + ".pcap";
};

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
    EXPECT_THAT(error_of("net_nonsense0"), HasSubstr("net_nonsense0"));
    EXPECT_THAT(error_of("0000:3b:00.0"), HasSubstr("0000:3b:00.0"));
    EXPECT_THAT(error_of("net_pcap1", "iface=nodevice"), HasSubstr("nodevice"));
    for (const char* device : {"net_nonsense0", "0000:3b:00.0"})
        EXPECT_THAT(error_of(device), Not(HasSubstr("\n")));
}

/// The gateway of site 1 on DPDK ports, with a worker for each lane.
class DpdkGateway : public DpdkPort {
  protected:
    void make_workers(dpdk_port& plain, dpdk_port& secure, unsigned count) {
        port* const ports[] = {&plain, &secure};
        for (unsigned i = 0; i < count; ++i) {
            auto made = worker::make(lab.tables, *lab.pool, ports, {.index = i}, &mesh);
            ASSERT_TRUE(made) << made.error().text;
            workers.push_back(std::move(*made));
        }
    }
    void run_until_quiet() {
        for (std::size_t moved = 1; moved != 0;) {
            moved = 0;
            for (const auto& w : workers)
                moved += w->run_once(lab.clock);
        }
    }
    /// Over all workers.
    [[nodiscard]] std::uint64_t sum(counter worker_counters::*one) const {
        std::uint64_t total = 0;
        for (const auto& w : workers)
            total += (w->counters().*one).get();
        return total;
    }
    [[nodiscard]] bool each_is_balanced() const {
        return std::all_of(workers.begin(), workers.end(),
                           [](const auto& w) { return w->counters().balanced(); });
    }

    tests::lab lab{1, 1024, 2};
    handover_mesh mesh{2};
    std::vector<std::unique_ptr<worker>> workers;
};

tests::packet_spec numbered(std::uint32_t number, unsigned from = 1) {
    tests::packet_spec spec;
    spec.from = from;
    spec.to = 3 - from;
    spec.length = 64 + number;
    spec.number = number;
    return spec;
}

/// A capture file, in the classic format.
void write_capture(const std::string& file, const std::vector<tests::frame>& frames) {
    std::ofstream out(file, std::ios::binary);
    const std::uint32_t header[] = {0xa1b2c3d4, 0x00040002, 0, 0, 65535, 1};
    out.write(reinterpret_cast<const char*>(header), sizeof header);
    for (const tests::frame& f : frames) {
        const auto size = static_cast<std::uint32_t>(f.size());
        const std::uint32_t record[] = {0, 0, size, size};
        out.write(reinterpret_cast<const char*>(record), sizeof record);
        out.write(reinterpret_cast<const char*>(f.data()), size);
    }
}

std::vector<tests::frame> read_capture(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    in.ignore(24);
    std::vector<tests::frame> frames;
    for (std::uint32_t record[4]; in.read(reinterpret_cast<char*>(record), sizeof record);) {
        frames.emplace_back(record[2]);
        in.read(reinterpret_cast<char*>(frames.back().data()), record[2]);
    }
    return frames;
}

std::vector<std::uint32_t> numbers_of(const std::vector<tests::frame>& ip_packets) {
    std::vector<std::uint32_t> numbers;
    for (const tests::frame& f : ip_packets)
        numbers.push_back(tests::number_of(f));
    return numbers;
}

/// 0, 1, ... count - 1.
std::vector<std::uint32_t> first(std::uint32_t count) {
    std::vector<std::uint32_t> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0u);
    return numbers;
}

TEST_F(DpdkGateway, TurnsCapturesIntoCapturesOfEspAndBack) {
    constexpr std::uint32_t count = 200;
    const empty_capture clear_in;
    const std::string esp_in = clear_in.file + ".esp-in", esp_out = clear_in.file + ".esp-out",
                      clear_out = clear_in.file + ".clear-out";
    tests::lab peer(2);
    peer.add_tunnel({});
    lab.add_tunnel({});
    std::vector<tests::frame> from_here, from_there;
    for (std::uint32_t i = 0; i < count; ++i) {
        from_here.push_back(tests::with_ethernet(tests::make_packet(numbered(i, 1))));
        peer.push(tests::lab::plain, {tests::make_packet(numbered(i, 2))});
        for (const tests::frame& esp : peer.sent(tests::lab::secure))
            from_there.push_back(tests::with_ethernet(esp));
    }
    write_capture(clear_in.file, from_here);
    write_capture(esp_in, from_there);
    {
        auto plain = open("net_pcap_lan", "rx_pcap=" + clear_in.file + ",tx_pcap=" + clear_out);
        auto secure = open("net_pcap_wan", "rx_pcap=" + esp_in + ",tx_pcap=" + esp_out);
        ASSERT_TRUE(plain && secure);
        make_workers(*plain, *secure, 1);
        run_until_quiet();
        EXPECT_EQ(sum(&worker_counters::encrypted), count);
        EXPECT_EQ(sum(&worker_counters::decrypted), count);
        EXPECT_EQ(plain->counters().rx_packets, count);
        EXPECT_EQ(secure->counters().tx_packets, count);
        EXPECT_TRUE(each_is_balanced());
        workers.clear();
    } // the files are whole when the devices are closed
    for (const tests::frame& esp : read_capture(esp_out))
        peer.push(tests::lab::secure, {tests::without_ethernet(esp)});
    EXPECT_THAT(numbers_of(peer.sent(tests::lab::plain)), ElementsAreArray(first(count)));
    std::vector<tests::frame> arrived;
    for (const tests::frame& f : read_capture(clear_out))
        arrived.push_back(tests::without_ethernet(f));
    EXPECT_THAT(numbers_of(arrived), ElementsAreArray(first(count)));
    for (const std::string& file : {esp_in, esp_out, clear_out})
        std::remove(file.c_str());
}

/// Two ports of this process with a memif between them.
struct memif_wire {
    std::unique_ptr<dpdk_port> gateway, outside;

    [[nodiscard]] bool comes_up() {
        for (int i = 0; i < 100 && !(gateway->up() && outside->up()); ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            (void)gateway->tend();
            (void)outside->tend();
        }
        return gateway->up() && outside->up();
    }
};

/// Two workers of their own threads, each with a queue of both ports.  Whatever the scheduler does
/// nothing may be lost: all that a test sends fits each ring on its way.
class DpdkQueues : public DpdkGateway {
  protected:
    static constexpr std::uint32_t a_queue = 200; ///< packets, one burst of 10 after the other
    static constexpr std::uint32_t count = 2 * a_queue;
    static_assert(count < handover_ring::size);

    void SetUp() override {
        plain = wire("lan");
        secure = wire("wan");
        ASSERT_TRUE(plain.comes_up() && secure.comes_up());
        ASSERT_EQ(plain.gateway->lanes(), 2u);
        ASSERT_EQ(secure.gateway->lanes(), 2u);
        // A memif's server sends into buffers that its client gives, from its first look on.
        collect(plain);
        collect(secure);
        make_workers(*plain.gateway, *secure.gateway, 2);
        for (const auto& w : workers)
            ASSERT_TRUE(w->start());
    }
    void TearDown() override {
        for (const auto& w : workers)
            w->stop();
        workers.clear();
    }

    memif_wire wire(const std::string& name) {
        const std::string socket = "socket-abstract=no,socket=" + ::testing::TempDir() +
                                   "dpdk_test." + std::to_string(::getpid()) + "." + name;
        memif_wire w;
        w.gateway = open("net_memif_" + name, "role=server," + socket, 2);
        w.outside = open("net_memif_" + name + "2", "role=client," + socket, 2);
        return w;
    }

    /// Sends IP packets by both queues of a wire in turn, and waits for as many on the other.
    void pass(memif_wire& from, memif_wire& to, const std::vector<tests::frame>& ip_packets) {
        for (std::size_t i = 0; i < ip_packets.size(); ++i) {
            send_frame(*from.outside, i / 10 % 2, tests::with_ethernet(ip_packets[i]));
            if (i % 20 == 19) collect(to);
        }
        for (int i = 0; i < 2000 && arrived.size() < ip_packets.size() && losses().empty(); ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
            collect(to);
        }
    }
    void send_frame(dpdk_port& by, unsigned queue, const tests::frame& f) {
        packet p = packet_with(memory, {reinterpret_cast<const char*>(f.data()), f.size()});
        packet* const one[] = {&p};
        ASSERT_EQ(by.send(queue, one), 1u) << by.device();
    }
    /// Takes what arrived at the far end of a wire.
    void collect(memif_wire& from) {
        for (unsigned queue = 0; queue < 2; ++queue)
            for (std::size_t n; (n = from.outside->receive(queue, burst)) != 0;)
                for (std::size_t i = 0; i < n; ++i) {
                    const std::string text = text_of(burst[i]);
                    arrived.push_back(tests::without_ethernet({text.begin(), text.end()}));
                    ++arrived_on[queue];
                    release(burst[i]);
                }
    }
    /// What the gateway lost, and why; "" where nothing.
    [[nodiscard]] std::string losses() const {
        std::string all;
        const auto add = [&](std::string_view why, std::uint64_t n) {
            if (n != 0) all += std::string(why) + ' ' + std::to_string(n) + ' ';
        };
        for (const auto& w : workers)
            for (unsigned i = 0; i < drop_reason_count; ++i)
                add(describe(static_cast<drop_reason>(i)).name, w->counters().dropped[i].get());
        for (const dpdk_port* p : {plain.gateway.get(), secure.gateway.get()})
            add(p->name() + " rx_no_buffer", p->counters().rx_no_buffer);
        return all;
    }

    memif_wire plain, secure;
    std::vector<tests::frame> arrived;
    std::array<std::uint32_t, 2> arrived_on{};
};

/// Numbered from 0 on, from a host of a site to one of the other.
std::vector<tests::frame> packets_from(unsigned site, std::uint32_t count) {
    std::vector<tests::frame> all;
    for (std::uint32_t i = 0; i < count; ++i)
        all.push_back(tests::make_packet(numbered(i, site)));
    return all;
}

TEST_F(DpdkQueues, CarryWhatEachWorkerForwards) {
    pass(plain, secure, packets_from(1, count));
    EXPECT_EQ(losses(), "");
    EXPECT_THAT(numbers_of(arrived), UnorderedElementsAreArray(first(count)));
    EXPECT_THAT(arrived_on, ElementsAre(a_queue, a_queue));
    EXPECT_EQ(workers[0]->counters().received.get(), a_queue);
    EXPECT_EQ(workers[1]->counters().received.get(), a_queue);
    EXPECT_TRUE(each_is_balanced());
}

TEST_F(DpdkQueues, EncryptUnderOneSaWhatBothReceive) {
    tests::lab peer(2);
    peer.add_tunnel({});
    lab.add_tunnel({});
    pass(plain, secure, packets_from(1, count));
    EXPECT_EQ(losses(), "");
    EXPECT_THAT(arrived_on, UnorderedElementsAre(0, count)) << "its owner sends it";
    EXPECT_EQ(sum(&worker_counters::handed_in), a_queue);
    peer.push(tests::lab::secure, arrived); // with a window of 32: the order was kept
    EXPECT_THAT(numbers_of(peer.sent(tests::lab::plain)), UnorderedElementsAreArray(first(count)));
    EXPECT_TRUE(each_is_balanced());
}

TEST_F(DpdkQueues, DecryptUnderOneSaWhatBothReceive) {
    tests::lab peer(2);
    peer.add_tunnel({});
    lab.add_tunnel({.replay_window = 512}); // a queue may be behind the other by all it has
    peer.push(tests::lab::plain, packets_from(2, count));
    pass(secure, plain, peer.sent(tests::lab::secure));
    EXPECT_EQ(losses(), "");
    EXPECT_EQ(sum(&worker_counters::decrypted), count);
    EXPECT_EQ(sum(&worker_counters::handed_in), a_queue);
    EXPECT_THAT(numbers_of(arrived), UnorderedElementsAreArray(first(count)));
    EXPECT_TRUE(each_is_balanced());
}

} // namespace
} // namespace esplane::fastpath

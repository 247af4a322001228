// SPDX-License-Identifier: Apache-2.0
//
// The gateway on DPDK ports: captures in and out, and two workers with queues of their own.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/lab.h"
#include "tests/unit/fastpath/dpdk_ports.h"

namespace esplane::fastpath {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::UnorderedElementsAre;
using ::testing::UnorderedElementsAreArray;

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

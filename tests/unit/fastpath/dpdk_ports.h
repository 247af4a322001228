// SPDX-License-Identifier: Apache-2.0
//
// DPDK ports of this process, with frames that are texts.  No huge pages, no root, no network.
#pragma once

#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <unistd.h>

#include <gtest/gtest.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "fastpath/dpdk/eal.h"
#include "fastpath/dpdk/port_dpdk.h"

namespace esplane::fastpath {

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

} // namespace esplane::fastpath

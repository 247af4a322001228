// SPDX-License-Identifier: Apache-2.0
//
// One ethdev: found, configured, started; and closed when this goes.
//
// Threads: control's; events come from a thread of EAL's and touch atomics alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fastpath/dpdk/mbuf_memory.h"
#include "fastpath/port.h"
#include "lib/base/result.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

struct ethdev_options {
    std::string name;      ///< the port's; names its mempool
    std::string device;    ///< "net_memif0", "0000:3b:00.0"
    std::string arguments; ///< "role=client,socket=/run/memif.sock"; may be empty
    unsigned lanes = 1;    ///< queues wanted
};

class ethdev {
  public:
    /// The smallest largest frame a mempool is made for: a device then finds the 2048 bytes behind
    /// the headroom that drivers expect.  Some NICs round down to a power of two, and AF_XDP takes
    /// no smaller chunk.
    static constexpr std::uint32_t common_frame = 2048 - mbuf_memory::room_behind;

    /// Configured; start() makes it send and receive.  The memory outlives the device.
    ///
    /// pool   the mempool to receive into; nullptr: one is made, and pool() says which
    /// Errors: ENODEV where there is no such device; ENOMEM; what the driver says, by its name.
    [[nodiscard]] static result<std::unique_ptr<ethdev>>
    open(const ethdev_options& o, mbuf_memory& memory, rte_mempool* pool);
    ~ethdev();
    ethdev(const ethdev&) = delete;
    ethdev& operator=(const ethdev&) = delete;

    /// Some cannot start yet: the peer of a memif may not be there.  It can be tried again.
    /// Errors: what the driver says.
    [[nodiscard]] result<void> start();
    [[nodiscard]] bool started() const noexcept { return started_; }

    [[nodiscard]] std::uint16_t id() const noexcept { return id_; }
    [[nodiscard]] unsigned queues() const noexcept { return queues_; }
    [[nodiscard]] rte_mempool* pool() const noexcept { return pool_; }
    [[nodiscard]] const wire::mac_address& mac() const noexcept { return mac_; }
    [[nodiscard]] std::uint32_t mtu() const noexcept { return mtu_; }

    /// As the last event or refresh_link() left it.
    [[nodiscard]] bool link_up() const noexcept { return link_up_.load(std::memory_order_relaxed); }
    /// Whether it was pulled out, or is of no use until it is opened anew.
    [[nodiscard]] bool gone() const noexcept { return gone_.load(std::memory_order_acquire); }
    void refresh_link() noexcept;

    /// Errors: what the driver says.  Where it fails nothing has changed.
    [[nodiscard]] result<void> set_mtu(std::uint32_t mtu);
    [[nodiscard]] result<void> set_mac(const wire::mac_address& mac);

    /// Frames lost because no buffer was there, or because nobody took them.
    [[nodiscard]] std::uint64_t rx_lost() const;
    /// The driver's own counters.
    [[nodiscard]] std::vector<named_count> extended_counters() const;

  private:
    explicit ethdev(std::uint16_t id)
        : id_(id) {}
    [[nodiscard]] result<void> configure(const ethdev_options& o, mbuf_memory& memory);
    [[nodiscard]] result<void> set_up_queues(const ethdev_options& o, mbuf_memory& memory);
    void watch(bool on);
    void find_mac();

    std::uint16_t id_;
    unsigned queues_ = 1;
    rte_mempool* pool_ = nullptr;
    wire::mac_address mac_{};
    std::uint32_t mtu_ = 1500;
    std::atomic<bool> link_up_{false};
    std::atomic<bool> gone_{false};
    bool started_ = false;
    bool was_up_ = false;   ///< what the last refresh_link() left; an event may have come since
    bool connects_ = false; ///< to a peer, once and never again: it is to be opened anew

    friend int on_device_event(std::uint16_t id, int event, void* device, void* unused) noexcept;
};

} // namespace esplane::fastpath

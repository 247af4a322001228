// SPDX-License-Identifier: Apache-2.0
//
// A port on AF_XDP sockets, one for each rx queue of a device.
//
// Frames lie in the umem that all ports of the worker share.  Sends go out on the first queue
// alone, which keeps their order.  Zero-copy where the driver has it; the kernel decides, unless a
// copy is asked for.
//
// Threads: as port.h says; counters() makes system calls and is for control.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "fastpath/counters.h"
#include "fastpath/port.h"
#include "fastpath/xdp/guard.h"
#include "fastpath/xdp/punt_queue.h"
#include "fastpath/xdp/umem.h"

namespace esplane::fastpath {

struct xdp_port_options {
    std::string name;   ///< "lan"
    std::string device; ///< "veth1"
    port_role role = port_role::plain;
    bool copy = false; ///< do not try zero-copy; all ports of a umem are of the same kind
};

class xdp_port final : public port {
  public:
    /// What both a packet buffer and the way up to the stack have room for: bytes from the IP
    /// header on.
    static constexpr std::size_t largest_mtu =
        std::min<std::size_t>(buffer_pool::frame_size - buffer_pool::headroom,
                              punt_queue::max_frame) -
        sizeof(wire::ethernet_header);

    /// Opens sockets on all rx queues and gives them to the guard, which is attached already; it
    /// and the umem outlive the port.  The pool needs ring_size frames a queue, and as many a port
    /// for sends.
    ///
    /// Errors: ENODEV, EBUSY where another process has the queues, EMSGSIZE where the device's MTU
    /// is above largest_mtu, EOPNOTSUPP, EPERM.
    [[nodiscard]] static result<std::unique_ptr<xdp_port>> open(xdp_port_options options,
                                                                umem& memory, guard& g);
    ~xdp_port() override;
    xdp_port(const xdp_port&) = delete;
    xdp_port& operator=(const xdp_port&) = delete;

    [[nodiscard]] std::size_t receive(unsigned lane, std::span<packet> into) noexcept override;
    [[nodiscard]] std::size_t send(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    /// Copies; the kernel gets them in flush().  The destination MAC address is the device's.
    [[nodiscard]] std::size_t punt(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    void flush(unsigned lane) noexcept override;
    [[nodiscard]] std::span<const int> descriptors(unsigned) const noexcept override {
        return descriptors_;
    }
    [[nodiscard]] port_counters counters() const noexcept override;
    [[nodiscard]] const std::string& name() const noexcept override { return options_.name; }
    [[nodiscard]] const std::string& device() const noexcept override { return options_.device; }
    [[nodiscard]] const char* kind() const noexcept override { return "xdp"; }
    [[nodiscard]] int ifindex() const noexcept override { return guard_.ifindex(); }
    [[nodiscard]] port_role role() const noexcept override { return options_.role; }

    /// Whether the device reads and writes the frames itself.
    [[nodiscard]] bool zero_copy() const noexcept { return zero_copy_; }

  private:
    struct queue;
    xdp_port(xdp_port_options options, umem& memory, guard& g);
    [[nodiscard]] result<void> open_queue(std::uint32_t index);
    [[nodiscard]] std::size_t receive(queue& q, std::span<packet> into) noexcept;
    void refill(queue& q) noexcept;
    void reclaim() noexcept;
    void kick() noexcept;

    xdp_port_options options_;
    umem& memory_;
    buffer_pool& pool_;
    guard& guard_;
    std::vector<std::unique_ptr<queue>> queues_;
    std::vector<int> descriptors_;
    std::size_t next_queue_ = 0; ///< that receive begins with
    bool zero_copy_ = false;
    punt_queue punts_;
    struct {
        counter rx_packets, rx_bytes, tx_packets, tx_bytes, tx_full, punted, punt_full;
    } counters_;
};

} // namespace esplane::fastpath

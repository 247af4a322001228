// SPDX-License-Identifier: Apache-2.0
//
// A port on AF_XDP sockets, one for each rx queue of a device.
//
// Queue q belongs to lane q % lanes; each lane sends on its first queue alone, which keeps order.
// Frames lie in the pool, which every port registers for itself; what lies elsewhere is copied when
// it is sent.
//
// A device that vanishes takes the port down; one of that name that appears takes it up again:
//
//   1. tend() sees it: the port is down.  Each lane notes that it has seen so and lets its queues
//      be from then on.
//   2. The device is there again: its guard is attached, first of all.
//   3. Every lane has seen that it was gone: the old sockets are closed, the new ones opened.
//   4. Each lane takes back the frames that the old sockets had.
//
// A device that has no link takes the port down too, and nothing else happens: the queues stay, and
// frames pass again the moment that the link is there.
//
// Threads: as port.h says; counters() makes system calls and is for control.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fastpath/counters.h"
#include "fastpath/link_state.h"
#include "fastpath/port.h"
#include "fastpath/xdp/device.h"
#include "fastpath/xdp/guard.h"
#include "fastpath/xdp/large_buffers.h"
#include "fastpath/xdp/lent_frames.h"
#include "fastpath/xdp/punt_queue.h"
#include "fastpath/xdp/socket.h"

namespace esplane::fastpath {

struct xdp_port_options {
    std::string name;   ///< "lan"
    std::string device; ///< "veth1"
    port_role role = port_role::plain;
    unsigned workers = 1; ///< as many lanes at most
    xdp_wish wish = xdp_wish::automatic;
    unsigned busy_poll_us = 0; ///< the worker polls the device for so long at a time; 0 = not
};

class xdp_port final : public port {
  public:
    /// What both a packet buffer and the way up to the stack have room for: bytes from the IP
    /// header on.
    static constexpr std::size_t largest_mtu =
        std::min<std::size_t>(buffer_pool::frame_size - buffer_pool::headroom,
                              punt_queue::max_frame) -
        sizeof(wire::ethernet_header);
    /// The same where a frame may take several buffers.  Those above largest_mtu cannot go up to
    /// the stack.
    static constexpr std::size_t largest_multi_buffer_mtu =
        large_buffers::buffer_size - 2 * large_buffers::headroom - sizeof(wire::ethernet_header);

    /// Opens sockets on all rx queues and gives them to the guard, which is attached already; it
    /// and the pool outlive the port.  The pool needs xsk::ring_size frames a queue, and as many a
    /// lane for sends.
    ///
    /// Errors: ENODEV, EBUSY where another process has the queues, EMSGSIZE where the device's MTU
    /// is above what it can take, EOPNOTSUPP, EPERM.
    [[nodiscard]] static result<std::unique_ptr<xdp_port>> open(xdp_port_options options,
                                                                buffer_pool& pool, guard& g);
    ~xdp_port() override;
    xdp_port(const xdp_port&) = delete;
    xdp_port& operator=(const xdp_port&) = delete;

    [[nodiscard]] unsigned lanes() const noexcept override {
        return static_cast<unsigned>(lanes_.size());
    }
    [[nodiscard]] std::size_t receive(unsigned lane, std::span<packet> into) noexcept override;
    [[nodiscard]] std::size_t send(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    /// Copies; the kernel gets them in flush().  The destination MAC address is the device's.
    [[nodiscard]] std::size_t punt(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    void flush(unsigned lane) noexcept override;
    /// The same one as long as the port lives.
    [[nodiscard]] std::span<const int> descriptors(unsigned lane) const noexcept override;
    [[nodiscard]] bool up() const noexcept override {
        return has_device() && link_ == link_state::up;
    }
    [[nodiscard]] std::string why_down() const override;
    [[nodiscard]] result<bool> tend() override;
    /// Closes its sockets, all at the same time: each waits for the kernel's grace period.  For who
    /// comes next; the port is of no use then.  No worker runs.
    void let_go() noexcept;
    [[nodiscard]] port_counters counters() const noexcept override;
    /// XDP_STATISTICS, of all queues together.
    [[nodiscard]] std::vector<named_count> extended_counters() const override;
    [[nodiscard]] std::string mode() const override;
    [[nodiscard]] const std::string& name() const noexcept override { return options_.name; }
    [[nodiscard]] const std::string& device() const noexcept override { return options_.device; }
    [[nodiscard]] const char* kind() const noexcept override { return "xdp"; }
    [[nodiscard]] int ifindex() const noexcept override { return guard_.ifindex(); }
    [[nodiscard]] port_role role() const noexcept override { return options_.role; }

    [[nodiscard]] const binding& bound() const noexcept { return binding_; }
    [[nodiscard]] std::size_t queues() const noexcept;

  private:
    struct queue;
    struct lane;
    xdp_port(xdp_port_options options, buffer_pool& pool, guard& g);
    [[nodiscard]] result<void> open_queues();
    [[nodiscard]] result<void> open_queues(const queue_counts& counts, const binding& how);
    [[nodiscard]] result<void> open_queue(std::uint32_t index, const binding& how);
    void make_lanes(const queue_counts& counts);
    void close_queues() noexcept;
    [[nodiscard]] bool has_device() const noexcept {
        return (turn_.load(std::memory_order_relaxed) & 1) == 0;
    }
    [[nodiscard]] bool has_lost_device() const noexcept;
    [[nodiscard]] result<void> follow_device();
    [[nodiscard]] result<void> take_up_again();
    /// The first worker that has not noticed yet whether there is a device.
    [[nodiscard]] std::optional<unsigned> not_seen_by() const noexcept;

    [[nodiscard]] bool works(lane& l) noexcept;
    void take_back(lane& l) noexcept;
    [[nodiscard]] std::size_t receive(lane& l, queue& q, std::span<packet> into) noexcept;
    [[nodiscard]] bool gather(lane& l, queue& q, const xdp_desc& d, packet& into) noexcept;
    void refill(lane& l, queue& q) noexcept;
    [[nodiscard]] std::uint32_t place(lane& l, queue& q, const packet& p) noexcept;
    void reclaim(lane& l) noexcept;
    void kick(lane& l) noexcept;

    xdp_port_options options_;
    buffer_pool& pool_;
    guard& guard_;
    binding binding_;
    std::vector<std::unique_ptr<lane>> lanes_;
    std::unique_ptr<large_buffers> large_; ///< where frames may take several buffers
    lent_frames lent_;                     ///< to the kernel
    bool protected_ = true;                ///< the guard stands on the device
    link_state link_ = link_state::up;     ///< as the last tend() saw it
    bool told_up_ = true;                  ///< what the last tend() left
    /// Even: there is a device, odd: it is gone.
    std::atomic<std::uint32_t> turn_{0};
};

} // namespace esplane::fastpath

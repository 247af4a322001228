// SPDX-License-Identifier: Apache-2.0
//
// A port on AF_PACKET sockets, for where nothing else works: CAP_NET_RAW is all it takes.
//
//   device ---> ring of each lane (PACKET_FANOUT by flow) ---> receive()
//      '------> the machine's own stack, which sees the same frames
//
// That the stack sees them too is what sets it apart.  Frames for the machine are there already:
// only what came out of an SA is handed up, through a TUN device where one can be had.  What passes
// through must not be forwarded by the kernel in clear as well: on a device that forwards the port
// does not open, and goes down when forwarding is turned on.
// Does not: keep clear traffic for the machine from its stack where an `in` policy protects it;
// police what the machine itself sends.  AF_XDP ports do.
//
// Threads: as port.h says.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sys/socket.h>

#include "fastpath/buffer_pool.h"
#include "fastpath/counters.h"
#include "fastpath/link_state.h"
#include "fastpath/packet_ring.h"
#include "fastpath/port.h"
#include "fastpath/segment.h"
#include "fastpath/tun.h"

namespace esplane::fastpath {

struct packet_port_options {
    std::string name;
    std::string device;
    port_role role = port_role::plain;
    bool bypass_qdisc = false; ///< frames go past the device's queueing discipline
};

class packet_port final : public port {
  public:
    /// What a buffer has room for: bytes of an IP packet, with room behind for ESP.
    static constexpr std::uint32_t largest_mtu =
        buffer_pool::frame_size - 2 * buffer_pool::headroom;

    /// lanes   workers.  `pool` outlives the port.
    ///
    /// Errors: ENODEV; EOPNOTSUPP where the device is no Ethernet; EPERM without CAP_NET_RAW; EBUSY
    /// where the kernel forwards what arrives; EMSGSIZE above largest_mtu;
    /// ENETDOWN where several lanes are to share a device that is not up.
    [[nodiscard]] static result<std::unique_ptr<packet_port>>
    open(packet_port_options options, buffer_pool& pool, unsigned lanes);
    ~packet_port() override;
    packet_port(const packet_port&) = delete;
    packet_port& operator=(const packet_port&) = delete;

    [[nodiscard]] unsigned lanes() const noexcept override {
        return static_cast<unsigned>(lanes_.size());
    }
    [[nodiscard]] std::size_t receive(unsigned lane, std::span<packet> into) noexcept override;
    [[nodiscard]] std::size_t send(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    /// What came out of an SA, from the IP header on.
    [[nodiscard]] std::size_t punt(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    [[nodiscard]] bool stack_listens() const noexcept override { return true; }
    [[nodiscard]] bool reaches_stack() const noexcept override { return way_up_.has_value(); }
    void flush(unsigned) noexcept override {}
    [[nodiscard]] std::span<const int> descriptors(unsigned lane) const noexcept override;
    [[nodiscard]] bool up() const noexcept override { return up_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::string why_down() const override;
    [[nodiscard]] result<bool> tend() override;
    [[nodiscard]] port_counters counters() const noexcept override;
    /// "rx_segmented": super-packets that were cut; "rx_too_long": frames longer than a buffer;
    /// "tx_too_long": frames that send() took and the device does not.
    [[nodiscard]] std::vector<named_count> extended_counters() const override;
    [[nodiscard]] const std::string& name() const noexcept override { return options_.name; }
    [[nodiscard]] const std::string& device() const noexcept override { return options_.device; }
    [[nodiscard]] const char* kind() const noexcept override { return "packet"; }
    [[nodiscard]] int ifindex() const noexcept override {
        return ifindex_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] port_role role() const noexcept override { return options_.role; }

    /// Why there is no way up for what came out of an SA; "" where there is one.
    [[nodiscard]] const std::string& no_way_up() const noexcept { return no_way_up_; }

  private:
    struct lane_state;
    /// A worker inside one of its calls: control replaces sockets only while there is none.
    class visit;

    packet_port(packet_port_options options, buffer_pool& pool);
    [[nodiscard]] result<void> open_lanes(unsigned count, int ifindex);
    [[nodiscard]] result<unique_fd> open_sender(int ifindex) const;
    [[nodiscard]] result<void> reopen(int ifindex);
    /// The first worker that is in one of its calls.
    [[nodiscard]] std::optional<unsigned> worker_inside() const noexcept;
    void open_way_up();
    [[nodiscard]] static std::size_t transmit(lane_state& l, std::span<mmsghdr> messages) noexcept;
    [[nodiscard]] bool take(lane_state& l, packet& into) noexcept;
    static void cut(lane_state& l, packet& into) noexcept;

    packet_port_options options_;
    buffer_pool& pool_;
    std::vector<std::unique_ptr<lane_state>> lanes_;
    std::atomic<int> ifindex_{0};
    std::atomic<bool> up_{false};
    bool told_up_ = true;              ///< what the last tend() left
    link_state link_ = link_state::up; ///< as the last tend() saw it
    std::optional<unsigned> awaited_; ///< worker that keeps the last tend() from taking a device up
    std::optional<tun> way_up_;
    std::string no_way_up_;
    mutable counter lost_by_kernel_; ///< control's
};

/// Holds IP protocol 50 of the machine, both families: without it the kernel answers ESP with
/// "protocol unreachable" where it has no ESP of its own.
class esp_hold {
  public:
    /// Errors: EPERM without CAP_NET_RAW.
    [[nodiscard]] static result<esp_hold> open();

  private:
    esp_hold(unique_fd v4, unique_fd v6)
        : v4_(std::move(v4))
        , v6_(std::move(v6)) {}
    unique_fd v4_, v6_;
};

/// Whether the kernel leaves alone what arrives on a device where it sees it too.
/// Errors: EBUSY where it would forward, with the sysctl to turn off.
[[nodiscard]] result<void> check_not_forwarded(const std::string& device);

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// A port without a NIC of its own: the network as the machine's sockets reach it.
//
//   send()     ESP in UDP ──► UDP socket, in super-packets (UDP_SEGMENT) ──┐
//              ESP ─────────► raw socket ──────────────────────────────────┼──► kernel ──► network
//              all else ────► raw socket, the IP header as it is ──────────┘
//
//   receive()  ESP in UDP ◄── UDP socket, in super-packets (UDP_GRO) ◄─────┬─── kernel ◄── network
//              ESP ◄───────── raw socket ◄─────────────────────────────────┘
//
// Frames are IP packets, outer headers included.  Each lane has sockets of its own; those of a
// family on one UDP port are a group (SO_REUSEPORT), which the IKE daemon's socket belongs to as
// well: a socket_share says which packet goes to whom.  Without one the port is ours alone.
//
// What the kernel does for it: routes, neighbours, fragments both ways, checksums, path MTU of DF
// packets; so the machine's firewall and qdiscs see ESP.  The kernel also hears every raw ESP
// packet itself, and leaves it alone where it has no SA.
//
// Threads: as port.h says.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fastpath/buffer_pool.h"
#include "fastpath/net_socket.h"
#include "fastpath/port.h"
#include "fastpath/socket_intake.h"
#include "fastpath/socket_sender.h"

namespace esplane::fastpath {

/// What sockets of ours on a shared port are to do.
enum class group_advice : std::uint8_t {
    stay,
    leave, ///< a daemon that shares the port only once it has it wants to start again
    join,  ///< it has, or does not
};

/// Divides what arrives on a UDP port between an IKE daemon and the lanes.  See xdp/port_share.h.
/// Threads: control.
class socket_share {
  public:
    virtual ~socket_share() = default;

    /// Before a socket of ours is bound: whoever has bound the port lets others in.
    /// Errors: what a user can do about a daemon that cannot be shared with.
    [[nodiscard]] virtual result<void> make_room(ipsec::family family) = 0;
    /// `founder` is bound and receives nothing: from now on the daemon gets what is the daemon's,
    /// and what is for the lanes is dropped.
    /// Errors: EPERM; what the kernel says to the program.
    [[nodiscard]] virtual result<void> found(ipsec::family family, int founder) = 0;
    /// What is for lane i goes to sockets[i], which is bound.
    [[nodiscard]] virtual result<void> divide(ipsec::family family,
                                              std::span<const int> sockets) = 0;
    /// Looks who has bound the port now.  After leave ours are not bound, until join: then they are
    /// bound anew, from make_room() on.
    [[nodiscard]] virtual result<group_advice> look(ipsec::family family) = 0;
    /// Process of the daemon that shares the port; 0: there is none.
    [[nodiscard]] virtual int daemon(ipsec::family family) const noexcept = 0;
};

struct socket_port_options {
    std::string name;
    port_role role = port_role::secure;
    net_socket_options sockets;
};

/// What the kernel has learnt about the path to a destination.
struct path_limit {
    ipsec::address to;
    std::uint32_t mtu = 0; ///< bytes from the IP header on
};

class socket_port final : public port {
  public:
    /// IKE messages that were merged with ESP and are given back, a second and lane.
    static constexpr std::uint32_t ike_per_second = 5000;

    /// lanes   workers.  `pool` outlives the port.  share   nullptr: nobody else uses the UDP port
    ///
    /// Errors: EPERM without CAP_NET_RAW; EADDRINUSE; those of socket_share.
    [[nodiscard]] static result<std::unique_ptr<socket_port>>
    open(socket_port_options options, buffer_pool& pool, unsigned lanes,
         std::unique_ptr<socket_share> share);
    ~socket_port() override;
    socket_port(const socket_port&) = delete;
    socket_port& operator=(const socket_port&) = delete;

    [[nodiscard]] unsigned lanes() const noexcept override {
        return static_cast<unsigned>(lanes_.size());
    }
    [[nodiscard]] std::size_t receive(unsigned lane, std::span<packet> into) noexcept override;
    [[nodiscard]] std::size_t send(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    /// What came out of an SA goes up by a host port.
    [[nodiscard]] std::size_t punt(unsigned, std::span<packet* const>) noexcept override {
        return 0;
    }
    [[nodiscard]] bool stack_listens() const noexcept override { return true; }
    [[nodiscard]] bool reaches_stack() const noexcept override { return false; }
    [[nodiscard]] bool ethernet() const noexcept override { return false; }
    [[nodiscard]] bool by_kernel() const noexcept override { return true; }
    void flush(unsigned) noexcept override {}
    [[nodiscard]] std::span<const int> descriptors(unsigned lane) const noexcept override;
    /// Finds an IKE daemon that has come since.
    [[nodiscard]] result<bool> tend() override;
    [[nodiscard]] port_counters counters() const noexcept override;
    /// "tx_too_long", "tx_refused", "tx_messages", "rx_messages", "rx_too_long", "rx_not_esp",
    /// "rx_keepalives", "ike_returned", "ike_lost".
    [[nodiscard]] std::vector<named_count> extended_counters() const override;
    [[nodiscard]] const std::string& name() const noexcept override { return options_.name; }
    [[nodiscard]] const std::string& device() const noexcept override { return device_; }
    [[nodiscard]] const char* kind() const noexcept override { return "socket"; }
    /// "segment+merge", "segment", "merge" or "plain": what the kernel does with super-packets.
    [[nodiscard]] std::string mode() const override;
    [[nodiscard]] int ifindex() const noexcept override { return 0; }
    [[nodiscard]] port_role role() const noexcept override { return options_.role; }

    /// What DF packets were found too long for, since the last call.  Control's.
    [[nodiscard]] std::vector<path_limit> take_path_limits();
    /// The IKE daemon that shares the port; 0: there is none.
    [[nodiscard]] int daemon(ipsec::family family) const noexcept {
        return share_ ? share_->daemon(family) : 0;
    }

  private:
    struct lane_state;

    socket_port(socket_port_options options, buffer_pool& pool,
                std::unique_ptr<socket_share> share);
    [[nodiscard]] result<void> make_lanes(unsigned count);
    [[nodiscard]] result<void> bind_lanes(net_way way);
    [[nodiscard]] result<void> found_group(net_way way);
    [[nodiscard]] result<void> leave_group(net_way way);
    [[nodiscard]] result<void> follow(net_way way, group_advice advice);

    socket_port_options options_;
    std::string device_;
    buffer_pool& pool_;
    std::unique_ptr<socket_share> share_;
    std::vector<std::unique_ptr<lane_state>> lanes_;
    std::array<std::vector<unique_fd>, 2> stand_ins_; ///< of udp_v4 and udp_v6; the founder first
    super_packets kernel_;
};

} // namespace esplane::fastpath

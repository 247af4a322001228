// SPDX-License-Identifier: Apache-2.0
//
// Divides a UDP port between an IKE daemon and esplane: a program on the group of sockets that are
// bound to it (SO_REUSEPORT), and an array of sockets that the program chooses from.
//
//              .--- group of the port, one a family ---.
//   packet ──► | share.bpf.c ──► [0] daemon's          |
//              |             └─► [1 + lane] ours       |
//              '---------------------------------------'
//
// Who closes a socket leaves its place in the array by that.  The program stays while any socket of
// the group does: where esplane ends, the daemon goes on getting IKE, and ESP is dropped; the next
// esplane takes over program and array as they are.  A daemon that starts again is found by look().
//
// A daemon under the shim sets SO_REUSEPORT before it binds.  Of another the socket is fetched
// (pidfd_getfd) and the option set; when that one ends ours leave the port, or it could not bind it
// again, until it has, or half a minute has passed.  One that starts sooner than the next look()
// finds the port taken.
//
// Does not: daemons that bind addresses one by one, or IPv6 together with IPv4, or run as another
// user than esplane: errors say so.
// Threads: control.
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "fastpath/port_holder.h"
#include "fastpath/port_socket.h"

namespace esplane::fastpath {

class port_share final : public socket_share {
  public:
    /// port   in UDP   lanes   1 to max_lanes
    port_share(std::uint16_t port, unsigned lanes);
    ~port_share() override;
    port_share(const port_share&) = delete;
    port_share& operator=(const port_share&) = delete;

    [[nodiscard]] result<void> make_room(ipsec::family family) override;
    [[nodiscard]] result<void> found(ipsec::family family, int founder) override;
    [[nodiscard]] result<void> divide(ipsec::family family, std::span<const int> sockets) override;
    [[nodiscard]] result<group_advice> look(ipsec::family family) override;
    [[nodiscard]] int daemon(ipsec::family family) const noexcept override;

  private:
    struct division;
    [[nodiscard]] division& of(ipsec::family family) const noexcept;
    [[nodiscard]] std::string port_name() const;
    [[nodiscard]] result<std::optional<port_holder>> find_holder(ipsec::family family) const;
    [[nodiscard]] result<fetched_socket> fetch(ipsec::family family,
                                               const port_holder& holder) const;
    [[nodiscard]] static group_advice miss(division& d);
    [[nodiscard]] result<group_advice> admit(ipsec::family family, const port_holder& holder,
                                             unsigned wait_ms);

    std::uint16_t port_;
    unsigned lanes_;
    std::array<std::unique_ptr<division>, 2> divisions_; ///< IPv4, IPv6
};

} // namespace esplane::fastpath

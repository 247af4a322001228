// SPDX-License-Identifier: Apache-2.0
//
// Sockets that do what a NIC of our own would: ESP in UDP, ESP, and IP packets as they are.
//
//   udp     bound to the port, in a group with the IKE daemon's (SO_REUSEPORT); super-packets both
//           ways where the kernel has UDP_SEGMENT and UDP_GRO; checksums on
//   esp     raw, protocol 50; each of several lanes hears the SPIs that are its own
//   whole   raw, IP header included; sends alone
//
// Threads: control opens.
#pragma once

#include <array>
#include <cstdint>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"
#include "lib/ipsec/address.h"

namespace esplane::fastpath {

/// A kind of socket and a family: what a lane has one socket of each of.
enum class net_way : std::uint8_t { udp_v4, udp_v6, esp_v4, esp_v6, whole_v4, whole_v6, none };
inline constexpr std::size_t net_ways = 6;

[[nodiscard]] constexpr bool is_udp(net_way w) noexcept {
    return w == net_way::udp_v4 || w == net_way::udp_v6;
}
[[nodiscard]] constexpr bool is_v4(net_way w) noexcept {
    return w == net_way::udp_v4 || w == net_way::esp_v4 || w == net_way::whole_v4;
}
[[nodiscard]] constexpr ipsec::family family_of(net_way w) noexcept {
    return is_v4(w) ? ipsec::family::ipv4 : ipsec::family::ipv6;
}
/// Whether packets arrive by it.
[[nodiscard]] constexpr bool receives(net_way w) noexcept {
    return w < net_way::whole_v4;
}

struct net_socket_options {
    std::uint16_t port = 4500;
    std::uint32_t mark = 0;                ///< SO_MARK of what is sent; 0: none
    std::uint32_t receive_bytes = 8 << 20; ///< waiting in a socket, at most; about
    bool segment = true;                   ///< UDP_SEGMENT, where the kernel has it
    bool merge = true;                     ///< UDP_GRO, where the kernel has it
};

/// A lane, and how many there are: which SPIs it hears.
struct lane_share {
    unsigned lane = 0;
    unsigned lanes = 1;
};

/// Opens a socket of that way, bound, with all its options.  Invalid where the machine has no such
/// family.
///
/// Errors: EPERM without CAP_NET_RAW or, for a mark, CAP_NET_ADMIN; EADDRINUSE where another holds
/// the port and does not share it.
[[nodiscard]] result<unique_fd> open_net_socket(net_way way, const net_socket_options& options,
                                                lane_share share);

/// A UDP socket of the group that receives nothing.  The first makes the group, before there is a
/// program that says who takes what.  Others are there to be asked, see name_cpu().
[[nodiscard]] result<unique_fd> open_stand_in(net_way way, const net_socket_options& options);

/// The kernel merges what arrives on a CPU only where the socket takes super-packets that it thinks
/// of, and it asks no program: it thinks of any of the group, or of one that names this CPU (Linux
/// 6.2).  An IKE daemon's takes none.
void name_cpu(int udp_socket, unsigned cpu) noexcept;

/// What the kernel does with super-packets on UDP sockets, as far as the options want it.
struct super_packets {
    bool segment = false;
    bool merge = false;
};
[[nodiscard]] super_packets super_packets_of(const net_socket_options& options) noexcept;

/// The path MTU that the kernel has learnt for a destination; 0 where it knows no way there.
[[nodiscard]] std::uint32_t path_mtu(const ipsec::address& to, std::uint32_t mark) noexcept;

} // namespace esplane::fastpath

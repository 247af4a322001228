// SPDX-License-Identifier: Apache-2.0
//
// Takes from sockets what has arrived, and makes IP packets of it again: outer headers are written
// in front as they were on the wire, with addresses from the source and PKTINFO.
//
//   message   [ payload ............................................ ]   UDP_GRO: one header
//   frames    [ IP | UDP | size bytes ]  [ IP | UDP | ... ]  [ the rest ]
//
// The kernel has verified checksums and put fragments together.  It merges what two UDP sockets of
// the peer's have sent from one port: IKE among ESP is found here, and given to its daemon by a way
// through the loopback device, at a bounded rate.
//
// Does not: the outer IPv4 identification, DF, IPv4 options and IPv6 flow labels in front of UDP,
// extension headers in front of ESP: those read zero, or nothing.
// Threads: the lane's worker; grant_ike() and the counters are control's too.
#pragma once

#include <array>
#include <memory>
#include <sys/socket.h>

#include "fastpath/buffer_pool.h"
#include "fastpath/counters.h"
#include "fastpath/net_socket.h"
#include "fastpath/packet.h"

namespace esplane::fastpath {

class socket_intake {
  public:
    /// What a buffer has room for: bytes of an IP packet, with room behind for ESP.
    static constexpr std::uint32_t largest_packet =
        buffer_pool::frame_size - 2 * buffer_pool::headroom;

    struct counts {
        counter packets, bytes;
        counter messages;     ///< from the kernel; of several packets each, where it merges
        counter no_buffer;    ///< the pool was empty; the packet waits
        counter socket_full;  ///< lost by the kernel: sockets take a bounded amount
        counter too_long;     ///< for a buffer; lost
        counter ike_returned; ///< merged with ESP, given to the IKE daemon
        counter ike_lost;     ///< the same, beyond the rate
        counter keepalives;   ///< of a NAT (RFC 3948 section 2.3); dropped
        counter not_esp;      ///< what is neither that nor ESP nor IKE; dropped
    };

    /// port     of the UDP sockets
    /// merged   messages may be super-packets
    socket_intake(std::uint16_t port, bool merged);

    /// Where IKE among ESP goes: sockets of the whole_v4 and whole_v6 way; -1: nowhere.
    void return_ike_by(int v4, int v6) noexcept {
        whole_v4_ = v4;
        whole_v6_ = v6;
    }
    /// So many IKE messages may go that way from now on.
    void grant_ike(std::uint32_t messages) noexcept {
        ike_allowance_.store(messages, std::memory_order_relaxed);
    }

    /// Whether nothing waits to be cut.
    [[nodiscard]] bool empty() const noexcept { return at_ == filled_; }
    /// Takes messages from a socket.  Only when empty().
    void fill(net_way way, int fd) noexcept;
    /// Cuts what waits into frames.  Returns how many; less than there is room for where nothing
    /// waits any more, the pool is empty, or the next message has more than there is room for: what
    /// came together is worked on, and merged again, together.
    [[nodiscard]] std::size_t cut(std::span<packet> into, buffer_pool& pool) noexcept;

    [[nodiscard]] const counts& counted() const noexcept { return counted_; }

  private:
    static constexpr std::size_t most_messages = 32;
    static constexpr std::size_t longest_header = sizeof(wire::ipv6_header) + 8;
    static constexpr std::size_t control_bytes = 256;

    /// What control messages say of one that arrived.
    struct facts {
        std::array<std::uint8_t, 16> destination{};
        std::uint32_t lost = 0; ///< by the socket, since it was opened
        std::uint32_t segment = 0;
        int tos = 0;
        int ttl = 64;
    };

    [[nodiscard]] static facts read_controls(const msghdr& m) noexcept;
    void open_message() noexcept;
    void write_header(const facts& f, const sockaddr_storage& from) noexcept;
    static void set_length(std::uint8_t* header, net_way way, std::uint32_t length) noexcept;
    [[nodiscard]] bool is_esp(std::span<const std::uint8_t> payload) noexcept;
    void return_ike(std::span<const std::uint8_t> payload) noexcept;
    [[nodiscard]] std::size_t segments_left() const noexcept;
    [[nodiscard]] std::span<const std::uint8_t> next_segment() noexcept;

    std::uint16_t port_;
    std::size_t buffer_size_;
    std::size_t stride_;
    std::unique_ptr<std::uint8_t[]> buffers_;
    std::array<mmsghdr, most_messages> messages_;
    std::array<iovec, most_messages> pieces_;
    std::array<sockaddr_storage, most_messages> names_;
    struct alignas(cmsghdr) control_room {
        std::array<std::uint8_t, control_bytes> bytes;
    };
    std::array<control_room, most_messages> controls_;
    std::size_t wanted_ = most_messages; ///< messages of the next fill()

    net_way way_ = net_way::none;
    std::size_t filled_ = 0;
    std::size_t at_ = 0; ///< message that is being cut
    bool opened_ = false;
    std::span<const std::uint8_t> rest_; ///< of it
    std::uint32_t segment_ = 0;
    std::array<std::uint8_t, longest_header> header_{}; ///< for a whole segment
    std::uint32_t header_length_ = 0;
    std::array<std::uint32_t, net_ways> lost_before_{};

    int whole_v4_ = -1;
    int whole_v6_ = -1;
    std::atomic<std::uint32_t> ike_allowance_{0};
    counts counted_;
};

} // namespace esplane::fastpath

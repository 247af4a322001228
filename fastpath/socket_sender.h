// SPDX-License-Identifier: Apache-2.0
//
// Sends IP packets through sockets: the outer headers become a destination, a source address, TOS
// and DF, and what is behind them goes down in place.
//
//   frames     [IP|UDP|ESP..1][IP|UDP|ESP..2][IP|UDP|ESP..3][IP|ESP..4][IP|TCP..5]
//   messages   '------- one, UDP_SEGMENT -------------------'
//                                                           '-- esp --''- whole -'
//
// A packet with a mark of its own (packet::put_mark) goes with that, others with the socket's.
// Packets of one flow that follow each other, equal in length but for the last, are one message;
// messages of one socket and one DF are one sendmmsg().  Order is kept.
//
// IPv4's DF is an option of a socket and none of a message.  It is set where it changes: a change
// costs 0.8 us, a message of 8 packets 5 us.  A second socket for DF would save a fifth of that,
// and cost the group another member.
//
// Does not: IPv4 options and IPv6 extension headers in front of UDP or ESP (such packets go as they
// are); flow labels.
// Threads: the lane's worker; what was too long is read by control.
#pragma once

#include <array>
#include <netinet/in.h>
#include <sys/socket.h>
#include <vector>

#include "fastpath/counters.h"
#include "fastpath/net_socket.h"
#include "fastpath/packet.h"

namespace esplane::fastpath {

class socket_sender {
  public:
    /// Segments of one message, and bytes of all of them: the kernel's bounds.
    static constexpr std::size_t most_segments = 64;
    static constexpr std::size_t most_bytes = 65507;

    struct counts {
        counter packets, bytes;
        counter full;     ///< no room: given back
        counter messages; ///< system calls' worth
        counter too_long; ///< longer than the path allows, and DF; lost
        counter refused;  ///< no route, source address gone, firewall; lost
    };

    /// port      packets from it leave by the UDP sockets
    /// segment   UDP_SEGMENT may be used
    socket_sender(std::uint16_t port, bool segment) noexcept
        : port_(port)
        , segment_(segment) {}

    /// Which socket is for which way; -1: none.  Before the first send().
    void use(net_way way, int fd) noexcept { sockets_[static_cast<std::size_t>(way)] = fd; }
    /// A socket was replaced under its descriptor.
    void forget_options() noexcept { df_.store(0, std::memory_order_relaxed); }

    /// Returns how many were taken, from the front: sent or lost, their buffers gone.
    [[nodiscard]] std::size_t send(std::span<packet* const> frames) noexcept;

    /// Destinations of what was too long, since the last call.  Control's.
    [[nodiscard]] std::vector<ipsec::address> take_too_long();

    [[nodiscard]] const counts& counted() const noexcept { return counted_; }

  private:
    enum class outcome : std::uint8_t { again, split, lost, full };
    struct control_room { // of PKTINFO, TOS, UDP_SEGMENT and a mark, the longest of each
        alignas(cmsghdr)
            std::array<std::uint8_t, CMSG_SPACE(sizeof(in6_pktinfo)) + CMSG_SPACE(sizeof(int)) +
                                         CMSG_SPACE(sizeof(std::uint16_t)) +
                                         CMSG_SPACE(sizeof(std::uint32_t))> bytes;
    };

    [[nodiscard]] net_way way_of(const packet& p) const noexcept;
    [[nodiscard]] std::size_t gather(std::span<packet* const> frames) noexcept;
    [[nodiscard]] std::size_t run_length(std::span<packet* const> frames,
                                         net_way way) const noexcept;
    void write_message(std::span<packet* const> run, net_way way) noexcept;
    [[nodiscard]] std::size_t transmit(std::span<packet* const> frames) noexcept;
    void set_df(net_way way, bool on) noexcept;
    [[nodiscard]] outcome judge(int code, std::size_t message) noexcept;
    void lose(std::span<packet* const> frames, int code) noexcept;
    void account(std::span<packet* const> frames) noexcept;
    void note_too_long(const packet& p) noexcept;

    std::uint16_t port_;
    bool segment_;
    std::uint32_t unsegmented_ = 0; ///< runs to come without UDP_SEGMENT: the device refused it
    std::size_t singly_ = 0;        ///< frames to come that go one by one
    std::array<int, net_ways> sockets_{-1, -1, -1, -1, -1, -1};
    std::atomic<std::uint8_t> df_{0}; ///< bit of a way: its socket sets DF

    // The batch under way.
    net_way batch_way_ = net_way::none;
    bool batch_df_ = false;
    std::size_t count_ = 0;
    std::array<mmsghdr, max_burst> messages_;
    std::array<sockaddr_in6, max_burst> names_;
    std::array<control_room, max_burst> controls_;
    std::array<iovec, max_burst> pieces_;
    std::size_t pieces_used_ = 0;

    counts counted_;

    // Written by the worker, taken by control.
    static constexpr std::uint32_t too_long_room = 16;
    std::array<ipsec::address, too_long_room> too_long_;
    alignas(64) std::atomic<std::uint32_t> too_long_in_{0};
    alignas(64) std::atomic<std::uint32_t> too_long_out_{0};
};

} // namespace esplane::fastpath

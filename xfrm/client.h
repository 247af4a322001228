// SPDX-License-Identifier: Apache-2.0
//
// One client of the XFRM server: its data socket, its side channels, and what it has not read yet.
//
// Threads: the control thread.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "lib/base/unique_fd.h"
#include "xfrm/dispatch.h"
#include "xfrm/shim_protocol.h"
#include "xfrm/slate.h"

namespace esplane::xfrm {

/// A side channel: one process that holds the client's data socket.
struct side_channel {
    std::uint32_t number = 0;
    unique_fd socket;
    slate board; ///< not valid: the process has passed none
};

class client {
  public:
    client(unique_fd s, std::uint32_t peer_pid)
        : data(std::move(s))
        , pid(peer_pid) {}

    unique_fd data;
    std::uint64_t inode = 0; ///< of `data` once the shim passed it: the same from another process
    std::uint32_t pid; ///< of the process that connected: the port id it gets where that is free
    std::vector<side_channel> sides;
    std::uint32_t next_side = 1; ///< the server begins elsewhere in each of its lives
    client_state state;          ///< port id 0 until the first request or bind, as in the kernel
    std::uint32_t groups = 0;    ///< bit n - 1: XFRMNLGRP n
    std::deque<datagram> waiting;
    std::size_t waiting_bytes = 0;
    std::uint32_t interest = 0; ///< epoll events asked for on the data socket
    std::uint32_t edition = 0;  ///< counts the changes of port id, groups and options

    [[nodiscard]] bool in_group(std::uint32_t group) const noexcept {
        return (groups >> (group - 1) & 1) != 0;
    }
    /// Sends at once, or keeps what the socket does not take.  False: neither, there was no room.
    bool send_or_keep(datagram&& d);
    /// Sends an event at once, in order.  False: the socket is full, and the event lost.  The
    /// client is told as soon as there is room (SHIM_OVERRUN).
    bool send_event(const datagram& d);
    /// Says whether it has yet to be told that events were lost.
    [[nodiscard]] bool has_lost() const noexcept { return has_lost_; }
    /// Sends what was kept, as far as the socket takes it.
    void flush();
    [[nodiscard]] side_channel* find_side(std::uint32_t number) noexcept;

  private:
    /// Sends at once, in order.  False: the socket is full.
    bool send_now(bytes d);
    /// False: the socket is full.
    bool transmit(bytes d);
    void tell_loss();

    bool has_lost_ = false;
};

} // namespace esplane::xfrm

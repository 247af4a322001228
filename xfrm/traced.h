// SPDX-License-Identifier: Apache-2.0
//
// What the XFRM server shows to whoever follows its talk with clients.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

namespace esplane::xfrm {

struct traced {
    enum class direction : std::uint8_t { request, reply, event } way;
    std::span<const std::uint8_t> whole; ///< the datagram, valid during the call; it may hold keys
    std::uint32_t pid = 0;     ///< of the client's process; 0: an event, which is for many
    std::uint32_t port_id = 0; ///< of the client's socket
};

/// Called on the control thread; must neither block nor call the server.
using tap = std::function<void(const traced&)>;

} // namespace esplane::xfrm

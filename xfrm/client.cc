// SPDX-License-Identifier: Apache-2.0
#include "xfrm/client.h"

#include <sys/socket.h>

#include <algorithm>

namespace esplane::xfrm {
namespace {

/// What is kept of replies that a client does not read.
constexpr std::size_t max_waiting_bytes = 1 << 20;

} // namespace

bool client::transmit(bytes d) {
    const ssize_t sent = ::send(data.get(), d.data(), d.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    // A socket whose peer is gone takes everything: epoll reports its end.
    return sent >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

bool client::send_now(bytes d) {
    return waiting.empty() && transmit(d);
}

bool client::send_or_keep(datagram&& d) {
    if (send_now(d)) return true;
    if (waiting_bytes + d.size() > max_waiting_bytes) return false;
    waiting_bytes += d.size();
    waiting.push_back(std::move(d));
    return true;
}

bool client::send_event(const datagram& d) {
    tell_loss(); // before what comes after it
    has_lost_ = has_lost_ || !send_now(d);
    return !has_lost_;
}

void client::tell_loss() {
    const std::uint32_t word = SHIM_OVERRUN;
    if (has_lost_)
        has_lost_ = !send_now({reinterpret_cast<const std::uint8_t*>(&word), sizeof word});
}

void client::flush() {
    while (!waiting.empty() && transmit(waiting.front())) {
        waiting_bytes -= waiting.front().size();
        waiting.pop_front();
    }
    tell_loss();
}

side_channel* client::find_side(std::uint32_t number) noexcept {
    const auto found = std::ranges::find(sides, number, &side_channel::number);
    return found == sides.end() ? nullptr : &*found;
}

} // namespace esplane::xfrm

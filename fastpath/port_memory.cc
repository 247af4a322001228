// SPDX-License-Identifier: Apache-2.0
#include "fastpath/port_memory.h"

#include <algorithm>
#include <utility>

namespace esplane::fastpath {

bool memory_port::inject(std::span<const std::uint8_t> f, unsigned to) {
    if (f.size() > buffer_pool::frame_size - buffer_pool::headroom) return false;
    const std::lock_guard guard(lanes_[to].lock);
    lanes_[to].waiting.emplace_back(f.begin(), f.end());
    return true;
}

void memory_port::limit_sends(std::size_t n) noexcept {
    for (lane& l : all()) {
        const std::lock_guard guard(l.lock);
        l.room = n;
    }
}

std::vector<memory_port::frame> memory_port::take_sent(unsigned from) {
    const std::lock_guard guard(lanes_[from].lock);
    return std::exchange(lanes_[from].sent, {});
}

std::vector<memory_port::frame> memory_port::take(std::vector<frame> lane::*which) {
    std::vector<frame> taken;
    for (lane& l : all()) {
        const std::lock_guard guard(l.lock);
        std::move((l.*which).begin(), (l.*which).end(), std::back_inserter(taken));
        (l.*which).clear();
    }
    return taken;
}

std::size_t memory_port::receive(unsigned on, std::span<packet> into) noexcept {
    lane& l = lanes_[on];
    const std::lock_guard guard(l.lock);
    std::size_t n = 0;
    while (n < into.size() && !l.waiting.empty()) {
        const frame& f = l.waiting.front();
        const auto length = static_cast<std::uint32_t>(f.size());
        if (!pool_.allocate(into[n], length)) {
            ++l.counters.rx_no_buffer;
            break;
        }
        std::copy(f.begin(), f.end(), into[n].data);
        into[n].extend(static_cast<int>(length));
        ++l.counters.rx_packets;
        l.counters.rx_bytes += f.size();
        l.waiting.pop_front();
        ++n;
    }
    return n;
}

std::size_t memory_port::send(unsigned by, std::span<packet* const> frames) noexcept {
    lane& l = lanes_[by];
    const std::lock_guard guard(l.lock);
    const std::size_t n = std::min(frames.size(), l.room);
    l.room -= n;
    for (packet* p : frames.first(n)) {
        l.sent.emplace_back(p->data, p->data + p->length);
        ++l.counters.tx_packets;
        l.counters.tx_bytes += p->length;
        p->owner->release({&p, 1});
    }
    l.counters.tx_full += frames.size() - n;
    return n;
}

std::size_t memory_port::punt(unsigned by, std::span<packet* const> frames) noexcept {
    lane& l = lanes_[by];
    const std::lock_guard guard(l.lock);
    for (const packet* p : frames)
        l.punted.emplace_back(p->data, p->data + p->length);
    l.counters.punted += frames.size();
    return frames.size();
}

port_counters memory_port::counters() const noexcept {
    port_counters sum;
    for (const lane& l : all()) {
        const std::lock_guard guard(l.lock);
        for (std::uint64_t port_counters::*one :
             {&port_counters::rx_packets, &port_counters::rx_bytes, &port_counters::rx_no_buffer,
              &port_counters::tx_packets, &port_counters::tx_bytes, &port_counters::tx_full,
              &port_counters::punted})
            sum.*one += l.counters.*one;
    }
    return sum;
}

} // namespace esplane::fastpath

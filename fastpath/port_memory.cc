// SPDX-License-Identifier: Apache-2.0
#include "fastpath/port_memory.h"

#include <algorithm>

namespace esplane::fastpath {

bool memory_port::inject(std::span<const std::uint8_t> f) {
    if (f.size() > buffer_pool::frame_size - buffer_pool::headroom) return false;
    waiting_.emplace_back(f.begin(), f.end());
    return true;
}

std::size_t memory_port::receive(unsigned, std::span<packet> into) noexcept {
    std::size_t n = 0;
    while (n < into.size() && !waiting_.empty()) {
        const frame& f = waiting_.front();
        const auto length = static_cast<std::uint32_t>(f.size());
        if (!pool_.allocate(into[n], length)) {
            ++counters_.rx_no_buffer;
            break;
        }
        std::copy(f.begin(), f.end(), into[n].data);
        into[n].extend(static_cast<int>(length));
        ++counters_.rx_packets;
        counters_.rx_bytes += f.size();
        waiting_.pop_front();
        ++n;
    }
    return n;
}

std::size_t memory_port::send(unsigned, std::span<packet* const> frames) noexcept {
    const std::size_t n = std::min(frames.size(), room_);
    room_ -= n;
    for (packet* p : frames.first(n)) {
        sent_.emplace_back(p->data, p->data + p->length);
        ++counters_.tx_packets;
        counters_.tx_bytes += p->length;
        p->owner->release({&p, 1});
    }
    counters_.tx_full += frames.size() - n;
    return n;
}

std::size_t memory_port::punt(unsigned, std::span<packet* const> frames) noexcept {
    for (const packet* p : frames)
        punted_.emplace_back(p->data, p->data + p->length);
    counters_.punted += frames.size();
    return frames.size();
}

} // namespace esplane::fastpath

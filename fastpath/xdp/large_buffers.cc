// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/large_buffers.h"

#include <cassert>

namespace esplane::fastpath {

large_buffers::large_buffers(std::uint32_t count)
    : buffers_(std::make_unique<buffer[]>(count)) // all memory is there from the start
    , next_(std::make_unique<std::atomic<std::uint32_t>[]>(count))
    , free_(head{0, 0}) {
    for (std::uint32_t i = 0; i < count; ++i)
        next_[i] = i + 1 == count ? none : i + 1;
}

bool large_buffers::allocate(packet& into, std::uint32_t room) noexcept {
    if (room > buffer_size - headroom) return false;
    head top = free_.load(std::memory_order_acquire);
    do {
        if (top.index == none) return false;
    } while (!free_.compare_exchange_weak(
        top, {next_[top.index].load(std::memory_order_relaxed), top.count + 1},
        std::memory_order_acquire));
    into = packet{};
    into.data = buffers_[top.index].bytes + headroom;
    into.headroom = headroom;
    into.tailroom = static_cast<std::uint16_t>(buffer_size - headroom);
    into.owner = this;
    into.handle = top.index;
    return true;
}

void large_buffers::release(std::span<packet* const> packets) noexcept {
    for (const packet* p : packets) {
        assert(p->owner == this);
        const auto index = static_cast<std::uint32_t>(p->handle);
        head top = free_.load(std::memory_order_relaxed);
        do
            next_[index].store(top.index, std::memory_order_relaxed);
        while (
            !free_.compare_exchange_weak(top, {index, top.count + 1}, std::memory_order_release));
    }
}

} // namespace esplane::fastpath

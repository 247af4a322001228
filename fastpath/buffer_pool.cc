// SPDX-License-Identifier: Apache-2.0
#include "fastpath/buffer_pool.h"

#include <algorithm>
#include <cassert>
#include <sys/mman.h>

namespace esplane::fastpath {

namespace {

constexpr std::size_t huge_page = 2u << 20;

/// Room for `bytes` that starts on a huge page.  What the alignment costs is given back.
void* map_aligned(std::size_t bytes) {
    const std::size_t whole = bytes + huge_page;
    void* at = ::mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return nullptr;
    auto* first = static_cast<std::uint8_t*>(at);
    const std::size_t skip =
        (huge_page - reinterpret_cast<std::uintptr_t>(at) % huge_page) % huge_page;
    if (skip != 0) ::munmap(first, skip);
    ::munmap(first + skip + bytes, whole - skip - bytes);
    return first + skip;
}

} // namespace

result<std::unique_ptr<buffer_pool>> buffer_pool::make(std::uint32_t count) {
    count = std::max(count, 64u);
    const std::size_t bytes = std::size_t{count} * frame_size;
    void* base = map_aligned(bytes);
    if (base == nullptr) return fail_errno("packet buffers, " + std::to_string(bytes) + " bytes");
    (void)::madvise(base, bytes, MADV_HUGEPAGE); // before the first touch, or pages stay small
    (void)::madvise(base, bytes, MADV_DONTDUMP); // packets may hold clear text
    std::memset(base, 0, bytes);                 // all memory is there from the start
    return std::unique_ptr<buffer_pool>(new buffer_pool(static_cast<std::uint8_t*>(base), count));
}

buffer_pool::buffer_pool(std::uint8_t* base, std::uint32_t count)
    : base_(base)
    , count_(count) {
    free_.reserve(count);
    for (std::uint32_t i = count; i-- > 0;)
        free_.push_back(std::uint64_t{i} * frame_size);
}

buffer_pool::~buffer_pool() {
    ::munmap(base_, size());
}

void buffer_pool::release(std::span<packet* const> packets) noexcept {
    for (const packet* p : packets) {
        assert(p->owner == this && free_.size() < count_);
        free_.push_back(p->handle);
    }
}

bool buffer_pool::allocate(packet& into, std::uint32_t room) noexcept {
    if (free_.empty() || room > frame_size - headroom) return false;
    const std::uint64_t frame = free_.back();
    free_.pop_back();
    describe(into, frame + headroom, 0);
    return true;
}

std::size_t buffer_pool::take(std::span<std::uint64_t> frames) noexcept {
    const std::size_t n = std::min(frames.size(), free_.size());
    for (std::size_t i = 0; i < n; ++i) {
        frames[i] = free_.back();
        free_.pop_back();
    }
    return n;
}

void buffer_pool::give(std::span<const std::uint64_t> frames) noexcept {
    for (const std::uint64_t frame : frames) {
        assert(free_.size() < count_);
        free_.push_back(frame & ~std::uint64_t{frame_size - 1});
    }
}

void buffer_pool::describe(packet& into, std::uint64_t offset, std::uint32_t length) noexcept {
    const auto front = static_cast<std::uint16_t>(offset % frame_size);
    into = packet{};
    into.data = base_ + offset;
    into.length = length;
    into.headroom = front;
    into.tailroom = static_cast<std::uint16_t>(frame_size - front - length);
    into.owner = this;
    into.handle = offset - front;
}

} // namespace esplane::fastpath

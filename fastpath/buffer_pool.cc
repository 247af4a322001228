// SPDX-License-Identifier: Apache-2.0
#include "fastpath/buffer_pool.h"

#include <algorithm>
#include <cassert>
#include <sys/mman.h>

#include "fastpath/numa.h"

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

/// Wishes each lane's frames onto its node.  A page that two lanes share is the first one's.
void place_lanes(std::uint8_t* base, std::uint64_t count, std::span<const int> nodes) noexcept {
    std::uint64_t first = 0;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        const std::uint64_t end = count * (i + 1) / nodes.size();
        prefer_node(base + first * buffer_pool::frame_size, (end - first) * buffer_pool::frame_size,
                    nodes[i]);
        first = end;
    }
}

} // namespace

result<std::unique_ptr<buffer_pool>> buffer_pool::make(std::uint32_t count, unsigned lanes,
                                                       std::span<const int> nodes) {
    count = std::max(count, 64u);
    const std::size_t bytes = std::size_t{count} * frame_size;
    void* base = map_aligned(bytes);
    if (base == nullptr) return fail_errno("packet buffers, " + std::to_string(bytes) + " bytes");
    (void)::madvise(base, bytes, MADV_HUGEPAGE); // before the first touch, or pages stay small
    (void)::madvise(base, bytes, MADV_DONTDUMP); // packets may hold clear text
    place_lanes(static_cast<std::uint8_t*>(base), count, nodes);
    std::memset(base, 0, bytes); // all memory is there from the start
    return std::unique_ptr<buffer_pool>(
        new buffer_pool(static_cast<std::uint8_t*>(base), count, lanes));
}

/// All frames begin at home, in whole chunks in the depots; what is left over is lane 0's.
buffer_pool::buffer_pool(std::uint8_t* base, std::uint32_t count, unsigned lanes)
    : base_(base)
    , count_(count)
    , lanes_(lanes)
    , lanes_a_frame_((std::uint64_t{lanes} << 32) / count)
    , stacks_(std::make_unique<stack[]>(lanes))
    , away_(std::make_unique<stack[]>(std::size_t{lanes} * lanes)) {
    // A stack holds frames of its home, at most a chunk of another's, and what is left over below.
    const std::size_t at_home = count / lanes + 2 * frame_depot::chunk;
    for (unsigned i = 0; i < lanes; ++i) {
        stacks_[i].reserve(at_home + std::size_t{lanes} * frame_depot::chunk);
        depots_.push_back(std::make_unique<frame_depot>(count / frame_depot::chunk + 1));
    }
    for (unsigned i = 0; lanes > 1 && i < lanes * lanes; ++i)
        away_[i].reserve(at_home);
    for (std::uint32_t i = count; i-- > 0;) {
        const unsigned home = home_of(std::uint64_t{i} * frame_size);
        stack& s = stacks_[home];
        s.push(std::uint64_t{i} * frame_size);
        if (lanes > 1 && s.size() == frame_depot::chunk && depots_[home]->put(s.top()))
            s.shrink(frame_depot::chunk);
    }
    for (unsigned i = 1; i < lanes; ++i)
        while (stacks_[i].size() != 0)
            stacks_[0].push(stacks_[i].pop());
}

buffer_pool::~buffer_pool() {
    ::munmap(base_, size());
}

/// A depot has room for all chunks that there can be, those on their way in and out too.
void buffer_pool::put(std::uint64_t frame) noexcept {
    const unsigned home = home_of(frame);
    const bool ours = home == this_lane();
    stack& s = ours ? mine() : away(home);
    s.push(frame);
    if (lanes_ == 1 || s.size() < (ours ? full_stack : frame_depot::chunk)) return;
    if (depots_[home]->put(s.top())) s.shrink(frame_depot::chunk);
}

/// False: there is none to be had.
bool buffer_pool::stock(stack& s) noexcept {
    if (s.size() != 0) return true;
    s.grow(frame_depot::chunk);
    for (unsigned i = 0, from = this_lane(); i < lanes_; ++i) {
        if (depots_[from]->take(s.top())) return true;
        from = from + 1 == lanes_ ? 0 : from + 1;
    }
    s.shrink(frame_depot::chunk);
    for (unsigned home = 0; lanes_ > 1 && home < lanes_; ++home)
        if (stack& a = away(home); a.size() != 0) {
            s.push(a.pop());
            return true;
        }
    return false;
}

void buffer_pool::release(std::span<packet* const> packets) noexcept {
    for (const packet* p : packets) {
        assert(p->owner == this);
        put(p->handle);
    }
}

bool buffer_pool::allocate(packet& into, std::uint32_t room) noexcept {
    stack& s = mine();
    if (room > frame_size - headroom || !stock(s)) return false;
    describe(into, s.pop() + headroom, 0);
    return true;
}

std::size_t buffer_pool::take(std::span<std::uint64_t> frames) noexcept {
    stack& s = mine();
    std::size_t n = 0;
    while (n < frames.size() && stock(s))
        frames[n++] = s.pop();
    return n;
}

void buffer_pool::give(std::span<const std::uint64_t> frames) noexcept {
    for (const std::uint64_t frame : frames)
        put(frame & ~std::uint64_t{frame_size - 1});
}

std::size_t buffer_pool::free_frames() const noexcept {
    std::size_t n = 0;
    for (unsigned i = 0; i < lanes_; ++i)
        n += stacks_[i].size() + depots_[i]->size() * frame_depot::chunk;
    for (unsigned i = 0; i < lanes_ * lanes_; ++i)
        n += away_[i].size();
    return n;
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

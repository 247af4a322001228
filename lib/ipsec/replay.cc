// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/replay.h"

#include <algorithm>
#include <bit>

#include "lib/ipsec/sa.h"

namespace esplane::ipsec {

replay_window::replay_window(std::uint32_t packets)
    : size_(std::min(packets, max_replay_window)) {
    const std::uint32_t words = std::bit_ceil((size_ + 63) / 64 + 1);
    if (words <= small_words) return;
    mask_ = words - 1;
    large_ = std::make_unique<std::uint64_t[]>(words);
}

std::vector<std::uint32_t> replay_window::snapshot() const {
    std::vector<std::uint32_t> bitmap((size_ + 31) / 32);
    const std::uint64_t top = highest();
    const std::uint64_t end = std::min<std::uint64_t>(size_, top); // numbers start at 1
    for (std::uint64_t i = 0; i < end; ++i)
        if (seen(top - i)) bitmap[i / 32] |= 1u << (i % 32);
    return bitmap;
}

/// Of a window of another size all is taken for seen.
void replay_window::copy(const replay_window& live) noexcept {
    const bool fits = size_ == live.size_;
    const std::uint64_t* from = live.large_ ? live.large_.get() : live.small_.data();
    std::uint64_t* to = large_ ? large_.get() : small_.data();
    for (std::uint32_t i = 0; i <= mask_; ++i)
        store(to[i], fits ? std::atomic_ref(const_cast<std::uint64_t&>(from[i]))
                                .load(std::memory_order_acquire)
                          : ~std::uint64_t{0});
    store(highest_, live.highest()); // after the words: see advance()
}

void replay_window::restore(std::uint64_t highest, const std::vector<std::uint32_t>& bitmap) {
    for (std::uint32_t i = 0; i <= mask_; ++i)
        store(word_of(std::uint64_t{i} * 64), 0);
    store(highest_, highest);
    const std::uint64_t end =
        std::min({std::uint64_t{size_}, highest, std::uint64_t{bitmap.size()} * 32});
    for (std::uint64_t i = 0; i < end; ++i)
        if (((bitmap[i / 32] >> (i % 32)) & 1) != 0) mark(highest - i);
}

} // namespace esplane::ipsec

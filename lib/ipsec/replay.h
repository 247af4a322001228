// SPDX-License-Identifier: Apache-2.0
//
// Anti-replay window: RFC 4303 section 3.4.3, bitmap as in RFC 6479, up to 4096 packets.
//
// Use is two-phase: check() before the ICV is verified, commit() after.  Committing an
// unauthenticated number would let a forger slide the window past honest packets.  Between the
// two another packet of the same burst may have taken the number: commit() is a test-and-set and
// its verdict counts.
//
// Threads: one writer (the SA's owner worker).  snapshot() may run beside it on another thread;
// it then sees each word as it was at some moment.
#pragma once

#include <cstdint>
#include <vector>

namespace esplane::ipsec {

enum class replay_verdict : std::uint8_t { fresh, duplicate, too_old, zero };

/// The full 64-bit number that the 32 bits of an ESN packet stand for: RFC 4303 appendix A2.
///
/// highest   highest number authenticated so far (full 64 bits)
/// window    packets; 0 counts as 1
[[nodiscard]] constexpr std::uint64_t infer_esn(std::uint32_t low, std::uint64_t highest,
                                                std::uint32_t window) noexcept {
    if (window == 0) window = 1;
    const auto top_low = static_cast<std::uint32_t>(highest);
    const auto top_high = static_cast<std::uint32_t>(highest >> 32);
    const std::uint32_t bottom = top_low - window + 1; // wraps as the window does
    std::uint32_t high;
    if (top_low >= window - 1) // the window lies within one 2^32 subspace
        high = low >= bottom ? top_high : top_high + 1;
    else // it spans two
        high = low >= bottom ? top_high - 1 : top_high;
    return (static_cast<std::uint64_t>(high) << 32) | low;
}

class replay_window {
  public:
    /// packets   0 (everything is fresh, nothing is kept) to 4096; others are rounded up to 32
    explicit replay_window(std::uint32_t packets);

    /// Says whether `seq` may be accepted.  Const: a forged packet leaves no trace.
    ///
    /// seq      full 64-bit number; with ESN the caller has already inferred the high half
    /// returns  fresh, duplicate, too_old, or zero for number 0, which is never sent
    [[nodiscard]] replay_verdict check(std::uint64_t seq) const noexcept;

    /// Takes an authenticated number.  Anything but fresh: nothing has changed, drop the packet.
    [[nodiscard]] replay_verdict commit(std::uint64_t seq) noexcept;

    [[nodiscard]] std::uint64_t highest() const noexcept;
    [[nodiscard]] std::uint32_t size() const noexcept { return size_; }

    /// As in replay_state: bit i of the result is number highest - i.
    [[nodiscard]] std::vector<std::uint32_t> snapshot() const;
    /// Starts from a client's state.  Before any packet only.
    void restore(std::uint64_t highest, const std::vector<std::uint32_t>& bitmap);

  private:
    [[nodiscard]] bool seen(std::uint64_t seq) const noexcept;

    std::uint64_t highest_ = 0;
    std::uint32_t size_ = 0;
    std::uint32_t mask_ = 0;           ///< words_.size() - 1; a power of two minus 1
    std::vector<std::uint64_t> words_; ///< a ring: number n is bit n % 64 of word n / 64 % size
};

} // namespace esplane::ipsec

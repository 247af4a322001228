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

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
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
    /// packets   0 (everything is fresh, even number 0, and nothing is kept) to 4096
    explicit replay_window(std::uint32_t packets);

    /// Says whether `seq` may be accepted.  Const: a forged packet leaves no trace.
    ///
    /// seq      full 64-bit number; with ESN the caller has already inferred the high half
    /// returns  fresh, duplicate, too_old, or zero for number 0, which is never sent
    [[nodiscard]] replay_verdict check(std::uint64_t seq) const noexcept;

    /// Takes an authenticated number.  Anything but fresh: nothing has changed, drop the packet.
    [[nodiscard]] replay_verdict commit(std::uint64_t seq) noexcept;
    /// Takes `count` authenticated numbers that follow one another, 1 to 64, all above highest().
    void commit_run(std::uint64_t first, unsigned count) noexcept;

    [[nodiscard]] std::uint64_t highest() const noexcept { return load(highest_); }
    [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
    /// Where highest() stands: for who finds the window's memory when its process is gone.
    [[nodiscard]] const std::uint64_t* place_of_highest() const noexcept { return &highest_; }

    /// As in replay_state: bit i of the result is number highest - i.
    [[nodiscard]] std::vector<std::uint32_t> snapshot() const;
    /// Starts from a client's state.  Before any packet only.
    void restore(std::uint64_t highest, const std::vector<std::uint32_t>& bitmap);
    /// Starts from a window of the same size, whose owner may be at work.  What that one committed
    /// before the call is in; of what it commits meanwhile each number may be or not be.
    void copy(const replay_window& live) noexcept;

  private:
    /// A window of 64 packets fits beside the numbers: no second cache line for most SAs.
    static constexpr std::uint32_t small_words = 2;

    // One writer, and readers that take each word for itself: plain loads and stores on x86-64.
    // The const_cast is what C++20's atomic_ref asks for; a load writes nothing.
    [[nodiscard]] static std::uint64_t load(const std::uint64_t& from) noexcept {
        return std::atomic_ref(const_cast<std::uint64_t&>(from)).load(std::memory_order_relaxed);
    }
    static void store(std::uint64_t& to, std::uint64_t value) noexcept {
        std::atomic_ref(to).store(value, std::memory_order_relaxed);
    }

    [[nodiscard]] const std::uint64_t& word_of(std::uint64_t seq) const noexcept {
        const std::uint64_t* words = large_ ? large_.get() : small_.data();
        return words[(seq / 64) & mask_];
    }
    [[nodiscard]] std::uint64_t& word_of(std::uint64_t seq) noexcept {
        return const_cast<std::uint64_t&>(std::as_const(*this).word_of(seq));
    }
    [[nodiscard]] bool seen(std::uint64_t seq) const noexcept {
        return ((load(word_of(seq)) >> (seq % 64)) & 1) != 0;
    }
    void mark(std::uint64_t seq) noexcept { add(word_of(seq), std::uint64_t{1} << (seq % 64)); }
    static void add(std::uint64_t& word, std::uint64_t bits) noexcept {
        store(word, load(word) | bits);
    }
    void advance(std::uint64_t seq) noexcept;

    std::uint64_t highest_ = 0;
    std::uint32_t size_ = 0;
    std::uint32_t mask_ = small_words - 1; ///< words in the ring, a power of two, minus 1
    /// The ring: number n is bit n % 64 of word (n / 64) % words.  At least one word more than the
    /// window needs, so that the word being entered can be cleared whole.
    std::array<std::uint64_t, small_words> small_{};
    std::unique_ptr<std::uint64_t[]> large_; ///< instead of small_, for more than 64 packets
};

inline replay_verdict replay_window::check(std::uint64_t seq) const noexcept {
    const std::uint64_t top = highest();
    if (seq > top || size_ == 0) return replay_verdict::fresh;
    if (seq == 0) return replay_verdict::zero;
    if (top - seq >= size_) return replay_verdict::too_old;
    return seen(seq) ? replay_verdict::duplicate : replay_verdict::fresh;
}

inline replay_verdict replay_window::commit(std::uint64_t seq) noexcept {
    const replay_verdict verdict = check(seq);
    if (verdict != replay_verdict::fresh || size_ == 0) return verdict;
    if (seq > highest()) advance(seq);
    mark(seq);
    return verdict;
}

inline void replay_window::commit_run(std::uint64_t first, unsigned count) noexcept {
    if (size_ == 0) return;
    const std::uint64_t last = first + count - 1;
    advance(last);
    const std::uint64_t bits = (std::uint64_t{2} << (count - 1)) - 1;
    add(word_of(first), bits << (first % 64));
    if (first / 64 != last / 64) add(word_of(last), bits >> (64 - first % 64));
}

/// Clears the words that the window enters; those it only leaves keep stale bits that no number in
/// the window maps to.  The number first: who reads beside us never finds a cleared word in a
/// window that has not moved on yet, in which it would stand for numbers not seen.
inline void replay_window::advance(std::uint64_t seq) noexcept {
    const std::uint64_t entered = seq / 64 - highest() / 64;
    store(highest_, seq);
    if (entered == 0) return;
    const std::uint64_t ring = std::uint64_t{mask_} + 1;
    for (std::uint64_t i = 0; i < entered && i < ring; ++i)
        std::atomic_ref(word_of(seq - i * 64)).store(0, std::memory_order_release);
}

} // namespace esplane::ipsec

// SPDX-License-Identifier: Apache-2.0
//
// AES-GCM of small packets by a kernel of our own: doc/gcm-kernel.md says why and how.
//
// Does not: take packets longer than `longest_text`, or run on a processor without AVX-512, VAES
// and VPCLMULQDQ; the engine gives both to intel-ipsec-mb.
// Threads: any; it has no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lib/crypto/engine.h"

namespace esplane::crypto::gcm {

/// Bytes of text.  Beyond it the library is as fast: the measurements are in doc/gcm-kernel.md.
inline constexpr std::uint32_t longest_text = 288;

/// GHASH takes the AAD's block, the text's and that of the lengths.
inline constexpr std::size_t powers_needed = 1 + longest_text / 16 + 1;

/// The compact schedule of one SA: all that a small packet touches of its keys.
///
///   [ round keys: 11, 13 or 15 ][ H ][ H^2 ] ... [ H^20 ]      blocks of 16 bytes
///
/// The powers follow the last round key at once; a packet of b blocks reads the first b.
struct blocks {
    static constexpr std::size_t most = 15 + powers_needed;
    alignas(16) std::uint8_t bytes[most * 16];
};

/// Appends the powers of H to round keys that stand in `schedule`.  Needs supported().
///
/// aes_key_length   16, 24 or 32 bytes
void expand_powers(blocks& schedule, std::size_t aes_key_length) noexcept;

/// How a kernel is called: jobs of one AES-GCM suite, none longer than longest_text.
///
/// In place, as engine::encrypt() and engine::decrypt().  Constant time in keys, text and ICV.
/// Clears the vector registers before it returns and leaves nothing of the keys on the stack.
struct kernel {
    void (*encrypt)(std::span<job> jobs) noexcept;
    void (*decrypt)(std::span<job> jobs) noexcept;
};

/// Says whether this processor, and the operating system on it, can run the kernel.
[[nodiscard]] bool supported() noexcept;

/// Needs supported().
extern const kernel avx512;

/// Asks a kernel for known answers: says whether they were right.  Needs supported().
[[nodiscard]] bool answers_right(const kernel& tested);

} // namespace esplane::crypto::gcm

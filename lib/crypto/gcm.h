// SPDX-License-Identifier: Apache-2.0
//
// AES-GCM by a kernel of our own: doc/gcm-kernel.md says why and how.
//
// Does not: run on a processor without AVX-512, VAES and VPCLMULQDQ; there the engine gives all
// packets to intel-ipsec-mb.
// Threads: any; it has no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lib/crypto/engine.h"

namespace esplane::crypto::gcm {

inline constexpr std::size_t powers_needed = 40;

/// The compact schedule of one SA: all that a packet touches of its keys.
///
///   [ round keys: 11, 13 or 15 ][ H ][ H^2 ] ... [ H^40 ]      blocks of 16 bytes
///
/// The powers follow the last round key at once.  A packet of b blocks (its AAD, its text and the
/// lengths) reads the first b, one of more than 40 blocks nearly all.
struct blocks {
    static constexpr std::size_t most = 15 + powers_needed;
    alignas(16) std::uint8_t bytes[most * 16];
};

/// Appends the powers of H to round keys that stand in `schedule`.  Needs supported().
///
/// aes_key_length   16, 24 or 32 bytes
void expand_powers(blocks& schedule, std::size_t aes_key_length) noexcept;

/// How a kernel is called: jobs of one AES-GCM suite.
///
/// In place, as engine::encrypt() and engine::decrypt().  Constant time in keys, text and ICV.
/// Clears the vector registers before it returns and leaves nothing of the keys on the stack.
struct kernel {
    void (*encrypt)(std::span<job> jobs) noexcept;
    void (*decrypt)(std::span<job> jobs) noexcept;
};

/// Says whether this processor, and the operating system on it, can run the kernel.
[[nodiscard]] bool supported() noexcept;

/// Says whether keys are to be made for the library, too, which take twice the memory: where the
/// kernel cannot run, or once want_library_keys() was called.
[[nodiscard]] bool library_keys_wanted() noexcept;

/// Called before an engine runs AES-GCM by the library.  It runs older keys too, but expands them
/// anew for every packet.
void want_library_keys() noexcept;

/// Needs supported().
extern const kernel avx512;

/// Asks a kernel for known answers: says whether they were right.  Needs supported().
[[nodiscard]] bool answers_right(const kernel& tested);

} // namespace esplane::crypto::gcm

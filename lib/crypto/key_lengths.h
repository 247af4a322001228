// SPDX-License-Identifier: Apache-2.0
//
// How long the keys of a suite are.
#pragma once

#include <cstddef>

#include "lib/base/result.h"
#include "lib/crypto/schedule.h"

namespace esplane::crypto {

inline constexpr std::size_t salt_length = 4;
inline constexpr std::size_t hash_block = 64; ///< of SHA-1 and SHA-256

/// Errors: ENOSYS for a suite that is none; EINVAL where a key's length is not the suite's.
[[nodiscard]] inline result<void> check_lengths(const ipsec::algorithms& a) {
    if (static_cast<unsigned>(a.run) >= ipsec::suite_count) return fail(ENOSYS);
    const std::size_t expected = cipher_key_length(a.run);
    if (is_gcm(a.run) && a.aead.key.size() != expected + salt_length)
        return fail(EINVAL, "an AES-GCM key is 16, 24 or 32 bytes and 4 bytes of salt", "aead");
    if (is_aead(a.run) && a.aead.key.size() != expected + salt_length)
        return fail(EINVAL, "a ChaCha20-Poly1305 key is 32 bytes and 4 bytes of salt", "aead");
    if (!is_aead(a.run) && a.cipher.key.size() != expected)
        return fail(EINVAL, "an AES key is 16, 24 or 32 bytes, and NULL has none", "cipher");
    return {};
}

} // namespace esplane::crypto

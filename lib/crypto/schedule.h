// SPDX-License-Identifier: Apache-2.0
//
// How the expanded keys of an SA lie in memory.
//
// The first bytes are all that choosing the call and building the nonce needs; what a small packet
// reads follows in the same lines, what a large one needs after that.  A schedule is as large as
// its suite needs: many SAs must fit the cache.
#pragma once

#include <cstdint>

#include <intel-ipsec-mb.h>

#include "lib/crypto/engine.h"
#include "lib/crypto/gcm_small.h"

namespace esplane::crypto {

struct key::schedule {
    ipsec::suite run;
    std::uint8_t iv_length;
    std::uint8_t icv_length;
    std::uint8_t cipher_key_length; ///< bytes; 0 without a cipher
    std::uint32_t salt;             ///< as it stands in the nonce
};

/// For the AES-GCM suites.
struct alignas(64) gcm_schedule : key::schedule {
    small_gcm::blocks small;       ///< empty where the processor cannot run small_gcm
    alignas(64) gcm_key_data keys; ///< the library's
};
static_assert(sizeof(gcm_schedule) == (9 + 16) * 64);

inline constexpr std::size_t aes_round_keys_length = 15 * 16; ///< of AES-256

struct alignas(64) chacha_schedule : key::schedule {
    static constexpr std::size_t key_length = 32;
    alignas(16) std::uint8_t bytes[key_length];
};
static_assert(sizeof(chacha_schedule) == 64);

/// For the suites that authenticate with an HMAC.
struct alignas(64) hmac_schedule : key::schedule {
    static constexpr std::size_t hash_length = 32; ///< of SHA-256; SHA-1 needs 20

    std::uint8_t inner[hash_length]; ///< the hash's state after the key's block, RFC 2104
    std::uint8_t outer[hash_length];
    alignas(16) std::uint8_t encrypt[aes_round_keys_length];
    alignas(16) std::uint8_t decrypt[aes_round_keys_length];
};
static_assert(sizeof(hmac_schedule) == 9 * 64);

/// Bytes of the cipher's key, without salt; 0 where the suite has no cipher.
[[nodiscard]] constexpr std::uint8_t cipher_key_length(ipsec::suite s) noexcept {
    switch (s) {
    case ipsec::suite::aes128_gcm16:
    case ipsec::suite::aes128_cbc_sha256_128:
    case ipsec::suite::aes128_cbc_sha1_96:
        return 16;
    case ipsec::suite::aes192_gcm16:
    case ipsec::suite::aes192_cbc_sha256_128:
    case ipsec::suite::aes192_cbc_sha1_96:
        return 24;
    case ipsec::suite::aes256_gcm16:
    case ipsec::suite::aes256_cbc_sha256_128:
    case ipsec::suite::aes256_cbc_sha1_96:
    case ipsec::suite::chacha20_poly1305:
        return 32;
    case ipsec::suite::null_sha256_128:
    case ipsec::suite::null_sha1_96:
        return 0;
    }
    return 0;
}

[[nodiscard]] constexpr bool is_gcm(ipsec::suite s) noexcept {
    return s <= ipsec::suite::aes256_gcm16;
}

/// Of an HMAC suite.
[[nodiscard]] constexpr bool hashes_with_sha1(ipsec::suite s) noexcept {
    return s >= ipsec::suite::aes128_cbc_sha1_96;
}

} // namespace esplane::crypto

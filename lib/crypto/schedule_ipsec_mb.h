// SPDX-License-Identifier: Apache-2.0
//
// How the expanded keys of an SA lie in memory, for intel-ipsec-mb and the GCM kernel.
//
// The first bytes are all that choosing the call and building the nonce needs; what the kernel
// reads follows in the same lines, what the library needs after that.  A schedule is as large as
// its suite needs: many SAs must fit the cache.
#pragma once

#include <cstdint>
#include <span>

#include <intel-ipsec-mb.h>

#include "lib/crypto/gcm.h"
#include "lib/crypto/schedule.h"

namespace esplane::crypto {

/// For the AES-GCM suites.
struct alignas(64) gcm_schedule : key::schedule {
    bool is_of_library;  ///< it is a library_gcm_schedule
    gcm::blocks compact; ///< the kernel's; empty where the processor cannot run it
};
static_assert(sizeof(gcm_schedule) == 14 * 64);

/// For the same where an engine runs them by the library: gcm::library_keys_wanted().
struct library_gcm_schedule : gcm_schedule {
    alignas(64) gcm_key_data keys;
};
static_assert(sizeof(library_gcm_schedule) == (14 + 16) * 64);

/// What the library makes of an AES key.
void expand_library_gcm(IMB_MGR* library, std::span<const std::uint8_t> aes_key,
                        gcm_key_data& into) noexcept;

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

} // namespace esplane::crypto

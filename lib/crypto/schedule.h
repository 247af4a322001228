// SPDX-License-Identifier: Apache-2.0
//
// What the expanded keys of every SA begin with, whichever library expands them.
//
// Each library's schedules derive from it: schedule_ipsec_mb.h, openssl/schedule.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/crypto/engine.h"

namespace esplane::crypto {

struct key::schedule {
    ipsec::suite run;
    std::uint8_t iv_length;
    std::uint8_t icv_length;
    std::uint8_t cipher_key_length; ///< bytes; 0 without a cipher
    std::uint32_t salt;             ///< as it stands in the nonce
};

/// Bytes of the largest schedule that lies in a slab; 0 where the library has them on the heap.
[[nodiscard]] std::size_t largest_schedule() noexcept;

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

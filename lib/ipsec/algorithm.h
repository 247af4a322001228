// SPDX-License-Identifier: Apache-2.0
//
// The algorithms that SAs can name, and the names that clients give them.
//
// One table (algorithm.cc) says for each: the kernel's name and its aliases, key lengths, ICV
// lengths, and the numbers a legacy dump shows.  The suite is what the data path runs: one cipher
// and one ICV, resolved once when the SA is made.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/result.h"
#include "lib/base/secret.h"

namespace esplane::ipsec {

/// What the crypto engine runs.  Key length is part of it.
enum class suite : std::uint8_t {
    aes128_gcm16,
    aes192_gcm16,
    aes256_gcm16,
    aes128_cbc_sha256_128,
    aes192_cbc_sha256_128,
    aes256_cbc_sha256_128,
    null_sha256_128,
    chacha20_poly1305,
    aes128_cbc_sha1_96,
    aes192_cbc_sha1_96,
    aes256_cbc_sha1_96,
    null_sha1_96,
};
inline constexpr unsigned suite_count = 12;

/// Says whether cipher and ICV are one.  All of them here are counter modes: an IV that comes twice
/// under one key gives away both texts and the key of the ICV.
[[nodiscard]] constexpr bool is_aead(suite s) noexcept {
    return s <= suite::aes256_gcm16 || s == suite::chacha20_poly1305;
}

/// Bytes on the wire for each suite.
struct suite_layout {
    std::uint8_t iv_length;    ///< bytes between ESP header and text
    std::uint8_t icv_length;   ///< bytes after the text
    std::uint8_t block_length; ///< text is padded to a multiple of it: at least 4 (RFC 4303 2.4)
};
[[nodiscard]] suite_layout layout_of(suite s) noexcept;
/// "AES-128-GCM-16" and so on: for people.
[[nodiscard]] std::string_view name_of(suite s) noexcept;

/// An algorithm of one kind as a client gave it: canonical kernel name, key, ICV length.
///
/// The salt of an AEAD is the last 4 bytes of its key (RFC 4106 section 8.1, RFC 7634 section 2).
struct keyed_algorithm {
    std::string name; ///< as the kernel dumps it: "cbc(aes)", never "aes"; empty = absent
    secret key;
    std::uint32_t icv_bits = 0; ///< AEAD and auth only

    [[nodiscard]] bool present() const noexcept { return !name.empty(); }
    [[nodiscard]] keyed_algorithm clone() const { return {name, key.clone(), icv_bits}; }
};

/// All keys of an SA, and the suite they make.
struct algorithms {
    keyed_algorithm aead;
    keyed_algorithm cipher;
    keyed_algorithm auth;
    suite run = suite::aes128_gcm16;

    [[nodiscard]] algorithms clone() const {
        return {aead.clone(), cipher.clone(), auth.clone(), run};
    }
};

/// Checks what a client asked for, puts canonical names in, sets `run`.
///
/// `icv_bits` of `auth` is 0 where the client sent only XFRMA_ALG_AUTH: the kernel's default of 96
/// is then meant, which is put in for hmac(sha1) and is not built here for hmac(sha256).  The key
/// of an HMAC may have any length, as in the kernel.
///
/// Errors: ENOSYS with the kernel's text ("Requested AEAD algorithm not found", ...) for an
/// algorithm or ICV length that is not known or not built here; EINVAL where a cipher's key length
/// is wrong or the combination makes no ESP.  `a` is unchanged then.
[[nodiscard]] result<void> resolve(algorithms& a);

} // namespace esplane::ipsec

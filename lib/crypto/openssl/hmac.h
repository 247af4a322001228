// SPDX-License-Identifier: Apache-2.0
//
// HMAC (RFC 2104) under a key whose block has been hashed already.
//
// The hash's states are plain bytes, so that threads share them and a packet begins with a copy.
// OpenSSL has that only in functions that it calls deprecated (hmac.cc); its contexts, EVP_MD_CTX
// and EVP_MAC_CTX, allocate whenever they begin again or are copied.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include <openssl/sha.h>

namespace esplane::crypto::openssl {

struct sha1 {
    using state = SHA_CTX;
    static constexpr std::size_t length = SHA_DIGEST_LENGTH;
};
struct sha256 {
    using state = SHA256_CTX;
    static constexpr std::size_t length = SHA256_DIGEST_LENGTH;
};

/// Whoever has one wipes it.
template <typename Hash>
class hmac_key {
  public:
    using mac = std::array<std::uint8_t, Hash::length>;

    /// `key` may have any length.
    void set(std::span<const std::uint8_t> key) noexcept;

    /// Of `text`, and `more` after it.
    [[nodiscard]] mac of(std::span<const std::uint8_t> text,
                         std::span<const std::uint8_t> more) const noexcept;

  private:
    typename Hash::state inner_; ///< after the block of the key, xor ipad
    typename Hash::state outer_; ///< xor opad
};

extern template class hmac_key<sha1>;
extern template class hmac_key<sha256>;

} // namespace esplane::crypto::openssl

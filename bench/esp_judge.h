// SPDX-License-Identifier: Apache-2.0
//
// ESP by OpenSSL, a packet at a time: makes what contenders decrypt, and opens what they encrypted.
// A second opinion: nothing of it is esplane's or intel-ipsec-mb's.
#pragma once

#include <openssl/evp.h>

#include "bench/contest.h"

namespace esplane::bench {

/// The keys of one SA as OpenSSL holds them.
class esp_keys {
  public:
    esp_keys(const suite_choice& s, std::uint32_t sa, bool encrypt);
    ~esp_keys();
    esp_keys(esp_keys&& other) noexcept;
    esp_keys(const esp_keys&) = delete;
    esp_keys& operator=(const esp_keys&) = delete;

    /// In place: [ SPI, seq ][ IV ][ text ][ ICV ].
    void encrypt(std::uint8_t* esp, std::uint32_t text_length) const noexcept;
    /// False where the ICV is wrong.
    [[nodiscard]] bool decrypt(std::uint8_t* esp, std::uint32_t text_length) const noexcept;

  private:
    void nonce(const std::uint8_t* esp, std::uint8_t* into) const noexcept;
    void authenticate(const std::uint8_t* esp, std::size_t length,
                      std::uint8_t* icv) const noexcept;

    const suite_choice* suite_;
    EVP_CIPHER_CTX* cipher_;
    EVP_MAC_CTX* mac_ = nullptr;
    std::uint8_t salt_[4]{};
};

/// Bytes of text, trailer included, around an inner packet.
[[nodiscard]] std::uint32_t text_length(const suite_choice& s, std::uint32_t inner) noexcept;

/// Writes SPI, sequence number, IV, the inner packet and its trailer; nothing is encrypted yet.
void lay_out(const suite_choice& s, std::uint32_t sa, std::uint32_t sequence,
             std::span<const std::uint8_t> inner, std::uint8_t* esp) noexcept;

/// Without its outer header.
void copy_esp(std::span<const std::uint8_t> sealed, std::uint8_t* into) noexcept;

/// What a contender that sees nothing but ESP has made of packet `n` in place: outbound the ESP
/// packet, inbound the inner one.
[[nodiscard]] bytes esp_or_inner(const traffic& all, unsigned n, const std::uint8_t* esp);

/// The inner packet of an ESP packet; empty where it is not authentic or its trailer is wrong.
[[nodiscard]] bytes open_esp(const suite_choice& s, std::uint32_t sa, bytes esp);

[[nodiscard]] inline std::uint32_t spi_of(std::uint32_t sa) noexcept {
    return 0x10000 + sa;
}

} // namespace esplane::bench

// SPDX-License-Identifier: Apache-2.0
#include "bench/esp_judge.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include <openssl/core_names.h>
#include <openssl/params.h>

#include "lib/wire/headers.h"

namespace esplane::bench {

namespace {

constexpr std::size_t header = sizeof(wire::esp_header);
constexpr int nonce_length = 12;
constexpr std::size_t longest_icv = 32;

const EVP_CIPHER* cipher_of(const suite_choice& s) {
    if (s.chacha()) return EVP_chacha20_poly1305();
    if (s.is_gcm()) return s.cipher_key == 16 ? EVP_aes_128_gcm() : EVP_aes_256_gcm();
    return s.cipher_key == 16 ? EVP_aes_128_cbc() : EVP_aes_256_cbc();
}

EVP_MAC_CTX* make_mac(const suite_choice& s, std::uint32_t sa) {
    static EVP_MAC* const hmac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
    EVP_MAC_CTX* made = EVP_MAC_CTX_new(hmac);
    char digest[8];
    std::strcpy(digest, s.auth_key == 20 ? "SHA1" : "SHA256");
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end()};
    const bytes key = auth_key(s, sa);
    if (EVP_MAC_init(made, key.data(), key.size(), parameters) != 1) std::abort();
    return made;
}

} // namespace

esp_keys::esp_keys(const suite_choice& s, std::uint32_t sa, bool encrypt)
    : suite_(&s)
    , cipher_(EVP_CIPHER_CTX_new()) {
    const bytes key = cipher_key(s, sa);
    if (s.is_aead()) std::memcpy(salt_, key.data() + s.cipher_key, sizeof salt_);
    if (EVP_CipherInit_ex(cipher_, cipher_of(s), nullptr, key.data(), nullptr, encrypt) != 1)
        std::abort();
    EVP_CIPHER_CTX_set_padding(cipher_, 0);
    if (!s.is_aead()) mac_ = make_mac(s, sa);
}

esp_keys::~esp_keys() {
    EVP_CIPHER_CTX_free(cipher_);
    EVP_MAC_CTX_free(mac_);
}

esp_keys::esp_keys(esp_keys&& other) noexcept
    : suite_(other.suite_)
    , cipher_(std::exchange(other.cipher_, nullptr))
    , mac_(std::exchange(other.mac_, nullptr)) {
    std::memcpy(salt_, other.salt_, sizeof salt_);
}

void esp_keys::nonce(const std::uint8_t* esp, std::uint8_t* into) const noexcept {
    std::memcpy(into, salt_, sizeof salt_);
    std::memcpy(into + sizeof salt_, esp + header, nonce_length - sizeof salt_);
}

void esp_keys::authenticate(const std::uint8_t* esp, std::size_t length,
                            std::uint8_t* icv) const noexcept {
    std::uint8_t whole[longest_icv];
    std::size_t got;
    EVP_MAC_init(mac_, nullptr, 0, nullptr);
    EVP_MAC_update(mac_, esp, length);
    EVP_MAC_final(mac_, whole, &got, sizeof whole);
    std::memcpy(icv, whole, suite_->icv);
}

void esp_keys::encrypt(std::uint8_t* esp, std::uint32_t length) const noexcept {
    std::uint8_t* const text = esp + header + suite_->iv;
    int n;
    if (!suite_->is_aead()) {
        EVP_CipherInit_ex(cipher_, nullptr, nullptr, nullptr, esp + header, -1);
        EVP_CipherUpdate(cipher_, text, &n, text, static_cast<int>(length));
        authenticate(esp, header + suite_->iv + length, text + length);
        return;
    }
    std::uint8_t iv[nonce_length];
    nonce(esp, iv);
    EVP_CipherInit_ex(cipher_, nullptr, nullptr, nullptr, iv, -1);
    EVP_CipherUpdate(cipher_, nullptr, &n, esp, header);
    EVP_CipherUpdate(cipher_, text, &n, text, static_cast<int>(length));
    EVP_CipherFinal_ex(cipher_, text, &n);
    EVP_CIPHER_CTX_ctrl(cipher_, EVP_CTRL_AEAD_GET_TAG, static_cast<int>(suite_->icv),
                        text + length);
}

bool esp_keys::decrypt(std::uint8_t* esp, std::uint32_t length) const noexcept {
    std::uint8_t* const text = esp + header + suite_->iv;
    int n;
    if (!suite_->is_aead()) {
        std::uint8_t icv[longest_icv];
        authenticate(esp, header + suite_->iv + length, icv);
        if (std::memcmp(icv, text + length, suite_->icv) != 0) return false;
        EVP_CipherInit_ex(cipher_, nullptr, nullptr, nullptr, esp + header, -1);
        EVP_CipherUpdate(cipher_, text, &n, text, static_cast<int>(length));
        return true;
    }
    std::uint8_t iv[nonce_length];
    nonce(esp, iv);
    EVP_CipherInit_ex(cipher_, nullptr, nullptr, nullptr, iv, -1);
    EVP_CIPHER_CTX_ctrl(cipher_, EVP_CTRL_AEAD_SET_TAG, static_cast<int>(suite_->icv),
                        text + length);
    EVP_CipherUpdate(cipher_, nullptr, &n, esp, header);
    EVP_CipherUpdate(cipher_, text, &n, text, static_cast<int>(length));
    return EVP_CipherFinal_ex(cipher_, text, &n) == 1;
}

std::uint32_t text_length(const suite_choice& s, std::uint32_t inner) noexcept {
    return (inner + 2 + s.block - 1) / s.block * s.block;
}

void lay_out(const suite_choice& s, std::uint32_t sa, std::uint32_t sequence,
             std::span<const std::uint8_t> inner, std::uint8_t* esp) noexcept {
    wire::store(esp, wire::be32(spi_of(sa)));
    wire::store(esp + 4, wire::be32(sequence));
    for (unsigned i = 0; i < s.iv; ++i)
        esp[header + i] = static_cast<std::uint8_t>(sequence * 31 + i * 7 + 1);
    wire::store(esp + header, wire::be32(sequence));
    std::uint8_t* const text = esp + header + s.iv;
    const auto length = static_cast<std::uint32_t>(inner.size());
    const std::uint32_t pad = text_length(s, length) - length - 2;
    std::memcpy(text, inner.data(), length);
    for (std::uint32_t i = 0; i < pad; ++i)
        text[length + i] = static_cast<std::uint8_t>(i + 1);
    text[length + pad] = static_cast<std::uint8_t>(pad);
    text[length + pad + 1] = wire::proto_ipip;
}

void copy_esp(std::span<const std::uint8_t> sealed, std::uint8_t* into) noexcept {
    const auto esp = sealed.subspan(sizeof(wire::ipv4_header));
    std::memcpy(into, esp.data(), esp.size());
}

bytes esp_or_inner(const traffic& all, unsigned n, const std::uint8_t* esp) {
    const suite_choice& s = *all.of().suite;
    const auto inner = static_cast<std::uint32_t>(all.inner(n).size());
    const std::uint8_t* const text = esp + header + s.iv;
    if (!all.of().outbound) return {text, text + inner};
    return {esp, text + text_length(s, inner) + s.icv};
}

bytes open_esp(const suite_choice& s, std::uint32_t sa, bytes esp) {
    const std::size_t around = header + s.iv + s.icv;
    if (esp.size() < around + 2 || (esp.size() - around) % s.block != 0) return {};
    if (wire::load<wire::be32>(esp.data()).host() != spi_of(sa)) return {};
    const auto length = static_cast<std::uint32_t>(esp.size() - around);
    if (!esp_keys(s, sa, false).decrypt(esp.data(), length)) return {};
    const std::uint8_t* const text = esp.data() + header + s.iv;
    const std::uint32_t pad = text[length - 2];
    if (text[length - 1] != wire::proto_ipip || pad + 2 > length) return {};
    for (std::uint32_t i = 0; i < pad; ++i)
        if (text[length - 2 - pad + i] != i + 1) return {};
    return {text, text + length - 2 - pad};
}

} // namespace esplane::bench

// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/crypto/openssl_esp.h"

#include <memory>
#include <stdexcept>

#include <openssl/evp.h>
#include <openssl/hmac.h>

namespace esplane::test {
namespace {

using context = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

void must(int returned) {
    if (returned != 1) throw std::runtime_error("OpenSSL refused");
}

bytes big_endian(std::uint32_t v) {
    return {static_cast<std::uint8_t>(v >> 24), static_cast<std::uint8_t>(v >> 16),
            static_cast<std::uint8_t>(v >> 8), static_cast<std::uint8_t>(v)};
}

void append(bytes& to, const bytes& more) {
    to.insert(to.end(), more.begin(), more.end());
}

const EVP_CIPHER* cipher_of(ipsec::suite s) {
    switch (s) {
    case ipsec::suite::aes128_gcm16:
        return EVP_aes_128_gcm();
    case ipsec::suite::aes192_gcm16:
        return EVP_aes_192_gcm();
    case ipsec::suite::aes256_gcm16:
        return EVP_aes_256_gcm();
    case ipsec::suite::aes128_cbc_sha256_128:
        return EVP_aes_128_cbc();
    case ipsec::suite::aes192_cbc_sha256_128:
        return EVP_aes_192_cbc();
    case ipsec::suite::aes256_cbc_sha256_128:
        return EVP_aes_256_cbc();
    case ipsec::suite::null_sha256_128:
        return EVP_enc_null();
    }
    throw std::logic_error("no such suite");
}

bytes seal_gcm(const sa_keys& keys, const bytes& header, const bytes& iv, const bytes& text,
               std::optional<std::uint32_t> seq_high) {
    bytes nonce = keys.salt;
    append(nonce, iv);
    bytes aad(header.begin(), header.begin() + 4);
    if (seq_high) append(aad, big_endian(*seq_high));
    aad.insert(aad.end(), header.begin() + 4, header.end());

    const context c(EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free);
    must(EVP_EncryptInit_ex(c.get(), cipher_of(keys.run), nullptr, keys.aes.data(), nonce.data()));
    int n = 0;
    must(EVP_EncryptUpdate(c.get(), nullptr, &n, aad.data(), static_cast<int>(aad.size())));
    bytes sealed(text.size() + icv_length);
    must(EVP_EncryptUpdate(c.get(), sealed.data(), &n, text.data(), static_cast<int>(text.size())));
    must(EVP_EncryptFinal_ex(c.get(), sealed.data() + text.size(), &n));
    must(EVP_CIPHER_CTX_ctrl(c.get(), EVP_CTRL_AEAD_GET_TAG, icv_length,
                             sealed.data() + text.size()));
    return sealed;
}

bytes encrypt_cbc(const sa_keys& keys, const bytes& iv, const bytes& text) {
    if (keys.aes.empty()) return text;
    const context c(EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free);
    must(EVP_EncryptInit_ex(c.get(), cipher_of(keys.run), nullptr, keys.aes.data(), iv.data()));
    must(EVP_CIPHER_CTX_set_padding(c.get(), 0));
    bytes encrypted(text.size() + 16);
    int n = 0;
    must(EVP_EncryptUpdate(c.get(), encrypted.data(), &n, text.data(),
                           static_cast<int>(text.size())));
    encrypted.resize(text.size());
    return encrypted;
}

bytes hmac_sha256_128(const bytes& key, const bytes& message) {
    bytes mac(32);
    if (HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), message.data(), message.size(),
             mac.data(), nullptr) == nullptr)
        throw std::runtime_error("OpenSSL refused");
    mac.resize(icv_length);
    return mac;
}

} // namespace

bool is_gcm(ipsec::suite s) {
    return s <= ipsec::suite::aes256_gcm16;
}

std::size_t aes_key_length(ipsec::suite s) {
    return s == ipsec::suite::null_sha256_128
               ? 0
               : static_cast<std::size_t>(EVP_CIPHER_get_key_length(cipher_of(s)));
}

ipsec::algorithms algorithms_for(const sa_keys& keys) {
    ipsec::algorithms a;
    a.run = keys.run;
    if (is_gcm(keys.run)) {
        bytes both = keys.aes;
        append(both, keys.salt);
        a.aead = {"rfc4106(gcm(aes))", secret(both), 128};
    } else {
        a.cipher = {keys.aes.empty() ? "ecb(cipher_null)" : "cbc(aes)", secret(keys.aes), 0};
        a.auth = {"hmac(sha256)", secret(keys.auth), 128};
    }
    return a;
}

bytes openssl_seal(const sa_keys& keys, const bytes& clear, std::optional<std::uint32_t> seq_high) {
    const auto header_end = clear.begin() + esp_header_length;
    const auto iv_end = header_end + ipsec::layout_of(keys.run).iv_length;
    const bytes header(clear.begin(), header_end);
    const bytes iv(header_end, iv_end);
    const bytes text(iv_end, clear.end());

    bytes packet(clear.begin(), iv_end);
    if (is_gcm(keys.run)) {
        append(packet, seal_gcm(keys, header, iv, text, seq_high));
        return packet;
    }
    append(packet, encrypt_cbc(keys, iv, text));
    bytes covered = packet;
    if (seq_high) append(covered, big_endian(*seq_high));
    append(packet, hmac_sha256_128(keys.auth, covered));
    return packet;
}

} // namespace esplane::test

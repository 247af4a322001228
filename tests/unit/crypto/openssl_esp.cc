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
    case ipsec::suite::chacha20_poly1305:
        return EVP_chacha20_poly1305();
    case ipsec::suite::aes128_cbc_sha256_128:
    case ipsec::suite::aes128_cbc_sha1_96:
        return EVP_aes_128_cbc();
    case ipsec::suite::aes192_cbc_sha256_128:
    case ipsec::suite::aes192_cbc_sha1_96:
        return EVP_aes_192_cbc();
    case ipsec::suite::aes256_cbc_sha256_128:
    case ipsec::suite::aes256_cbc_sha1_96:
        return EVP_aes_256_cbc();
    case ipsec::suite::null_sha256_128:
    case ipsec::suite::null_sha1_96:
        return EVP_enc_null();
    }
    throw std::logic_error("no such suite");
}

bytes seal_aead(const sa_keys& keys, const bytes& header, const bytes& iv, const bytes& text,
                std::optional<std::uint32_t> seq_high) {
    bytes nonce = keys.salt;
    append(nonce, iv);
    bytes aad(header.begin(), header.begin() + 4);
    if (seq_high) append(aad, big_endian(*seq_high));
    aad.insert(aad.end(), header.begin() + 4, header.end());

    const context c(EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free);
    must(EVP_EncryptInit_ex(c.get(), cipher_of(keys.run), nullptr, keys.cipher.data(),
                            nonce.data()));
    int n = 0;
    must(EVP_EncryptUpdate(c.get(), nullptr, &n, aad.data(), static_cast<int>(aad.size())));
    bytes sealed(text.size() + aead_icv_length);
    must(EVP_EncryptUpdate(c.get(), sealed.data(), &n, text.data(), static_cast<int>(text.size())));
    must(EVP_EncryptFinal_ex(c.get(), sealed.data() + text.size(), &n));
    must(EVP_CIPHER_CTX_ctrl(c.get(), EVP_CTRL_AEAD_GET_TAG, aead_icv_length,
                             sealed.data() + text.size()));
    return sealed;
}

bytes encrypt_cbc(const sa_keys& keys, const bytes& iv, const bytes& text) {
    if (keys.cipher.empty()) return text;
    const context c(EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free);
    must(EVP_EncryptInit_ex(c.get(), cipher_of(keys.run), nullptr, keys.cipher.data(), iv.data()));
    must(EVP_CIPHER_CTX_set_padding(c.get(), 0));
    bytes encrypted(text.size() + 16);
    int n = 0;
    must(EVP_EncryptUpdate(c.get(), encrypted.data(), &n, text.data(),
                           static_cast<int>(text.size())));
    encrypted.resize(text.size());
    return encrypted;
}

bool by_sha1(ipsec::suite s) {
    return s >= ipsec::suite::aes128_cbc_sha1_96;
}

bytes truncated_hmac(ipsec::suite s, const bytes& key, const bytes& message) {
    bytes mac(EVP_MAX_MD_SIZE);
    if (HMAC(by_sha1(s) ? EVP_sha1() : EVP_sha256(), key.data(), static_cast<int>(key.size()),
             message.data(), message.size(), mac.data(), nullptr) == nullptr)
        throw std::runtime_error("OpenSSL refused");
    mac.resize(ipsec::layout_of(s).icv_length);
    return mac;
}

} // namespace

bool is_gcm(ipsec::suite s) {
    return s <= ipsec::suite::aes256_gcm16;
}

std::size_t cipher_key_length(ipsec::suite s) {
    return static_cast<std::size_t>(EVP_CIPHER_get_key_length(cipher_of(s)));
}

ipsec::algorithms algorithms_for(const sa_keys& keys) {
    ipsec::algorithms a;
    a.run = keys.run;
    const std::uint32_t icv_bits = ipsec::layout_of(keys.run).icv_length * 8U;
    if (is_aead(keys.run)) {
        bytes both = keys.cipher;
        append(both, keys.salt);
        a.aead = {is_gcm(keys.run) ? "rfc4106(gcm(aes))" : "rfc7539esp(chacha20,poly1305)",
                  secret(both), icv_bits};
    } else {
        a.cipher = {keys.cipher.empty() ? "ecb(cipher_null)" : "cbc(aes)", secret(keys.cipher), 0};
        a.auth = {by_sha1(keys.run) ? "hmac(sha1)" : "hmac(sha256)", secret(keys.auth), icv_bits};
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
    if (is_aead(keys.run)) {
        append(packet, seal_aead(keys, header, iv, text, seq_high));
        return packet;
    }
    append(packet, encrypt_cbc(keys, iv, text));
    bytes covered = packet;
    if (seq_high) append(covered, big_endian(*seq_high));
    append(packet, truncated_hmac(keys.run, keys.auth, covered));
    return packet;
}

} // namespace esplane::test

// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/power_up.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string>

namespace esplane::crypto {
namespace {

constexpr std::size_t esp_header_length = 8;
constexpr std::size_t usual_text_length = 48;
constexpr std::size_t longest_icv = 16;
constexpr std::size_t auth_key_length = 32;
constexpr std::size_t salt_length = 4;
constexpr std::size_t most_packets = 16;
constexpr std::uint32_t seq_high = 0x01020304;

struct known_answer {
    ipsec::suite run;
    std::uint8_t cipher_key_length;
    std::array<std::uint8_t, longest_icv> icv;
    std::uint32_t text_length = usual_text_length;
    bool esn = false;
};

/// Byte i of each key (32 of an HMAC's) and of the packet, header and IV included, is i (modulo
/// 256); the salt goes on after the AES key.  Computed with OpenSSL.
constexpr std::array<known_answer, ipsec::suite_count> answers{{
    {ipsec::suite::aes128_gcm16,
     16,
     {0x48, 0x22, 0x03, 0x19, 0x94, 0xba, 0x6b, 0xca, 0x46, 0xf0, 0x9f, 0xf4, 0xed, 0x39, 0x36,
      0x41}},
    {ipsec::suite::aes192_gcm16,
     24,
     {0x9f, 0xeb, 0xb1, 0x49, 0xb6, 0x7b, 0x20, 0xf0, 0x06, 0x88, 0x5d, 0xf8, 0xfa, 0x27, 0xfc,
      0x80}},
    {ipsec::suite::aes256_gcm16,
     32,
     {0x61, 0x08, 0x04, 0x09, 0x99, 0x21, 0x45, 0x80, 0x1c, 0xfc, 0x44, 0xcd, 0xd5, 0x51, 0xcb,
      0xc0}},
    {ipsec::suite::aes128_cbc_sha256_128,
     16,
     {0xe8, 0x19, 0xe8, 0xba, 0x72, 0x03, 0x1c, 0x14, 0xf9, 0x40, 0x84, 0xa8, 0x86, 0x3e, 0x4f,
      0x93}},
    {ipsec::suite::aes192_cbc_sha256_128,
     24,
     {0x83, 0x09, 0x6c, 0x20, 0x33, 0x0d, 0x7f, 0x04, 0x3e, 0x4d, 0xbf, 0x8e, 0x67, 0x1a, 0xee,
      0x3c}},
    {ipsec::suite::aes256_cbc_sha256_128,
     32,
     {0x2d, 0xf2, 0x5e, 0x9d, 0x26, 0x7b, 0xb5, 0x1d, 0x01, 0x10, 0x82, 0xb3, 0xac, 0x89, 0x5d,
      0x7c}},
    {ipsec::suite::null_sha256_128,
     0,
     {0xe5, 0xd1, 0xf6, 0x5e, 0x9e, 0x93, 0x59, 0xd0, 0x5c, 0x57, 0x7b, 0x68, 0x90, 0x04, 0x4f,
      0x08}},
    {ipsec::suite::chacha20_poly1305,
     32,
     {0xc4, 0x58, 0xa2, 0xe9, 0xe0, 0xd6, 0xed, 0x7f, 0xb7, 0xcd, 0xe2, 0xdd, 0x8f, 0xac, 0x19,
      0x61}},
    {ipsec::suite::aes128_cbc_sha1_96,
     16,
     {0x86, 0x4b, 0x4c, 0xd2, 0x1b, 0x4e, 0x02, 0x72, 0x7f, 0x2f, 0x8b, 0xf3}},
    {ipsec::suite::aes192_cbc_sha1_96,
     24,
     {0xca, 0x00, 0x54, 0xe3, 0x33, 0x10, 0x30, 0x0a, 0xca, 0xfd, 0x49, 0xe3}},
    {ipsec::suite::aes256_cbc_sha1_96,
     32,
     {0x35, 0xe9, 0x63, 0xe5, 0xd7, 0xb4, 0xf4, 0x80, 0x5e, 0x0b, 0xb5, 0xc7}},
    {ipsec::suite::null_sha1_96,
     0,
     {0x8f, 0x83, 0xf3, 0xce, 0xe6, 0xe9, 0x93, 0xf4, 0xaa, 0xf2, 0x56, 0x24}},
}};

/// The same for the kernel of small packets: a length for each number of registers that a packet
/// fills, with ESN and without.
constexpr known_answer small_answers[] = {
    {ipsec::suite::aes128_gcm16,
     16,
     {0x9a, 0x80, 0xe0, 0xc9, 0x21, 0x69, 0x28, 0x6e, 0x8d, 0xd8, 0x7c, 0x80, 0xcb, 0xa4, 0x5d,
      0x0f},
     12,
     true},
    {ipsec::suite::aes128_gcm16,
     16,
     {0x48, 0x22, 0x03, 0x19, 0x94, 0xba, 0x6b, 0xca, 0x46, 0xf0, 0x9f, 0xf4, 0xed, 0x39, 0x36,
      0x41},
     48,
     false},
    {ipsec::suite::aes128_gcm16,
     16,
     {0x76, 0xd5, 0x02, 0xb9, 0x54, 0x4f, 0xac, 0xbd, 0xbb, 0x8e, 0x4e, 0x0b, 0xee, 0xee, 0x31,
      0x5d},
     100,
     true},
    {ipsec::suite::aes128_gcm16,
     16,
     {0x29, 0x6b, 0x31, 0xd4, 0xad, 0xd6, 0x7d, 0x5a, 0xaa, 0x98, 0x62, 0x69, 0x63, 0xfd, 0xab,
      0x29},
     190,
     false},
    {ipsec::suite::aes128_gcm16,
     16,
     {0x2e, 0x4c, 0x5f, 0xad, 0x51, 0x62, 0x32, 0x53, 0x2c, 0xda, 0x32, 0xad, 0xdb, 0x1d, 0x6b,
      0xa0},
     288,
     true},
    {ipsec::suite::aes192_gcm16,
     24,
     {0x82, 0xae, 0x3d, 0x05, 0x4b, 0xde, 0xa6, 0x8a, 0x99, 0x07, 0x8d, 0xf4, 0xc4, 0xdf, 0xed,
      0xb9},
     12,
     true},
    {ipsec::suite::aes192_gcm16,
     24,
     {0x9f, 0xeb, 0xb1, 0x49, 0xb6, 0x7b, 0x20, 0xf0, 0x06, 0x88, 0x5d, 0xf8, 0xfa, 0x27, 0xfc,
      0x80},
     48,
     false},
    {ipsec::suite::aes192_gcm16,
     24,
     {0x78, 0x4c, 0x4a, 0xe7, 0xb0, 0xa7, 0x40, 0x60, 0x98, 0x58, 0xe6, 0x1d, 0x69, 0x81, 0xb2,
      0xbf},
     100,
     true},
    {ipsec::suite::aes192_gcm16,
     24,
     {0xc5, 0x3c, 0x4f, 0xb4, 0xad, 0x27, 0x06, 0x82, 0x2d, 0x95, 0x92, 0x1f, 0x79, 0xd7, 0xd9,
      0x13},
     190,
     false},
    {ipsec::suite::aes192_gcm16,
     24,
     {0x0f, 0xfb, 0xd5, 0x2c, 0x38, 0xce, 0x2c, 0xd0, 0xdb, 0x91, 0xd5, 0x21, 0x76, 0xf9, 0xac,
      0xe3},
     288,
     true},
    {ipsec::suite::aes256_gcm16,
     32,
     {0xac, 0xaa, 0xe9, 0x8f, 0xee, 0x43, 0xd6, 0xa6, 0xf5, 0x19, 0xd3, 0xfe, 0x7d, 0x0d, 0x57,
      0x6e},
     12,
     true},
    {ipsec::suite::aes256_gcm16,
     32,
     {0x61, 0x08, 0x04, 0x09, 0x99, 0x21, 0x45, 0x80, 0x1c, 0xfc, 0x44, 0xcd, 0xd5, 0x51, 0xcb,
      0xc0},
     48,
     false},
    {ipsec::suite::aes256_gcm16,
     32,
     {0x4c, 0x7b, 0x84, 0x9d, 0x4e, 0xc6, 0x9c, 0x05, 0x8a, 0x47, 0xb4, 0x27, 0x6d, 0x7f, 0x6a,
      0x92},
     100,
     true},
    {ipsec::suite::aes256_gcm16,
     32,
     {0x03, 0x33, 0xa1, 0x41, 0x68, 0xbb, 0x53, 0x8b, 0x61, 0x7b, 0x07, 0x8e, 0x46, 0xbc, 0x7b,
      0x87},
     190,
     false},
    {ipsec::suite::aes256_gcm16,
     32,
     {0x5a, 0x7b, 0xb5, 0x99, 0xea, 0x17, 0x75, 0x81, 0x19, 0x47, 0x72, 0xc9, 0xae, 0x63, 0x92,
      0xec},
     288,
     true},
};

secret counting_key(std::size_t length) {
    std::array<std::uint8_t, 64> bytes;
    std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
    return secret(std::span(bytes).first(length));
}

ipsec::algorithms keys_for(const known_answer& known) {
    ipsec::algorithms a;
    a.run = known.run;
    const bool aead = is_aead(known.run);
    if (aead) a.aead.key = counting_key(known.cipher_key_length + salt_length);
    if (!aead) a.cipher.key = counting_key(known.cipher_key_length);
    if (!aead) a.auth.key = counting_key(auth_key_length);
    return a;
}

using packet = std::array<std::uint8_t, 384>;

/// Encrypts `count` times the packet in one call and compares the ICVs, decrypts and compares the
/// texts, and sees a flipped bit refused.
template <typename Subject>
bool answers_right(Subject& tested, const key& keys, const known_answer& known, std::size_t count) {
    packet clear;
    std::iota(clear.begin(), clear.end(), std::uint8_t{0});
    const std::size_t covered =
        esp_header_length + ipsec::layout_of(known.run).iv_length + known.text_length;
    const auto icv_end = known.icv.begin() + ipsec::layout_of(known.run).icv_length;
    std::array<packet, most_packets> packets;
    std::array<job, most_packets> jobs;
    for (std::size_t i = 0; i < count; ++i) {
        packets[i] = clear;
        jobs[i] = {.keys = &keys.get(),
                   .esp = packets[i].data(),
                   .text_length = known.text_length,
                   .seq_high = seq_high,
                   .esn = known.esn};
    }
    const auto burst = std::span(jobs).first(count);
    const auto all = [&](const auto& holds) {
        for (std::size_t i = 0; i < count; ++i)
            if (!holds(packets[i], jobs[i])) return false;
        return true;
    };

    tested.encrypt(burst);
    if (!all([&](const packet& p, const job&) {
            return std::equal(known.icv.begin(), icv_end, p.begin() + covered);
        }))
        return false;
    const packet sent = packets[0];

    tested.decrypt(burst);
    if (!all([&](const packet& p, const job& j) {
            return j.ok && std::equal(clear.begin(), clear.begin() + covered, p.begin());
        }))
        return false;

    for (std::size_t i = 0; i < count; ++i) {
        packets[i] = sent;
        packets[i][covered - 1] ^= 1;
    }
    tested.decrypt(burst);
    return all([](const packet&, const job& j) { return !j.ok; });
}

/// One packet and many take different ways.
template <typename Subject>
bool answers_right(Subject& tested, const key& keys, const known_answer& known) {
    return answers_right(tested, keys, known, 1) &&
           answers_right(tested, keys, known, most_packets);
}

} // namespace

bool power_up_test(const small_gcm::kernel& tested) {
    return std::all_of(std::begin(small_answers), std::end(small_answers),
                       [&](const known_answer& known) {
                           const auto keys = key::make(keys_for(known));
                           return keys && answers_right(tested, **keys, known);
                       });
}

result<void> power_up_test(engine& tested) {
    for (const known_answer& known : answers) {
        const auto keys = key::make(keys_for(known));
        if (!keys) return tl::unexpected(keys.error());
        if (!answers_right(tested, **keys, known))
            return fail(ENOTSUP, "intel-ipsec-mb gave a wrong answer for " +
                                     std::string(ipsec::name_of(known.run)) +
                                     " on this processor: update libipsec-mb1");
    }
    return {};
}

} // namespace esplane::crypto

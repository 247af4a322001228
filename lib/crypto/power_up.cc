// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/power_up.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string>

namespace esplane::crypto {
namespace {

constexpr std::size_t esp_header_length = 8;
constexpr std::size_t text_length = 48;
constexpr std::size_t icv_length = 16;
constexpr std::size_t auth_key_length = 32;
constexpr std::size_t salt_length = 4;
constexpr std::size_t most_packets = 16;

struct known_answer {
    ipsec::suite run;
    std::uint8_t aes_key_length;
    std::array<std::uint8_t, icv_length> icv;
};

/// Byte i of each key and of the packet, header and IV included, is i; the salt goes on after the
/// AES key.  Computed with OpenSSL.
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
}};

secret counting_key(std::size_t length) {
    std::array<std::uint8_t, 64> bytes;
    std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
    return secret(std::span(bytes).first(length));
}

ipsec::algorithms keys_for(const known_answer& known) {
    ipsec::algorithms a;
    a.run = known.run;
    const bool aead = known.run <= ipsec::suite::aes256_gcm16;
    if (aead) a.aead.key = counting_key(known.aes_key_length + salt_length);
    if (!aead) a.cipher.key = counting_key(known.aes_key_length);
    if (!aead) a.auth.key = counting_key(auth_key_length);
    return a;
}

using packet = std::array<std::uint8_t, 128>;

/// Encrypts `count` times the packet in one call and compares the ICVs, decrypts and compares the
/// texts, and sees a flipped bit refused.
bool answers_right(engine& tested, const key& keys, const known_answer& known, std::size_t count) {
    packet clear;
    std::iota(clear.begin(), clear.end(), std::uint8_t{0});
    const std::size_t covered =
        esp_header_length + ipsec::layout_of(known.run).iv_length + text_length;
    std::array<packet, most_packets> packets;
    std::array<job, most_packets> jobs;
    for (std::size_t i = 0; i < count; ++i) {
        packets[i] = clear;
        jobs[i] = {.keys = &keys.get(), .esp = packets[i].data(), .text_length = text_length};
    }
    const auto burst = std::span(jobs).first(count);
    const auto all = [&](const auto& holds) {
        for (std::size_t i = 0; i < count; ++i)
            if (!holds(packets[i], jobs[i])) return false;
        return true;
    };

    tested.encrypt(burst);
    if (!all([&](const packet& p, const job&) {
            return std::equal(known.icv.begin(), known.icv.end(), p.begin() + covered);
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

} // namespace

result<void> power_up_test(engine& tested) {
    for (const known_answer& known : answers) {
        const auto keys = key::make(keys_for(known));
        if (!keys) return tl::unexpected(keys.error());
        // One packet and many take different ways through the engine.
        if (!answers_right(tested, **keys, known, 1) ||
            !answers_right(tested, **keys, known, most_packets))
            return fail(ENOTSUP, "intel-ipsec-mb gave a wrong answer for " +
                                     std::string(ipsec::name_of(known.run)) +
                                     " on this processor: update libipsec-mb1");
    }
    return {};
}

} // namespace esplane::crypto

// SPDX-License-Identifier: Apache-2.0
//
// Known answers, and how something that encrypts is asked for them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "lib/crypto/engine.h"

namespace esplane::crypto {

/// What comes out of a packet and keys in which byte i is i (modulo 256), header and IV included;
/// the salt goes on after the cipher's key, an HMAC's key has 32 bytes.
struct known_answer {
    static constexpr std::size_t esp_header_length = 8;
    static constexpr std::size_t longest_icv = 16;
    static constexpr std::uint32_t usual_text_length = 48;
    static constexpr std::uint32_t seq_high = 0x01020304;

    ipsec::suite run;
    std::uint8_t cipher_key_length;
    std::array<std::uint8_t, longest_icv> icv;
    std::uint32_t text_length = usual_text_length;
    bool esn = false;
};

[[nodiscard]] ipsec::algorithms keys_for(const known_answer& known);

inline constexpr std::size_t most_known_packets = 16;

/// Encrypts `count` times the packet in one call and compares the ICVs, decrypts and compares the
/// texts, and sees a flipped bit refused.
///
/// tested   has encrypt() and decrypt() as an engine has
/// count    at most most_known_packets
template <typename Subject>
bool answers_right(Subject& tested, const key& keys, const known_answer& known, std::size_t count) {
    using packet = std::array<std::uint8_t, 1472>;
    packet clear;
    std::iota(clear.begin(), clear.end(), std::uint8_t{0});
    const std::size_t covered =
        known_answer::esp_header_length + ipsec::layout_of(known.run).iv_length + known.text_length;
    const auto icv_end = known.icv.begin() + ipsec::layout_of(known.run).icv_length;
    std::array<packet, most_known_packets> packets;
    std::array<job, most_known_packets> jobs;
    for (std::size_t i = 0; i < count; ++i) {
        packets[i] = clear;
        jobs[i] = {.keys = &keys.get(),
                   .esp = packets[i].data(),
                   .text_length = known.text_length,
                   .seq_high = known_answer::seq_high,
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
           answers_right(tested, keys, known, most_known_packets);
}

} // namespace esplane::crypto

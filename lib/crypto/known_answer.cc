// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/known_answer.h"

#include "lib/crypto/key_lengths.h"

namespace esplane::crypto {
namespace {

constexpr std::size_t auth_key_length = 32;

secret counting_key(std::size_t length) {
    std::array<std::uint8_t, 64> bytes;
    std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
    return secret(std::span(bytes).first(length));
}

} // namespace

ipsec::algorithms keys_for(const known_answer& known) {
    ipsec::algorithms a;
    a.run = known.run;
    const bool aead = is_aead(known.run);
    if (aead) a.aead.key = counting_key(known.cipher_key_length + salt_length);
    if (!aead) a.cipher.key = counting_key(known.cipher_key_length);
    if (!aead) a.auth.key = counting_key(auth_key_length);
    return a;
}

} // namespace esplane::crypto

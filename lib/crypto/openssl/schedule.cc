// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/openssl/schedule.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "lib/crypto/key_lengths.h"

namespace esplane::crypto::openssl {
namespace {

using bytes = std::span<const std::uint8_t>;

void expand_aead(bytes given, schedule& into) noexcept {
    std::copy_n(given.begin(), given.size() - salt_length, into.cipher_key);
    std::memcpy(&into.salt, given.last(salt_length).data(), salt_length);
}

void expand_pair(bytes cipher_key, bytes auth_key, schedule& into) noexcept {
    std::copy(cipher_key.begin(), cipher_key.end(), into.cipher_key);
    if (hashes_with_sha1(into.run))
        into.with_sha1.set(auth_key);
    else
        into.with_sha256.set(auth_key);
}

} // namespace

result<schedule*> expand(const ipsec::algorithms& a) {
    if (auto right = check_lengths(a); !right) return tl::unexpected(right.error());
    auto* const keys = new (std::nothrow) schedule{};
    if (keys == nullptr) return fail(ENOMEM);
    keys->run = a.run;
    keys->iv_length = ipsec::layout_of(a.run).iv_length;
    keys->icv_length = ipsec::layout_of(a.run).icv_length;
    keys->cipher_key_length = cipher_key_length(a.run);
    if (is_aead(a.run))
        expand_aead(a.aead.key.bytes(), *keys);
    else
        expand_pair(a.cipher.key.bytes(), a.auth.key.bytes(), *keys);
    return keys;
}

} // namespace esplane::crypto::openssl

// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/openssl/hmac.h"

#include <algorithm>

#include "lib/base/secret.h"
#include "lib/crypto/key_lengths.h"

// What begins, goes on and ends is deprecated: hmac.h says why it is used.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace esplane::crypto::openssl {
namespace {

using bytes = std::span<const std::uint8_t>;

void begin(SHA_CTX& state) noexcept {
    SHA1_Init(&state);
}
void begin(SHA256_CTX& state) noexcept {
    SHA256_Init(&state);
}
void go_on(SHA_CTX& state, bytes more) noexcept {
    SHA1_Update(&state, more.data(), more.size());
}
void go_on(SHA256_CTX& state, bytes more) noexcept {
    SHA256_Update(&state, more.data(), more.size());
}
void end(SHA_CTX& state, std::uint8_t* digest) noexcept {
    SHA1_Final(digest, &state);
}
void end(SHA256_CTX& state, std::uint8_t* digest) noexcept {
    SHA256_Final(digest, &state);
}

using block = std::array<std::uint8_t, hash_block>;

/// The state of a hash after one block: the key's, each byte xor `pad`.
template <typename State>
void hash_key_block(const block& key_block, std::uint8_t pad, State& into) noexcept {
    block padded;
    for (std::size_t i = 0; i < hash_block; ++i)
        padded[i] = key_block[i] ^ pad;
    begin(into);
    go_on(into, padded);
    wipe(padded.data(), padded.size());
}

} // namespace

/// RFC 2104: a key longer than a block is hashed first, a shorter one is followed by zeros.
template <typename Hash>
void hmac_key<Hash>::set(bytes key) noexcept {
    block key_block{};
    if (key.size() > hash_block) {
        begin(inner_);
        go_on(inner_, key);
        end(inner_, key_block.data());
    } else {
        std::copy(key.begin(), key.end(), key_block.begin());
    }
    hash_key_block(key_block, 0x36, inner_);
    hash_key_block(key_block, 0x5c, outer_);
    wipe(key_block.data(), key_block.size());
}

template <typename Hash>
auto hmac_key<Hash>::of(bytes text, bytes more) const noexcept -> mac {
    mac digest;
    typename Hash::state state = inner_;
    go_on(state, text);
    go_on(state, more);
    end(state, digest.data());
    state = outer_;
    go_on(state, digest);
    end(state, digest.data());
    return digest;
}

template class hmac_key<sha1>;
template class hmac_key<sha256>;

} // namespace esplane::crypto::openssl

// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstring>
#include <new>

#include "lib/base/secret.h"
#include "lib/base/slab.h"
#include "lib/crypto/key_lengths.h"
#include "lib/crypto/library.h"
#include "lib/crypto/schedule_ipsec_mb.h"

namespace esplane::crypto {

void expand_library_gcm(IMB_MGR* library, std::span<const std::uint8_t> aes_key,
                        gcm_key_data& into) noexcept {
    switch (aes_key.size()) {
    case 16:
        IMB_AES128_GCM_PRE(library, aes_key.data(), &into);
        break;
    case 24:
        IMB_AES192_GCM_PRE(library, aes_key.data(), &into);
        break;
    default:
        IMB_AES256_GCM_PRE(library, aes_key.data(), &into);
    }
}

namespace {

using bytes = std::span<const std::uint8_t>;

/// Schedules of one size lie together, so that many keys are on few pages.
slab& schedules_of(ipsec::suite s, bool for_library) {
    static slab& own_gcm = *new slab(sizeof(gcm_schedule)); // keys may outlive all else
    static slab& library_gcm = *new slab(sizeof(library_gcm_schedule));
    static slab& chacha = *new slab(sizeof(chacha_schedule));
    static slab& hmac = *new slab(sizeof(hmac_schedule));
    if (is_gcm(s)) return for_library ? library_gcm : own_gcm;
    return is_aead(s) ? chacha : hmac;
}

/// Expands keys for all threads: what it calls takes the manager for a table of functions.
const result<manager>& expander() {
    static const result<manager> made = make_manager();
    return made;
}

/// The round keys of both directions.
void expand_aes(IMB_MGR* library, bytes aes_key, std::uint8_t* encrypt,
                std::uint8_t* decrypt) noexcept {
    switch (aes_key.size()) {
    case 0:
        break;
    case 16:
        IMB_AES_KEYEXP_128(library, aes_key.data(), encrypt, decrypt);
        break;
    case 24:
        IMB_AES_KEYEXP_192(library, aes_key.data(), encrypt, decrypt);
        break;
    default:
        IMB_AES_KEYEXP_256(library, aes_key.data(), encrypt, decrypt);
    }
}

/// GCM only encrypts blocks.
void expand_kernel_gcm(IMB_MGR* library, bytes aes_key, gcm::blocks& into) noexcept {
    if (!gcm::supported()) return;
    alignas(16) std::uint8_t unused[aes_round_keys_length];
    expand_aes(library, aes_key, into.bytes, unused);
    wipe(unused, sizeof unused);
    gcm::expand_powers(into, aes_key.size());
}

/// The library's calls of one hash.
struct hash_calls {
    hash_one_block_t IMB_MGR::*one_block;
    hash_fn_t IMB_MGR::*whole;
};
constexpr hash_calls sha1{&IMB_MGR::sha1_one_block, &IMB_MGR::sha1};
constexpr hash_calls sha256{&IMB_MGR::sha256_one_block, &IMB_MGR::sha256};

using block = std::array<std::uint8_t, hash_block>;

/// The state of a hash after one block: the key's, each byte xor `pad`.
void hash_key_block(hash_one_block_t one_block, const block& key_block, std::uint8_t pad,
                    std::uint8_t* state) noexcept {
    block padded;
    for (std::size_t i = 0; i < hash_block; ++i)
        padded[i] = key_block[i] ^ pad;
    one_block(padded.data(), state);
    wipe(padded.data(), padded.size());
}

/// RFC 2104: a key longer than a block is hashed first, a shorter one is followed by zeros.
void expand_hmac(IMB_MGR* library, const hash_calls& hash, bytes auth_key,
                 hmac_schedule& into) noexcept {
    block key_block{};
    if (auth_key.size() > hash_block)
        (library->*hash.whole)(auth_key.data(), auth_key.size(), key_block.data());
    else if (!auth_key.empty())
        std::memcpy(key_block.data(), auth_key.data(), auth_key.size());
    hash_key_block(library->*hash.one_block, key_block, 0x36, into.inner);
    hash_key_block(library->*hash.one_block, key_block, 0x5c, into.outer);
    wipe(key_block.data(), key_block.size());
}

/// An AEAD's key without its salt, which `into` gets.
bytes take_salt(const ipsec::algorithms& a, key::schedule& into) noexcept {
    const bytes given = a.aead.key.bytes();
    std::memcpy(&into.salt, given.last(salt_length).data(), salt_length);
    return given.first(given.size() - salt_length);
}

key::schedule* expand_gcm(IMB_MGR* library, const ipsec::algorithms& a, void* memory,
                          bool for_library) noexcept {
    auto* both = for_library ? new (memory) library_gcm_schedule{} : nullptr;
    gcm_schedule* keys = for_library ? both : new (memory) gcm_schedule{};
    const bytes aes_key = take_salt(a, *keys);
    keys->is_of_library = for_library;
    expand_kernel_gcm(library, aes_key, keys->compact);
    if (for_library) expand_library_gcm(library, aes_key, both->keys);
    return keys;
}

key::schedule* expand_chacha(const ipsec::algorithms& a, void* memory) noexcept {
    auto* keys = new (memory) chacha_schedule{};
    std::memcpy(keys->bytes, take_salt(a, *keys).data(), chacha_schedule::key_length);
    return keys;
}

key::schedule* expand_pair(IMB_MGR* library, const ipsec::algorithms& a, void* memory) noexcept {
    auto* keys = new (memory) hmac_schedule{};
    expand_aes(library, a.cipher.key.bytes(), keys->encrypt, keys->decrypt);
    expand_hmac(library, hashes_with_sha1(a.run) ? sha1 : sha256, a.auth.key.bytes(), *keys);
    return keys;
}

key::schedule* expand(IMB_MGR* library, const ipsec::algorithms& a, void* memory,
                      bool for_library) noexcept {
    if (is_gcm(a.run)) return expand_gcm(library, a, memory, for_library);
    return is_aead(a.run) ? expand_chacha(a, memory) : expand_pair(library, a, memory);
}

} // namespace

std::size_t largest_schedule() noexcept {
    return gcm::library_keys_wanted() ? sizeof(library_gcm_schedule) : sizeof(gcm_schedule);
}

result<std::shared_ptr<const key>> key::make(const ipsec::algorithms& a) {
    if (auto right = check_lengths(a); !right) return tl::unexpected(right.error());
    const result<manager>& library = expander();
    if (!library) return tl::unexpected(library.error());

    const bool for_library = gcm::library_keys_wanted();
    void* memory = schedules_of(a.run, for_library).take();
    if (memory == nullptr) return fail(ENOMEM);
    schedule* keys = expand(library->get(), a, memory, for_library);
    keys->run = a.run;
    keys->iv_length = ipsec::layout_of(a.run).iv_length;
    keys->icv_length = ipsec::layout_of(a.run).icv_length;
    keys->cipher_key_length = cipher_key_length(a.run);
    return std::shared_ptr<const key>(new key(keys));
}

key::~key() {
    slab::give_back(schedule_);
}

ipsec::suite key::run() const noexcept {
    return schedule_->run;
}

} // namespace esplane::crypto

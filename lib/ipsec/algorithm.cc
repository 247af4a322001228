// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/algorithm.h"

#include <array>

#include "lib/ipsec/algorithm_names.h"

namespace esplane::ipsec {

namespace {

/// What the kernel says where it cannot make an AEAD from what the client gave; of a cipher with an
/// ICV of its own it says nothing.
constexpr const char* no_transform = "Kernel was unable to initialize cryptographic operations";

constexpr std::size_t salt_length = 4;
constexpr std::uint32_t aead_icv_bits = 128;
constexpr std::uint32_t default_icv_bits = 96; ///< of the HMACs here, in the kernel

/// One row per suite.  Exactly one of `aead` and `cipher` is there; `auth` goes with `cipher`.
struct suite_row {
    suite run;
    std::string_view name;
    std::string_view aead;
    std::string_view cipher;
    std::string_view auth;
    std::size_t key_length; ///< bytes, the salt of an AEAD included; the ICV key is not counted
    suite_layout layout;
};

using namespace algorithm_name;

struct hash_row {
    std::string_view name;
    std::uint32_t full_bits;
    std::uint32_t icv_bits; ///< the truncation that is built here
};
constexpr hash_row hashes[] = {{sha256, 256, 128}, {sha1, 160, 96}};

constexpr std::array<suite_row, suite_count> suites{{
    {suite::aes128_gcm16, "AES-128-GCM-16", gcm, {}, {}, 16 + salt_length, {8, 16, 4}},
    {suite::aes192_gcm16, "AES-192-GCM-16", gcm, {}, {}, 24 + salt_length, {8, 16, 4}},
    {suite::aes256_gcm16, "AES-256-GCM-16", gcm, {}, {}, 32 + salt_length, {8, 16, 4}},
    {suite::aes128_cbc_sha256_128, "AES-128-CBC-SHA256-128", {}, cbc, sha256, 16, {16, 16, 16}},
    {suite::aes192_cbc_sha256_128, "AES-192-CBC-SHA256-128", {}, cbc, sha256, 24, {16, 16, 16}},
    {suite::aes256_cbc_sha256_128, "AES-256-CBC-SHA256-128", {}, cbc, sha256, 32, {16, 16, 16}},
    {suite::null_sha256_128, "NULL-SHA256-128", {}, null, sha256, 0, {0, 16, 4}},
    {suite::chacha20_poly1305, "ChaCha20-Poly1305", chacha, {}, {}, 32 + salt_length, {8, 16, 4}},
    {suite::aes128_cbc_sha1_96, "AES-128-CBC-SHA1-96", {}, cbc, sha1, 16, {16, 12, 16}},
    {suite::aes192_cbc_sha1_96, "AES-192-CBC-SHA1-96", {}, cbc, sha1, 24, {16, 12, 16}},
    {suite::aes256_cbc_sha1_96, "AES-256-CBC-SHA1-96", {}, cbc, sha1, 32, {16, 12, 16}},
    {suite::null_sha1_96, "NULL-SHA1-96", {}, null, sha1, 0, {0, 12, 4}},
}};

constexpr bool rows_are_as_the_enum_says() {
    for (std::size_t i = 0; i < suites.size(); ++i)
        if (suites[i].run != static_cast<suite>(i) ||
            suites[i].aead.empty() == is_aead(suites[i].run))
            return false;
    return true;
}
static_assert(rows_are_as_the_enum_says());

const suite_row& row_of(suite s) noexcept {
    return suites[static_cast<std::size_t>(s)];
}

/// The name that stands in the table for one that a client gave: net/xfrm/xfrm_algo.c's `compat`.
std::string_view canonical(std::string_view name) noexcept {
    if (name == "aes") return cbc;
    if (name == "cipher_null") return null;
    if (name == "sha256") return sha256;
    if (name == "sha1") return sha1;
    return name;
}

tl::unexpected<error> not_found(const char* kind, const char* field) {
    return fail(ENOSYS, std::string("Requested ") + kind + " algorithm not found", field);
}

tl::unexpected<error> wrong_icv(std::string_view name, std::uint32_t bits, std::uint32_t carried) {
    const std::string icv =
        bits == 0 ? "its default ICV" : "an ICV of " + std::to_string(bits) + " bits";
    return fail(ENOSYS, std::string(name) + " with " + icv + " is not carried, only with " +
                            std::to_string(carried));
}

result<void> check_combination(const algorithms& a) {
    if (!a.aead.present() && !a.cipher.present() && !a.auth.present())
        return fail(EINVAL, "Missing required attribute for ESP: at least one of AUTH, "
                            "AUTH_TRUNC, CRYPT, AEAD");
    if (a.aead.present() && (a.cipher.present() || a.auth.present()))
        return fail(EINVAL, "Invalid attribute combination for ESP: AEAD can't be used with AUTH, "
                            "AUTH_TRUNC, CRYPT");
    return {};
}

result<void> check_aead(const algorithms& a) {
    if (a.aead.name == gcm && (a.aead.icv_bits == 64 || a.aead.icv_bits == 96))
        return wrong_icv(gcm, a.aead.icv_bits, aead_icv_bits);
    const bool known = a.aead.name == gcm || a.aead.name == chacha;
    if (!known || a.aead.icv_bits != aead_icv_bits) return not_found("AEAD", "XFRMA_ALG_AEAD");
    return {};
}

const hash_row* find_hash(std::string_view name) noexcept {
    for (const hash_row& row : hashes)
        if (row.name == canonical(name)) return &row;
    return nullptr;
}

result<void> check_auth(const algorithms& a) {
    if (!a.auth.present())
        return fail(ENOSYS, "encryption without integrity is not carried", "XFRMA_ALG_CRYPT");
    if (const hash_row* hash = find_hash(a.auth.name)) {
        const std::uint32_t bits = a.auth.icv_bits;
        if (bits > hash->full_bits)
            return fail(EINVAL, "Invalid length requested for truncated ICV");
        if ((bits == 0 ? default_icv_bits : bits) != hash->icv_bits)
            return wrong_icv(hash->name, bits, hash->icv_bits);
        return {};
    }
    if (a.auth.icv_bits == 0) return not_found("AUTH", "XFRMA_ALG_AUTH");
    return not_found("AUTH_TRUNC", "XFRMA_ALG_AUTH_TRUNC");
}

result<void> check_cipher(const algorithms& a) {
    if (!a.cipher.present()) return fail(EINVAL, "ESP: AEAD or CRYPT must be provided");
    const std::string_view name = canonical(a.cipher.name);
    if (name != cbc && name != null) return not_found("CRYPT", "XFRMA_ALG_CRYPT");
    return {};
}

/// In the kernel's order of attributes, so that the first fault it would name is named.
result<void> check_names(const algorithms& a) {
    if (a.aead.present()) return check_aead(a);
    return check_auth(a).and_then([&] { return check_cipher(a); });
}

const suite_row* find_row(const algorithms& a) noexcept {
    const std::string_view cipher = canonical(a.cipher.name);
    const std::string_view auth = canonical(a.auth.name);
    const std::size_t key_length = a.aead.present() ? a.aead.key.size() : a.cipher.key.size();
    for (const suite_row& row : suites)
        if (row.aead == a.aead.name && row.cipher == cipher && row.auth == auth &&
            row.key_length == key_length)
            return &row;
    return nullptr;
}

} // namespace

suite_layout layout_of(suite s) noexcept {
    return row_of(s).layout;
}

std::string_view name_of(suite s) noexcept {
    return row_of(s).name;
}

result<void> resolve(algorithms& a) {
    if (auto r = check_combination(a); !r) return r;
    if (auto r = check_names(a); !r) return r;
    const suite_row* row = find_row(a);
    if (row == nullptr) return fail(EINVAL, a.aead.present() ? no_transform : "");
    a.cipher.name = row->cipher;
    a.auth.name = row->auth;
    if (a.auth.present()) a.auth.icv_bits = row->layout.icv_length * 8u;
    a.run = row->run;
    return {};
}

} // namespace esplane::ipsec

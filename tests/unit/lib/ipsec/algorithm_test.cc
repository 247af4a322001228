// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/algorithm.h"

#include <gtest/gtest.h>

#include <set>

namespace esplane::ipsec {
namespace {

keyed_algorithm named(const char* name, std::size_t key_bytes, std::uint32_t icv_bits = 0) {
    return {name, secret(std::vector<std::uint8_t>(key_bytes, 0x5a)), icv_bits};
}

algorithms aead(const char* name, std::size_t key_bytes, std::uint32_t icv_bits = 128) {
    algorithms a;
    a.aead = named(name, key_bytes, icv_bits);
    return a;
}

algorithms pair(const char* cipher, std::size_t key_bytes, const char* auth = "hmac(sha256)",
                std::uint32_t icv_bits = 128) {
    algorithms a;
    a.cipher = named(cipher, key_bytes);
    a.auth = named(auth, 32, icv_bits);
    return a;
}

error refusal(algorithms a) {
    const auto r = resolve(a);
    return r ? error{0, "", ""} : r.error();
}

TEST(Algorithm, EverySuiteIsReachedByItsKernelNames) {
    std::set<suite> reached;
    const auto reach = [&](algorithms a) {
        EXPECT_TRUE(resolve(a)) << a.aead.name << a.cipher.name << a.auth.name;
        reached.insert(a.run);
    };
    for (std::size_t key : {16u, 24u, 32u}) {
        reach(aead("rfc4106(gcm(aes))", key + 4));
        reach(pair("cbc(aes)", key));
        reach(pair("cbc(aes)", key, "hmac(sha1)", 96));
    }
    reach(pair("ecb(cipher_null)", 0));
    reach(pair("ecb(cipher_null)", 0, "hmac(sha1)", 96));
    reach(aead("rfc7539esp(chacha20,poly1305)", 36));
    EXPECT_EQ(reached.size(), suite_count);
}

TEST(Algorithm, AliasesBecomeTheNamesTheKernelDumps) {
    algorithms a = pair("aes", 16, "sha256");
    ASSERT_TRUE(resolve(a));
    EXPECT_EQ(a.cipher.name, "cbc(aes)");
    EXPECT_EQ(a.auth.name, "hmac(sha256)");
    EXPECT_EQ(a.run, suite::aes128_cbc_sha256_128);
    algorithms null = pair("cipher_null", 0);
    ASSERT_TRUE(resolve(null));
    EXPECT_EQ(null.cipher.name, "ecb(cipher_null)");
    algorithms sha1 = pair("aes", 16, "sha1", 96);
    ASSERT_TRUE(resolve(sha1));
    EXPECT_EQ(sha1.auth.name, "hmac(sha1)");
}

TEST(Algorithm, UnknownOnesAreNamedAsTheKernelNamesThem) {
    EXPECT_EQ(refusal(aead("rfc4106(foo(aes))", 20)).text, "Requested AEAD algorithm not found");
    EXPECT_EQ(refusal(aead("rfc4106(gcm(aes))", 20, 72)).text,
              "Requested AEAD algorithm not found");
    EXPECT_EQ(refusal(aead("rfc4106(gcm(aes))", 20, 64)).text,
              "rfc4106(gcm(aes)) with an ICV of 64 bits is not carried, only with 128");
    EXPECT_EQ(refusal(pair("cbc(des3_ede)", 24)).text, "Requested CRYPT algorithm not found");
    EXPECT_EQ(refusal(aead("rfc7539esp(chacha20,poly1305)", 36, 96)).text,
              "Requested AEAD algorithm not found");
    EXPECT_EQ(refusal(pair("cbc(aes)", 16, "hmac(md5)", 96)).text,
              "Requested AUTH_TRUNC algorithm not found");
    EXPECT_EQ(refusal(pair("cbc(aes)", 16, "hmac(md5)", 0)).text,
              "Requested AUTH algorithm not found");
    EXPECT_EQ(refusal(aead("rfc4106(foo(aes))", 20)).code, ENOSYS);
    EXPECT_EQ(refusal(aead("rfc4106(foo(aes))", 20)).field, "XFRMA_ALG_AEAD");
}

TEST(Algorithm, Sha1HasTheKernelsDefaultOf96BitsAndNoOther) {
    algorithms a = pair("cbc(aes)", 16, "hmac(sha1)", 0);
    ASSERT_TRUE(resolve(a));
    EXPECT_EQ(a.run, suite::aes128_cbc_sha1_96);
    EXPECT_EQ(a.auth.icv_bits, 96u);
    EXPECT_EQ(refusal(pair("cbc(aes)", 16, "hmac(sha1)", 128)).text,
              "hmac(sha1) with an ICV of 128 bits is not carried, only with 96");
    EXPECT_EQ(refusal(pair("cbc(aes)", 16, "hmac(sha1)", 161)).text,
              "Invalid length requested for truncated ICV");
}

TEST(Algorithm, Sha256WithoutTruncationMeans96BitsWhichAreNotBuilt) {
    EXPECT_EQ(refusal(pair("cbc(aes)", 16, "hmac(sha256)", 0)).code, ENOSYS);
    EXPECT_EQ(refusal(pair("cbc(aes)", 16, "hmac(sha256)", 96)).code, ENOSYS);
}

TEST(Algorithm, WrongCipherKeyLengthsAreInvalid) {
    for (std::size_t key : {0u, 15u, 16u, 19u, 21u, 37u, 64u})
        EXPECT_EQ(refusal(aead("rfc4106(gcm(aes))", key)).code, EINVAL) << key;
    for (std::size_t key : {0u, 8u, 17u, 33u})
        EXPECT_EQ(refusal(pair("cbc(aes)", key)).code, EINVAL) << key;
    for (std::size_t key : {20u, 32u, 35u, 37u})
        EXPECT_EQ(refusal(aead("rfc7539esp(chacha20,poly1305)", key)).code, EINVAL) << key;
    EXPECT_EQ(refusal(pair("ecb(cipher_null)", 16)).code, EINVAL);
    EXPECT_EQ(refusal(aead("rfc4106(gcm(aes))", 19)).text,
              "Kernel was unable to initialize cryptographic operations");
}

TEST(Algorithm, CombinationsThatMakeNoEspAreInvalid) {
    EXPECT_EQ(refusal({}).code, EINVAL);
    algorithms both = aead("rfc4106(gcm(aes))", 20);
    both.auth = named("hmac(sha256)", 32, 128);
    EXPECT_EQ(refusal(std::move(both)).code, EINVAL);
    algorithms auth_alone;
    auth_alone.auth = named("hmac(sha256)", 32, 128);
    EXPECT_EQ(refusal(std::move(auth_alone)).code, EINVAL);
    algorithms cipher_alone;
    cipher_alone.cipher = named("cbc(aes)", 16);
    EXPECT_EQ(refusal(std::move(cipher_alone)).code, ENOSYS);
}

TEST(Algorithm, ARefusalChangesNothing) {
    algorithms a = pair("aes", 17, "sha256");
    ASSERT_FALSE(resolve(a));
    EXPECT_EQ(a.cipher.name, "aes");
    EXPECT_EQ(a.auth.name, "sha256");
}

TEST(Algorithm, LayoutsAreThoseOfTheRfcs) {
    const suite_layout gcm = layout_of(suite::aes256_gcm16);
    EXPECT_EQ(gcm.iv_length, 8);
    EXPECT_EQ(gcm.icv_length, 16);
    EXPECT_EQ(gcm.block_length, 4);
    const suite_layout cbc = layout_of(suite::aes128_cbc_sha256_128);
    EXPECT_EQ(cbc.iv_length, 16);
    EXPECT_EQ(cbc.icv_length, 16);
    EXPECT_EQ(cbc.block_length, 16);
    EXPECT_EQ(layout_of(suite::null_sha256_128).iv_length, 0);
    const suite_layout sha1 = layout_of(suite::aes256_cbc_sha1_96);
    EXPECT_EQ(sha1.iv_length, 16);
    EXPECT_EQ(sha1.icv_length, 12);
    const suite_layout chacha = layout_of(suite::chacha20_poly1305);
    EXPECT_EQ(chacha.iv_length, 8);
    EXPECT_EQ(chacha.icv_length, 16);
    EXPECT_EQ(chacha.block_length, 4);
    EXPECT_EQ(name_of(suite::aes128_gcm16), "AES-128-GCM-16");
}

} // namespace
} // namespace esplane::ipsec

// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/engine.h"

#include <algorithm>
#include <array>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "tests/unit/crypto/openssl_esp.h"

namespace esplane::test {
namespace {

using crypto::engine;
using crypto::job;
using crypto::key;
using ipsec::suite;

constexpr std::size_t margin = 32; ///< bytes around a packet that nobody may touch
constexpr std::uint8_t untouched = 0xa5;

std::vector<suite> all_suites() {
    std::vector<suite> all;
    for (unsigned i = 0; i < ipsec::suite_count; ++i)
        all.push_back(static_cast<suite>(i));
    return all;
}

std::size_t text_step(suite s) {
    return is_aead(s) ? 1 : ipsec::layout_of(s).block_length;
}

std::size_t text_offset(suite s) {
    return esp_header_length + ipsec::layout_of(s).iv_length;
}

/// An SA with random keys.
struct sa {
    sa_keys keys;
    std::shared_ptr<const key> expanded;
};

/// A packet in clear, what OpenSSL makes of it, and room for the engine to work in.
struct specimen {
    std::shared_ptr<const key> keys;
    bytes clear;
    bytes sealed;
    bytes work; ///< margin, packet, margin
    job todo;

    void load(const bytes& packet) {
        work.assign(margin + sealed.size() + margin, untouched);
        std::copy(packet.begin(), packet.end(), work.begin() + margin);
        todo.esp = work.data() + margin;
        todo.ok = false;
    }
    [[nodiscard]] bytes packet() const { return {work.begin() + margin, work.end() - margin}; }
    [[nodiscard]] bool margins_untouched() const {
        const auto same = [](std::uint8_t b) { return b == untouched; };
        return std::all_of(work.begin(), work.begin() + margin, same) &&
               std::all_of(work.end() - margin, work.end(), same);
    }
    [[nodiscard]] bool decrypted() const {
        return std::equal(clear.begin(), clear.end(), work.begin() + margin);
    }
};

class Engine : public testing::Test {
  protected:
    void SetUp() override {
        auto made = engine::make();
        ASSERT_TRUE(made) << made.error().text;
        engine_ = std::move(*made);
    }

    bytes random_bytes(std::size_t n) {
        bytes b(n);
        for (auto& x : b)
            x = static_cast<std::uint8_t>(random_());
        return b;
    }

    sa random_sa(suite s, std::size_t auth_length = 32) {
        sa made{{s, random_bytes(cipher_key_length(s)), {}, {}}, {}};
        if (is_aead(s)) made.keys.salt = random_bytes(4);
        if (!is_aead(s)) made.keys.auth = random_bytes(auth_length);
        auto expanded = key::make(algorithms_for(made.keys));
        if (!expanded) throw std::runtime_error(expanded.error().text);
        made.expanded = *expanded;
        return made;
    }

    specimen random_specimen(const sa& a, std::size_t text_length, bool esn) {
        specimen s;
        s.keys = a.expanded;
        s.clear = random_bytes(text_offset(a.keys.run) + text_length);
        s.todo = {.keys = &a.expanded->get(),
                  .text_length = static_cast<std::uint32_t>(text_length),
                  .seq_high = static_cast<std::uint32_t>(random_()),
                  .esn = esn};
        s.sealed =
            openssl_seal(a.keys, s.clear, esn ? std::optional(s.todo.seq_high) : std::nullopt);
        return s;
    }

    /// Every text length that a test should see, in specimens of one suite.
    std::vector<specimen> specimens_of_all_lengths(const sa& a, bool esn) {
        std::vector<specimen> made;
        for (std::size_t n = 0; n <= 300; n += text_step(a.keys.run))
            made.push_back(random_specimen(a, n, esn));
        for (const std::size_t n : {512, 1024, 1408, 1424, 1504, 4096, 8976, 8992, 65504})
            made.push_back(random_specimen(a, n, esn));
        if (is_aead(a.keys.run)) made.push_back(random_specimen(a, 9000, esn));
        return made;
    }

    /// Jobs as the engine wants them; `take` brings the verdicts back.
    static std::vector<job> jobs_of(const std::vector<specimen>& specimens) {
        std::vector<job> jobs;
        for (const auto& s : specimens)
            jobs.push_back(s.todo);
        return jobs;
    }

    void encrypt(std::vector<specimen>& specimens, std::size_t at_a_time = SIZE_MAX) {
        for (auto& s : specimens)
            s.load(s.clear);
        auto jobs = jobs_of(specimens);
        for (std::span<job> rest(jobs); !rest.empty();) {
            const std::size_t n = std::min(at_a_time, rest.size());
            engine_->encrypt(rest.first(n));
            rest = rest.subspan(n);
        }
    }

    /// Decrypts what load() has put in place.
    void decrypt(std::vector<specimen>& specimens, std::size_t at_a_time = SIZE_MAX) {
        auto jobs = jobs_of(specimens);
        for (std::span<job> rest(jobs); !rest.empty();) {
            const std::size_t n = std::min(at_a_time, rest.size());
            engine_->decrypt(rest.first(n));
            rest = rest.subspan(n);
        }
        for (std::size_t i = 0; i < jobs.size(); ++i)
            specimens[i].todo.ok = jobs[i].ok;
    }

    std::unique_ptr<engine> engine_;
    std::mt19937_64 random_{20};
};

std::string about(suite s, bool esn, std::size_t text_length) {
    return std::string(ipsec::name_of(s)) + (esn ? " with ESN, " : ", ") +
           std::to_string(text_length) + " bytes of text";
}

/// One packet at a time and many take different ways through the engine.
constexpr std::size_t batches[] = {1, SIZE_MAX};

TEST_F(Engine, EncryptsAsOpensslDoesAtEveryLength) {
    for (const suite s : all_suites()) {
        for (const bool esn : {false, true}) {
            auto specimens = specimens_of_all_lengths(random_sa(s), esn);
            for (const std::size_t batch : batches) {
                encrypt(specimens, batch);
                for (const auto& x : specimens) {
                    ASSERT_EQ(x.packet(), x.sealed) << about(s, esn, x.todo.text_length);
                    ASSERT_TRUE(x.margins_untouched()) << about(s, esn, x.todo.text_length);
                }
            }
        }
    }
}

TEST_F(Engine, DecryptsWhatOpensslEncryptsAtEveryLength) {
    for (const suite s : all_suites()) {
        for (const bool esn : {false, true}) {
            auto specimens = specimens_of_all_lengths(random_sa(s), esn);
            for (const std::size_t batch : batches) {
                for (auto& x : specimens)
                    x.load(x.sealed);
                decrypt(specimens, batch);
                for (const auto& x : specimens) {
                    ASSERT_TRUE(x.todo.ok) << about(s, esn, x.todo.text_length);
                    ASSERT_TRUE(x.decrypted()) << about(s, esn, x.todo.text_length);
                    ASSERT_TRUE(x.margins_untouched()) << about(s, esn, x.todo.text_length);
                }
            }
        }
    }
}

TEST_F(Engine, FinishesEveryJobOfABurstOfMixedSuites) {
    std::vector<sa> sas;
    for (const suite s : all_suites())
        for (int i = 0; i < 3; ++i)
            sas.push_back(random_sa(s));
    std::vector<std::size_t> sizes{65, 127, 128, 129, 300};
    for (std::size_t n = 1; n <= 64; ++n)
        sizes.push_back(n);
    for (const std::size_t size : sizes) {
        std::vector<specimen> burst;
        while (burst.size() < size) {
            // Every other burst is of one SA: all of its jobs compete for the same lanes.
            const sa& a = sas[(size % 2 == 0 ? random_() : size / 2) % sas.size()];
            burst.push_back(random_specimen(a, random_() % 96 * 16, random_() % 2 == 0));
        }
        encrypt(burst);
        for (const auto& x : burst)
            ASSERT_EQ(x.packet(), x.sealed) << "burst of " << size;
        for (auto& x : burst)
            x.load(x.sealed);
        decrypt(burst);
        for (const auto& x : burst)
            ASSERT_TRUE(x.todo.ok && x.decrypted()) << "burst of " << size;
    }
}

TEST_F(Engine, RefusesAPacketWithAnyBitChangedAndNoOther) {
    for (const suite s : all_suites()) {
        for (const bool esn : {false, true}) {
            const sa a = random_sa(s);
            const specimen original = random_specimen(a, 64, esn);
            std::vector<specimen> burst;
            for (std::size_t bit = 0; bit < original.sealed.size() * 8; ++bit) {
                bytes tampered = original.sealed;
                tampered[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
                burst.push_back(original);
                burst.back().load(tampered);
                burst.push_back(original);
                burst.back().load(original.sealed);
            }
            decrypt(burst);
            for (std::size_t i = 0; i < burst.size(); i += 2) {
                ASSERT_FALSE(burst[i].todo.ok) << about(s, esn, 64) << ", bit " << i / 2;
                ASSERT_TRUE(burst[i + 1].todo.ok) << about(s, esn, 64) << ", beside bit " << i / 2;
            }
        }
    }
}

TEST_F(Engine, RefusesAPacketUnderAnotherHighHalf) {
    for (const suite s : all_suites()) {
        for (int bit = 0; bit < 32; ++bit) {
            const sa a = random_sa(s);
            std::vector<specimen> one{random_specimen(a, 64, true)};
            one[0].load(one[0].sealed);
            one[0].todo.seq_high ^= 1U << bit;
            decrypt(one);
            ASSERT_FALSE(one[0].todo.ok) << ipsec::name_of(s) << ", bit " << bit;
        }
    }
}

TEST_F(Engine, LooksAtTheHighHalfOnlyWithEsn) {
    for (const suite s : all_suites()) {
        std::vector<specimen> one{random_specimen(random_sa(s), 64, false)};
        one[0].load(one[0].sealed);
        one[0].todo.seq_high ^= 1;
        decrypt(one);
        EXPECT_TRUE(one[0].todo.ok) << ipsec::name_of(s);
    }
}

TEST_F(Engine, LeavesTheIcvOfAReceivedPacketAsItWas) {
    for (const suite s : all_suites()) {
        std::vector<specimen> one{random_specimen(random_sa(s), 64, true)};
        one[0].load(one[0].sealed);
        decrypt(one);
        const auto icv_length = ipsec::layout_of(s).icv_length;
        EXPECT_TRUE(std::equal(one[0].sealed.end() - icv_length, one[0].sealed.end(),
                               one[0].work.end() - margin - icv_length))
            << ipsec::name_of(s);
    }
}

TEST_F(Engine, RefusesATextThatEndsInsideABlockThoughItsIcvIsRight) {
    const sa a = random_sa(suite::aes128_cbc_sha256_128);
    const sa_keys icv_only{suite::null_sha256_128, {}, {}, a.keys.auth};
    for (std::uint32_t n = 1; n < 16; ++n) {
        std::vector<specimen> two{random_specimen(a, 48, false), random_specimen(a, 64, false)};
        two[0].todo.text_length = 48 + n;
        two[0].sealed = openssl_seal(
            icv_only, random_bytes(text_offset(a.keys.run) + two[0].todo.text_length), {});
        for (auto& x : two)
            x.load(x.sealed);
        decrypt(two);
        EXPECT_FALSE(two[0].todo.ok) << n;
        EXPECT_TRUE(two[1].todo.ok) << n;
        EXPECT_EQ(two[0].packet(), two[0].sealed) << n;
    }
}

TEST_F(Engine, LeavesNoClearTextWhereItCannotEncrypt) {
    const sa a = random_sa(suite::aes128_cbc_sha256_128);
    std::vector<specimen> one{random_specimen(a, 64, false)};
    one[0].todo.text_length = 63;
    encrypt(one);
    const auto text = one[0].work.begin() + margin + text_offset(suite::aes128_cbc_sha256_128);
    EXPECT_TRUE(std::all_of(text, text + 63, [](std::uint8_t b) { return b == 0; }));
}

TEST_F(Engine, DoesNothingForNoJobs) {
    engine_->encrypt({});
    engine_->decrypt({});
}

TEST_F(Engine, SharesAKeyWithAnotherEngine) {
    auto other = engine::make();
    ASSERT_TRUE(other);
    for (const suite s : all_suites()) {
        std::vector<specimen> one{random_specimen(random_sa(s), 256, true)};
        encrypt(one);
        auto jobs = jobs_of(one);
        (*other)->decrypt(jobs);
        EXPECT_TRUE(jobs[0].ok && one[0].decrypted()) << ipsec::name_of(s);
    }
}

TEST_F(Engine, NamesTheInstructionsItUses) {
    EXPECT_STRNE(engine_->architecture(), "unknown");
}

class UnpredictableIv : public Engine {};

TEST_F(UnpredictableIv, NeverRepeats) {
    std::set<std::array<std::uint8_t, 16>> seen;
    for (int i = 0; i < 10000; ++i) {
        std::array<std::uint8_t, 16> iv;
        engine_->unpredictable_iv(iv.data(), iv.size());
        EXPECT_TRUE(seen.insert(iv).second) << i;
    }
}

TEST_F(UnpredictableIv, WritesAsManyBytesAsAsked) {
    for (std::size_t n = 0; n <= 16; ++n) {
        std::set<std::array<std::uint8_t, 32>> heads;
        for (int i = 0; i < 64; ++i) {
            std::array<std::uint8_t, 32> iv;
            iv.fill(untouched);
            engine_->unpredictable_iv(iv.data(), n);
            EXPECT_TRUE(std::all_of(iv.begin() + n, iv.end(),
                                    [](std::uint8_t b) { return b == untouched; }));
            heads.insert(iv);
        }
        EXPECT_EQ(heads.size() > 1, n > 0) << n;
    }
}

TEST_F(UnpredictableIv, DiffersBetweenEngines) {
    auto other = engine::make();
    ASSERT_TRUE(other);
    bytes mine(16);
    bytes theirs(16);
    engine_->unpredictable_iv(mine.data(), mine.size());
    (*other)->unpredictable_iv(theirs.data(), theirs.size());
    EXPECT_NE(mine, theirs);
}

class Key : public Engine {};

TEST_F(Key, TakesAnHmacKeyOfAnyLength) {
    for (std::size_t n = 1; n <= 200; ++n) {
        std::vector<specimen> one{
            random_specimen(random_sa(suite::aes128_cbc_sha256_128, n), 64, false),
            random_specimen(random_sa(suite::null_sha256_128, n), 64, true),
            random_specimen(random_sa(suite::aes256_cbc_sha1_96, n), 64, true)};
        encrypt(one);
        for (const auto& x : one)
            ASSERT_EQ(x.packet(), x.sealed) << n << " bytes of key";
    }
}

TEST_F(Key, RefusesAWrongLength) {
    for (const suite s : all_suites()) {
        sa_keys keys = random_sa(s).keys;
        keys.cipher.push_back(0);
        const auto made = key::make(algorithms_for(keys));
        ASSERT_FALSE(made) << ipsec::name_of(s);
        EXPECT_EQ(made.error().code, EINVAL);
        EXPECT_FALSE(made.error().text.empty());
    }
}

TEST_F(Key, RefusesASuiteItDoesNotKnow) {
    ipsec::algorithms a;
    a.run = static_cast<suite>(ipsec::suite_count);
    const auto made = key::make(a);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, ENOSYS);
}

TEST_F(Key, KnowsItsSuite) {
    for (const suite s : all_suites())
        EXPECT_EQ(random_sa(s).expanded->run(), s);
}

} // namespace
} // namespace esplane::test

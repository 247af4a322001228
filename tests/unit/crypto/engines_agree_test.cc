// SPDX-License-Identifier: Apache-2.0
//
// The engine over intel-ipsec-mb beside the one over OpenSSL: the same bursts, byte for byte.
//
// Keys, texts, ESN and what is changed on the way are random, with a fixed seed; the lengths are
// all from 0 to 600.
#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "lib/crypto/engine.h"
#include "lib/crypto/openssl/engine.h"
#include "lib/crypto/openssl/schedule.h"
#include "tests/unit/crypto/openssl_esp.h"

namespace esplane::test {
namespace {

using crypto::job;
using ipsec::suite;

constexpr std::uint32_t longest_text = 600;
constexpr std::size_t longest_burst = 80;
constexpr unsigned sas_of_a_suite = 3;
constexpr unsigned rounds = 2; ///< each length comes up this often

/// An SA's keys, expanded by each.
struct twin_keys {
    suite run;
    std::shared_ptr<const crypto::key> ipsec_mb;
    std::unique_ptr<crypto::openssl::schedule> openssl;
};

/// A packet as each has it.
struct twin_packet {
    const twin_keys* keys;
    std::uint32_t text_length;
    std::uint32_t seq_high;
    bool esn;
    bytes ipsec_mb;
    bytes openssl;
};

std::string about(const twin_packet& p) {
    return std::string(ipsec::name_of(p.keys->run)) + (p.esn ? " with ESN, " : ", ") +
           std::to_string(p.text_length) + " bytes of text";
}

class Engines : public testing::Test {
  protected:
    void SetUp() override {
        auto one = crypto::engine::make();
        auto other = crypto::openssl::engine::make();
        ASSERT_TRUE(one) << one.error().text;
        ASSERT_TRUE(other) << other.error().text;
        ipsec_mb_ = std::move(*one);
        openssl_ = std::move(*other);
        for (unsigned i = 0; i < ipsec::suite_count; ++i)
            for (unsigned n = 0; n < sas_of_a_suite; ++n)
                keys_.push_back(random_keys(static_cast<suite>(i)));
    }

    bytes random_bytes(std::size_t n) {
        bytes b(n);
        for (auto& x : b)
            x = static_cast<std::uint8_t>(random_());
        return b;
    }

    twin_keys random_keys(suite s) {
        sa_keys keys{s, random_bytes(cipher_key_length(s)), {}, {}};
        if (is_aead(s)) keys.salt = random_bytes(4);
        if (!is_aead(s)) keys.auth = random_bytes(1 + random_() % 200);
        const auto algorithms = algorithms_for(keys);
        auto one = crypto::key::make(algorithms);
        auto other = crypto::openssl::expand(algorithms);
        if (!one || !other) throw std::runtime_error("a key was refused");
        return {s, *one, std::unique_ptr<crypto::openssl::schedule>(*other)};
    }

    twin_packet random_packet(const twin_keys& keys, std::uint32_t text_length) {
        const auto layout = ipsec::layout_of(keys.run);
        const bytes packet =
            random_bytes(esp_header_length + layout.iv_length + text_length + layout.icv_length);
        return {&keys,  text_length, static_cast<std::uint32_t>(random_()), random_() % 2 == 0,
                packet, packet};
    }

    /// Every length that the suite can have, of SAs of that suite.
    std::vector<twin_packet> packets_of_all_lengths(suite s) {
        const std::uint32_t step = is_aead(s) ? 1 : ipsec::layout_of(s).block_length;
        std::vector<twin_packet> made;
        for (unsigned round = 0; round < rounds; ++round)
            for (std::uint32_t n = 0; n <= longest_text; n += step)
                made.push_back(random_packet(
                    keys_[static_cast<unsigned>(s) * sas_of_a_suite + random_() % sas_of_a_suite],
                    n));
        return made;
    }

    /// Those of all suites, in any order.
    std::vector<twin_packet> packets() {
        std::vector<twin_packet> all;
        for (unsigned i = 0; i < ipsec::suite_count; ++i)
            for (auto& p : packets_of_all_lengths(static_cast<suite>(i)))
                all.push_back(std::move(p));
        std::shuffle(all.begin(), all.end(), random_);
        return all;
    }

    enum class what : std::uint8_t { encrypt, decrypt };

    /// Runs `packets` by both, in bursts of random size, and says what each said of them.
    std::pair<std::vector<job>, std::vector<job>> run(what to_do,
                                                      std::vector<twin_packet>& packets) {
        std::vector<job> one;
        std::vector<job> other;
        for (auto& p : packets) {
            const job j{.text_length = p.text_length, .seq_high = p.seq_high, .esn = p.esn};
            one.push_back(j);
            one.back().keys = &p.keys->ipsec_mb->get();
            one.back().esp = p.ipsec_mb.data();
            other.push_back(j);
            other.back().keys = p.keys->openssl.get();
            other.back().esp = p.openssl.data();
        }
        for (std::size_t at = 0; at < packets.size();) {
            const std::size_t n = std::min(1 + random_() % longest_burst, packets.size() - at);
            const auto first = std::span(one).subspan(at, n);
            const auto second = std::span(other).subspan(at, n);
            to_do == what::encrypt ? ipsec_mb_->encrypt(first) : ipsec_mb_->decrypt(first);
            to_do == what::encrypt ? openssl_->encrypt(second) : openssl_->decrypt(second);
            at += n;
        }
        return {one, other};
    }

    std::mt19937_64 random_{6};
    std::unique_ptr<crypto::engine> ipsec_mb_;
    std::unique_ptr<crypto::openssl::engine> openssl_;
    std::vector<twin_keys> keys_;
};

TEST_F(Engines, EncryptAlike) {
    auto all = packets();
    run(what::encrypt, all);
    for (const auto& p : all)
        ASSERT_EQ(p.ipsec_mb, p.openssl) << about(p);
}

TEST_F(Engines, DecryptAlikeAndRefuseTheSamePackets) {
    auto all = packets();
    run(what::encrypt, all);
    for (auto& p : all) {
        p.openssl = p.ipsec_mb;
        if (random_() % 2 == 0) continue;
        const std::size_t bit = random_() % (p.ipsec_mb.size() * 8);
        const auto flipped = static_cast<std::uint8_t>(1U << bit % 8);
        p.ipsec_mb[bit / 8] ^= flipped;
        p.openssl[bit / 8] ^= flipped;
    }
    const auto [one, other] = run(what::decrypt, all);
    std::size_t refused = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
        ASSERT_EQ(one[i].ok, other[i].ok) << about(all[i]);
        ASSERT_TRUE(!one[i].ok || all[i].ipsec_mb == all[i].openssl) << about(all[i]);
        if (!one[i].ok) ++refused;
    }
    EXPECT_GT(refused, all.size() / 3);
    EXPECT_LT(refused, all.size() * 2 / 3);
}

TEST_F(Engines, RefuseTheSameHighHalves) {
    auto all = packets();
    run(what::encrypt, all);
    for (auto& p : all) {
        p.openssl = p.ipsec_mb;
        p.seq_high ^= 1U << random_() % 32;
    }
    const auto [one, other] = run(what::decrypt, all);
    for (std::size_t i = 0; i < all.size(); ++i) {
        ASSERT_EQ(one[i].ok, !all[i].esn) << about(all[i]);
        ASSERT_EQ(other[i].ok, !all[i].esn) << about(all[i]);
    }
}

TEST_F(Engines, RefuseTheSameTexts) {
    std::vector<twin_packet> all;
    for (const twin_keys& keys : keys_)
        for (const std::uint32_t n : {47U, 48U, 65504U, 65520U})
            if (!is_gcm(keys.run)) all.push_back(random_packet(keys, n));
    const std::vector<twin_packet> before = all;
    const auto [one, other] = run(what::decrypt, all);
    for (std::size_t i = 0; i < all.size(); ++i) {
        EXPECT_FALSE(one[i].ok || other[i].ok) << about(all[i]);
        all[i] = before[i];
    }
    run(what::encrypt, all);
    for (const auto& p : all)
        ASSERT_EQ(p.ipsec_mb, p.openssl) << about(p);
}

} // namespace
} // namespace esplane::test

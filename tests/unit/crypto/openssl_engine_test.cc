// SPDX-License-Identifier: Apache-2.0
//
// What the engine over OpenSSL does with OpenSSL's memory.
#include "lib/crypto/openssl/engine.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>
#include <openssl/crypto.h>

#include "lib/crypto/openssl/schedule.h"
#include "tests/unit/crypto/openssl_esp.h"

namespace esplane::test::openssl_engine_test {
namespace {

using crypto::job;
using crypto::openssl::engine;
using crypto::openssl::schedule;

/// All that OpenSSL has allocated, and how often it asked.
struct openssl_memory {
    std::map<void*, std::size_t> live;
    std::size_t requests = 0;

    void* add(void* made, std::size_t size) {
        ++requests;
        if (made != nullptr) live[made] = size;
        return made;
    }

    /// Says whether some of it holds these bytes.
    [[nodiscard]] bool holds(const bytes& wanted) const {
        return std::any_of(live.begin(), live.end(), [&](const auto& block) {
            const auto* const start = static_cast<const std::uint8_t*>(block.first);
            return std::search(start, start + block.second, wanted.begin(), wanted.end()) !=
                   start + block.second;
        });
    }
};

/// Never destroyed: OpenSSL frees after the last destructor.
openssl_memory& memory() {
    static auto* const all = new openssl_memory;
    return *all;
}

void* allocate(std::size_t size, const char*, int) {
    return memory().add(std::malloc(size), size);
}
void* reallocate(void* old, std::size_t size, const char*, int) {
    memory().live.erase(old);
    return memory().add(std::realloc(old, size), size);
}
void release(void* old, const char*, int) {
    memory().live.erase(old);
    std::free(old);
}

/// Before main: OpenSSL takes other functions only as long as it has allocated nothing.
const bool watched = CRYPTO_set_mem_functions(allocate, reallocate, release) == 1;

constexpr std::uint32_t text_length = 96;

struct sa {
    bytes cipher_key;
    std::unique_ptr<schedule> keys;
};

class OpensslEngine : public testing::TestWithParam<unsigned> {
  protected:
    void SetUp() override {
        ASSERT_TRUE(watched);
        auto made = engine::make();
        ASSERT_TRUE(made) << made.error().text;
        engine_ = std::move(*made);
    }

    static sa counting_sa(std::uint8_t from) {
        const auto s = static_cast<ipsec::suite>(GetParam());
        sa_keys keys{s, bytes(cipher_key_length(s)), {}, {}};
        std::iota(keys.cipher.begin(), keys.cipher.end(), from);
        if (is_aead(s)) keys.salt = {1, 2, 3, 4};
        if (!is_aead(s)) keys.auth = bytes(32, from);
        auto expanded = crypto::openssl::expand(algorithms_for(keys));
        if (!expanded) throw std::runtime_error(expanded.error().text);
        return {keys.cipher, std::unique_ptr<schedule>(*expanded)};
    }

    /// Both ways; the keys change from job to job.
    void run(const sa& one, const sa& other) {
        const auto layout = ipsec::layout_of(one.keys->run);
        std::array<std::array<std::uint8_t, 256>, 4> packets{};
        ASSERT_LE(esp_header_length + layout.iv_length + text_length + layout.icv_length,
                  packets[0].size());
        std::array<job, packets.size()> jobs;
        for (std::size_t i = 0; i < jobs.size(); ++i)
            jobs[i] = {.keys = i % 2 == 0 ? one.keys.get() : other.keys.get(),
                       .esp = packets[i].data(),
                       .text_length = text_length,
                       .seq_high = 7,
                       .esn = i < 2};
        engine_->encrypt(jobs);
        engine_->decrypt(jobs);
        for (const job& j : jobs)
            ASSERT_TRUE(j.ok);
    }

    std::unique_ptr<engine> engine_;
};

TEST_P(OpensslEngine, AllocatesNothingForAPacketNorForANewKey) {
    const sa one = counting_sa(0x10);
    const sa other = counting_sa(0x80);
    const std::size_t before = memory().requests;
    run(one, other);
    EXPECT_EQ(memory().requests, before);
}

TEST_P(OpensslEngine, AllocatesNothingForAnIv) {
    const std::size_t before = memory().requests;
    std::uint8_t iv[16];
    engine_->unpredictable_iv(iv, sizeof iv);
    EXPECT_EQ(memory().requests, before);
}

TEST_P(OpensslEngine, HasNoKeyBetweenCalls) {
    const sa one = counting_sa(0x10);
    const sa other = counting_sa(0x80);
    run(one, other);
    for (const sa* a : {&one, &other}) {
        const std::size_t part = std::min<std::size_t>(a->cipher_key.size(), 16);
        const bytes begin(a->cipher_key.begin(), a->cipher_key.begin() + part);
        EXPECT_FALSE(part > 0 && memory().holds(begin));
    }
}

INSTANTIATE_TEST_SUITE_P(EverySuite, OpensslEngine, testing::Range(0U, ipsec::suite_count),
                         [](const auto& suite) { return "suite" + std::to_string(suite.param); });

} // namespace
} // namespace esplane::test::openssl_engine_test

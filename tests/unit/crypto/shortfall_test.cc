// SPDX-License-Identifier: Apache-2.0
//
// What the engine makes of an intel-ipsec-mb that does less than it was given, and what it leaves
// behind in memory.  The functions that make the library's managers are replaced here: calls of
// theirs watch, and fall short when asked.
#include "lib/crypto/engine.h"

#include <algorithm>
#include <map>
#include <utility>

#include <dlfcn.h>
#include <gtest/gtest.h>

#include "lib/crypto/gcm.h"
#include "lib/crypto/library.h"
#include "tests/unit/crypto/openssl_esp.h"

namespace esplane::test {
namespace {

using crypto::engine;
using crypto::job;
using crypto::key;
using ipsec::suite;

/// In what the library falls short, at the last job of each call.
enum class shortfall { none, place, job, status, cipher, hash };
shortfall wanted = shortfall::none;
unsigned fell_short = 0;

std::uint32_t less_where(shortfall here, std::uint32_t count) {
    if (wanted != here || count == 0) return count;
    ++fell_short;
    return count - 1;
}

/// The calls that were replaced, by manager.
struct own_calls {
    burst_fn_t next_burst;
    burst_fn_t submit_burst;
    submit_cipher_burst_t cipher;
    submit_hash_burst_t hash;
};
std::map<const IMB_MGR*, own_calls> own;
aes_gcm_enc_dec_t own_gcm = nullptr;
const gcm_key_data* last_gcm_keys = nullptr;

std::uint32_t next_burst(IMB_MGR* m, std::uint32_t count, IMB_JOB** jobs) {
    return less_where(shortfall::place, own[m].next_burst(m, count, jobs));
}

std::uint32_t submit_burst(IMB_MGR* m, std::uint32_t count, IMB_JOB** jobs) {
    const std::uint32_t done = own[m].submit_burst(m, count, jobs);
    if (const std::uint32_t good = less_where(shortfall::status, done); good < done)
        jobs[good]->status = IMB_STATUS_INTERNAL_ERROR;
    return less_where(shortfall::job, done);
}

std::uint32_t cipher_burst(IMB_MGR* m, IMB_JOB* jobs, std::uint32_t count, IMB_CIPHER_MODE mode,
                           IMB_CIPHER_DIRECTION direction, IMB_KEY_SIZE_BYTES key_length) {
    return own[m].cipher(m, jobs, less_where(shortfall::cipher, count), mode, direction,
                         key_length);
}

std::uint32_t hash_burst(IMB_MGR* m, IMB_JOB* jobs, std::uint32_t count, IMB_HASH_ALG hash) {
    return own[m].hash(m, jobs, less_where(shortfall::hash, count), hash);
}

void gcm_call(const gcm_key_data* keys, gcm_context_data* context, std::uint8_t* out,
              const std::uint8_t* in, std::uint64_t length, const std::uint8_t* iv,
              const std::uint8_t* aad, std::uint64_t aad_length, std::uint8_t* tag,
              std::uint64_t tag_length) {
    last_gcm_keys = keys;
    own_gcm(keys, context, out, in, length, iv, aad, aad_length, tag, tag_length);
}

void watch(IMB_MGR& m) {
    if (m.submit_hash_burst_nocheck == hash_burst) return; // one function called the other
    own[&m] = {std::exchange(m.get_next_burst, next_burst),
               std::exchange(m.submit_burst_nocheck, submit_burst),
               std::exchange(m.submit_cipher_burst_nocheck, cipher_burst),
               std::exchange(m.submit_hash_burst_nocheck, hash_burst)};
}

template <typename Function>
Function* of_library(const char* name, Function*) {
    return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

} // namespace
} // namespace esplane::test

extern "C" void init_mb_mgr_auto(IMB_MGR* m, IMB_ARCH* arch) {
    using namespace esplane::test;
    of_library("init_mb_mgr_auto", &init_mb_mgr_auto)(m, arch);
    watch(*m);
    if (m->gcm128_enc != gcm_call) own_gcm = std::exchange(m->gcm128_enc, gcm_call);
}

extern "C" void init_mb_mgr_sse(IMB_MGR* m) {
    using namespace esplane::test;
    of_library("init_mb_mgr_sse", &init_mb_mgr_sse)(m);
    watch(*m);
}

namespace esplane::test {
namespace {

constexpr std::size_t text_length = 64;
constexpr std::size_t packet_count = 21; ///< some in full lanes, some left over
constexpr std::uint32_t seq_high = 7;    ///< all packets have ESN

sa_keys keys_of(suite s) {
    sa_keys k{s, bytes(cipher_key_length(s), 1), {}, {}};
    (is_aead(s) ? k.salt : k.auth) = bytes(is_aead(s) ? 4 : 32, 2);
    return k;
}

/// Packets of one SA, in clear or as OpenSSL seals them, and what the engine makes of them.
struct burst {
    burst(suite s, bool to_encrypt)
        : keys(keys_of(s))
        , expanded(*key::make(algorithms_for(keys)))
        , encrypts(to_encrypt) {
        const std::size_t front = esp_header_length + ipsec::layout_of(s).iv_length;
        for (std::size_t i = 0; i < packet_count; ++i) {
            const bytes clear(front + text_length, static_cast<std::uint8_t>(i + 1));
            const bytes sealed = openssl_seal(keys, clear, seq_high);
            right.push_back(encrypts ? sealed : clear);
            before.push_back(encrypts ? clear : sealed);
            before.back().resize(sealed.size());
        }
    }

    void run(engine& e) {
        packets = before;
        jobs.clear();
        for (bytes& p : packets)
            jobs.push_back({.keys = &expanded->get(),
                            .esp = p.data(),
                            .text_length = text_length,
                            .seq_high = seq_high,
                            .esn = true});
        encrypts ? e.encrypt(jobs) : e.decrypt(jobs);
    }
    [[nodiscard]] bool is_right(std::size_t i) const {
        return std::equal(right[i].begin(), right[i].end(), packets[i].begin()) &&
               (encrypts || jobs[i].ok);
    }
    [[nodiscard]] bool is_refused(std::size_t i) const {
        const bytes& p = packets[i];
        const auto text = p.begin() + static_cast<std::ptrdiff_t>(
                                          esp_header_length + ipsec::layout_of(keys.run).iv_length);
        const auto icv = text + text_length;
        if (encrypts) return std::all_of(text, icv, [](auto b) { return b == 0; });
        return !jobs[i].ok && std::equal(icv, p.end(), before[i].end() - (p.end() - icv));
    }
    [[nodiscard]] std::size_t count(bool (burst::*is)(std::size_t) const) const {
        std::size_t n = 0;
        for (std::size_t i = 0; i < packet_count; ++i)
            n += (this->*is)(i) ? 1 : 0;
        return n;
    }

    sa_keys keys;
    std::shared_ptr<const key> expanded;
    bool encrypts;
    std::vector<bytes> before, right, packets;
    std::vector<job> jobs;
};

class Shortfall : public testing::Test {
  protected:
    void SetUp() override {
        auto made = engine::make();
        ASSERT_TRUE(made) << made.error().text;
        engine_ = std::move(*made);
    }
    void TearDown() override { wanted = shortfall::none; }

    void run_short(burst& b, shortfall by) {
        fell_short = 0;
        wanted = by;
        b.run(*engine_);
        wanted = shortfall::none;
        ASSERT_GT(fell_short, 0u);
    }

    std::unique_ptr<engine> engine_;
};

TEST_F(Shortfall, APartThatTheLibraryDidNotDoInFullIsRefusedAndTheNextIsNot) {
    constexpr std::pair<suite, shortfall> cases[] = {
        {suite::aes128_cbc_sha1_96, shortfall::cipher},
        {suite::aes128_cbc_sha1_96, shortfall::hash},
        {suite::aes256_cbc_sha256_128, shortfall::cipher},
        {suite::aes256_cbc_sha256_128, shortfall::hash},
        {suite::null_sha256_128, shortfall::hash},
        {suite::chacha20_poly1305, shortfall::place},
        {suite::chacha20_poly1305, shortfall::job},
    };
    for (const auto& [s, by] : cases)
        for (const bool encrypts : {true, false}) {
            SCOPED_TRACE(std::string(ipsec::name_of(s)) + (encrypts ? " out " : " in ") +
                         std::to_string(static_cast<int>(by)));
            burst b(s, encrypts);
            run_short(b, by);
            EXPECT_EQ(b.count(&burst::is_refused), packet_count);
            b.run(*engine_);
            EXPECT_EQ(b.count(&burst::is_right), packet_count);
        }
}

TEST_F(Shortfall, AJobThatTheLibraryDidNotCompleteIsRefusedAlone) {
    for (const bool encrypts : {true, false}) {
        burst b(suite::chacha20_poly1305, encrypts);
        run_short(b, shortfall::status);
        EXPECT_EQ(b.count(&burst::is_refused), fell_short);
        EXPECT_EQ(b.count(&burst::is_right), packet_count - fell_short);
    }
}

TEST(OlderKeys, AreWipedOnceTheBurstIsDone) {
    if (crypto::gcm::library_keys_wanted()) GTEST_SKIP() << "all keys are made for the library";
    burst b(suite::aes128_gcm16, true);
    auto by_library = engine::make({.gcm_kernel = false});
    ASSERT_TRUE(by_library);
    b.run(**by_library);
    EXPECT_EQ(b.count(&burst::is_right), packet_count);
    ASSERT_NE(last_gcm_keys, nullptr);
    const auto* const left = reinterpret_cast<const std::uint8_t*>(last_gcm_keys);
    EXPECT_TRUE(std::all_of(left, left + sizeof(gcm_key_data), [](auto x) { return x == 0; }));
}

} // namespace
} // namespace esplane::test

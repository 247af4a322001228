// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/gcm.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <random>

#include <gtest/gtest.h>
#include <pthread.h>

#include "lib/crypto/schedule_ipsec_mb.h"
#include "tests/unit/crypto/openssl_esp.h"

namespace esplane::test::gcm_test {
namespace {

using crypto::engine;
using crypto::job;
using crypto::key;
namespace gcm = crypto::gcm;

constexpr std::size_t start_length = 16; ///< ESP header and IV
constexpr std::size_t line = 64;
constexpr std::size_t longest_tried = 2100; ///< and samples above
constexpr std::size_t longest_short = 608;  ///< done at once; chunk by chunk beyond
constexpr std::uint8_t untouched = 0xa5;

constexpr ipsec::suite suites[] = {ipsec::suite::aes128_gcm16, ipsec::suite::aes192_gcm16,
                                   ipsec::suite::aes256_gcm16};

/// Where a packet can be hurt.
struct region {
    const char* name;
    std::size_t first;
    std::size_t end;
};

class GcmKernel : public testing::Test {
  protected:
    void SetUp() override {
        if (!gcm::supported()) GTEST_SKIP() << "needs AVX-512, VAES and VPCLMULQDQ";
        auto with = engine::make();
        auto without = engine::make({.gcm_kernel = false});
        ASSERT_TRUE(with && without);
        with_ = std::move(*with);
        library_ = std::move(*without);
    }

    bytes random_bytes(std::size_t n) {
        bytes b(n);
        for (auto& x : b)
            x = static_cast<std::uint8_t>(random_());
        return b;
    }

    sa_keys random_keys(ipsec::suite s) {
        return {s, random_bytes(cipher_key_length(s)), random_bytes(4), {}};
    }
    static std::shared_ptr<const key> expand(const sa_keys& keys) {
        auto made = key::make(algorithms_for(keys));
        if (!made) throw std::runtime_error(made.error().text);
        return *made;
    }

    /// A packet somewhere in memory, with bytes around it that nobody may touch.
    struct placed {
        placed(const key& keys, const bytes& packet, std::size_t offset, std::uint32_t seq_high,
               bool esn)
            : length(packet.size())
            , memory(2 * line + length + 2 * line, untouched) {
            void* aligned = memory.data() + line;
            std::size_t room = memory.size() - line;
            at = static_cast<std::uint8_t*>(std::align(line, 1, aligned, room)) + offset;
            std::copy(packet.begin(), packet.end(), at);
            todo = {.keys = &keys.get(),
                    .esp = at,
                    .text_length =
                        static_cast<std::uint32_t>(length - start_length - aead_icv_length),
                    .seq_high = seq_high,
                    .esn = esn};
        }
        [[nodiscard]] bytes now() const { return {at, at + length}; }
        [[nodiscard]] bool rest_untouched() const {
            const auto same = [](std::uint8_t b) { return b == untouched; };
            return std::all_of(memory.data(), static_cast<const std::uint8_t*>(at), same) &&
                   std::all_of(static_cast<const std::uint8_t*>(at + length),
                               memory.data() + memory.size(), same);
        }

        std::size_t length;
        bytes memory;
        std::uint8_t* at;
        job todo;
    };

    /// Through `e`, one packet.
    static bool decrypts(engine& e, placed& p) {
        e.decrypt({&p.todo, 1});
        return p.todo.ok;
    }

    std::unique_ptr<engine> with_;
    std::unique_ptr<engine> library_;
    std::mt19937_64 random_{64};
};

TEST_F(GcmKernel, IsOnWhereTheProcessorHasWhatItNeeds) {
    EXPECT_STREQ(with_->gcm_kernel(), "on");
}

TEST_F(GcmKernel, SaysThatItIsOffWhenAsked) {
    EXPECT_TRUE(std::string(library_->gcm_kernel()).starts_with("off"));
}

TEST_F(GcmKernel, IsTheLibraryAndOpensslAtEveryLengthAndAlignment) {
    std::size_t offset = 0;
    for (const ipsec::suite s : suites) {
        for (std::size_t n = 0; n <= longest_tried; ++n) {
            const sa_keys keys = random_keys(s);
            const auto expanded = expand(keys);
            for (const bool esn : {false, true}) {
                const auto high = static_cast<std::uint32_t>(random_());
                bytes clear = random_bytes(start_length + n);
                const bytes sealed =
                    openssl_seal(keys, clear, esn ? std::optional(high) : std::nullopt);
                clear.resize(sealed.size());
                // A stride that is prime to 64 meets every alignment in 64 lengths.
                const int alignments = n <= longest_short ? 8 : 2;
                for (int i = 0; i < alignments; ++i, offset = (offset + 13) % line) {
                    const std::string about = std::string(ipsec::name_of(s)) + ", " +
                                              std::to_string(n) + " bytes at " +
                                              std::to_string(offset);
                    placed ours(*expanded, clear, offset, high, esn);
                    placed theirs(*expanded, clear, offset, high, esn);
                    with_->encrypt({&ours.todo, 1});
                    library_->encrypt({&theirs.todo, 1});
                    ASSERT_EQ(ours.now(), sealed) << about;
                    ASSERT_EQ(theirs.now(), sealed) << about;
                    ASSERT_TRUE(ours.rest_untouched()) << about;
                    ASSERT_TRUE(decrypts(*with_, ours)) << about;
                    ASSERT_TRUE(std::equal(clear.begin(), clear.end() - aead_icv_length, ours.at))
                        << about;
                    ASSERT_TRUE(ours.rest_untouched()) << about;
                }
            }
        }
    }
}

TEST_F(GcmKernel, IsOpensslWhereItsCountersFillMoreThanAByte) {
    for (const ipsec::suite s : suites) {
        const sa_keys keys = random_keys(s);
        const auto expanded = expand(keys);
        for (const std::size_t n : {4047UL, 4048UL, 4049UL, 4064UL, 4080UL, 4096UL, 8144UL, 8976UL,
                                    9000UL, 16384UL, 65503UL, 65504UL}) {
            bytes clear = random_bytes(start_length + n);
            const bytes sealed = openssl_seal(keys, clear, std::nullopt);
            clear.resize(sealed.size());
            placed p(*expanded, clear, n % line, 0, false);
            with_->encrypt({&p.todo, 1});
            ASSERT_EQ(p.now(), sealed) << n;
            ASSERT_TRUE(decrypts(*with_, p)) << n;
            ASSERT_TRUE(std::equal(clear.begin(), clear.end() - aead_icv_length, p.at)) << n;
            p.at[start_length + random_() % n] ^= 1;
            ASSERT_FALSE(decrypts(*with_, p)) << n;
            ASSERT_TRUE(p.rest_untouched()) << n;
        }
    }
}

TEST_F(GcmKernel, RefusesWhatTheLibraryRefusesInEveryRegionOfEveryLength) {
    for (const ipsec::suite s : suites) {
        const sa_keys keys = random_keys(s);
        const auto expanded = expand(keys);
        for (std::size_t n = 0; n <= longest_tried; ++n) {
            const bool esn = n % 2 == 0;
            const auto high = static_cast<std::uint32_t>(random_());
            const bytes sealed = openssl_seal(keys, random_bytes(start_length + n),
                                              esn ? std::optional(high) : std::nullopt);
            const std::size_t icv = start_length + n;
            for (const region& r :
                 {region{"SPI", 0, 4}, region{"sequence number", 4, 8},
                  region{"IV", 8, start_length}, region{"text", start_length, icv},
                  region{"ICV", icv, icv + aead_icv_length}}) {
                for (std::size_t i = r.first;
                     i<r.end; i += n> 96 ? 1 + random_() % (31 + n / 4) : 1) {
                    bytes changed = sealed;
                    changed[i] ^= static_cast<std::uint8_t>(1U << random_() % 8);
                    placed ours(*expanded, changed, i % line, high, esn);
                    placed theirs(*expanded, changed, i % line, high, esn);
                    ASSERT_FALSE(decrypts(*with_, ours)) << r.name << ", " << n << ", byte " << i;
                    ASSERT_FALSE(decrypts(*library_, theirs)) << r.name << ", " << n;
                }
            }
            placed other_high(*expanded, sealed, 0, high ^ 1U << n % 32, esn);
            ASSERT_EQ(decrypts(*with_, other_high), !esn) << n;
        }
    }
}

TEST_F(GcmKernel, TakesBurstsOfAnyMixOfKeysSuitesAndLengths) {
    std::vector<sa_keys> sas;
    std::vector<std::shared_ptr<const key>> expanded;
    for (int i = 0; i < 12; ++i) {
        sas.push_back(random_keys(suites[i % 3]));
        expanded.push_back(expand(sas.back()));
    }
    for (std::size_t round = 0; round < 200; ++round) {
        std::vector<placed> burst;
        std::vector<bytes> clear, sealed;
        std::vector<job> jobs;
        for (std::size_t i = 0; i < 1 + random_() % 64; ++i) {
            const std::size_t who = round % 2 == 0 ? random_() % sas.size() : 0;
            const bool esn = random_() % 2 == 0;
            const auto high = static_cast<std::uint32_t>(random_());
            clear.push_back(random_bytes(start_length + random_() % (longest_tried + 1)));
            sealed.push_back(
                openssl_seal(sas[who], clear.back(), esn ? std::optional(high) : std::nullopt));
            bytes room = clear.back();
            room.resize(sealed.back().size());
            burst.emplace_back(*expanded[who], room, random_() % line, high, esn);
        }
        for (const placed& p : burst)
            jobs.push_back(p.todo);
        with_->encrypt(jobs);
        for (std::size_t i = 0; i < burst.size(); ++i)
            ASSERT_EQ(burst[i].now(), sealed[i]) << "packet " << i << " of " << burst.size();
        const std::size_t hurt = random_() % burst.size();
        burst[hurt].at[random_() % burst[hurt].length] ^= 0x10;
        with_->decrypt(jobs);
        for (std::size_t i = 0; i < burst.size(); ++i) {
            const bool same = std::equal(clear[i].begin(), clear[i].end(), burst[i].at);
            ASSERT_EQ(jobs[i].ok, i != hurt && same) << "packet " << i << " of " << burst.size();
        }
    }
}

// --- What is left behind ------------------------------------------------------------------------

/// Key material of a schedule, and the keystream of a packet, in pieces of eight bytes.
std::vector<std::uint64_t> secrets_of(const key& keys, const bytes& clear, const bytes& sealed) {
    const auto& schedule = static_cast<const crypto::gcm_schedule&>(keys.get());
    const std::size_t round_keys = 7 + schedule.cipher_key_length / 4;
    const std::uint8_t* const start = schedule.compact.bytes;
    bytes all(start, start + (round_keys + gcm::powers_needed) * 16);
    for (std::size_t i = start_length; i < clear.size(); ++i)
        all.push_back(clear[i] ^ sealed[i]);
    std::vector<std::uint64_t> pieces;
    for (std::size_t i = 0; i + 8 <= all.size(); ++i) {
        std::uint64_t piece = 0;
        std::memcpy(&piece, all.data() + i, sizeof piece);
        pieces.push_back(piece);
    }
    std::sort(pieces.begin(), pieces.end());
    return pieces;
}

bool holds_any(const std::uint8_t* memory, std::size_t size,
               const std::vector<std::uint64_t>& secrets) {
    for (std::size_t i = 0; i + 8 <= size; ++i) {
        std::uint64_t piece = 0;
        std::memcpy(&piece, memory + i, sizeof piece);
        if (std::binary_search(secrets.begin(), secrets.end(), piece)) return true;
    }
    return false;
}

struct vector_registers {
    alignas(64) std::uint8_t zmm[32][64];
    std::uint64_t k[8];
};

/// Runs a kernel and reads the vector and mask registers as it leaves them.
void run_and_look(void (*call)(std::span<job>) noexcept, std::span<job> jobs,
                  vector_registers& into) {
    call(jobs);
    asm volatile(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,"
                 "27,28,29,30,31\n\t"
                 "vmovdqu64 %%zmm\\n, \\n*64(%0)\n\t"
                 ".endr\n\t"
                 ".irp n,0,1,2,3,4,5,6,7\n\t"
                 "kmovq %%k\\n, \\n*8(%1)\n\t"
                 ".endr" ::"r"(into.zmm),
                 "r"(into.k)
                 : "memory");
}

TEST_F(GcmKernel, LeavesNothingInVectorAndMaskRegisters) {
    for (const ipsec::suite s : suites) {
        const auto expanded = expand(random_keys(s));
        for (std::size_t n = 0; n <= longest_tried; n += 12) {
            placed p(*expanded, random_bytes(start_length + n + aead_icv_length), 0, 1, true);
            for (const auto call : {gcm::avx512.encrypt, gcm::avx512.decrypt}) {
                vector_registers left;
                std::memset(&left, 0xff, sizeof left);
                run_and_look(call, {&p.todo, 1}, left);
                const auto* const at = reinterpret_cast<const std::uint8_t*>(&left);
                const auto* const end = reinterpret_cast<const std::uint8_t*>(left.k + 8);
                ASSERT_TRUE(std::all_of(at, end, [](std::uint8_t b) { return b == 0; })) << n;
            }
        }
    }
}

/// Both kernels over a burst of one packet of each length, by a thread of its own.
void* run_burst(void* given) {
    auto& jobs = *static_cast<std::vector<job>*>(given);
    gcm::avx512.encrypt(jobs);
    gcm::avx512.decrypt(jobs);
    return nullptr;
}

TEST_F(GcmKernel, LeavesNoKeyMaterialOnTheStack) {
    std::vector<std::uint8_t> memory(1 << 20, 0);
    for (const ipsec::suite s : suites) {
        const sa_keys keys = random_keys(s);
        const auto expanded = expand(keys);
        std::vector<placed> packets;
        std::vector<job> jobs;
        std::vector<std::uint64_t> secrets;
        for (std::size_t n = 0; n <= longest_tried; n += 24) {
            bytes clear = random_bytes(start_length + n);
            const auto more = secrets_of(*expanded, clear, openssl_seal(keys, clear, std::nullopt));
            secrets.insert(secrets.end(), more.begin(), more.end());
            clear.resize(clear.size() + aead_icv_length);
            packets.emplace_back(*expanded, clear, 0, 0, false);
        }
        for (const placed& p : packets)
            jobs.push_back(p.todo);
        std::sort(secrets.begin(), secrets.end());

        pthread_attr_t on_memory;
        ASSERT_EQ(pthread_attr_init(&on_memory), 0);
        ASSERT_EQ(pthread_attr_setstack(&on_memory, memory.data(), memory.size()), 0);
        pthread_t thread;
        ASSERT_EQ(pthread_create(&thread, &on_memory, run_burst, &jobs), 0);
        ASSERT_EQ(pthread_join(thread, nullptr), 0);
        pthread_attr_destroy(&on_memory);
        EXPECT_TRUE(std::all_of(jobs.begin(), jobs.end(), [](const job& j) { return j.ok; }));
        EXPECT_FALSE(holds_any(memory.data(), memory.size(), secrets)) << ipsec::name_of(s);
        // The search finds what is there.
        std::memcpy(memory.data() + 77, &secrets[secrets.size() / 2], 8);
        EXPECT_TRUE(holds_any(memory.data(), memory.size(), secrets));
        std::memset(memory.data() + 77, 0, 8);
    }
}

// --- Known answers at the start -----------------------------------------------------------------

/// The kernel, but wrong for the jobs that `Where` says.
template <bool (*Where)(const job&)>
struct broken {
    static void encrypt(std::span<job> jobs) noexcept {
        gcm::avx512.encrypt(jobs);
        for (job& j : jobs)
            if (Where(j)) j.esp[start_length + j.text_length] ^= 1;
    }
    static void decrypt(std::span<job> jobs) noexcept {
        gcm::avx512.decrypt(jobs);
        for (job& j : jobs)
            if (Where(j)) j.ok = true;
    }
};

bool aes192(const job& j) {
    return j.keys->run == ipsec::suite::aes192_gcm16;
}
bool with_esn(const job& j) {
    return j.esn;
}
bool of_two_chunks(const job& j) {
    return j.text_length > 1200;
}

TEST_F(GcmKernel, PassesItsOwnKnownAnswers) {
    EXPECT_TRUE(gcm::answers_right(gcm::avx512));
}

TEST_F(GcmKernel, IsNotTrustedWithOneWrongAnswer) {
    const auto encrypt = gcm::avx512.encrypt;
    const auto decrypt = gcm::avx512.decrypt;
    for (const gcm::kernel& k : {gcm::kernel{&broken<aes192>::encrypt, decrypt},
                                 gcm::kernel{&broken<with_esn>::encrypt, decrypt},
                                 gcm::kernel{&broken<of_two_chunks>::encrypt, decrypt},
                                 gcm::kernel{encrypt, &broken<aes192>::decrypt},
                                 gcm::kernel{encrypt, &broken<with_esn>::decrypt},
                                 gcm::kernel{encrypt, &broken<of_two_chunks>::decrypt}})
        EXPECT_FALSE(gcm::answers_right(k));
}

} // namespace
} // namespace esplane::test::gcm_test

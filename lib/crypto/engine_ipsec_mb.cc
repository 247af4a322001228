// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/engine.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <new>

#include <emmintrin.h>
#include <sys/random.h>

#include "lib/base/secret.h"
#include "lib/crypto/esp_job.h"
#include "lib/crypto/library.h"
#include "lib/crypto/power_up.h"
#include "lib/crypto/schedule_ipsec_mb.h"

namespace esplane::crypto {
namespace {

constexpr std::size_t longest_icv = 16;
constexpr std::size_t gcm_icv_length = 16;
constexpr std::size_t slice_length = 64;
constexpr std::size_t iv_length = IMB_AES_BLOCK_SIZE;
constexpr std::size_t ivs_at_once = 64;

enum class manner : std::uint8_t {
    direct, ///< a packet at a time
    jobs,   ///< cipher and hash of a job in one call for many jobs
    passes, ///< a call for the ciphers of many jobs, and one for their hashes
};

/// Which calls of the library a suite takes.
struct calls {
    manner how;
    aes_gcm_enc_dec_t IMB_MGR::*encrypt; ///< direct only
    aes_gcm_enc_dec_t IMB_MGR::*decrypt;
    IMB_HASH_ALG hash; ///< not for direct
};

constexpr calls gcm_with(aes_gcm_enc_dec_t IMB_MGR::*encrypt, aes_gcm_enc_dec_t IMB_MGR::*decrypt) {
    return {manner::direct, encrypt, decrypt, IMB_AUTH_AES_GMAC};
}
constexpr calls chacha_by_jobs{manner::jobs, nullptr, nullptr, IMB_AUTH_CHACHA20_POLY1305};
constexpr calls passes_with(IMB_HASH_ALG hash) {
    return {manner::passes, nullptr, nullptr, hash};
}

/// The choice, in the order of ipsec::suite.  Measured with intel-ipsec-mb 1.3 (AVX512 with VAES,
/// Zen 4), bursts of 32, ns per packet at 64 and 1420 bytes, encrypting:
///
///   AES-128-GCM           direct 31, 138      jobs 36, 143
///   AES-256-GCM           direct 34, 160      jobs 40, 165
///   ChaCha20-Poly1305     direct 242, 609     jobs 148, 502
///   AES-128-CBC, SHA-1    jobs 79, 264        passes 77, 263
///     decrypting          jobs 81, 209        passes 71, 205
///   AES-256-CBC, SHA-256  jobs 100, 418       passes 99, 404
///     decrypting          jobs 83, 355        passes 76, 349
///
/// One GCM packet keeps the processor busy by itself; a job only adds its queue.  (Where the
/// processor can they have a kernel of their own: gcm.h.)  CBC and the hashes are chains: up to 16
/// packets run side by side, across SAs, and two passes need no queue between the two.
constexpr std::array<calls, ipsec::suite_count> table{{
    gcm_with(&IMB_MGR::gcm128_enc, &IMB_MGR::gcm128_dec),
    gcm_with(&IMB_MGR::gcm192_enc, &IMB_MGR::gcm192_dec),
    gcm_with(&IMB_MGR::gcm256_enc, &IMB_MGR::gcm256_dec),
    passes_with(IMB_AUTH_HMAC_SHA_256),
    passes_with(IMB_AUTH_HMAC_SHA_256),
    passes_with(IMB_AUTH_HMAC_SHA_256),
    passes_with(IMB_AUTH_HMAC_SHA_256),
    chacha_by_jobs,
    passes_with(IMB_AUTH_HMAC_SHA_1),
    passes_with(IMB_AUTH_HMAC_SHA_1),
    passes_with(IMB_AUTH_HMAC_SHA_1),
    passes_with(IMB_AUTH_HMAC_SHA_1),
}};

/// Hashes that fill the library's lanes are as fast as they get; those left over, which would wait
/// in lanes that are mostly empty, are run by SHA-NI, one or two at a time.
constexpr std::size_t lane_count = 16;

/// The most left over that SHA-NI runs faster than the lanes, by the mean length of the texts.
struct left_over {
    std::uint32_t text_length; ///< up to this
    std::uint8_t sha256;
    std::uint8_t sha1;
};

/// ns per packet on Zen 4, lanes / SHA-NI:
///
///                  1 job      4 jobs     8 jobs    12 jobs   16 jobs
///   SHA-256   64   611, 115   222,  83   143,  81  114,  80   84,  79
///            256  1148, 232   364, 154   217, 154  159, 151  116, 153
///           1440  4330, 865  1192, 582   623, 571  433, 572  323, 581
///   SHA-1     64   342,  96   147,  68   101,  66   87,  66   62,  65
///            256   612, 197   219, 123   141, 122  108, 123   80, 123
///           1440  2258, 806   636, 469   352, 471  246, 465  182, 464
constexpr left_over left_overs[] = {{64, 15, 15}, {128, 15, 14}, {256, 12, 10},
                                    {512, 10, 6}, {1024, 8, 6},  {~0U, 8, 4}};

/// Up to so many packets are encrypted by the manager for few, in its eight lanes.  ns per packet,
/// AES-128-CBC, sixteen lanes / eight: one packet of 64 bytes 109, 81, eight 36, 31; of 1440 bytes
/// 1213, 1212 and 184, 170.  Nine of 1440 bytes: 166, 289.
constexpr std::size_t few_ciphers = 8;

std::size_t most_left_over(bool sha1, std::uint32_t mean_length) noexcept {
    const left_over* row = left_overs;
    while (mean_length > row->text_length)
        ++row;
    return sha1 ? row->sha1 : row->sha256;
}

const calls& calls_for(ipsec::suite s) noexcept {
    return table[static_cast<unsigned>(s)];
}

/// Which kernel runs AES-GCM, and what there is to say of it.
struct gcm_choice {
    const gcm::kernel* kernel; ///< nullptr: none, the library runs it
    const char* text;
};

gcm_choice choose_gcm_kernel(const engine_options& options) {
    if (!options.gcm_kernel) return {nullptr, "off: it was asked for"};
    if (!gcm::supported())
        return {nullptr, "off: the processor lacks AVX-512 VBMI, VAES or VPCLMULQDQ"};
    if (!gcm::answers_right(gcm::avx512))
        return {nullptr, "off: it gave a wrong answer at the start on this processor"};
    return {&gcm::avx512, "on"};
}

/// Where the four words of an ICV of 12 or 16 bytes are; of the shorter, the last one twice.
///
/// Words are what the library writes its tags in: a wider load soon after would wait for all of
/// them to reach the cache.
constexpr std::array<std::size_t, 4> icv_words(std::size_t length) noexcept {
    return {0, 4, 8, length - 4};
}

std::uint32_t word_at(const std::uint8_t* from) noexcept {
    std::uint32_t word = 0;
    std::memcpy(&word, from, sizeof word);
    return word;
}

void copy_icv(std::uint8_t* to, const std::uint8_t* from, std::size_t length) noexcept {
    for (const std::size_t at : icv_words(length))
        std::memcpy(to + at, from + at, sizeof(std::uint32_t));
}

/// In time that does not depend on the bytes.
bool same_icv(const std::uint8_t* a, const std::uint8_t* b, std::size_t length) noexcept {
    std::uint32_t different = 0;
    for (const std::size_t at : icv_words(length))
        different |= word_at(a + at) ^ word_at(b + at);
    return different == 0;
}

/// Each is stored at once: the library loads it as a whole, which two smaller stores would stall.
struct alignas(16) aead_nonce {
    aead_nonce() = default;
    explicit aead_nonce(const job& j) noexcept {
        const __m128i salt = _mm_cvtsi32_si128(static_cast<int>(j.keys->salt));
        const __m128i iv =
            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(j.esp + esp_header_length));
        _mm_store_si128(&bytes, _mm_or_si128(salt, _mm_slli_si128(iv, sizeof j.keys->salt)));
    }
    __m128i bytes;
};

/// SPI, high half, low half: RFC 4106 section 5, RFC 7634 section 2.1.
struct alignas(16) esn_aad {
    esn_aad() = default;
    explicit esn_aad(const job& j) noexcept {
        const __m128i header = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(j.esp));
        const __m128i high = _mm_cvtsi32_si128(static_cast<int>(seq_high_on_wire(j)));
        _mm_store_si128(&bytes, _mm_unpacklo_epi32(header, high));
    }
    __m128i bytes;
};

/// What a job of the library needs for as long as it runs.
///
/// The library never learns where the packet's ICV is: the tag it writes is compared or copied
/// here, and the packet's own bytes may hold the high half of the sequence number meanwhile.
struct slot {
    alignas(16) std::uint8_t tag[longest_icv];
    alignas(16) std::uint8_t received[longest_icv];
    aead_nonce nonce; ///< of an AEAD, like its AAD
    esn_aad aad;
};

void run_gcm(aes_gcm_enc_dec_t call, const gcm_key_data& keys, gcm_context_data& context,
             const job& j, std::uint8_t* tag) noexcept {
    const aead_nonce nonce(j);
    std::uint8_t* const text = text_of(j);
    const auto* iv = reinterpret_cast<const std::uint8_t*>(&nonce.bytes);
    if (!j.esn) {
        call(&keys, &context, text, text, j.text_length, iv, j.esp, esp_header_length, tag,
             gcm_icv_length);
        return;
    }
    const esn_aad aad(j);
    call(&keys, &context, text, text, j.text_length, iv,
         reinterpret_cast<const std::uint8_t*>(&aad.bytes), esp_header_length + seq_high_length,
         tag, gcm_icv_length);
}

/// What both passes of an HMAC suite read; the rest of the library's job is not looked at.
void describe_pair(IMB_JOB& to, const job& j, slot& scratch) noexcept {
    const auto& keys = *static_cast<const hmac_schedule*>(j.keys);
    to.src = j.esp;
    to.dst = text_of(j);
    to.cipher_start_src_offset_in_bytes = esp_header_length + keys.iv_length;
    to.msg_len_to_cipher_in_bytes = j.text_length;
    to.enc_keys = keys.encrypt;
    to.dec_keys = keys.decrypt;
    to.iv = j.esp + esp_header_length;
    to.hash_start_src_offset_in_bytes = 0;
    to.msg_len_to_hash_in_bytes = covered_length(j) + (j.esn ? seq_high_length : 0);
    to.u.HMAC._hashed_auth_key_xor_ipad = keys.inner;
    to.u.HMAC._hashed_auth_key_xor_opad = keys.outer;
    to.auth_tag_output = scratch.tag;
    to.auth_tag_output_len_in_bytes = keys.icv_length;
}

/// Tells the library everything: jobs are reused and keep what the last user said.
template <direction Direction>
void describe_chacha(IMB_JOB& to, job& j, slot& scratch) noexcept {
    const auto& keys = *static_cast<const chacha_schedule*>(j.keys);
    scratch.nonce = aead_nonce(j);
    scratch.aad = esn_aad(j);
    if constexpr (Direction == direction::encrypt) {
        to.cipher_direction = IMB_DIR_ENCRYPT;
        to.chain_order = IMB_ORDER_CIPHER_HASH;
    } else {
        to.cipher_direction = IMB_DIR_DECRYPT;
        to.chain_order = IMB_ORDER_HASH_CIPHER;
    }
    to.cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
    to.hash_alg = IMB_AUTH_CHACHA20_POLY1305;
    to.key_len_in_bytes = keys.cipher_key_length;
    to.enc_keys = keys.bytes;
    to.dec_keys = keys.bytes;
    to.src = j.esp;
    to.dst = text_of(j);
    to.cipher_start_src_offset_in_bytes = esp_header_length + keys.iv_length;
    to.msg_len_to_cipher_in_bytes = j.text_length;
    to.iv = reinterpret_cast<const std::uint8_t*>(&scratch.nonce);
    to.iv_len_in_bytes = aead_nonce_length;
    to.hash_start_src_offset_in_bytes = esp_header_length + keys.iv_length;
    to.msg_len_to_hash_in_bytes = j.text_length;
    to.u.CHACHA20_POLY1305.aad = j.esn ? static_cast<const void*>(&scratch.aad) : j.esp;
    to.u.CHACHA20_POLY1305.aad_len_in_bytes = esp_header_length + (j.esn ? seq_high_length : 0);
    to.auth_tag_output = scratch.tag;
    to.auth_tag_output_len_in_bytes = keys.icv_length;
    to.user_data = &j;
    to.user_data2 = &scratch;
}

/// Saves what decrypt compares.  For an HMAC the high half of the sequence number then goes after
/// the text (RFC 4303 section 2.2.1), where the ICV is.
template <direction Direction>
void prepare(const job& j, slot& scratch) noexcept {
    if constexpr (Direction == direction::decrypt)
        copy_icv(scratch.received, icv_of(j), j.keys->icv_length);
    if (!j.esn || is_aead(j.keys->run)) return;
    const std::uint32_t high = seq_high_on_wire(j);
    std::memcpy(icv_of(j), &high, seq_high_length);
}

/// Writes the ICV, or says whether the one received was right.
template <direction Direction>
void finish(job& j, const slot& scratch) noexcept {
    const std::size_t length = j.keys->icv_length;
    if constexpr (Direction == direction::encrypt) {
        copy_icv(icv_of(j), scratch.tag, length);
    } else {
        copy_icv(icv_of(j), scratch.received, length);
        j.ok = same_icv(scratch.tag, scratch.received, length);
    }
}

/// Of a job that prepare() has seen and that the library did not do.
template <direction Direction>
void give_up(job& j, const slot& scratch) noexcept {
    if constexpr (Direction == direction::decrypt)
        copy_icv(icv_of(j), scratch.received, j.keys->icv_length);
    refuse<Direction>(j);
}

/// Of a job that was run as a whole.
template <direction Direction>
void finish(const IMB_JOB& done) noexcept {
    job& j = *static_cast<job*>(done.user_data);
    const slot& scratch = *static_cast<const slot*>(done.user_data2);
    if (done.status == IMB_STATUS_COMPLETED) [[likely]]
        finish<Direction>(j, scratch);
    else
        give_up<Direction>(j, scratch);
}

/// Bytes of the key of CBC; 0 where there is nothing to cipher.
std::uint32_t cbc_key_length(const job& j) noexcept {
    return j.text_length == 0 ? 0 : j.keys->cipher_key_length;
}

/// Of a packet that is next: another core, or a device, has written it, and the path has looked at
/// its headers only.
void prefetch(const job& j) noexcept {
    constexpr std::uint32_t line = 64;
    for (std::uint32_t at = line; at < j.text_length; at += line)
        __builtin_prefetch(j.esp + at, 1);
}

/// What the GCM kernel reads of a job's keys: with many SAs they are in no cache.  A fixed count of
/// lines for each of three lengths: a loop that depends on the length costs half as much again.
void prefetch_kernel_keys(const job& j) noexcept {
    constexpr std::size_t line = 64;
    constexpr std::size_t first_lines = 6; ///< eight powers of H, whatever the AES key
    constexpr std::uint32_t text_in_first = 96;
    constexpr std::size_t second_lines = 9; ///< twenty
    constexpr std::uint32_t text_in_second = 288;
    const auto* const start = reinterpret_cast<const std::uint8_t*>(j.keys);
    for (std::size_t i = 1; i < first_lines; ++i)
        __builtin_prefetch(start + i * line);
    if (j.text_length <= text_in_first) return;
    for (std::size_t i = first_lines; i < second_lines; ++i)
        __builtin_prefetch(start + i * line);
    if (j.text_length <= text_in_second) return;
    for (std::size_t i = second_lines; i < sizeof(gcm_schedule::compact) / line + 1; ++i)
        __builtin_prefetch(start + i * line);
}

/// The same for the library, which reads nearly all of its own.
void prefetch_library_keys(const job& j) noexcept {
    constexpr std::size_t line = 64;
    if (!static_cast<const gcm_schedule*>(j.keys)->is_of_library) return;
    const auto& keys = static_cast<const library_gcm_schedule*>(j.keys)->keys;
    const auto* const start = reinterpret_cast<const std::uint8_t*>(&keys);
    for (std::size_t at = 0; at < sizeof(gcm_key_data); at += line)
        __builtin_prefetch(start + at);
}

} // namespace

struct engine::state {
    state(manager best, manager for_few) noexcept
        : library(std::move(best))
        , sha_ni(std::move(for_few)) {}
    ~state() {
        wipe(&gcm, sizeof gcm);
        wipe(&older_keys, sizeof older_keys);
        wipe(slots.data(), sizeof slots);
        wipe(described.data(), sizeof described);
        wipe(iv_keys, sizeof iv_keys);
        wipe(&next_ivs, sizeof next_ivs);
        wipe(ivs.data(), sizeof ivs);
    }
    state(const state&) = delete;
    state& operator=(const state&) = delete;

    [[nodiscard]] result<void> seed_ivs();
    [[nodiscard]] bool make_ivs() noexcept;
    template <direction Direction>
    void run(std::span<job> jobs) noexcept;
    [[nodiscard]] std::size_t kernel_run(std::span<const job> jobs) const noexcept;
    template <direction Direction>
    void run_kernel(std::span<job> jobs) noexcept;
    [[nodiscard]] const gcm_key_data& library_keys(const job& j) noexcept;
    template <direction Direction>
    void run_direct(const calls& suite, job& j) noexcept;
    [[nodiscard]] std::size_t fill_lanes(std::span<job* const> jobs) const noexcept;
    template <direction Direction>
    void run_many(std::span<job*> jobs) noexcept;
    template <direction Direction>
    void run_jobs(std::span<job* const> jobs) noexcept;
    template <direction Direction>
    void run_passes(std::span<job* const> jobs) noexcept;
    template <direction Direction>
    [[nodiscard]] bool run_ciphers(std::span<job* const> jobs) noexcept;
    [[nodiscard]] bool run_hashes(std::span<job* const> jobs) noexcept;
    template <direction Direction>
    void give_up_all(std::span<job* const> jobs) noexcept;
    void forget_older_keys() noexcept;

    manager library;
    manager sha_ni; ///< for few; may be empty
    gcm_choice own{};
    alignas(64) gcm_context_data gcm;
    alignas(64) gcm_key_data older_keys; ///< of a packet whose key was made for the kernel alone
    bool has_older_keys = false;
    std::array<slot, slice_length> slots;
    std::array<IMB_JOB, slice_length> described; ///< for passes
    alignas(16) std::uint8_t iv_keys[11 * 16];
    /// What the counter blocks of a call begin with; the library counts behind it.
    struct iv_counter {
        std::uint64_t calls;
        std::uint32_t nonce;
    } next_ivs;
    alignas(64) std::array<std::array<std::uint8_t, iv_length>, ivs_at_once> ivs;
    std::size_t ivs_left = 0;
};

/// How many jobs, from the first on, the GCM kernel takes at once.
std::size_t engine::state::kernel_run(std::span<const job> jobs) const noexcept {
    const ipsec::suite suite = jobs.front().keys->run;
    if (own.kernel == nullptr || !is_gcm(suite)) return 0;
    std::size_t count = 0;
    const key::schedule* before = nullptr; // one SA's burst fetches its keys once
    while (count < jobs.size() && jobs[count].keys->run == suite) {
        const job& j = jobs[count++];
        prefetch(j);
        if (j.keys != before) prefetch_kernel_keys(j);
        before = j.keys;
    }
    return count;
}

template <direction Direction>
void engine::state::run_kernel(std::span<job> jobs) noexcept {
    if constexpr (Direction == direction::encrypt)
        own.kernel->encrypt(jobs);
    else
        own.kernel->decrypt(jobs);
}

const gcm_key_data& engine::state::library_keys(const job& j) noexcept {
    const auto* const keys = static_cast<const gcm_schedule*>(j.keys);
    if (keys->is_of_library) return static_cast<const library_gcm_schedule*>(keys)->keys;
    // The first round keys of AES are its key.
    expand_library_gcm(library.get(), {keys->compact.bytes, keys->cipher_key_length}, older_keys);
    has_older_keys = true;
    return older_keys;
}

/// The SA may be gone before the next burst.
[[gnu::cold, gnu::noinline]] void engine::state::forget_older_keys() noexcept {
    wipe(&older_keys, sizeof older_keys);
    has_older_keys = false;
}

template <direction Direction>
void engine::state::run_direct(const calls& suite, job& j) noexcept {
    if constexpr (Direction == direction::encrypt) {
        run_gcm(library.get()->*suite.encrypt, library_keys(j), gcm, j, icv_of(j));
    } else {
        alignas(16) std::uint8_t tag[gcm_icv_length];
        run_gcm(library.get()->*suite.decrypt, library_keys(j), gcm, j, tag);
        j.ok = same_icv(tag, icv_of(j), gcm_icv_length);
    }
}

/// How many of `jobs`, which hash alike, go to the library's lanes; the rest goes to SHA-NI.
std::size_t engine::state::fill_lanes(std::span<job* const> jobs) const noexcept {
    if (sha_ni == nullptr || jobs.empty()) return jobs.size();
    if (library->used_arch != IMB_ARCH_AVX512) return 0; // half the lanes: never faster
    std::size_t bytes = 0;
    for (const job* j : jobs)
        bytes += j->text_length;
    const std::size_t left = jobs.size() % lane_count;
    const auto mean = static_cast<std::uint32_t>(bytes / jobs.size());
    return left > most_left_over(hashes_with_sha1(jobs.front()->keys->run), mean)
               ? jobs.size()
               : jobs.size() - left;
}

/// At most slice_length jobs, in any order.  Those that hash alike share the lanes; the order of
/// the suites puts them together.
template <direction Direction>
void engine::state::run_many(std::span<job*> jobs) noexcept {
    const auto suite_of = [](const job* j) { return j->keys->run; };
    if (!std::ranges::is_sorted(jobs, {}, suite_of)) std::ranges::sort(jobs, {}, suite_of);
    while (!jobs.empty()) {
        const calls& suite = calls_for(suite_of(jobs.front()));
        const auto end = std::ranges::find_if(
            jobs, [&](const job* j) { return calls_for(suite_of(j)).hash != suite.hash; });
        const auto part = jobs.first(static_cast<std::size_t>(end - jobs.begin()));
        jobs = jobs.subspan(part.size());
        if (suite.how == manner::passes)
            run_passes<Direction>(part);
        else
            run_jobs<Direction>(part);
    }
}

/// Of ChaCha20-Poly1305.  The library's queue is empty before and after, and holds more than a
/// slice.
template <direction Direction>
void engine::state::run_jobs(std::span<job* const> jobs) noexcept {
    std::array<IMB_JOB*, slice_length> burst;
    const auto count = static_cast<std::uint32_t>(jobs.size());
    for (std::size_t i = 0; i < count; ++i)
        prepare<Direction>(*jobs[i], slots[i]);
    if (IMB_GET_NEXT_BURST(library.get(), count, burst.data()) != count) [[unlikely]]
        return give_up_all<Direction>(jobs);
    for (std::size_t i = 0; i < count; ++i)
        describe_chacha<Direction>(*burst[i], *jobs[i], slots[i]);

    std::uint32_t done = IMB_SUBMIT_BURST_NOCHECK(library.get(), count, burst.data());
    for (std::uint32_t finished = 0;;) {
        for (std::uint32_t i = 0; i < done; ++i)
            finish<Direction>(*burst[i]);
        finished += done;
        if (finished == count) return;
        done = IMB_FLUSH_BURST(library.get(), count - finished, burst.data());
        if (done == 0) [[unlikely]] // its queue is empty
            return give_up_all<Direction>(jobs);
    }
}

/// Where the library did less than it was given: which jobs it left is not known.
template <direction Direction>
[[gnu::cold, gnu::noinline]] void engine::state::give_up_all(std::span<job* const> jobs) noexcept {
    for (std::size_t i = 0; i < jobs.size(); ++i)
        give_up<Direction>(*jobs[i], slots[i]);
}

/// Of suites with an HMAC, which hash alike.
template <direction Direction>
void engine::state::run_passes(std::span<job* const> jobs) noexcept {
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        prepare<Direction>(*jobs[i], slots[i]);
        describe_pair(described[i], *jobs[i], slots[i]);
    }
    bool all_done = false;
    if constexpr (Direction == direction::encrypt)
        all_done = run_ciphers<Direction>(jobs) && run_hashes(jobs);
    else
        all_done = run_hashes(jobs) && run_ciphers<Direction>(jobs);
    if (!all_done) [[unlikely]]
        return give_up_all<Direction>(jobs);
    for (std::size_t i = 0; i < jobs.size(); ++i)
        finish<Direction>(*jobs[i], slots[i]);
}

/// A call for jobs whose keys are of one length, as long as they follow each other.  False: the
/// library did not do them all.
template <direction Direction>
bool engine::state::run_ciphers(std::span<job* const> jobs) noexcept {
    constexpr bool encrypts = Direction == direction::encrypt;
    const bool few = encrypts && sha_ni != nullptr && jobs.size() <= few_ciphers;
    IMB_MGR* const lanes = few ? sha_ni.get() : library.get();
    for (std::size_t at = 0; at < jobs.size();) {
        const std::uint32_t key_length = cbc_key_length(*jobs[at]);
        const std::size_t begin = at++;
        while (at < jobs.size() && cbc_key_length(*jobs[at]) == key_length)
            ++at;
        if (key_length == 0) continue;
        const auto count = static_cast<std::uint32_t>(at - begin);
        const std::uint32_t done =
            IMB_SUBMIT_CIPHER_BURST_NOCHECK(lanes, &described[begin], count, IMB_CIPHER_CBC,
                                            encrypts ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT,
                                            static_cast<IMB_KEY_SIZE_BYTES>(key_length));
        if (done != count) [[unlikely]]
            return false;
    }
    return true;
}

/// False: as of run_ciphers().
bool engine::state::run_hashes(std::span<job* const> jobs) noexcept {
    const IMB_HASH_ALG hash = calls_for(jobs.front()->keys->run).hash;
    const std::size_t in_lanes = fill_lanes(jobs);
    const auto run_with = [&](const manager& by, std::span<IMB_JOB> some) {
        const auto count = static_cast<std::uint32_t>(some.size());
        return count == 0 ||
               IMB_SUBMIT_HASH_BURST_NOCHECK(by.get(), some.data(), count, hash) == count;
    };
    return run_with(library, std::span(described).first(in_lanes)) &&
           run_with(sha_ni, std::span(described).subspan(in_lanes, jobs.size() - in_lanes));
}

template <direction Direction>
void engine::state::run(std::span<job> jobs) noexcept {
    std::array<job*, slice_length> slice;
    std::size_t gathered = 0;
    while (!jobs.empty()) {
        if (const std::size_t count = kernel_run(jobs); count > 0) {
            run_kernel<Direction>(jobs.first(count));
            jobs = jobs.subspan(count);
            continue;
        }
        job& j = jobs.front();
        jobs = jobs.subspan(1);
        const calls& suite = calls_for(j.keys->run);
        if (!jobs.empty()) {
            const job& following = jobs.front();
            prefetch(following);
            if (following.keys != j.keys && is_gcm(following.keys->run))
                prefetch_library_keys(following);
        }
        if (suite.how == manner::direct) {
            run_direct<Direction>(suite, j);
            continue;
        }
        if (!fits(j)) {
            refuse<Direction>(j);
            continue;
        }
        slice[gathered++] = &j;
        if (gathered < slice_length) continue;
        run_many<Direction>(slice);
        gathered = 0;
    }
    run_many<Direction>(std::span(slice).first(gathered));
    if (has_older_keys) [[unlikely]]
        forget_older_keys();
}

result<void> engine::state::seed_ivs() {
    std::array<std::uint8_t, 16> random_key;
    if (::getrandom(random_key.data(), random_key.size(), 0) != sizeof random_key ||
        ::getrandom(&next_ivs, sizeof next_ivs, 0) != sizeof next_ivs)
        return fail_errno("getrandom");
    alignas(16) std::uint8_t unused[sizeof iv_keys];
    IMB_AES_KEYEXP_128(library.get(), random_key.data(), iv_keys, unused);
    wipe(random_key.data(), random_key.size());
    wipe(unused, sizeof unused);
    if (!make_ivs()) return fail(ENOTSUP, "libIPSec_MB refuses AES-CTR: reinstall libipsec-mb1");
    return {};
}

/// AES-CTR over zeros is AES of each counter block: one call of the library for many, since a call
/// takes ten times as long as a block.  False: it refused.
bool engine::state::make_ivs() noexcept {
    constexpr std::size_t block_start = sizeof next_ivs.calls + sizeof next_ivs.nonce;
    std::memset(ivs.data(), 0, sizeof ivs);
    ++next_ivs.calls;
    IMB_JOB all{};
    all.src = all.dst = ivs.front().data();
    all.msg_len_to_cipher_in_bytes = sizeof ivs;
    all.enc_keys = all.dec_keys = iv_keys;
    all.key_len_in_bytes = IMB_KEY_128_BYTES;
    all.iv = reinterpret_cast<const std::uint8_t*>(&next_ivs);
    all.iv_len_in_bytes = block_start;
    ivs_left = ivs.size();
    return IMB_SUBMIT_CIPHER_BURST(library.get(), &all, 1, IMB_CIPHER_CNTR, IMB_DIR_ENCRYPT,
                                   IMB_KEY_128_BYTES) == 1;
}

engine::engine(std::unique_ptr<state> s) noexcept
    : state_(std::move(s)) {}
engine::~engine() = default;

result<std::unique_ptr<engine>> engine::make(engine_options options) {
    result<manager> library = make_manager();
    if (!library) return tl::unexpected(library.error());
    result<manager> sha_ni = make_sha_ni_manager();
    if (!sha_ni) return tl::unexpected(sha_ni.error());
    auto inside = std::make_unique<state>(std::move(*library), std::move(*sha_ni));
    if (auto seeded = inside->seed_ivs(); !seeded) return tl::unexpected(seeded.error());
    std::unique_ptr<engine> made(new engine(std::move(inside)));
    if (auto right = power_up_test(*made, "intel-ipsec-mb", "libipsec-mb1"); !right)
        return tl::unexpected(right.error());
    made->state_->own = choose_gcm_kernel(options); // last: the library was asked alone
    if (made->state_->own.kernel == nullptr) gcm::want_library_keys();
    return made;
}

void engine::encrypt(std::span<job> jobs) noexcept {
    state_->run<direction::encrypt>(jobs);
}

void engine::decrypt(std::span<job> jobs) noexcept {
    state_->run<direction::decrypt>(jobs);
}

void engine::unpredictable_iv(std::uint8_t* into, std::size_t length) noexcept {
    assert(length <= iv_length);
    // The same call has been answered at the start: it is not refused here.
    if (state_->ivs_left == 0) (void)state_->make_ivs();
    const auto& iv = state_->ivs[--state_->ivs_left];
    if (length == iv_length) [[likely]]
        std::memcpy(into, iv.data(), iv_length);
    else
        std::memcpy(into, iv.data(), length);
}

const char* engine::architecture() const noexcept {
    switch (state_->library->used_arch) {
    case IMB_ARCH_SSE:
        return "SSE";
    case IMB_ARCH_AVX:
        return "AVX";
    case IMB_ARCH_AVX2:
        return "AVX2";
    case IMB_ARCH_AVX512:
        return "AVX512";
    default:
        return "unknown";
    }
}

const char* engine::gcm_kernel() const noexcept {
    return state_->own.text;
}

} // namespace esplane::crypto

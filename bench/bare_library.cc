// SPDX-License-Identifier: Apache-2.0
//
// intel-ipsec-mb by its fastest call: GCM directly, a packet at a time; ChaCha20-Poly1305 as bursts
// of jobs; CBC with an HMAC in two passes over a burst, the ciphers and the hashes.  Lanes fill
// across SAs, and are flushed burst by burst as a polled loop has to.
#include <array>
#include <cstring>

#include <intel-ipsec-mb.h>

#include "bench/esp_judge.h"
#include "lib/wire/headers.h"

namespace esplane::bench {

namespace {

constexpr std::size_t header = sizeof(wire::esp_header);
constexpr unsigned burst = 32;
constexpr std::size_t nonce_length = 12;

struct manager {
    manager()
        : mb(alloc_mb_mgr(0)) {
        init_mb_mgr_auto(mb, nullptr);
    }
    ~manager() { free_mb_mgr(mb); }
    manager(const manager&) = delete;
    manager& operator=(const manager&) = delete;
    IMB_MGR* mb;
};

/// Packets of a chunk, and what a call leaves for each: the ICV it found.
struct work {
    std::uint8_t* esp;
    std::uint32_t text;
    std::uint32_t sa;
    alignas(16) std::uint8_t nonce[16];
    alignas(16) std::uint8_t icv[32];
};

class mb_contender : public contender {
  public:
    explicit mb_contender(std::shared_ptr<const traffic> packets)
        : contender(std::move(packets))
        , memory_(of().pool())
        , work_(of().pool()) {}

  protected:
    void prepare() override {
        const suite_choice& s = *of().suite;
        for (unsigned i = 0; i < of().pool(); ++i) {
            const unsigned n = nth(i);
            const std::span<const std::uint8_t> inner = packets().inner(n);
            work& w = work_[i];
            w.esp = memory_.at(i);
            w.sa = packets().sa_of(n);
            w.text = text_length(s, static_cast<std::uint32_t>(inner.size()));
            if (of().outbound)
                lay_out(s, w.sa, ++sequence_, inner, w.esp);
            else
                copy_esp(packets().sealed(n), w.esp);
            if (s.is_aead()) {
                std::memcpy(w.nonce, salt(w.sa), 4);
                std::memcpy(w.nonce + 4, w.esp + header, nonce_length - 4);
            }
        }
    }
    [[nodiscard]] bytes output(unsigned i) const override {
        const suite_choice& s = *of().suite;
        const work& w = work_[i];
        std::uint8_t* const icv = w.esp + header + s.iv + w.text;
        if (of().outbound)
            std::memcpy(icv, w.icv, s.icv);
        else if (std::memcmp(icv, w.icv, s.icv) != 0)
            return {};
        return esp_or_inner(packets(), nth(i), w.esp);
    }
    [[nodiscard]] virtual const std::uint8_t* salt(std::uint32_t sa) const noexcept = 0;

    packet_memory memory_;
    std::vector<work> work_;
    manager manager_;
    std::uint32_t sequence_ = 0;
};

class gcm_contender final : public mb_contender {
  public:
    explicit gcm_contender(std::shared_ptr<const traffic> packets)
        : mb_contender(std::move(packets))
        , memory_of_keys_(of().sas * sizeof(gcm_key_data))
        , keys_(reinterpret_cast<gcm_key_data*>(memory_of_keys_.data()))
        , salts_(of().sas) {
        IMB_MGR* const mb = manager_.mb;
        const bool small = of().suite->cipher_key == 16;
        for (std::uint32_t n = 0; n < of().sas; ++n) {
            const bytes key = cipher_key(*of().suite, n);
            if (small)
                IMB_AES128_GCM_PRE(mb, key.data(), &keys_[n]);
            else
                IMB_AES256_GCM_PRE(mb, key.data(), &keys_[n]);
            std::memcpy(salts_[n].data(), key.data() + of().suite->cipher_key, 4);
        }
        call_ = of().outbound ? (small ? mb->gcm128_enc : mb->gcm256_enc)
                              : (small ? mb->gcm128_dec : mb->gcm256_dec);
    }

  protected:
    void run() noexcept override {
        for (work& w : work_) {
            std::uint8_t* const text = w.esp + header + 8;
            call_(&keys_[w.sa], &context_, text, text, w.text, w.nonce, w.esp, header, w.icv, 16);
        }
    }
    [[nodiscard]] const std::uint8_t* salt(std::uint32_t sa) const noexcept override {
        return salts_[sa].data();
    }

  private:
    large_memory memory_of_keys_;
    gcm_key_data* keys_;
    std::vector<std::array<std::uint8_t, 4>> salts_;
    gcm_context_data context_{};
    aes_gcm_enc_dec_t call_;
};

/// Keys of the suites that go by jobs.
struct job_keys {
    alignas(16) std::uint8_t encrypt[15 * 16];
    alignas(16) std::uint8_t decrypt[15 * 16];
    alignas(16) std::uint8_t inner[32];
    alignas(16) std::uint8_t outer[32];
    std::uint8_t chacha[32];
    std::uint8_t salt[4];
};

class job_contender final : public mb_contender {
  public:
    explicit job_contender(std::shared_ptr<const traffic> packets)
        : mb_contender(std::move(packets))
        , keys_(of().sas) {
        for (std::uint32_t n = 0; n < of().sas; ++n)
            expand(n);
    }

  protected:
    void run() noexcept override {
        for (unsigned at = 0; at < work_.size(); at += burst)
            run_burst(std::span(work_).subspan(at, burst));
    }
    [[nodiscard]] const std::uint8_t* salt(std::uint32_t sa) const noexcept override {
        return keys_[sa].salt;
    }

  private:
    void expand(std::uint32_t n) {
        const suite_choice& s = *of().suite;
        const bytes key = cipher_key(s, n);
        job_keys& k = keys_[n];
        if (s.chacha()) {
            std::memcpy(k.chacha, key.data(), sizeof k.chacha);
            std::memcpy(k.salt, key.data() + s.cipher_key, sizeof k.salt);
            return;
        }
        if (s.cipher_key == 16)
            IMB_AES_KEYEXP_128(manager_.mb, key.data(), k.encrypt, k.decrypt);
        else
            IMB_AES_KEYEXP_256(manager_.mb, key.data(), k.encrypt, k.decrypt);
        hash_block(auth_key(s, n), 0x36, k.inner);
        hash_block(auth_key(s, n), 0x5c, k.outer);
    }
    void hash_block(const bytes& key, std::uint8_t pad, std::uint8_t* state) {
        std::uint8_t block[64];
        std::memset(block, pad, sizeof block);
        for (std::size_t i = 0; i < key.size(); ++i)
            block[i] ^= key[i];
        if (is_sha1())
            IMB_SHA1_ONE_BLOCK(manager_.mb, block, state);
        else
            IMB_SHA256_ONE_BLOCK(manager_.mb, block, state);
    }
    [[nodiscard]] bool is_sha1() const noexcept { return of().suite->auth_key == 20; }

    void run_burst(std::span<work> some) noexcept {
        if (of().suite->chacha())
            run_jobs(some);
        else
            run_passes(some);
    }
    void run_passes(std::span<work> some) noexcept {
        const auto count = static_cast<std::uint32_t>(some.size());
        for (std::uint32_t i = 0; i < count; ++i)
            describe(passes_[i], some[i]);
        if (of().outbound) run_ciphers(count, IMB_DIR_ENCRYPT);
        IMB_SUBMIT_HASH_BURST_NOCHECK(manager_.mb, passes_.data(), count,
                                      is_sha1() ? IMB_AUTH_HMAC_SHA_1 : IMB_AUTH_HMAC_SHA_256);
        if (!of().outbound) run_ciphers(count, IMB_DIR_DECRYPT);
    }
    void run_ciphers(std::uint32_t count, IMB_CIPHER_DIRECTION way) noexcept {
        IMB_SUBMIT_CIPHER_BURST_NOCHECK(manager_.mb, passes_.data(), count, IMB_CIPHER_CBC, way,
                                        static_cast<IMB_KEY_SIZE_BYTES>(of().suite->cipher_key));
    }
    void run_jobs(std::span<work> some) noexcept {
        std::array<IMB_JOB*, burst> jobs;
        const auto count = static_cast<std::uint32_t>(some.size());
        IMB_GET_NEXT_BURST(manager_.mb, count, jobs.data());
        for (std::uint32_t i = 0; i < count; ++i)
            describe(*jobs[i], some[i]);
        std::uint32_t done = IMB_SUBMIT_BURST_NOCHECK(manager_.mb, count, jobs.data());
        while (done < count)
            done += IMB_FLUSH_BURST(manager_.mb, count - done, jobs.data());
    }
    void describe(IMB_JOB& j, work& w) noexcept {
        const suite_choice& s = *of().suite;
        const job_keys& k = keys_[w.sa];
        j.cipher_direction = of().outbound ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT;
        j.chain_order = of().outbound ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
        j.src = w.esp;
        j.dst = w.esp + header + s.iv;
        j.cipher_start_src_offset_in_bytes = header + s.iv;
        j.msg_len_to_cipher_in_bytes = w.text;
        j.key_len_in_bytes = s.cipher_key;
        j.auth_tag_output = w.icv;
        j.auth_tag_output_len_in_bytes = s.icv;
        if (s.chacha()) {
            j.cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
            j.hash_alg = IMB_AUTH_CHACHA20_POLY1305;
            j.enc_keys = j.dec_keys = k.chacha;
            j.iv = w.nonce;
            j.iv_len_in_bytes = nonce_length;
            j.hash_start_src_offset_in_bytes = header + s.iv;
            j.msg_len_to_hash_in_bytes = w.text;
            j.u.CHACHA20_POLY1305.aad = w.esp;
            j.u.CHACHA20_POLY1305.aad_len_in_bytes = header;
            return;
        }
        j.cipher_mode = IMB_CIPHER_CBC;
        j.hash_alg = is_sha1() ? IMB_AUTH_HMAC_SHA_1 : IMB_AUTH_HMAC_SHA_256;
        j.enc_keys = k.encrypt;
        j.dec_keys = k.decrypt;
        j.iv = w.esp + header;
        j.iv_len_in_bytes = s.iv;
        j.hash_start_src_offset_in_bytes = 0;
        j.msg_len_to_hash_in_bytes = header + s.iv + w.text;
        j.u.HMAC._hashed_auth_key_xor_ipad = k.inner;
        j.u.HMAC._hashed_auth_key_xor_opad = k.outer;
    }

    std::vector<job_keys> keys_;
    std::array<IMB_JOB, burst> passes_{};
};

} // namespace

std::unique_ptr<contender> bare_library(std::shared_ptr<const traffic> packets) {
    if (packets->of().suite->is_gcm()) return std::make_unique<gcm_contender>(std::move(packets));
    return std::make_unique<job_contender>(std::move(packets));
}

} // namespace esplane::bench

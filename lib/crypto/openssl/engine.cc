// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/openssl/engine.h"

#include <array>
#include <cassert>
#include <cstring>
#include <string>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sys/random.h>

#include "lib/base/secret.h"
#include "lib/crypto/esp_job.h"
#include "lib/crypto/openssl/schedule.h"

namespace esplane::crypto::openssl {
namespace {

constexpr int aead_icv_length = 16;

struct context_deleter {
    void operator()(EVP_CIPHER_CTX* c) const noexcept { EVP_CIPHER_CTX_free(c); }
};
using cipher_context = std::unique_ptr<EVP_CIPHER_CTX, context_deleter>;

tl::unexpected<error> lacking(const std::string& algorithm) {
    return fail(ENOTSUP, "OpenSSL gives no " + algorithm +
                             ": does its configuration load the default provider?");
}

/// nullptr where the suite encrypts nothing.
const EVP_CIPHER* cipher_of(ipsec::suite s) noexcept {
    switch (s) {
    case ipsec::suite::aes128_gcm16:
        return EVP_aes_128_gcm();
    case ipsec::suite::aes192_gcm16:
        return EVP_aes_192_gcm();
    case ipsec::suite::aes256_gcm16:
        return EVP_aes_256_gcm();
    case ipsec::suite::chacha20_poly1305:
        return EVP_chacha20_poly1305();
    case ipsec::suite::aes128_cbc_sha256_128:
    case ipsec::suite::aes128_cbc_sha1_96:
        return EVP_aes_128_cbc();
    case ipsec::suite::aes192_cbc_sha256_128:
    case ipsec::suite::aes192_cbc_sha1_96:
        return EVP_aes_192_cbc();
    case ipsec::suite::aes256_cbc_sha256_128:
    case ipsec::suite::aes256_cbc_sha1_96:
        return EVP_aes_256_cbc();
    case ipsec::suite::null_sha256_128:
    case ipsec::suite::null_sha1_96:
        return nullptr;
    }
    return nullptr;
}

bool update(EVP_CIPHER_CTX* c, std::uint8_t* out, const std::uint8_t* in,
            std::size_t length) noexcept {
    int written = 0;
    return length == 0 || EVP_CipherUpdate(c, out, &written, in, static_cast<int>(length)) == 1;
}

/// A suite's cipher in one direction.
class keyed_cipher {
  public:
    [[nodiscard]] result<void> open(ipsec::suite s, direction d) {
        const EVP_CIPHER* const cipher = cipher_of(s);
        if (cipher == nullptr) return {};
        context_.reset(EVP_CIPHER_CTX_new());
        if (context_ == nullptr) return fail(ENOMEM);
        if (EVP_CipherInit_ex(context_.get(), cipher, nullptr, no_key, nullptr,
                              d == direction::encrypt ? 1 : 0) != 1 ||
            EVP_CIPHER_CTX_set_padding(context_.get(), 0) != 1)
            return lacking(std::string(ipsec::name_of(s)));
        return {};
    }

    /// Takes the keys, unless it has them, and the IV of a packet.  nullptr: OpenSSL refused.
    [[nodiscard]] EVP_CIPHER_CTX* begin(const schedule& keys, const std::uint8_t* iv) noexcept {
        const std::uint8_t* const new_key = keys_ == &keys ? nullptr : keys.cipher_key;
        keys_ = &keys;
        if (EVP_CipherInit_ex(context_.get(), nullptr, nullptr, new_key, iv, as_before) == 1)
            return context_.get();
        forget();
        return nullptr;
    }

    /// Overwrites the keys that it has.
    void forget() noexcept {
        if (keys_ == nullptr) return;
        (void)EVP_CipherInit_ex(context_.get(), nullptr, nullptr, no_key, nullptr, as_before);
        keys_ = nullptr;
    }

  private:
    static constexpr int as_before = -1; ///< the direction
    static constexpr std::uint8_t no_key[schedule::longest_cipher_key] = {};

    cipher_context context_;
    const schedule* keys_ = nullptr; ///< whose key the context has; only within a call
};

using ciphers = std::array<keyed_cipher, ipsec::suite_count>;

/// What an AEAD needs beside text and tag: RFC 4106 sections 4 and 5, RFC 7634 section 2.
struct aead_start {
    explicit aead_start(const job& j) noexcept
        : aad_length(esp_header_length + (j.esn ? seq_high_length : 0)) {
        std::memcpy(nonce, &j.keys->salt, sizeof j.keys->salt);
        std::memcpy(nonce + sizeof j.keys->salt, j.esp + esp_header_length, j.keys->iv_length);
        constexpr std::size_t spi_length = 4;
        const std::uint32_t high = seq_high_on_wire(j);
        std::uint8_t* at = aad;
        std::memcpy(at, j.esp, spi_length);
        at += spi_length;
        if (j.esn) {
            std::memcpy(at, &high, sizeof high);
            at += sizeof high;
        }
        std::memcpy(at, j.esp + spi_length, esp_header_length - spi_length);
    }
    std::uint8_t nonce[aead_nonce_length];
    std::uint8_t aad[esp_header_length + seq_high_length];
    std::size_t aad_length;
};

const schedule& keys_of(const job& j) noexcept {
    return *static_cast<const schedule*>(j.keys);
}

template <direction Direction>
bool run_aead(keyed_cipher& cipher, const job& j) noexcept {
    const aead_start start(j);
    EVP_CIPHER_CTX* const c = cipher.begin(keys_of(j), start.nonce);
    if (c == nullptr) return false;
    if constexpr (Direction == direction::decrypt)
        if (EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, aead_icv_length, icv_of(j)) != 1)
            return false;
    // The last call of decryption compares the tags: OpenSSL does so in constant time.
    std::uint8_t none[1];
    int written = 0;
    if (!update(c, nullptr, start.aad, start.aad_length) ||
        !update(c, text_of(j), text_of(j), j.text_length) ||
        EVP_CipherFinal_ex(c, none, &written) != 1)
        return false;
    return Direction == direction::decrypt ||
           EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, aead_icv_length, icv_of(j)) == 1;
}

/// CBC or nothing.
bool run_cipher(keyed_cipher& cipher, const job& j) noexcept {
    if (j.keys->cipher_key_length == 0) return true;
    EVP_CIPHER_CTX* const c = cipher.begin(keys_of(j), j.esp + esp_header_length);
    return c != nullptr && update(c, text_of(j), text_of(j), j.text_length);
}

using bytes = std::span<const std::uint8_t>;

/// Calls `use` with the ICV of a job that has an HMAC: RFC 4303 section 2.8, and with ESN 2.2.1.
template <typename Use>
bool with_icv(const job& j, Use use) noexcept {
    const schedule& keys = keys_of(j);
    const std::uint32_t high = seq_high_on_wire(j);
    const bytes covered(j.esp, covered_length(j));
    const bytes more(reinterpret_cast<const std::uint8_t*>(&high), j.esn ? sizeof high : 0);
    return hashes_with_sha1(keys.run) ? use(keys.with_sha1.of(covered, more).data())
                                      : use(keys.with_sha256.of(covered, more).data());
}

template <direction Direction>
bool run_pair(keyed_cipher& cipher, const job& j) noexcept {
    const std::size_t length = j.keys->icv_length;
    const auto write = [&](const std::uint8_t* icv) {
        std::memcpy(icv_of(j), icv, length);
        return true;
    };
    const auto compare = [&](const std::uint8_t* icv) { // in constant time
        return CRYPTO_memcmp(icv, icv_of(j), length) == 0;
    };
    if constexpr (Direction == direction::encrypt)
        return run_cipher(cipher, j) && with_icv(j, write);
    else
        return with_icv(j, compare) && run_cipher(cipher, j);
}

} // namespace

struct engine::state {
    state() = default;
    ~state() { wipe(&iv_counter, sizeof iv_counter); }
    state(const state&) = delete;
    state& operator=(const state&) = delete;

    [[nodiscard]] result<void> open();
    [[nodiscard]] result<void> seed_ivs();
    template <direction Direction>
    void run(ciphers& with, std::span<job> jobs) noexcept;

    ciphers encrypting;
    ciphers decrypting;
    cipher_context iv_cipher; ///< AES under a random key
    struct {
        std::uint64_t count;
        std::uint64_t nonce;
    } iv_counter{};
    static_assert(sizeof iv_counter == aes_block_length);
};

result<void> engine::state::open() {
    for (unsigned i = 0; i < ipsec::suite_count; ++i) {
        const auto s = static_cast<ipsec::suite>(i);
        if (auto made = encrypting[i].open(s, direction::encrypt); !made) return made;
        if (auto made = decrypting[i].open(s, direction::decrypt); !made) return made;
    }
    return seed_ivs();
}

result<void> engine::state::seed_ivs() {
    std::array<std::uint8_t, 16> random_key;
    if (::getrandom(random_key.data(), random_key.size(), 0) != sizeof random_key ||
        ::getrandom(&iv_counter, sizeof iv_counter, 0) != sizeof iv_counter)
        return fail_errno("getrandom");
    iv_cipher.reset(EVP_CIPHER_CTX_new());
    const bool keyed = iv_cipher != nullptr &&
                       EVP_EncryptInit_ex(iv_cipher.get(), EVP_aes_128_ecb(), nullptr,
                                          random_key.data(), nullptr) == 1 &&
                       EVP_CIPHER_CTX_set_padding(iv_cipher.get(), 0) == 1;
    wipe(random_key.data(), random_key.size());
    if (!keyed) return lacking("AES-128-ECB");
    return {};
}

template <direction Direction>
void engine::state::run(ciphers& with, std::span<job> jobs) noexcept {
    for (job& j : jobs) {
        const ipsec::suite s = j.keys->run;
        keyed_cipher& cipher = with[static_cast<unsigned>(s)];
        const bool taken = is_gcm(s) || fits(j);
        j.ok =
            taken && (is_aead(s) ? run_aead<Direction>(cipher, j) : run_pair<Direction>(cipher, j));
        if (!j.ok) refuse<Direction>(j);
    }
    for (keyed_cipher& cipher : with)
        cipher.forget();
}

engine::engine(std::unique_ptr<state> s) noexcept
    : state_(std::move(s)) {}
engine::~engine() = default;

result<std::unique_ptr<engine>> engine::make() {
    auto inside = std::make_unique<state>();
    if (auto made = inside->open(); !made) return tl::unexpected(made.error());
    return std::unique_ptr<engine>(new engine(std::move(inside)));
}

void engine::encrypt(std::span<job> jobs) noexcept {
    state_->run<direction::encrypt>(state_->encrypting, jobs);
}

void engine::decrypt(std::span<job> jobs) noexcept {
    state_->run<direction::decrypt>(state_->decrypting, jobs);
}

void engine::unpredictable_iv(std::uint8_t* into, std::size_t length) noexcept {
    assert(length <= aes_block_length);
    std::uint8_t block[aes_block_length];
    ++state_->iv_counter.count;
    [[maybe_unused]] const bool made =
        update(state_->iv_cipher.get(), block,
               reinterpret_cast<const std::uint8_t*>(&state_->iv_counter), sizeof block);
    assert(made); // whole blocks under a key that is there: nothing is left to fail
    std::memcpy(into, block, length);
}

} // namespace esplane::crypto::openssl

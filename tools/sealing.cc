// SPDX-License-Identifier: Apache-2.0
#include "tools/sealing.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fcntl.h>
#include <stdexcept>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "lib/base/unique_fd.h"

namespace esplane::tools {

namespace {

constexpr std::size_t key_length = 32;
constexpr int tag_length = 16;
constexpr const char* credential = "esplane.state-key";

void must(int done) {
    if (done != 1) throw std::runtime_error("OpenSSL: AES-256-GCM failed");
}

struct free_context {
    void operator()(EVP_CIPHER_CTX* c) const { EVP_CIPHER_CTX_free(c); }
};

std::array<std::uint8_t, 12> nonce_of(std::uint64_t index) {
    std::array<std::uint8_t, 12> nonce{};
    for (std::size_t i = 0; i < sizeof index; ++i)
        nonce[i] = static_cast<std::uint8_t>(index >> (8 * i));
    return nonce;
}

class gcm_seal final : public control::journal_seal {
  public:
    explicit gcm_seal(secret key)
        : key_(std::move(key))
        , context_(EVP_CIPHER_CTX_new()) {
        if (!context_) throw std::runtime_error("OpenSSL: no memory");
    }

    void seal(std::uint64_t index, std::vector<std::uint8_t>& record) override {
        const int length = static_cast<int>(record.size());
        record.resize(record.size() + tag_length);
        begin(index, true);
        int done = 0;
        must(EVP_EncryptUpdate(context_.get(), record.data(), &done, record.data(), length));
        must(EVP_EncryptFinal_ex(context_.get(), record.data() + done, &done));
        must(EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_GCM_GET_TAG, tag_length,
                                 record.data() + length));
    }

    bool open(std::uint64_t index, std::vector<std::uint8_t>& record) override {
        if (record.size() < tag_length) return false;
        const auto length = static_cast<int>(record.size()) - tag_length;
        begin(index, false);
        int done = 0;
        must(EVP_DecryptUpdate(context_.get(), record.data(), &done, record.data(), length));
        must(EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_GCM_SET_TAG, tag_length,
                                 record.data() + length));
        if (EVP_DecryptFinal_ex(context_.get(), record.data() + done, &done) != 1) return false;
        record.resize(static_cast<std::size_t>(length));
        return true;
    }

  private:
    void begin(std::uint64_t index, bool encrypt) {
        must(EVP_CipherInit_ex(context_.get(), EVP_aes_256_gcm(), nullptr, key_.bytes().data(),
                               nonce_of(index).data(), encrypt ? 1 : 0));
    }

    secret key_;
    std::unique_ptr<EVP_CIPHER_CTX, free_context> context_;
};

int hex_digit(std::uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/// Empty where it is none.
secret key_of_hex(std::span<const std::uint8_t> text) {
    std::array<std::uint8_t, key_length> bytes{};
    bool good = text.size() == 2 * key_length;
    for (std::size_t i = 0; good && i < key_length; ++i) {
        const int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        good = high >= 0 && low >= 0;
        bytes[i] = static_cast<std::uint8_t>(high * 16 + low);
    }
    secret key = good ? secret(bytes) : secret();
    wipe(bytes.data(), bytes.size());
    return key;
}

result<unique_fd> open_key(const std::string& path) {
    unique_fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) return fail_errno("--state-key " + path);
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return fail_errno("--state-key " + path);
    if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return fail(EACCES, "--state-key " + path + ": others may read it: chmod 600");
    return fd;
}

} // namespace

std::string state_key_path(const std::string& path) {
    if (!path.empty()) return path;
    const char* const directory = std::getenv("CREDENTIALS_DIRECTORY");
    if (directory == nullptr) return {};
    const std::string given = std::string(directory) + "/" + credential;
    return ::access(given.c_str(), F_OK) == 0 ? given : std::string();
}

result<secret> read_state_key(const std::string& path) {
    const auto fd = open_key(path);
    if (!fd) return tl::unexpected(fd.error());
    std::array<std::uint8_t, 128> buffer;
    const ssize_t n = ::read(fd->get(), buffer.data(), buffer.size());
    if (n < 0) return fail_errno("--state-key " + path);
    std::span<const std::uint8_t> text(buffer.data(), static_cast<std::size_t>(n));
    secret key;
    if (text.size() == key_length)
        key = secret(text);
    else {
        while (!text.empty() && (text.back() == '\n' || text.back() == '\r'))
            text = text.first(text.size() - 1);
        key = key_of_hex(text);
    }
    wipe(buffer.data(), buffer.size());
    if (!key.empty()) return key;
    return fail(EINVAL, "--state-key " + path +
                            ": give 32 bytes or 64 hexadecimal digits (openssl rand -hex 32)");
}

std::unique_ptr<control::journal_seal> make_seal(const secret& key,
                                                 const control::journal_session& session) {
    const auto what = control::payload_of(session);
    std::array<std::uint8_t, key_length> derived{};
    unsigned length = 0;
    if (HMAC(EVP_sha256(), key.bytes().data(), static_cast<int>(key.size()), what.data(),
             what.size(), derived.data(), &length) == nullptr)
        throw std::runtime_error("OpenSSL: HMAC-SHA256 failed");
    secret own(derived);
    wipe(derived.data(), derived.size());
    return std::make_unique<gcm_seal>(std::move(own));
}

} // namespace esplane::tools

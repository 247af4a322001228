// SPDX-License-Identifier: Apache-2.0
//
// crypto::engine over OpenSSL: openssl/engine.cc does the work.
#include "lib/crypto/engine.h"
#include "lib/crypto/openssl/engine.h"
#include "lib/crypto/power_up.h"

namespace esplane::crypto {

struct engine::state {
    std::unique_ptr<openssl::engine> inside;
};

engine::engine(std::unique_ptr<state> s) noexcept
    : state_(std::move(s)) {}
engine::~engine() = default;

result<std::unique_ptr<engine>> engine::make(engine_options) {
    auto inside = openssl::engine::make();
    if (!inside) return tl::unexpected(inside.error());
    std::unique_ptr<engine> made(new engine(std::unique_ptr<state>(new state{std::move(*inside)})));
    if (auto right = power_up_test(*made, "OpenSSL", "libssl3"); !right)
        return tl::unexpected(right.error());
    return made;
}

void engine::encrypt(std::span<job> jobs) noexcept {
    state_->inside->encrypt(jobs);
}

void engine::decrypt(std::span<job> jobs) noexcept {
    state_->inside->decrypt(jobs);
}

void engine::unpredictable_iv(std::uint8_t* into, std::size_t length) noexcept {
    state_->inside->unpredictable_iv(into, length);
}

const char* engine::architecture() const noexcept {
    return "OpenSSL";
}

const char* engine::gcm_kernel() const noexcept {
    return "off: built with OpenSSL in place of intel-ipsec-mb";
}

} // namespace esplane::crypto

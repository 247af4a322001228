// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/fingerprint.h"

#include <algorithm>
#include <vector>

#include "lib/crypto/library.h"

namespace esplane::crypto {

struct fingerprinter::state {
    manager library;
    std::array<std::uint8_t, 32> prefix{};

    ~state() { wipe(prefix.data(), prefix.size()); }
};

result<std::unique_ptr<fingerprinter>>
fingerprinter::make(std::span<const std::uint8_t, 32> prefix) {
    auto library = make_manager();
    if (!library) return tl::unexpected(library.error());
    auto s = std::make_unique<state>();
    s->library = std::move(*library);
    std::copy(prefix.begin(), prefix.end(), s->prefix.begin());
    return std::unique_ptr<fingerprinter>(new fingerprinter(std::move(s)));
}

fingerprinter::fingerprinter(std::unique_ptr<state> s) noexcept
    : state_(std::move(s)) {}
fingerprinter::~fingerprinter() = default;

auto fingerprinter::of(const secret& key) const -> value {
    std::vector<std::uint8_t> message(state_->prefix.size() + key.size());
    const auto after = std::copy(state_->prefix.begin(), state_->prefix.end(), message.begin());
    std::copy(key.bytes().begin(), key.bytes().end(), after);
    std::array<std::uint8_t, 32> digest;
    IMB_SHA256(state_->library.get(), message.data(), message.size(), digest.data());
    wipe(message.data(), message.size());
    value v;
    std::copy_n(digest.begin(), v.size(), v.begin());
    return v;
}

} // namespace esplane::crypto

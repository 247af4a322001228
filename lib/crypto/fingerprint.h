// SPDX-License-Identifier: Apache-2.0
//
// Recognises a key again without keeping it.
//
// A fingerprint is SHA-256 over a random prefix of this process and the key, cut to 16 bytes: it
// says nothing of the key to who lacks the prefix, and little to who has it.
// Threads: any, one call at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "lib/base/result.h"
#include "lib/base/secret.h"

namespace esplane::crypto {

class fingerprinter {
  public:
    using value = std::array<std::uint8_t, 16>;

    /// prefix   32 random bytes.  Errors: as engine::make().
    [[nodiscard]] static result<std::unique_ptr<fingerprinter>>
    make(std::span<const std::uint8_t, 32> prefix);
    ~fingerprinter();
    fingerprinter(const fingerprinter&) = delete;
    fingerprinter& operator=(const fingerprinter&) = delete;

    [[nodiscard]] value of(const secret& key) const;

  private:
    struct state;
    explicit fingerprinter(std::unique_ptr<state> s) noexcept;
    std::unique_ptr<state> state_;
};

} // namespace esplane::crypto

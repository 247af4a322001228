// SPDX-License-Identifier: Apache-2.0
//
// ESP's cryptography by OpenSSL, a packet at a time.
//
// It is crypto::engine in a build without intel-ipsec-mb (engine_openssl.cc), and what a test holds
// the other against in a build with it: hence a class of its own, whose jobs have schedules that
// openssl::expand() made.
//
// Contexts are made with the engine, one for each cipher and direction, and given a new key when
// the SA of their packets changes; OpenSSL allocates nothing for that.  At the end of a call they
// get a key of zeros: keys that an SA no longer has are nowhere in the engine.
// Threads: an engine belongs to one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "lib/base/result.h"
#include "lib/crypto/engine.h"

namespace esplane::crypto::openssl {

class engine {
  public:
    /// Errors: ENOTSUP where OpenSSL has not all ciphers; ENOMEM.
    [[nodiscard]] static result<std::unique_ptr<engine>> make();
    ~engine();
    engine(const engine&) = delete;
    engine& operator=(const engine&) = delete;

    /// These three as crypto::engine's.
    void encrypt(std::span<job> jobs) noexcept;
    void decrypt(std::span<job> jobs) noexcept;
    void unpredictable_iv(std::uint8_t* into, std::size_t length) noexcept;

  private:
    struct state;
    explicit engine(std::unique_ptr<state> s) noexcept;
    std::unique_ptr<state> state_;
};

} // namespace esplane::crypto::openssl

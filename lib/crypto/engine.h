// SPDX-License-Identifier: Apache-2.0
//
// ESP's cryptography in bursts: over intel-ipsec-mb, or over OpenSSL where the build has chosen it.
//
// An engine belongs to one thread.  Keys are immutable once made and may be shared by engines and
// by both directions.  One table in engine_ipsec_mb.cc says which call of that library each suite
// takes; OpenSSL's is an engine for any processor, and the one that the other is held against.
// Does not: check sequence numbers, pad, build headers (fastpath does).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "lib/base/result.h"
#include "lib/ipsec/algorithm.h"

namespace esplane::crypto {

/// The expanded keys of one SA.  Wiped when destroyed.
class key {
  public:
    /// `a` has been through ipsec::resolve.  Errors: ENOSYS where the library lacks the suite;
    /// EINVAL on a wrong key length; ENOMEM.
    [[nodiscard]] static result<std::shared_ptr<const key>> make(const ipsec::algorithms& a);
    ~key();
    key(const key&) = delete;
    key& operator=(const key&) = delete;

    [[nodiscard]] ipsec::suite run() const noexcept;

    struct schedule; ///< schedule.h has its first bytes, each library's schedule the rest
    [[nodiscard]] const schedule& get() const noexcept { return *schedule_; }
    /// Where the lines are that a packet needs first: prefetch them a burst ahead.
    [[nodiscard]] const void* hot() const noexcept { return schedule_; }

  private:
    explicit key(schedule* s) noexcept
        : schedule_(s) {}
    schedule* schedule_; ///< owned, 64-byte aligned
};

/// One packet's work.  In place, contiguous in memory:
///
///   [ SPI, seq ][ IV ][ text ............ ][ ICV ]
///   ^ esp               '-- text_length --'
///
/// The IV stands in the packet already (outbound: written by the caller, see iv below).
/// With `esn` the high half of the sequence number is authenticated too (RFC 4303 section 2.2.1;
/// for AEAD in the AAD: RFC 4106 section 5).
struct job {
    const key::schedule* keys = nullptr;
    std::uint8_t* esp = nullptr;
    std::uint32_t text_length = 0; ///< bytes; with CBC a multiple of 16 (see engine); 0 is fine
    std::uint32_t seq_high = 0;    ///< host order; looked at only with esn
    bool esn = false;
    bool ok = false; ///< out, decrypt only: the ICV was right
};

struct engine_options {
    bool gcm_kernel = true; ///< run AES-GCM by our own kernel where the CPU can: doc/gcm-kernel.md
};

/// A job that it cannot run (CBC over part of a block, HMAC over more than an IP packet holds) is
/// refused: `ok` is false; decrypt leaves the packet alone, encrypt overwrites the text with zeros,
/// so that it cannot leave in clear.  So are those of a call that the library did not do in full;
/// of them decrypt may leave any text.
class engine {
  public:
    /// Errors: ENOTSUP where the processor lacks what intel-ipsec-mb needs (AES-NI), OpenSSL lacks
    /// an algorithm, or a library's self test failed.
    [[nodiscard]] static result<std::unique_ptr<engine>> make(engine_options options = {});
    ~engine();
    engine(const engine&) = delete;
    engine& operator=(const engine&) = delete;

    /// Encrypts every job in place and writes its ICV.  Jobs of different suites may be mixed.
    void encrypt(std::span<job> jobs) noexcept;

    /// Verifies and decrypts.  Where the ICV is wrong `ok` is false and the text's content is
    /// unspecified: the caller drops the packet.  Comparison is in constant time.
    void decrypt(std::span<job> jobs) noexcept;

    /// Writes `length` (at most 16) unpredictable bytes for a CBC IV: AES under a random key of
    /// this engine over a counter (NIST SP 800-38A, appendix C).
    void unpredictable_iv(std::uint8_t* into, std::size_t length) noexcept;

    /// "AVX512", "AVX2", ...: what the library chose, or "OpenSSL"; for people.
    [[nodiscard]] const char* architecture() const noexcept;
    /// "on", or "off" and why, for people.
    [[nodiscard]] const char* gcm_kernel() const noexcept;

  private:
    struct state;
    explicit engine(std::unique_ptr<state> s) noexcept;
    std::unique_ptr<state> state_;
};

} // namespace esplane::crypto

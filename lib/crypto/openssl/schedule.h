// SPDX-License-Identifier: Apache-2.0
//
// The keys of an SA as the OpenSSL engine wants them: plain bytes.
//
// OpenSSL expands a cipher's key inside a context, and a context is one thread's: a key that
// threads share has none.  The engine's contexts take these bytes when the SA of their packets
// changes.
#pragma once

#include <cstdint>

#include "lib/base/result.h"
#include "lib/base/secret.h"
#include "lib/crypto/openssl/hmac.h"
#include "lib/crypto/schedule.h"

namespace esplane::crypto::openssl {

/// Wiped when destroyed.
struct alignas(64) schedule : key::schedule {
    static constexpr std::size_t longest_cipher_key = 32;

    schedule() = default;
    ~schedule() { wipe(this, sizeof *this); }
    schedule(const schedule&) = delete;
    schedule& operator=(const schedule&) = delete;

    std::uint8_t cipher_key[longest_cipher_key];
    union { ///< the suite says which; of an AEAD neither
        hmac_key<sha1> with_sha1;
        hmac_key<sha256> with_sha256;
    };
};

/// The caller deletes it.  Errors: as key::make().
[[nodiscard]] result<schedule*> expand(const ipsec::algorithms& a);

} // namespace esplane::crypto::openssl

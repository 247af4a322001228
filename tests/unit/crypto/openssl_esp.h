// SPDX-License-Identifier: Apache-2.0
//
// ESP as OpenSSL computes it, a packet at a time: the model that the engine is held against.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "lib/ipsec/algorithm.h"

namespace esplane::test {

using bytes = std::vector<std::uint8_t>;

inline constexpr std::size_t esp_header_length = 8;
inline constexpr std::size_t aead_icv_length = 16;

struct sa_keys {
    ipsec::suite run;
    bytes cipher; ///< empty for NULL
    bytes salt;   ///< AEAD only: 4 bytes
    bytes auth;   ///< HMAC only
};

[[nodiscard]] bool is_gcm(ipsec::suite s);
[[nodiscard]] std::size_t cipher_key_length(ipsec::suite s);

/// As a client would hand them to key::make.
[[nodiscard]] ipsec::algorithms algorithms_for(const sa_keys& keys);

/// The packet on the wire.
///
/// clear     ESP header, IV and text in clear
/// seq_high  the high half of the sequence number, with ESN
[[nodiscard]] bytes openssl_seal(const sa_keys& keys, const bytes& clear,
                                 std::optional<std::uint32_t> seq_high);

} // namespace esplane::test

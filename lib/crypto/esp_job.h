// SPDX-License-Identifier: Apache-2.0
//
// Where the parts of a job's packet are, and which jobs an engine refuses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "lib/crypto/engine.h"
#include "lib/crypto/schedule.h"

namespace esplane::crypto {

inline constexpr std::size_t esp_header_length = 8;
inline constexpr std::size_t seq_high_length = 4;
inline constexpr std::size_t aead_nonce_length = 12;
inline constexpr std::size_t aes_block_length = 16;

/// intel-ipsec-mb counts a job's bytes in 16 bits.  No IP packet holds a longer text.
inline constexpr std::uint32_t longest_job_text = 65504;

enum class direction : std::uint8_t { encrypt, decrypt };

[[nodiscard]] inline std::uint8_t* text_of(const job& j) noexcept {
    return j.esp + esp_header_length + j.keys->iv_length;
}
[[nodiscard]] inline std::uint8_t* icv_of(const job& j) noexcept {
    return text_of(j) + j.text_length;
}

/// What the ICV of an HMAC covers, in the packet: header, IV and text.
[[nodiscard]] inline std::size_t covered_length(const job& j) noexcept {
    return esp_header_length + j.keys->iv_length + j.text_length;
}

[[nodiscard]] inline std::uint32_t seq_high_on_wire(const job& j) noexcept {
    return __builtin_bswap32(j.seq_high);
}

/// Says whether an engine takes `j`, of any suite but AES-GCM: that takes all.
[[nodiscard]] inline bool fits(const job& j) noexcept {
    const bool in_blocks = !is_aead(j.keys->run) && j.keys->cipher_key_length != 0;
    const bool whole_blocks = !in_blocks || j.text_length % aes_block_length == 0;
    return whole_blocks && j.text_length <= longest_job_text;
}

/// A job that cannot run: refused when received; and should a caller ever ask to send one, no clear
/// text is left to leave.
template <direction Direction>
void refuse(job& j) noexcept {
    j.ok = false;
    if constexpr (Direction == direction::encrypt) std::memset(text_of(j), 0, j.text_length);
}

} // namespace esplane::crypto

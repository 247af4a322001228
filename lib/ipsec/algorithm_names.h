// SPDX-License-Identifier: Apache-2.0
//
// The kernel's names of the algorithms that SAs can have, each with a number.
//
// The numbers never leave the process: they are no contract.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

namespace esplane::ipsec {

namespace algorithm_name {
inline constexpr std::string_view gcm = "rfc4106(gcm(aes))";
inline constexpr std::string_view chacha = "rfc7539esp(chacha20,poly1305)";
inline constexpr std::string_view cbc = "cbc(aes)";
inline constexpr std::string_view null = "ecb(cipher_null)";
inline constexpr std::string_view sha256 = "hmac(sha256)";
inline constexpr std::string_view sha1 = "hmac(sha1)";
} // namespace algorithm_name

/// By number.
inline constexpr std::array algorithm_names = {
    algorithm_name::gcm,  algorithm_name::chacha, algorithm_name::cbc,
    algorithm_name::null, algorithm_name::sha256, algorithm_name::sha1,
};

/// Their count where it is none of them.
[[nodiscard]] inline std::size_t number_of_algorithm(std::string_view name) noexcept {
    return static_cast<std::size_t>(std::ranges::find(algorithm_names, name) -
                                    algorithm_names.begin());
}

} // namespace esplane::ipsec

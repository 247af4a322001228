// SPDX-License-Identifier: Apache-2.0
//
// IPv4 and IPv6 addresses and prefixes as SAs, selectors and routes use them.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>

#include "lib/base/result.h"
#include "lib/wire/endian.h"

namespace esplane::ipsec {

enum class family : std::uint8_t { unspecified = 0, ipv4 = 4, ipv6 = 6 };

/// Length of an address of that family in bytes; 0 for unspecified.
[[nodiscard]] constexpr std::uint8_t address_length(family f) noexcept {
    return f == family::ipv4 ? 4 : f == family::ipv6 ? 16 : 0;
}
[[nodiscard]] constexpr std::uint8_t address_bits(family f) noexcept {
    return static_cast<std::uint8_t>(address_length(f) * 8);
}

/// An address of either family.  Bytes in network order; those an IPv4 address does not use are 0.
struct address {
    std::array<std::uint8_t, 16> bytes{};
    family fam = family::unspecified;

    [[nodiscard]] static address v4(wire::be32 value) noexcept;
    [[nodiscard]] static address v6(const std::array<std::uint8_t, 16>& value) noexcept;
    /// From "10.1.0.1" or "fd01::1".  Errors: EINVAL.
    [[nodiscard]] static result<address> parse(const std::string& text);

    [[nodiscard]] wire::be32 as_v4() const noexcept { return wire::load<wire::be32>(bytes.data()); }
    /// All bytes zero (or no family): "any".
    [[nodiscard]] bool is_any() const noexcept;
    [[nodiscard]] std::string to_string() const;

    /// By words: packets are held against addresses, and a call for 17 bytes costs more.
    friend bool operator==(const address& a, const address& b) noexcept {
        const auto word = [](const address& of, std::size_t at) {
            return wire::load<std::uint64_t>(of.bytes.data() + at);
        };
        return ((word(a, 0) ^ word(b, 0)) | (word(a, 8) ^ word(b, 8))) == 0 && a.fam == b.fam;
    }
    friend auto operator<=>(const address&, const address&) = default;
};

/// Says whether the first `length` bits of two addresses (in memory, network order) agree.
[[nodiscard]] bool prefix_equal(const std::uint8_t* a, const std::uint8_t* b,
                                unsigned length) noexcept;

/// `a` with all bits after the first `length` cleared.
[[nodiscard]] address masked(const address& a, unsigned length) noexcept;

} // namespace esplane::ipsec

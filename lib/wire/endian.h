// SPDX-License-Identifier: Apache-2.0
//
// Big-endian integers as they lie in packets and messages.
//
// The byte order is in the type: no implicit conversion, no arithmetic, only equality.  Types are
// trivially copyable with alignment 1, so a header struct made of them can be copied from any
// address.
#pragma once

#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace esplane::wire {

static_assert(std::endian::native == std::endian::little, "x86-64 is little-endian");

template <typename T>
[[nodiscard]] constexpr T byte_swap(T v) noexcept {
    if constexpr (sizeof(T) == 2) return static_cast<T>(__builtin_bswap16(v));
    if constexpr (sizeof(T) == 4) return static_cast<T>(__builtin_bswap32(v));
    if constexpr (sizeof(T) == 8) return static_cast<T>(__builtin_bswap64(v));
}

/// An unsigned integer stored in network byte order.
template <typename T>
class big_endian {
  public:
    constexpr big_endian() = default;
    /// From host order.
    constexpr explicit big_endian(T host) noexcept { set(host); }
    /// From a value whose bytes are already in network order (a field of a kernel struct).
    [[nodiscard]] static constexpr big_endian from_network(T raw) noexcept {
        big_endian r;
        r.bytes_ = std::bit_cast<storage>(raw);
        return r;
    }

    [[nodiscard]] constexpr T host() const noexcept { return byte_swap(network()); }
    /// The value whose bytes in memory are in network order.
    [[nodiscard]] constexpr T network() const noexcept { return std::bit_cast<T>(bytes_); }
    constexpr void set(T host) noexcept { bytes_ = std::bit_cast<storage>(byte_swap(host)); }

    friend constexpr bool operator==(big_endian a, big_endian b) noexcept {
        return a.network() == b.network();
    }
    friend constexpr std::strong_ordering operator<=>(big_endian a, big_endian b) noexcept {
        return a.host() <=> b.host();
    }

  private:
    struct storage {
        std::uint8_t b[sizeof(T)];
    };
    storage bytes_{};
};

using be16 = big_endian<std::uint16_t>;
using be32 = big_endian<std::uint32_t>;
using be64 = big_endian<std::uint64_t>;

static_assert(sizeof(be16) == 2 && alignof(be16) == 1);
static_assert(sizeof(be32) == 4 && alignof(be32) == 1);
static_assert(sizeof(be64) == 8 && alignof(be64) == 1);

/// Reads a T from any address, unaligned.
template <typename T>
[[nodiscard]] inline T load(const void* at) noexcept {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

/// Writes a T to any address, unaligned.
template <typename T>
inline void store(void* at, const T& value) noexcept {
    std::memcpy(at, &value, sizeof value);
}

} // namespace esplane::wire

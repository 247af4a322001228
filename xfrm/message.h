// SPDX-License-Identifier: Apache-2.0
//
// Netlink framing: messages in a datagram, attributes written into a message.
//
// Input is copied out after a length check, in one place: read_fixed().  Datagrams may hold keys:
// their memory is wiped before it is given back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "lib/base/secret.h"
#include "xfrm/uapi.h"

namespace esplane::xfrm {

/// std::allocator that wipes what it frees.
template <typename T>
struct wiping_allocator {
    using value_type = T;
    wiping_allocator() = default;
    template <typename U>
    explicit wiping_allocator(const wiping_allocator<U>&) noexcept {}
    T* allocate(std::size_t n) { return std::allocator<T>().allocate(n); }
    void deallocate(T* p, std::size_t n) noexcept {
        wipe(p, n * sizeof(T));
        std::allocator<T>().deallocate(p, n);
    }
    friend bool operator==(const wiping_allocator&, const wiping_allocator&) { return true; }
};

using bytes = std::span<const std::uint8_t>;
using datagram = std::vector<std::uint8_t, wiping_allocator<std::uint8_t>>;

/// Length with the padding that netlink puts behind messages and attributes.
[[nodiscard]] constexpr std::size_t aligned(std::size_t length) noexcept {
    return (length + NLMSG_ALIGNTO - 1) & ~std::size_t{NLMSG_ALIGNTO - 1};
}

/// A T from the start of `from`; nullopt where that is too short.
template <typename T>
[[nodiscard]] std::optional<T> read_fixed(bytes from) noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    if (from.size() < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, from.data(), sizeof value);
    return value;
}

/// A message inside a datagram, which it points into.
struct message {
    nlmsghdr header{};
    bytes whole; ///< header and payload, nlmsg_len bytes

    [[nodiscard]] bytes payload() const noexcept { return whole.subspan(NLMSG_HDRLEN); }
    /// What follows a fixed part of `fixed` bytes; empty where nothing does.
    [[nodiscard]] bytes after(std::size_t fixed) const noexcept {
        const std::size_t skip = aligned(fixed);
        return skip < payload().size() ? payload().subspan(skip) : bytes{};
    }
};

/// Takes the first message off `rest`.  nullopt at the end and, as in the kernel, at a message
/// whose length cannot be: what follows it is not looked at.
[[nodiscard]] std::optional<message> next_message(bytes& rest) noexcept;

/// Writes one message at the end of a datagram.  finish() must come last.
class message_writer {
  public:
    message_writer(datagram& into, std::uint16_t type, std::uint16_t flags, std::uint32_t sequence,
                   std::uint32_t port_id);

    /// The fixed part, or a piece of payload outside any attribute.  Padded.
    template <typename T>
    void fixed(const T& value) {
        static_assert(std::is_trivially_copyable_v<T>);
        raw({reinterpret_cast<const std::uint8_t*>(&value), sizeof value});
    }
    void raw(bytes value);

    template <typename T>
    void attribute(std::uint16_t type, const T& value) {
        static_assert(std::is_trivially_copyable_v<T>);
        attribute_bytes(type, {reinterpret_cast<const std::uint8_t*>(&value), sizeof value});
    }
    void attribute_bytes(std::uint16_t type, bytes value);
    /// A value of 64-bit numbers: XFRMA_PAD goes before it where it would lie unaligned.
    template <typename T>
    void attribute_64bit(std::uint16_t type, const T& value) {
        if ((into_.size() - start_ + sizeof(nlattr)) % 8 != 0) attribute_bytes(XFRMA_PAD, {});
        attribute(type, value);
    }

    /// Sets the length of the message, padding included (as nlmsg_end does).
    void finish();

  private:
    void append(bytes value);

    datagram& into_;
    std::size_t start_;
};

} // namespace esplane::xfrm

// SPDX-License-Identifier: Apache-2.0
//
// rtnetlink messages, read and written: a struct at the front, attributes behind.
//
// Threads: any.
#pragma once

#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <sys/socket.h>

#include "lib/ipsec/address.h"
#include "lib/wire/endian.h"

namespace esplane::xfrm::rtnetlink {

/// Nothing where there is no attribute, or too short a one.
template <typename T>
std::optional<T> value_of(const nlattr* attr) {
    if (attr == nullptr || nla_len(attr) < static_cast<int>(sizeof(T))) return {};
    return wire::load<T>(nla_data(attr));
}

/// The attributes of a message behind its header struct.
template <int Max>
class attribute_table {
  public:
    bool parse(const nlmsghdr& m, int header_size) {
        return nlmsg_parse(const_cast<nlmsghdr*>(&m), header_size, table_.data(), Max, nullptr) ==
               0;
    }
    bool parse(const nlattr* first, int length) {
        return nla_parse(table_.data(), Max, const_cast<nlattr*>(first), length, nullptr) == 0;
    }
    /// False where there is none.
    bool parse_nested(const nlattr* attr) {
        return attr != nullptr && parse(static_cast<const nlattr*>(nla_data(attr)), nla_len(attr));
    }
    [[nodiscard]] bool has(int type) const { return table_[type] != nullptr; }
    [[nodiscard]] const nlattr* operator[](int type) const { return table_[type]; }

    template <typename T>
    [[nodiscard]] std::optional<T> get(int type) const {
        return value_of<T>(table_[type]);
    }

  private:
    std::array<nlattr*, Max + 1> table_{};
};

/// The struct at the front of a message, and its attributes.
template <typename Header, int Max>
struct reader {
    Header header{};
    attribute_table<Max> attr;

    /// Of either type.
    bool read(const nlmsghdr& m, int type, int other_type) {
        if ((m.nlmsg_type != type && m.nlmsg_type != other_type) ||
            !nlmsg_valid_hdr(&m, sizeof header))
            return false;
        std::memcpy(&header, nlmsg_data(&m), sizeof header);
        return attr.parse(m, sizeof header);
    }
};

inline ipsec::family family_of(int af) {
    return af == AF_INET    ? ipsec::family::ipv4
           : af == AF_INET6 ? ipsec::family::ipv6
                            : ipsec::family::unspecified;
}

/// An address of `length` bytes; unspecified where it does not fit the family.
inline ipsec::address address_from(ipsec::family fam, const void* bytes, int length) {
    ipsec::address a;
    if (fam == ipsec::family::unspecified || length != ipsec::address_length(fam)) return a;
    a.fam = fam;
    std::memcpy(a.bytes.data(), bytes, static_cast<std::size_t>(length));
    return a;
}

inline ipsec::address address_from(ipsec::family fam, const nlattr* attr) {
    return attr == nullptr ? ipsec::address{} : address_from(fam, nla_data(attr), nla_len(attr));
}

inline int af_of(ipsec::family family) {
    return family == ipsec::family::ipv4 ? AF_INET : AF_INET6;
}

/// A struct and the attributes behind it, as route_socket::send() takes them.
class writer {
  public:
    /// Attributes alone, for nest().
    writer() = default;
    template <typename Header>
    [[nodiscard]] static writer behind(const Header& header) {
        writer w;
        w.append(&header, sizeof header);
        return w;
    }
    template <typename T>
    void put(int type, const T& value) {
        static_assert(std::is_trivially_copyable_v<T>);
        put(type, &value, sizeof value);
    }
    void put(int type, const void* data, std::size_t length) {
        const nlattr attr{static_cast<std::uint16_t>(NLA_HDRLEN + length),
                          static_cast<std::uint16_t>(type)};
        append(&attr, sizeof attr);
        append(data, length);
    }
    void put_address(int type, const ipsec::address& a) {
        put(type, a.bytes.data(), ipsec::address_length(a.fam));
    }
    /// What `other` has as one attribute; none where it has nothing.
    void nest(int type, const writer& other) {
        if (!other.bytes_.empty()) put(type, other.bytes_.data(), other.bytes_.size());
    }
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }

  private:
    void append(const void* data, std::size_t length) {
        const auto* first = static_cast<const std::byte*>(data);
        bytes_.insert(bytes_.end(), first, first + length);
        bytes_.resize(NLMSG_ALIGN(bytes_.size()));
    }

    std::vector<std::byte> bytes_;
};

} // namespace esplane::xfrm::rtnetlink

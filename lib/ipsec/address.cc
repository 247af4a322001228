// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/address.h"

#include <algorithm>
#include <arpa/inet.h>

namespace esplane::ipsec {

address address::v4(wire::be32 value) noexcept {
    address a;
    a.fam = family::ipv4;
    wire::store(a.bytes.data(), value);
    return a;
}

address address::v6(const std::array<std::uint8_t, 16>& value) noexcept {
    return address{value, family::ipv6};
}

result<address> address::parse(const std::string& text) {
    address a;
    if (::inet_pton(AF_INET, text.c_str(), a.bytes.data()) == 1) {
        a.fam = family::ipv4;
        return a;
    }
    if (::inet_pton(AF_INET6, text.c_str(), a.bytes.data()) == 1) {
        a.fam = family::ipv6;
        return a;
    }
    return fail(EINVAL, "\"" + text + "\" is not an IPv4 or IPv6 address");
}

bool address::is_any() const noexcept {
    return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; });
}

std::string address::to_string() const {
    if (fam == family::unspecified) return "any";
    char text[INET6_ADDRSTRLEN];
    ::inet_ntop(fam == family::ipv4 ? AF_INET : AF_INET6, bytes.data(), text, sizeof text);
    return text;
}

bool prefix_equal(const std::uint8_t* a, const std::uint8_t* b, unsigned length) noexcept {
    const unsigned whole = length / 8;
    const unsigned rest = length % 8;
    if (std::memcmp(a, b, whole) != 0) return false;
    return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

address masked(const address& a, unsigned length) noexcept {
    address m = a;
    for (unsigned i = 0; i < m.bytes.size(); ++i) {
        if (length >= (i + 1) * 8) continue;
        const unsigned keep = length > i * 8 ? length - i * 8 : 0;
        m.bytes[i] = static_cast<std::uint8_t>(m.bytes[i] & (0xff00u >> keep));
    }
    return m;
}

} // namespace esplane::ipsec

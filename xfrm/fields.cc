// SPDX-License-Identifier: Apache-2.0
#include "xfrm/fields.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "xfrm/attributes.h"

namespace esplane::xfrm {
namespace {

/// Those that the kernel knows beside ESP.
constexpr std::string_view other_protocol(std::uint8_t protocol) noexcept {
    switch (protocol) {
    case IPPROTO_AH:
        return "AH";
    case IPPROTO_COMP:
        return "IPComp";
    case IPPROTO_ROUTING:
        return "routing header";
    case IPPROTO_DSTOPTS:
        return "destination options";
    default:
        return {};
    }
}

constexpr std::string_view mode_names[xfrm_mode_max] = {
    "transport", "tunnel", "route optimization", "in_trigger", "BEET", "IP-TFS",
};

} // namespace

result<void> check_protocol(std::uint8_t protocol, const char* unknown, const char* field) {
    if (protocol == IPPROTO_ESP) return {};
    const std::string_view name = other_protocol(protocol);
    if (name.empty()) return fail(EINVAL, unknown);
    return fail(EPROTONOSUPPORT, std::string(name) + " is not carried, only ESP is", field);
}

result<void> check_protocol_known(std::uint8_t protocol, const char* unknown) {
    if (protocol == IPPROTO_ESP || !other_protocol(protocol).empty()) return {};
    return fail(EINVAL, unknown);
}

result<void> check_mode(std::uint8_t mode, const char* unknown, const char* field) {
    if (mode == XFRM_MODE_TUNNEL || mode == XFRM_MODE_TRANSPORT) return {};
    if (mode >= xfrm_mode_max || mode == XFRM_MODE_IN_TRIGGER) return fail(EINVAL, unknown);
    return fail(EOPNOTSUPP,
                "mode " + std::string(mode_names[mode]) +
                    " is not carried, only tunnel and transport are",
                field);
}

ipsec::mode mode_from(std::uint8_t mode) noexcept {
    return mode == XFRM_MODE_TUNNEL ? ipsec::mode::tunnel : ipsec::mode::transport;
}

ipsec::family family_from(std::uint16_t address_family) noexcept {
    return address_family == AF_INET    ? ipsec::family::ipv4
           : address_family == AF_INET6 ? ipsec::family::ipv6
                                        : ipsec::family::unspecified;
}

std::uint16_t address_family(ipsec::family f) noexcept {
    return f == ipsec::family::ipv4 ? AF_INET : f == ipsec::family::ipv6 ? AF_INET6 : AF_UNSPEC;
}

ipsec::address address_from(const xfrm_address_t& a, ipsec::family f) noexcept {
    ipsec::address out;
    out.fam = f;
    const std::size_t length =
        f == ipsec::family::unspecified ? out.bytes.size() : ipsec::address_length(f);
    std::memcpy(out.bytes.data(), &a, length);
    return out;
}

xfrm_address_t address_to(const ipsec::address& a) noexcept {
    xfrm_address_t out;
    static_assert(sizeof out == sizeof a.bytes);
    std::memcpy(&out, a.bytes.data(), sizeof out);
    return out;
}

ipsec::selector selector_from(const xfrm_selector& s) noexcept {
    ipsec::selector out;
    out.fam = family_from(s.family);
    out.source = address_from(s.saddr, out.fam);
    out.destination = address_from(s.daddr, out.fam);
    out.source_prefix = s.prefixlen_s;
    out.destination_prefix = s.prefixlen_d;
    out.source_port = wire::be16::from_network(s.sport);
    out.source_port_mask = wire::be16::from_network(s.sport_mask);
    out.destination_port = wire::be16::from_network(s.dport);
    out.destination_port_mask = wire::be16::from_network(s.dport_mask);
    out.protocol = s.proto;
    out.ifindex = s.ifindex;
    out.user = s.user;
    return out;
}

xfrm_selector selector_to(const ipsec::selector& s) noexcept {
    xfrm_selector out{};
    out.daddr = address_to(s.destination);
    out.saddr = address_to(s.source);
    out.dport = s.destination_port.network();
    out.dport_mask = s.destination_port_mask.network();
    out.sport = s.source_port.network();
    out.sport_mask = s.source_port_mask.network();
    out.family = address_family(s.fam);
    out.prefixlen_d = s.destination_prefix;
    out.prefixlen_s = s.source_prefix;
    out.proto = s.protocol;
    out.ifindex = s.ifindex;
    out.user = s.user;
    return out;
}

result<void> check_prefixes(const xfrm_selector& s, ipsec::family f) {
    const std::uint8_t longest = std::max(s.prefixlen_d, s.prefixlen_s);
    if (f == ipsec::family::ipv4 && longest > 32)
        return fail(EINVAL, "Invalid prefix length in selector (must be <= 32 for IPv4)");
    if (f == ipsec::family::ipv6 && longest > 128)
        return fail(EINVAL, "Invalid prefix length in selector (must be <= 128 for IPv6)");
    if (longest > 128) return fail(EINVAL, "Invalid prefix length in selector (must be <= 128)");
    return {};
}

result<void> check_carried(const xfrm_selector& s) {
    if (s.ifindex != 0) return fail(EOPNOTSUPP, "a device in the selector is not carried", "sel");
    if (s.user != 0) return fail(EOPNOTSUPP, "a user in the selector is not carried", "sel");
    return {};
}

ipsec::lifetime_limits limits_from(const xfrm_lifetime_cfg& l) noexcept {
    return {.soft_bytes = l.soft_byte_limit,
            .hard_bytes = l.hard_byte_limit,
            .soft_packets = l.soft_packet_limit,
            .hard_packets = l.hard_packet_limit,
            .soft_add_s = l.soft_add_expires_seconds,
            .hard_add_s = l.hard_add_expires_seconds,
            .soft_use_s = l.soft_use_expires_seconds,
            .hard_use_s = l.hard_use_expires_seconds};
}

xfrm_lifetime_cfg limits_to(const ipsec::lifetime_limits& l) noexcept {
    return {.soft_byte_limit = l.soft_bytes,
            .hard_byte_limit = l.hard_bytes,
            .soft_packet_limit = l.soft_packets,
            .hard_packet_limit = l.hard_packets,
            .soft_add_expires_seconds = l.soft_add_s,
            .hard_add_expires_seconds = l.hard_add_s,
            .soft_use_expires_seconds = l.soft_use_s,
            .hard_use_expires_seconds = l.hard_use_s};
}

ipsec::lifetime_current current_from(const xfrm_lifetime_cur& l) noexcept {
    return {l.bytes, l.packets, l.add_time, l.use_time};
}

xfrm_lifetime_cur current_to(const ipsec::lifetime_current& l) noexcept {
    return {l.bytes, l.packets, l.add_time, l.use_time};
}

} // namespace esplane::xfrm

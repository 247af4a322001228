// SPDX-License-Identifier: Apache-2.0
#include "fastpath/icmp.h"

#include <algorithm>

#include "fastpath/parse.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

constexpr std::uint32_t ipv6_minimum_mtu = 1280;
constexpr std::uint32_t ipv4_minimum_mtu = 68;
constexpr std::uint32_t ipv4_quote = 548; ///< RFC 1812 section 4.3.2.3: 576 in all
constexpr std::uint8_t hop_limit = 64;

struct icmp_header {
    std::uint8_t type;
    std::uint8_t code;
    wire::be16 checksum;
    wire::be32 rest; ///< too big: the MTU, in its place for either family
};
static_assert(sizeof(icmp_header) == 8);

bool is_from_stack(const packet& p) noexcept {
    return (p.flags & packet_flag::from_stack) != 0;
}

/// No error about an error, about a multicast, to nobody or to the machine's end of an interface.
bool may_answer(const packet& p) noexcept {
    if ((p.flags & packet_flag::created) != 0) return false;
    if ((p.flags & packet_flag::own) != 0 && !is_from_stack(p)) return false;
    const auto type = static_cast<std::uint8_t>(p.source_port.host());
    if (p.family == family::ipv4) {
        const std::uint32_t source = p.ipv4().source.host();
        const bool query = type == 0 || type == 8 || (type >= 13 && type <= 18);
        return (p.protocol != wire::proto_icmp || query) && source != 0 && (source >> 28) < 0xe &&
               (p.ipv4().destination.host() >> 28) != 0xe;
    }
    const auto& source = p.ipv6().source;
    const bool nobody = std::all_of(source.begin(), source.end(), [](auto b) { return b == 0; });
    return (p.protocol != wire::proto_icmpv6 || type >= 128) && !nobody && source[0] != 0xff &&
           p.ipv6().destination[0] != 0xff;
}

/// IP header, ICMP header and the quote, checksums done.
void write_error(packet& e, const packet& about, const ipsec::address& from, icmp_header icmp,
                 std::uint32_t quote) noexcept {
    const ipsec::address to = source_of(about);
    const bool v4 = about.family == family::ipv4;
    const std::uint32_t ip_length = v4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
    const auto icmp_length = static_cast<std::uint32_t>(sizeof icmp + quote);
    e.extend(static_cast<int>(ip_length + icmp_length));
    std::uint8_t* body = e.data + ip_length;
    wire::store(body, icmp);
    std::memcpy(body + sizeof icmp, about.data, quote);
    if (v4) {
        wire::ipv4_header ip{};
        ip.version_ihl = 0x45;
        ip.tos = 0xc0; // internetwork control, as RFC 1812 asks and the kernel does
        ip.total_length.set(static_cast<std::uint16_t>(e.length));
        ip.ttl = hop_limit;
        ip.protocol = wire::proto_icmp;
        ip.source = from.as_v4();
        ip.destination = to.as_v4();
        ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
        wire::store(e.data, ip);
        icmp.checksum = wire::checksum_finish(wire::checksum_add(0, body, icmp_length));
    } else {
        wire::ipv6_header ip{};
        ip.version_class_flow.set(0x60000000);
        ip.payload_length.set(static_cast<std::uint16_t>(icmp_length));
        ip.next_header = wire::proto_icmpv6;
        ip.hop_limit = hop_limit;
        ip.source = from.bytes;
        ip.destination = to.bytes;
        wire::store(e.data, ip);
        const std::uint64_t pseudo = wire::checksum_pseudo(from.bytes.data(), to.bytes.data(), 16,
                                                           wire::proto_icmpv6, icmp_length);
        icmp.checksum = wire::checksum_finish(wire::checksum_add(pseudo, body, icmp_length));
    }
    wire::store(body, icmp);
}

std::uint32_t longest_quote(family f) noexcept {
    return f == family::ipv4
               ? ipv4_quote
               : ipv6_minimum_mtu - static_cast<std::uint32_t>(sizeof(wire::ipv6_header)) - 8;
}

/// Up again, as if the destination had sent it: the stack takes nothing from outside that comes
/// from an address of its own.
void report_to_stack(stage& s, const packet& about, const icmp_header& icmp) noexcept {
    packet* e = s.make_packet();
    if (e == nullptr) return;
    e->port = about.port;
    write_error(*e, about, flow_of(about).destination, icmp,
                std::min(about.length, longest_quote(about.family)));
    s.raised.push(*e);
}

void report(stage& s, const packet& about, const icmp_header& icmp) noexcept {
    if (!may_answer(about)) return;
    if (is_from_stack(about)) {
        report_to_stack(s, about, icmp);
        return;
    }
    const ipsec::address* from = s.routes.source_for(about.interface, source_of(about));
    packet* e = s.make_packet();
    if (e == nullptr) return;
    e->port = about.port;
    e->interface = about.interface;
    e->flags = packet_flag::created;
    if (from == nullptr) {
        s.drop(*e, drop_reason::icmp_no_source);
        return;
    }
    write_error(*e, about, *from, icmp, std::min(about.length, longest_quote(about.family)));
    if (parse_ip(*e, s.routes, false) != drop_reason::none) {
        s.drop(*e, drop_reason::route_missing);
        return;
    }
    // An error quotes clear text: it goes back only where that came from.
    const bool returns = e->next->interface == about.interface && about.inbound_sa == nullptr;
    if (!returns || !may_leave_in_clear(s, *e))
        s.drop(*e, drop_reason::icmp_protected);
    else
        s.created.push(*e);
}

} // namespace

void report_too_big(stage& s, const packet& p, std::uint32_t mtu) noexcept {
    icmp_header icmp{};
    if (p.family == family::ipv4) {
        icmp.type = 3;
        icmp.code = 4;
        icmp.rest.set(std::max(mtu, ipv4_minimum_mtu) & 0xffff);
    } else {
        icmp.type = 2;
        icmp.rest.set(std::max(mtu, ipv6_minimum_mtu));
    }
    report(s, p, icmp);
}

void report_ttl_exceeded(stage& s, const packet& p) noexcept {
    icmp_header icmp{};
    icmp.type = p.family == family::ipv4 ? 11 : 3;
    report(s, p, icmp);
}

} // namespace esplane::fastpath

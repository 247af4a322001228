// SPDX-License-Identifier: Apache-2.0
#include "fastpath/mss.h"

#include <algorithm>
#include <utility>

#include "fastpath/classify.h"
#include "fastpath/outbound.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

constexpr std::uint8_t tcp_syn = 0x02;
constexpr std::uint8_t option_end = 0, option_nothing = 1, option_mss = 2;
constexpr std::uint8_t mss_length = 4;
constexpr std::uint32_t least_mss = 88; ///< below it Linux sends no segments

bool is_syn(const packet& p) noexcept {
    constexpr std::size_t flags = offsetof(wire::tcp_header, flags);
    return p.protocol == wire::proto_tcp && (p.flags & packet_flag::fragment) == 0 &&
           p.length >= p.l4_offset + sizeof(wire::tcp_header) &&
           (p.data[p.l4_offset + flags] & tcp_syn) != 0;
}

/// Where the MSS stands, from the TCP header on; 0: nowhere.
std::uint32_t find_mss(std::span<const std::uint8_t> tcp) noexcept {
    const std::size_t end = std::min<std::size_t>(
        tcp.size(), (tcp[offsetof(wire::tcp_header, offset)] >> 4) * std::size_t{4});
    for (std::size_t at = sizeof(wire::tcp_header); at < end;) {
        if (tcp[at] == option_end) return 0;
        if (tcp[at] == option_nothing) {
            ++at;
            continue;
        }
        if (at + 1 >= end || tcp[at + 1] < 2) return 0;
        if (tcp[at] == option_mss)
            return tcp[at + 1] == mss_length && at + mss_length <= end
                       ? static_cast<std::uint32_t>(at + 2)
                       : 0;
        at += tcp[at + 1];
    }
    return 0;
}

/// A number at an odd place is summed with its bytes the other way round.
wire::be16 as_summed(wire::be16 value, std::uint32_t at) noexcept {
    const std::uint16_t n = value.host();
    return at % 2 == 0 ? value : wire::be16(static_cast<std::uint16_t>(n << 8 | n >> 8));
}

/// The path of an SA as it is now: `route` is its owner's alone.
std::uint32_t path_of(const stage& s, const sa_out& sa) noexcept {
    const adjacency& route = s.routes.lookup(sa.id.destination);
    return std::min(route.mtu, sa.path_mtu.load(std::memory_order_relaxed));
}

std::uint32_t clamp_of(const stage& s, const sa_out& sa) noexcept {
    const std::uint32_t wanted = s.shared.mss_clamp();
    return wanted == mss_by_path ? inner_mtu(sa, path_of(s, sa)) : wanted;
}

/// The SA that carries the answers to a packet; nullptr: none does.
const sa_out* sa_back(const stage& s, const packet& p) noexcept {
    std::array<std::uint8_t, sizeof(wire::ipv6_header)> header;
    packet back = p;
    back.data = header.data();
    if (p.family == family::ipv4) {
        wire::ipv4_header ip = p.ipv4();
        std::swap(ip.source, ip.destination);
        wire::store(header.data(), ip);
    } else {
        wire::ipv6_header ip = p.ipv6();
        std::swap(ip.source, ip.destination);
        wire::store(header.data(), ip);
    }
    std::swap(back.source_port, back.destination_port);
    const policy_entry* out = find_policy(s, back, ipsec::policy_direction::out);
    if (out == nullptr || !out->protects || out->group == nullptr) return nullptr;
    return out->group->best.load(std::memory_order_acquire);
}

std::uint32_t clamp_back(const stage& s, const packet& p) noexcept {
    if (s.shared.mss_clamp() != mss_by_path) return s.shared.mss_clamp();
    const sa_out* sa = sa_back(s, p);
    return sa != nullptr ? inner_mtu(*sa, path_of(s, *sa)) : 0;
}

void clamp(stage& s, packet& p, std::uint32_t mtu) noexcept {
    if (mtu != 0 && clamp_mss(p, mtu)) s.counters.clamped.add(1);
}

} // namespace

bool clamp_mss(packet& p, std::uint32_t mtu) noexcept {
    constexpr std::size_t sum_at = offsetof(wire::tcp_header, checksum);
    const std::span tcp(p.data + p.l4_offset, p.length - p.l4_offset);
    const std::uint32_t at = find_mss(tcp);
    if (at == 0) return false;
    const std::uint32_t headers =
        static_cast<std::uint32_t>(sizeof(wire::tcp_header)) +
        static_cast<std::uint32_t>(p.family == family::ipv4 ? sizeof(wire::ipv4_header)
                                                            : sizeof(wire::ipv6_header));
    const std::uint32_t most = std::max(mtu, headers + least_mss) - headers;
    const auto before = wire::load<wire::be16>(&tcp[at]);
    if (before.host() <= most) return false;
    const wire::be16 after(static_cast<std::uint16_t>(most));
    const auto sum = wire::load<wire::be16>(&tcp[sum_at]);
    wire::store(&tcp[sum_at],
                wire::checksum_update(sum, as_summed(before, at), as_summed(after, at)));
    wire::store(&tcp[at], after);
    return true;
}

void clamp_outbound(stage& s, std::span<const protect_item> items) noexcept {
    for (const protect_item& item : items)
        if (is_syn(*item.p)) clamp(s, *item.p, clamp_of(s, *item.sa));
}

void clamp_inbound(stage& s, const packet_list& clear, unsigned first) noexcept {
    for (unsigned i = first; i < clear.size(); ++i)
        if (is_syn(clear[i])) clamp(s, clear[i], clamp_back(s, clear[i]));
}

} // namespace esplane::fastpath

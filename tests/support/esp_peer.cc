// SPDX-License-Identifier: Apache-2.0
#include "tests/support/esp_peer.h"

#include <algorithm>

#include "lib/wire/checksum.h"

namespace esplane::tests {

namespace {

constexpr std::uint8_t hop_limit = 64;

frame outer_v4(std::uint8_t protocol, std::uint8_t tos, std::size_t behind) {
    wire::ipv4_header ip{};
    ip.version_ihl = 0x45;
    ip.tos = tos;
    ip.total_length.set(static_cast<std::uint16_t>(sizeof ip + behind));
    ip.ttl = hop_limit;
    ip.protocol = protocol;
    ip.source = ipsec::address::parse("192.168.77.1")->as_v4();
    ip.destination = ipsec::address::parse("192.168.77.2")->as_v4();
    frame f(sizeof ip);
    wire::store(f.data(), ip);
    fix_header_checksum(f);
    return f;
}

frame outer_v6(std::uint8_t protocol, std::uint8_t tos, std::size_t behind) {
    wire::ipv6_header ip{};
    ip.version_class_flow.set(0x60000000u | std::uint32_t{tos} << 20);
    ip.payload_length.set(static_cast<std::uint16_t>(behind));
    ip.next_header = protocol;
    ip.hop_limit = hop_limit;
    ip.source = ipsec::address::parse("fd77::1")->bytes;
    ip.destination = ipsec::address::parse("fd77::2")->bytes;
    frame f(sizeof ip);
    wire::store(f.data(), ip);
    return f;
}

template <typename Header>
void append(frame& f, const Header& header) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&header);
    std::copy_n(bytes, sizeof header, std::back_inserter(f));
}

} // namespace

esp_peer::esp_peer(const tunnel_options& o)
    : o_(o)
    , layout_(ipsec::layout_of(o.run))
    , key_(crypto::key::make(make_algorithms(o.run, o.key_seed * 2 + 1)).value())
    , engine_(crypto::engine::make().value()) {}

frame esp_peer::seal(std::span<const std::uint8_t> text, std::uint64_t sequence,
                     std::uint8_t outer_tos) {
    const std::size_t whole = text.size() / layout_.block_length * layout_.block_length;
    const std::size_t esp_length =
        sizeof(wire::esp_header) + layout_.iv_length + whole + layout_.icv_length;
    const std::size_t behind = esp_length + (o_.encapsulated ? sizeof(wire::udp_header) : 0);
    const std::uint8_t protocol = o_.encapsulated ? wire::proto_udp : wire::proto_esp;
    frame f = o_.outer == ipsec::family::ipv4 ? outer_v4(protocol, outer_tos, behind)
                                              : outer_v6(protocol, outer_tos, behind);
    if (o_.encapsulated) {
        wire::udp_header udp{wire::be16(4500), wire::be16(4500), {}, {}};
        udp.length.set(static_cast<std::uint16_t>(behind));
        append(f, udp);
    }
    const std::size_t at = f.size();
    append(f,
           wire::esp_header{wire::be32(o_.spi), wire::be32(static_cast<std::uint32_t>(sequence))});
    f.resize(at + esp_length);
    std::copy_n(text.begin(), whole, f.begin() + at + sizeof(wire::esp_header) + layout_.iv_length);
    crypto::job job;
    job.keys = &key_->get();
    job.esp = f.data() + at;
    job.text_length = static_cast<std::uint32_t>(whole);
    job.esn = o_.esn;
    job.seq_high = static_cast<std::uint32_t>(sequence >> 32);
    engine_->encrypt({&job, 1});
    return f;
}

frame esp_peer::text_of(const frame& inner, std::uint8_t next_header) const {
    frame text = inner;
    std::uint8_t pad = 0;
    while ((text.size() + 2) % layout_.block_length != 0)
        text.push_back(++pad);
    text.push_back(pad);
    text.push_back(next_header);
    return text;
}

void fix_header_checksum(frame& ip_packet) {
    if (ip_packet.size() < sizeof(wire::ipv4_header) || (ip_packet[0] >> 4) != 4) return;
    const std::size_t header = (ip_packet[0] & 0x0fu) * 4u;
    if (header < sizeof(wire::ipv4_header) || header > ip_packet.size()) return;
    std::uint8_t* field = &ip_packet[offsetof(wire::ipv4_header, checksum)];
    wire::store(field, wire::be16());
    wire::store(field, wire::checksum_finish(wire::checksum_add(0, ip_packet.data(), header)));
}

} // namespace esplane::tests

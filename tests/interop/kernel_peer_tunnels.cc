// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/kernel_peer_tunnels.h"

#include <array>
#include <sstream>

namespace esplane::tests {

namespace {

using ipsec::family;

struct wrapping {
    family inner, outer;
    bool encapsulated;
    const char* name;
};
constexpr std::array<wrapping, 8> wrappings = {{
    {family::ipv4, family::ipv4, false, "v4-in-v4"},
    {family::ipv6, family::ipv4, false, "v6-in-v4"},
    {family::ipv4, family::ipv4, true, "v4-in-v4 udp"},
    {family::ipv6, family::ipv4, true, "v6-in-v4 udp"},
    {family::ipv4, family::ipv6, false, "v4-in-v6"},
    {family::ipv6, family::ipv6, false, "v6-in-v6"},
    {family::ipv4, family::ipv6, true, "v4-in-v6 udp"},
    {family::ipv6, family::ipv6, true, "v6-in-v6 udp"},
}};

std::string hexadecimal(const secret& key) {
    constexpr const char* digits = "0123456789abcdef";
    std::string text = "0x";
    for (const std::uint8_t b : key.bytes()) {
        text += digits[b >> 4];
        text += digits[b & 15];
    }
    return key.empty() ? "\"\"" : text;
}

std::string gateway(family f, unsigned site) {
    return (f == family::ipv4 ? "192.168.77." : "fd77::") + std::to_string(site);
}

std::string if_id_words(const tunnel& t) {
    return t.options.if_id == 0 ? "" : " if_id " + std::to_string(t.options.if_id);
}

std::string endpoints(const tunnel& t, unsigned from) {
    return " src " + gateway(t.options.outer, from) + " dst " + gateway(t.options.outer, 3 - from);
}

std::string state_line(const tunnel& t, unsigned from, std::uint32_t packets) {
    const tunnel_options& o = t.options;
    const std::uint32_t before = sequence_before(t, packets);
    std::ostringstream out;
    out << "xfrm state add" << endpoints(t, from) << " proto esp spi " << o.spi + from - 1
        << " reqid " << o.reqid << " mode tunnel replay-window " << o.replay_window;
    if (o.esn) out << " replay-seq " << before << " replay-oseq " << before << " flag esn";
    if (t.inner != o.outer) out << (o.esn ? "" : " flag") << " af-unspec";
    out << algorithm_words(make_algorithms(o.run, o.key_seed * 2 + from));
    if (o.encapsulated) out << " encap espinudp 4500 4500 0.0.0.0";
    out << if_id_words(t) << '\n';
    return out.str();
}

std::string policy_line(const tunnel& t, const char* direction, unsigned from) {
    const char* const all = t.inner == family::ipv4 ? "0.0.0.0/0" : "::/0";
    const bool routed = t.options.if_id != 0;
    return "xfrm policy add src " + (routed ? all : network_of(t, from)) + " dst " +
           (routed ? all : network_of(t, 3 - from)) + " dir " + direction + if_id_words(t) +
           " tmpl" + endpoints(t, from) + " proto esp reqid " + std::to_string(t.options.reqid) +
           " mode tunnel\n";
}

} // namespace

std::string algorithm_words(const ipsec::algorithms& a) {
    std::ostringstream out;
    if (a.aead.present())
        out << " aead " << a.aead.name << ' ' << hexadecimal(a.aead.key) << ' ' << a.aead.icv_bits;
    if (a.auth.present())
        out << " auth-trunc " << a.auth.name << ' ' << hexadecimal(a.auth.key) << ' '
            << a.auth.icv_bits;
    if (a.cipher.present()) out << " enc " << a.cipher.name << ' ' << hexadecimal(a.cipher.key);
    return out.str();
}

std::vector<tunnel> all_tunnels() {
    std::vector<tunnel> all;
    for (unsigned s = 0; s < ipsec::suite_count; ++s)
        for (const wrapping& w : wrappings)
            for (const bool esn : {false, true}) {
                const std::uint32_t window = (s + (esn ? 1 : 0)) % 2 == 0 ? 32 : 1024;
                tunnel t;
                t.index = static_cast<unsigned>(all.size());
                t.inner = w.inner;
                t.options.run = static_cast<ipsec::suite>(s);
                t.options.outer = w.outer;
                t.options.encapsulated = w.encapsulated;
                t.options.esn = esn;
                t.options.replay_window = window;
                t.options.spi = 0x10000 + 2 * t.index;
                t.options.reqid = t.options.key_seed = t.index + 1;
                t.name = std::string(name_of(t.options.run)) + " " + w.name + (esn ? " esn" : "") +
                         " window " + std::to_string(window);
                all.push_back(std::move(t));
            }
    return all;
}

std::vector<tunnel> routed_tunnels() {
    std::vector<tunnel> all;
    for (const wrapping& w : wrappings) {
        tunnel t;
        t.index = static_cast<unsigned>(all.size());
        t.inner = w.inner;
        t.options.outer = w.outer;
        t.options.encapsulated = w.encapsulated;
        t.options.esn = true;
        t.options.spi = 0x10000 + 2 * t.index;
        t.options.reqid = 1; // of all: the interface alone says which
        t.options.key_seed = t.options.if_id = t.index + 1;
        t.name = std::string(w.name) + " by route";
        all.push_back(std::move(t));
    }
    return all;
}

std::string network_of(const tunnel& t, unsigned site) {
    std::ostringstream out;
    if (t.inner == family::ipv4)
        out << "10." << site << '.' << t.index + 1 << ".0/24";
    else
        out << "fd0" << site << "::" << std::hex << t.index + 1 << "00/120";
    return out.str();
}

std::string interface_lines(std::span<const tunnel> tunnels, unsigned site,
                            const std::string& device) {
    std::ostringstream out;
    for (const tunnel& t : tunnels) {
        const std::string name = "ipsec" + std::to_string(t.options.if_id);
        out << "link add " << name << " type xfrm dev " << device << " if_id " << t.options.if_id
            << "\nlink set " << name << " up\n"
            << "route add " << network_of(t, 3 - site) << " dev " << name << '\n';
    }
    return out.str();
}

std::uint32_t sequence_before(const tunnel& t, std::uint32_t packets) {
    return t.options.esn ? 0u - packets / 2 : 0;
}

std::string xfrm_lines(std::span<const tunnel> tunnels, unsigned site, std::uint32_t packets) {
    std::string lines;
    for (const tunnel& t : tunnels) {
        for (const unsigned from : {1u, 2u})
            lines += state_line(t, from, packets);
        lines += policy_line(t, "out", site);
        for (const char* direction : {"in", "fwd"})
            lines += policy_line(t, direction, 3 - site);
    }
    return lines;
}

packet_spec spec_of(const tunnel& t, unsigned from, std::uint32_t number) {
    packet_spec s;
    s.family = t.inner;
    s.from = from;
    s.to = 3 - from;
    s.host = static_cast<std::uint16_t>((t.index + 1) << 8 | 10);
    s.length = 64 + number * 577 % 1337; // both prime: every length from 64 to 1400
    s.number = number;
    s.tos = static_cast<std::uint8_t>(number * 37); // odd: every value
    s.ttl = static_cast<std::uint8_t>(3 + number % 250);
    s.dont_fragment = number % 3 != 0;
    return s;
}

frame make_labelled(const packet_spec& spec) {
    frame f = make_packet(spec);
    if (spec.family == family::ipv4) return f;
    const std::uint32_t label = spec.number * 2654435761u >> 12; // 20 bits
    wire::store(f.data(), wire::be32(wire::load<wire::be32>(f.data()).host() | label));
    return f;
}

} // namespace esplane::tests

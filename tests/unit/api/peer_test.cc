// SPDX-License-Identifier: Apache-2.0
//
// The library against the pipeline of the daemon: same transforms, so each understands the other.
#include <gtest/gtest.h>

#include "tests/support/lab.h"
#include "tests/unit/api/gateway.h"

namespace esplane::tests {
namespace {

/// An SA of tests/support/lab.h as an embedder gives it.
esplane_sa sa_of(const tunnel_options& o, unsigned from, const ipsec::algorithms& algorithms) {
    const auto described = [](const ipsec::keyed_algorithm& a) -> esplane_algorithm {
        if (!a.present()) return {};
        return {a.name.c_str(), a.key.bytes().data(), static_cast<std::uint32_t>(a.key.size()),
                a.icv_bits};
    };
    const std::string network = o.outer == ipsec::family::ipv4 ? "192.168.77." : "fd77::";
    esplane_sa s;
    esplane_sa_init(&s);
    s.id.destination = ip(network + std::to_string(3 - from));
    s.id.spi = o.spi + from - 1;
    s.source = ip(network + std::to_string(from));
    s.reqid = o.reqid;
    s.replay_window = o.replay_window;
    s.flags = static_cast<std::uint8_t>(ESPLANE_SA_ANY_INNER_FAMILY | (o.esn ? ESPLANE_SA_ESN : 0));
    s.aead = described(algorithms.aead);
    s.cipher = described(algorithms.cipher);
    s.auth = described(algorithms.auth);
    if (o.encapsulated) s.encapsulation = {2, 4500, 4500, 0, {}};
    return s;
}

esplane_policy policy_of(const tunnel_options& o, const packet_spec& spec, std::uint8_t direction,
                         esplane_template& via) {
    const esplane_sa ends = sa_of(o, spec.from, {});
    esplane_template_init(&via);
    via.family = ends.source.family;
    via.source = ends.source;
    via.id.destination = ends.id.destination;
    via.reqid = o.reqid;
    esplane_policy p;
    esplane_policy_init(&p);
    p.direction = direction;
    p.selector.family = static_cast<std::uint8_t>(spec.family);
    p.templates = &via;
    p.template_count = 1;
    return p;
}

/// Site `site` by the library, with one SA from site 1 to site 2 and its policy.
void program(gateway& g, const tunnel_options& o, const packet_spec& spec) {
    const auto algorithms = make_algorithms(o.run, o.key_seed * 2 + spec.from);
    const esplane_sa s = sa_of(o, spec.from, algorithms);
    ASSERT_EQ(esplane_sa_add(g.engine, &s, at(1)), 0) << esplane_error_text();
    const esplane_address own =
        ip((o.outer == ipsec::family::ipv4 ? "192.168.77." : "fd77::") + std::to_string(g.site));
    ASSERT_EQ(esplane_set_addresses(g.engine, &own, 1), 0);
    esplane_template via;
    const bool leaves = g.site == spec.from;
    const esplane_policy p = policy_of(o, spec, leaves ? ESPLANE_OUT : ESPLANE_FORWARD, via);
    ASSERT_EQ(esplane_policy_add(g.engine, &p, at(1)), 0) << esplane_error_text();
}

struct variant {
    tunnel_options tunnel;
    packet_spec packet;
};

std::vector<variant> variants() {
    std::vector<variant> all;
    for (unsigned run = 0; run < ipsec::suite_count; ++run)
        for (const auto outer : {ipsec::family::ipv4, ipsec::family::ipv6})
            for (const auto inner : {ipsec::family::ipv4, ipsec::family::ipv6})
                for (const bool esn : {false, true})
                    for (const bool udp : {false, true}) {
                        if (udp && outer == ipsec::family::ipv6) continue;
                        variant v;
                        v.tunnel.run = static_cast<ipsec::suite>(run);
                        v.tunnel.outer = outer;
                        v.tunnel.esn = esn;
                        v.tunnel.encapsulated = udp;
                        v.tunnel.flags = ipsec::sa_flag::any_inner_family;
                        v.packet.family = inner;
                        v.packet.length = 111;
                        all.push_back(v);
                    }
    return all;
}

/// As a gateway leaves it: one hop less.
frame hopped(frame p) {
    if ((p[0] >> 4) == 6) {
        --p[7];
        return p;
    }
    auto& header = *reinterpret_cast<wire::ipv4_header*>(p.data());
    const auto sum = static_cast<std::uint32_t>(header.checksum.host()) + 0x100;
    --header.ttl;
    header.checksum.set(static_cast<std::uint16_t>(sum + (sum >> 16)));
    return p;
}

TEST(ApiPeer, ThePipelineDecryptsWhatTheLibraryEncrypts) {
    for (const variant& v : variants()) {
        gateway near(1);
        program(near, v.tunnel, v.packet);
        lab far(2, 64);
        far.add_tunnel(v.tunnel);
        const frame inner = make_packet(v.packet);
        buffer b(inner);
        near.outbound(b);
        ASSERT_EQ(b.packet.verdict, ESPLANE_PROTECTED) << esplane_reason_name(b.packet.reason);
        far.push(lab::secure, {b.content()});
        const auto out = far.sent(lab::plain);
        ASSERT_EQ(out.size(), 1u);
        EXPECT_EQ(out[0], hopped(inner));
    }
}

TEST(ApiPeer, TheLibraryDecryptsWhatThePipelineEncrypts) {
    for (const variant& v : variants()) {
        lab near(1, 64);
        near.add_tunnel(v.tunnel);
        gateway far(2);
        program(far, v.tunnel, v.packet);
        const frame inner = make_packet(v.packet);
        near.push(lab::plain, {inner});
        const auto wire = near.sent(lab::secure);
        ASSERT_EQ(wire.size(), 1u);
        buffer b(wire[0]);
        far.inbound(b);
        ASSERT_EQ(b.packet.verdict, ESPLANE_DECRYPTED) << esplane_reason_name(b.packet.reason);
        EXPECT_EQ(b.content(), hopped(inner));
    }
}

} // namespace
} // namespace esplane::tests

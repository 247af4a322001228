// SPDX-License-Identifier: Apache-2.0
//
// Requests as clients write them, for tests of the dispatcher and the server.
#pragma once

#include <sys/socket.h>

#include <string>
#include <vector>

#include "xfrm/policy_codec.h"
#include "xfrm/sa_codec.h"

namespace esplane::xfrm {

inline constexpr std::uint16_t ask = NLM_F_REQUEST;
inline constexpr std::uint16_t ask_ack = NLM_F_REQUEST | NLM_F_ACK;

/// An SA of AES-128-GCM, 10.1.0.1 to 10.1.0.2.
inline ipsec::sa example_sa(std::uint32_t spi = 0x1001) {
    ipsec::sa s;
    s.id = {ipsec::address::v4(wire::be32(0x0a010002)), wire::be32(spi), 50};
    s.source = ipsec::address::v4(wire::be32(0x0a010001));
    s.sel.fam = ipsec::family::ipv4;
    s.sel.source.fam = s.sel.destination.fam = ipsec::family::ipv4;
    s.reqid = 1;
    s.algs.aead = {"rfc4106(gcm(aes))", secret(std::vector<std::uint8_t>(20, 0x41)), 128};
    return s;
}

/// 192.168.1.0/24 to 192.168.2.0/24 through the tunnel of example_sa().
inline ipsec::policy example_policy(std::uint8_t third_octet = 1) {
    ipsec::policy p;
    p.sel.fam = ipsec::family::ipv4;
    p.sel.source = ipsec::address::v4(wire::be32(0xc0a80000u + third_octet * 256u));
    p.sel.destination = ipsec::address::v4(wire::be32(0xc0a80200));
    p.sel.source_prefix = p.sel.destination_prefix = 24;
    ipsec::template_ t;
    t.id = {ipsec::address::v4(wire::be32(0x0a010002)), {}, 50};
    t.source = ipsec::address::v4(wire::be32(0x0a010001));
    t.fam = ipsec::family::ipv4;
    t.reqid = 1;
    t.auth_algs = t.cipher_algs = t.comp_algs = ~std::uint32_t{0};
    p.templates.push_back(t);
    return p;
}

/// One message; `body` writes what follows the header.
template <typename Body>
datagram request(std::uint16_t type, std::uint16_t flags, Body&& body, std::uint32_t sequence = 7) {
    datagram d;
    message_writer w(d, type, flags, sequence, 0);
    body(w);
    w.finish();
    return d;
}

inline datagram new_sa(const ipsec::sa& s, std::uint16_t type = XFRM_MSG_NEWSA) {
    return request(type, ask_ack, [&](message_writer& w) {
        w.fixed(sa_info(s));
        encode_sa_attributes(w, s);
    });
}

inline datagram sa_by_id(std::uint16_t type, std::uint32_t spi, std::uint16_t flags = ask) {
    return request(type, flags, [&](message_writer& w) { w.fixed(sa_id_to(example_sa(spi).id)); });
}

inline datagram new_policy(const ipsec::policy& p, std::uint16_t type = XFRM_MSG_NEWPOLICY) {
    return request(type, ask_ack, [&](message_writer& w) {
        w.fixed(policy_info(p));
        encode_policy_attributes(w, p);
    });
}

inline datagram policy_by(std::uint16_t type, const ipsec::policy& p, bool by_index,
                          std::uint16_t flags = ask) {
    return request(type, flags, [&](message_writer& w) { w.fixed(policy_id_to(p, by_index)); });
}

inline datagram allocate_spi(std::uint32_t min, std::uint32_t max) {
    return request(XFRM_MSG_ALLOCSPI, ask, [&](message_writer& w) {
        xfrm_userspi_info body{};
        body.info = sa_info(example_sa(0));
        body.min = min;
        body.max = max;
        w.fixed(body);
    });
}

inline datagram dump(std::uint16_t type) {
    return request(type, ask | NLM_F_DUMP, [](message_writer&) {});
}

/// Adds an attribute to the one message of `d`.
inline datagram with_attribute(datagram d, std::uint16_t type, bytes value) {
    const nlattr head{static_cast<std::uint16_t>(sizeof(nlattr) + value.size()), type};
    const auto* at = reinterpret_cast<const std::uint8_t*>(&head);
    d.insert(d.end(), at, at + sizeof head);
    d.insert(d.end(), value.begin(), value.end());
    d.resize(aligned(d.size()));
    const auto length = static_cast<std::uint32_t>(d.size());
    std::memcpy(d.data(), &length, sizeof length);
    return d;
}

/// What a reply says, for people and tests.
struct reply_view {
    std::uint16_t type = 0;
    std::uint16_t flags = 0;
    std::uint32_t port_id = 0;
    int error = 0;                       ///< of NLMSG_ERROR, positive
    std::size_t echoed = 0;              ///< bytes of the request behind its header
    std::string text;                    ///< NLMSGERR_ATTR_MSG
    std::optional<std::uint32_t> offset; ///< NLMSGERR_ATTR_OFFS
};

inline reply_view view(const message& m) {
    reply_view v{m.header.nlmsg_type, m.header.nlmsg_flags, m.header.nlmsg_pid, 0, 0, {}, {}};
    if (m.header.nlmsg_type != NLMSG_ERROR) return v;
    const auto e = read_fixed<nlmsgerr>(m.payload()).value();
    v.error = -e.error;
    if ((v.flags & NLM_F_CAPPED) == 0) v.echoed = e.msg.nlmsg_len - NLMSG_HDRLEN;
    if ((v.flags & NLM_F_ACK_TLVS) == 0) return v;
    for_each_attribute(m.after(sizeof e + v.echoed), [&](std::uint16_t type, bytes value) {
        if (type == NLMSGERR_ATTR_MSG)
            v.text.assign(reinterpret_cast<const char*>(value.data()), value.size() - 1);
        if (type == NLMSGERR_ATTR_OFFS) v.offset = read_fixed<std::uint32_t>(value);
        return true;
    });
    return v;
}

inline std::vector<message> messages_of(bytes d) {
    std::vector<message> all;
    while (const auto m = next_message(d))
        all.push_back(*m);
    return all;
}

} // namespace esplane::xfrm

// SPDX-License-Identifier: Apache-2.0
#include "xfrm/sa_codec.h"

#include <sys/socket.h>
#include <sys/sysinfo.h>

#include "xfrm/mark_codec.h"
#include "xfrm/replay_codec.h"
#include "xfrm/security_codec.h"

namespace esplane::xfrm {
namespace {

constexpr std::uint16_t encap_espinudp = 2; // UDP_ENCAP_ESPINUDP
constexpr std::uint16_t encap_espintcp = 7; // TCP_ENCAP_ESPINTCP

// Algorithms: struct xfrm_algo, xfrm_algo_auth and xfrm_algo_aead differ in what stands between
// the length of the key and the key: nothing, the truncated length, the length of the ICV.

constexpr std::size_t name_length = sizeof(xfrm_algo::alg_name);

struct algorithm_head {
    char name[name_length];
    std::uint32_t key_bits;
};

constexpr std::size_t key_bytes(std::uint32_t bits) noexcept {
    return bits / 8 + (bits % 8 != 0 ? 1 : 0);
}

/// One kind of algorithm attribute, with the kernel's words for it.
struct algorithm_kind {
    std::uint16_t type;
    bool has_icv; ///< the length of the ICV stands before the key
    const char* wrong_length;
};

constexpr algorithm_kind aead_kind{XFRMA_ALG_AEAD, true, "Invalid AEAD attribute length"};
constexpr algorithm_kind auth_trunc_kind{XFRMA_ALG_AUTH_TRUNC, true,
                                         "Invalid AUTH_TRUNC attribute length"};
constexpr algorithm_kind auth_kind{XFRMA_ALG_AUTH, false,
                                   "Invalid AUTH/CRYPT/COMP attribute length"};
constexpr algorithm_kind cipher_kind{XFRMA_ALG_CRYPT, false,
                                     "Invalid AUTH/CRYPT/COMP attribute length"};

result<ipsec::keyed_algorithm> decode_algorithm(const attributes& a, const algorithm_kind& kind) {
    ipsec::keyed_algorithm out;
    const bytes value = a.get(kind.type);
    const auto head = read_fixed<algorithm_head>(value);
    if (!head) return out;
    bytes key = value.subspan(sizeof *head);
    if (kind.has_icv) {
        out.icv_bits = read_fixed<std::uint32_t>(key).value_or(0);
        key = key.subspan(sizeof out.icv_bits);
    }
    if (key.size() < key_bytes(head->key_bits)) return fail(EINVAL, kind.wrong_length);
    out.key = secret(key.first(key_bytes(head->key_bits)));
    out.name.assign(head->name, ::strnlen(head->name, name_length - 1));
    if (out.name.empty()) { // not the same as absent: it is not found
        out.name = "(empty)";
        if (kind.has_icv && out.icv_bits == 0) out.icv_bits = 8; // else it would pass for AUTH
    }
    return out;
}

void encode_algorithm(message_writer& w, const algorithm_kind& kind,
                      const ipsec::keyed_algorithm& alg) {
    algorithm_head head{};
    alg.name.copy(head.name, name_length - 1);
    head.key_bits = static_cast<std::uint32_t>(alg.key.size() * 8);

    datagram value(sizeof head);
    std::memcpy(value.data(), &head, sizeof head);
    if (kind.has_icv) {
        value.resize(sizeof head + sizeof alg.icv_bits);
        std::memcpy(value.data() + sizeof head, &alg.icv_bits, sizeof alg.icv_bits);
    }
    const auto key = alg.key.bytes();
    value.insert(value.end(), key.begin(), key.end());
    w.attribute_bytes(kind.type, value);
}

result<void> decode_algorithms(const attributes& a, ipsec::algorithms& into) {
    auto aead = decode_algorithm(a, aead_kind);
    if (!aead) return tl::unexpected(std::move(aead.error()));
    auto trunc = decode_algorithm(a, auth_trunc_kind);
    if (!trunc) return tl::unexpected(std::move(trunc.error()));
    auto auth = decode_algorithm(a, auth_kind);
    if (!auth) return tl::unexpected(std::move(auth.error()));
    auto cipher = decode_algorithm(a, cipher_kind);
    if (!cipher) return tl::unexpected(std::move(cipher.error()));
    into.aead = std::move(*aead);
    into.auth = trunc->present() ? std::move(*trunc) : std::move(*auth);
    into.cipher = std::move(*cipher);
    return {};
}

/// What only an SA of that direction may have.
result<void> check_direction(const xfrm_usersa_info& info, const attributes& a,
                             ipsec::direction dir) {
    const auto extra = a.load<std::uint32_t>(XFRMA_SA_EXTRA_FLAGS).value_or(0);
    if (dir == ipsec::direction::out) {
        if ((info.flags & XFRM_STATE_DECAP_DSCP) != 0)
            return fail(EINVAL, "Flag DECAP_DSCP should not be set for output SA");
        if ((info.flags & XFRM_STATE_ICMP) != 0)
            return fail(EINVAL, "Flag ICMP should not be set for output SA");
        if ((info.flags & XFRM_STATE_WILDRECV) != 0)
            return fail(EINVAL, "Flag WILDRECV should not be set for output SA");
        if (info.replay_window != 0) return fail(EINVAL, "Replay window should be 0 for output SA");
        const auto replay = a.load<xfrm_replay_state>(XFRMA_REPLAY_VAL);
        if (replay && (replay->seq != 0 || replay->bitmap != 0))
            return fail(EINVAL, "Replay seq and bitmap should be 0 for output SA");
    }
    if (dir == ipsec::direction::in) {
        if ((info.flags & XFRM_STATE_NOPMTUDISC) != 0)
            return fail(EINVAL, "Flag NOPMTUDISC should not be set for input SA");
        if ((extra & XFRM_SA_XFLAG_DONT_ENCAP_DSCP) != 0)
            return fail(EINVAL, "Flag DONT_ENCAP_DSCP should not be set for input SA");
        if ((extra & XFRM_SA_XFLAG_OSEQ_MAY_WRAP) != 0)
            return fail(EINVAL, "Flag OSEQ_MAY_WRAP should not be set for input SA");
    }
    return {};
}

/// What only an inbound SA in UDP may have.
result<void> check_mapping_threshold(const attributes& a, ipsec::direction dir) {
    if (!a.has(XFRMA_MTIMER_THRESH)) return {};
    if (!a.has(XFRMA_ENCAP))
        return fail(EINVAL, "MTIMER_THRESH attribute can only be set on ENCAP states");
    if (dir == ipsec::direction::out)
        return fail(EINVAL, "MTIMER_THRESH attribute should not be set on output SA");
    return {};
}

ipsec::direction direction_from(const attributes& a) noexcept {
    switch (a.load<std::uint8_t>(xfrma_sa_dir).value_or(0)) {
    case xfrm_sa_dir_in:
        return ipsec::direction::in;
    case xfrm_sa_dir_out:
        return ipsec::direction::out;
    default:
        return ipsec::direction::unknown;
    }
}

result<void> check_algorithm_attributes(const attributes& a) {
    const bool separate =
        a.has(XFRMA_ALG_AUTH) || a.has(XFRMA_ALG_AUTH_TRUNC) || a.has(XFRMA_ALG_CRYPT);
    if (!separate && !a.has(XFRMA_ALG_AEAD))
        return fail(EINVAL, "Missing required attribute for ESP: at least one of AUTH, AUTH_TRUNC, "
                            "CRYPT, AEAD");
    if (separate && a.has(XFRMA_ALG_AEAD))
        return fail(EINVAL, "Invalid attribute combination for ESP: AEAD can't be used with AUTH, "
                            "AUTH_TRUNC, CRYPT");
    return {};
}

result<void> check_families(const xfrm_usersa_info& info) {
    if (info.family != AF_INET && info.family != AF_INET6)
        return fail(EINVAL, "Invalid address family");
    std::uint16_t family = info.sel.family;
    if (family == AF_UNSPEC && (info.flags & XFRM_STATE_AF_UNSPEC) == 0) family = info.family;
    if (family != AF_UNSPEC && family_from(family) == ipsec::family::unspecified)
        return fail(EINVAL, "Invalid address family in selector");
    if (auto ok = check_prefixes(info.sel, family_from(family)); !ok) return ok;
    return check_carried(info.sel);
}

/// verify_newsa_info, up to the values of attributes.
result<void> check_sa(const xfrm_usersa_info& info, const attributes& a) {
    if (auto ok = check_families(info); !ok) return ok;
    if (auto ok = check_protocol(info.id.proto, "Unsupported protocol", "id.proto"); !ok) return ok;
    if (auto ok = check_algorithm_attributes(a); !ok) return ok;
    if (a.has(XFRMA_TFCPAD) && info.mode != XFRM_MODE_TUNNEL)
        return fail(EINVAL, "TFC padding can only be used in tunnel mode");
    return {};
}

ipsec::sa sa_from(const xfrm_usersa_info& info) {
    ipsec::sa s;
    const ipsec::family family = family_from(info.family);
    s.id = {address_from(info.id.daddr, family), wire::be32::from_network(info.id.spi),
            info.id.proto};
    s.source = address_from(info.saddr, family);
    s.run_mode = mode_from(info.mode);
    s.sel = selector_from(info.sel);
    if (s.sel.fam == ipsec::family::unspecified && (info.flags & XFRM_STATE_AF_UNSPEC) == 0) {
        s.sel.fam = family;
        s.sel.source = address_from(info.sel.saddr, family);
        s.sel.destination = address_from(info.sel.daddr, family);
    }
    s.reqid = info.reqid;
    s.seq = info.seq;
    s.flags = info.flags;
    s.limits = limits_from(info.lft);
    return s;
}

} // namespace

result<ipsec::sa> decode_sa(const xfrm_usersa_info& info, const attributes& a) {
    if (auto ok = check_sa(info, a); !ok) return tl::unexpected(std::move(ok.error()));
    ipsec::sa s = sa_from(info);
    s.dir = direction_from(a);
    if (auto ok = decode_algorithms(a, s.algs); !ok) return tl::unexpected(std::move(ok.error()));
    auto security = decode_security(a);
    if (!security) return tl::unexpected(std::move(security.error()));
    s.security = std::move(*security);
    if (auto ok = decode_replay(info, a, s); !ok) return tl::unexpected(std::move(ok.error()));
    if (auto ok = check_mode(info.mode, "Unsupported mode", "mode"); !ok)
        return tl::unexpected(std::move(ok.error()));
    if (auto ok = check_mapping_threshold(a, s.dir); !ok)
        return tl::unexpected(std::move(ok.error()));
    if (auto ok = check_direction(info, a, s.dir); !ok)
        return tl::unexpected(std::move(ok.error()));
    if (a.has(xfrma_sa_pcpu) && !a.has(xfrma_sa_dir))
        return fail(EINVAL, "SA_PCPU only supported with SA_DIR");
    s.encap = decode_encap(a, s.id.destination.fam).value_or(std::nullopt); // see check_use()
    s.extra_flags = a.load<std::uint32_t>(XFRMA_SA_EXTRA_FLAGS).value_or(0);
    s.if_id = decode_if_id(a);
    s.id.mark = decode_mark(a);
    s.output_mark = decode_output_mark(a);
    s.tfc_pad = a.load<std::uint32_t>(XFRMA_TFCPAD).value_or(0);
    if (const auto care_of = a.load<xfrm_address_t>(XFRMA_COADDR))
        s.care_of = address_from(*care_of, ipsec::family::unspecified);
    s.replay_threshold = a.load<std::uint32_t>(XFRMA_REPLAY_THRESH).value_or(0);
    s.replay_timer = a.load<std::uint32_t>(XFRMA_ETIMER_THRESH).value_or(0);
    s.mapping_threshold = a.load<std::uint32_t>(XFRMA_MTIMER_THRESH).value_or(0);
    s.nat_keepalive = a.load<std::uint32_t>(xfrma_nat_keepalive_interval).value_or(0);
    s.pcpu = a.load<std::uint32_t>(xfrma_sa_pcpu);
    if (const auto current = a.load<xfrm_lifetime_cur>(XFRMA_LTIME_VAL))
        s.current = current_from(*current);
    return s;
}

result<void> check_cpu(std::optional<std::uint32_t> cpu, int too_big) {
    if (cpu && *cpu >= static_cast<std::uint32_t>(::get_nprocs_conf()))
        return fail(too_big, "pCPU number too big");
    return {};
}

result<void> check_family_change(const ipsec::sa& s) {
    if (s.run_mode == ipsec::mode::transport && s.sel.fam != ipsec::family::unspecified &&
        s.sel.fam != s.id.destination.fam)
        return fail(EPROTONOSUPPORT, "Only tunnel modes can accommodate a change of family");
    return {};
}

result<void> check_use(const ipsec::sa& s, const attributes& a) {
    if (auto encap = decode_encap(a, s.id.destination.fam); !encap)
        return tl::unexpected(std::move(encap.error()));
    if (s.nat_keepalive != 0 && s.dir != ipsec::direction::out)
        return fail(EINVAL, "NAT keepalive is only supported for outbound SAs");
    if (s.nat_keepalive != 0 && !s.encap)
        return fail(EINVAL, "NAT keepalive is only supported for UDP encapsulation");
    return check_window(s);
}

xfrm_usersa_info sa_info(const ipsec::sa& s) noexcept {
    xfrm_usersa_info info{};
    info.sel = selector_to(s.sel);
    info.id.daddr = address_to(s.id.destination);
    info.id.spi = s.id.spi.network();
    info.id.proto = s.id.protocol;
    info.saddr = address_to(s.source);
    info.lft = limits_to(s.limits);
    info.curlft = current_to(s.current);
    info.stats = {s.statistics.replay_window, s.statistics.replay, s.statistics.integrity_failed};
    info.seq = s.seq;
    info.reqid = s.reqid;
    info.family = address_family(s.id.destination.fam);
    info.mode = static_cast<std::uint8_t>(s.run_mode);
    info.replay_window = s.replay_esn_form ? 0 : static_cast<std::uint8_t>(s.replay_window);
    info.flags = s.flags;
    return info;
}

void encode_if_id(message_writer& w, std::uint32_t if_id) {
    if (if_id != 0) w.attribute(XFRMA_IF_ID, if_id);
}

std::uint32_t decode_if_id(const attributes& a) noexcept {
    return a.load<std::uint32_t>(XFRMA_IF_ID).value_or(0);
}

void encode_pcpu(message_writer& w, const ipsec::sa& s) {
    if (s.pcpu) w.attribute(xfrma_sa_pcpu, *s.pcpu);
}

void encode_direction(message_writer& w, const ipsec::sa& s) {
    if (s.dir == ipsec::direction::unknown) return;
    w.attribute(xfrma_sa_dir, s.dir == ipsec::direction::in ? xfrm_sa_dir_in : xfrm_sa_dir_out);
}

result<std::optional<ipsec::udp_encapsulation>> decode_encap(const attributes& a, ipsec::family f) {
    const auto encap = a.load<xfrm_encap_tmpl>(XFRMA_ENCAP);
    if (!encap) return std::nullopt;
    if (encap->encap_type == encap_espintcp)
        return fail(EOPNOTSUPP, "ESP in TCP is not carried, only in UDP", "XFRMA_ENCAP");
    if (encap->encap_type != encap_espinudp)
        return fail(EINVAL, "Unsupported encapsulation type for ESP");
    return ipsec::udp_encapsulation{wire::be16::from_network(encap->encap_sport),
                                    wire::be16::from_network(encap->encap_dport),
                                    address_from(encap->encap_oa, f)};
}

void encode_encap(message_writer& w, const ipsec::udp_encapsulation& e) {
    xfrm_encap_tmpl out{}; // with its padding: it goes to a client
    out.encap_type = encap_espinudp;
    out.encap_sport = e.source_port.network();
    out.encap_dport = e.destination_port.network();
    out.encap_oa = address_to(e.original);
    w.attribute(XFRMA_ENCAP, out);
}

void encode_sa_attributes(message_writer& w, const ipsec::sa& s) {
    if (s.extra_flags != 0) w.attribute(XFRMA_SA_EXTRA_FLAGS, s.extra_flags);
    if (s.care_of) w.attribute(XFRMA_COADDR, address_to(*s.care_of));
    if (s.last_used != 0) w.attribute_64bit(XFRMA_LASTUSED, s.last_used);
    if (s.algs.aead.present()) encode_algorithm(w, aead_kind, s.algs.aead);
    if (s.algs.auth.present()) {
        encode_algorithm(w, auth_kind, s.algs.auth);
        encode_algorithm(w, auth_trunc_kind, s.algs.auth);
    }
    if (s.algs.cipher.present()) encode_algorithm(w, cipher_kind, s.algs.cipher);
    if (s.encap) encode_encap(w, *s.encap);
    if (s.tfc_pad != 0) w.attribute(XFRMA_TFCPAD, s.tfc_pad);
    encode_mark(w, s.id.mark);
    encode_output_mark(w, s.output_mark);
    encode_replay(w, s);
    encode_if_id(w, s.if_id);
    encode_security(w, s.security);
    if (s.mapping_threshold != 0) w.attribute(XFRMA_MTIMER_THRESH, s.mapping_threshold);
    encode_pcpu(w, s);
    encode_direction(w, s);
    if (s.nat_keepalive != 0) w.attribute(xfrma_nat_keepalive_interval, s.nat_keepalive);
}

ipsec::sa_id decode_sa_id(const xfrm_usersa_id& id) noexcept {
    return {address_from(id.daddr, family_from(id.family)), wire::be32::from_network(id.spi),
            id.proto};
}

ipsec::sa_id decode_sa_id(const xfrm_usersa_id& id, const attributes& a) noexcept {
    ipsec::sa_id out = decode_sa_id(id);
    out.mark = decode_mark(a);
    return out;
}

xfrm_usersa_id sa_id_to(const ipsec::sa_id& id) noexcept {
    xfrm_usersa_id out{};
    out.daddr = address_to(id.destination);
    out.spi = id.spi.network();
    out.family = address_family(id.destination.fam);
    out.proto = id.protocol;
    return out;
}

result<control::spi_request> decode_spi_request(const xfrm_userspi_info& info,
                                                const attributes& a) {
    if (auto ok = check_protocol(info.info.id.proto,
                                 "Invalid protocol, must be one of AH, ESP, IPCOMP", "id.proto");
        !ok)
        return tl::unexpected(std::move(ok.error()));
    if (info.min > info.max) return fail(EINVAL, "Invalid SPI range: min > max");
    const ipsec::family family = family_from(info.info.family);
    if (family == ipsec::family::unspecified) return fail(EINVAL, "Invalid address family");
    if (auto ok = check_mode(info.info.mode, "Unsupported mode", "mode"); !ok)
        return tl::unexpected(std::move(ok.error()));
    control::spi_request r;
    r.source = address_from(info.info.saddr, family);
    r.destination = address_from(info.info.id.daddr, family);
    r.protocol = info.info.id.proto;
    r.run_mode = mode_from(info.info.mode);
    r.reqid = info.info.reqid;
    r.seq = info.info.seq;
    r.if_id = decode_if_id(a);
    r.mark = decode_mark(a);
    r.dir = direction_from(a);
    r.pcpu = a.load<std::uint32_t>(xfrma_sa_pcpu);
    if (auto ok = check_cpu(r.pcpu, EINVAL); !ok) return tl::unexpected(std::move(ok.error()));
    r.min = info.min;
    r.max = info.max;
    return r;
}

bool sa_filter::matches(const ipsec::sa& s) const noexcept {
    const bool any_protocol = protocol == 0 || protocol == 255;
    if (!any_protocol && s.id.protocol != protocol) return false;
    if (fam != ipsec::family::unspecified && s.id.destination.fam != fam) return false;
    const auto begins_with = [](const ipsec::address& a, const xfrm_address_t& b, unsigned bits) {
        return ipsec::prefix_equal(a.bytes.data(), reinterpret_cast<const std::uint8_t*>(&b), bits);
    };
    return begins_with(s.source, source, source_prefix) &&
           begins_with(s.id.destination, destination, destination_prefix);
}

result<sa_filter> decode_sa_filter(const attributes& a) {
    sa_filter out;
    out.protocol = a.load<std::uint8_t>(XFRMA_PROTO).value_or(0);
    const auto filter = a.load<xfrm_address_filter>(XFRMA_ADDRESS_FILTER);
    if (!filter) return out;
    if (filter->splen > 128 || filter->dplen > 128) return fail(EINVAL);
    out.fam = family_from(filter->family);
    out.source = filter->saddr;
    out.destination = filter->daddr;
    out.source_prefix = filter->splen;
    out.destination_prefix = filter->dplen;
    return out;
}

} // namespace esplane::xfrm

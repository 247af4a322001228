// SPDX-License-Identifier: Apache-2.0
#include "xfrm/sa_codec.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <string_view>

namespace esplane::xfrm {
namespace {

constexpr std::uint16_t encap_espinudp = 2; // UDP_ENCAP_ESPINUDP

// Algorithms: struct xfrm_algo, xfrm_algo_auth and xfrm_algo_aead differ in what stands between
// the length of the key and the key: nothing, the truncated length, the length of the ICV.

constexpr std::size_t name_length = sizeof(xfrm_algo::alg_name);

struct algorithm_head {
    char name[name_length];
    std::uint32_t key_bits;
};

/// struct xfrm_replay_state_esn without its flexible end.
struct esn_head {
    std::uint32_t bitmap_words;
    std::uint32_t sent;
    std::uint32_t received;
    std::uint32_t sent_high;
    std::uint32_t received_high;
    std::uint32_t window;
};
static_assert(sizeof(esn_head) == sizeof(xfrm_replay_state_esn));

constexpr std::size_t key_bytes(std::uint32_t bits) noexcept {
    return bits / 8 + (bits % 8 != 0 ? 1 : 0);
}

/// One kind of algorithm attribute, with the kernel's words for it.
struct algorithm_kind {
    std::uint16_t type;
    bool has_icv; ///< the length of the ICV stands before the key
    const char* wrong_length;
    const char* not_found;
};

constexpr algorithm_kind aead_kind{XFRMA_ALG_AEAD, true, "Invalid AEAD attribute length",
                                   "Requested AEAD algorithm not found"};
constexpr algorithm_kind auth_trunc_kind{XFRMA_ALG_AUTH_TRUNC, true,
                                         "Invalid AUTH_TRUNC attribute length",
                                         "Requested AUTH_TRUNC algorithm not found"};
constexpr algorithm_kind auth_kind{XFRMA_ALG_AUTH, false,
                                   "Invalid AUTH/CRYPT/COMP attribute length",
                                   "Requested AUTH algorithm not found"};
constexpr algorithm_kind cipher_kind{XFRMA_ALG_CRYPT, false,
                                     "Invalid AUTH/CRYPT/COMP attribute length",
                                     "Requested CRYPT algorithm not found"};

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
    if (out.name.empty()) return fail(ENOSYS, kind.not_found); // not the same as absent
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

// Anti-replay bitmaps.  The kernel's of XFRMA_REPLAY_ESN_VAL is a ring: number n is bit
// (n - 1) % window.  Ours, and that of XFRMA_REPLAY_VAL, counts back from the highest number.

std::uint32_t ring_position(std::uint32_t highest, std::uint32_t back, std::uint32_t window) {
    const std::uint32_t top = (highest - 1) % window;
    return back <= top ? top - back : window - (back - top);
}

bool test_bit(const std::vector<std::uint32_t>& words, std::uint32_t bit) {
    return bit / 32 < words.size() && (words[bit / 32] >> (bit % 32) & 1) != 0;
}

void set_bit(std::vector<std::uint32_t>& words, std::uint32_t bit) {
    words[bit / 32] |= std::uint32_t{1} << (bit % 32);
}

std::vector<std::uint32_t> from_ring(const std::vector<std::uint32_t>& ring, std::uint32_t highest,
                                     std::uint32_t window) {
    std::vector<std::uint32_t> out(ring.size());
    for (std::uint32_t back = 0; back < window; ++back)
        if (test_bit(ring, ring_position(highest, back, window))) set_bit(out, back);
    return out;
}

std::vector<std::uint32_t> to_ring(const std::vector<std::uint32_t>& bitmap, std::uint32_t highest,
                                   std::uint32_t window) {
    std::vector<std::uint32_t> out(std::max<std::size_t>(bitmap.size(), (window + 31) / 32));
    for (std::uint32_t back = 0; back < window; ++back)
        if (test_bit(bitmap, back)) set_bit(out, ring_position(highest, back, window));
    return out;
}

constexpr std::uint64_t join(std::uint32_t high, std::uint32_t low) noexcept {
    return std::uint64_t{high} << 32 | low;
}

/// What XFRMA_SA_DIR "out" leaves no room for.
result<void> check_esn_output(const esn_head& state) {
    if (state.window != 0) return fail(EINVAL, "Replay window should be 0 for output SA");
    if (state.received != 0 || state.received_high != 0)
        return fail(EINVAL, "Replay seq and seq_hi should be 0 for output SA");
    if (state.bitmap_words != 0) return fail(EINVAL, "Replay bmp_len should 0 for output SA");
    return {};
}

/// verify_replay and xfrm_init_replay.
result<void> check_esn_state(const xfrm_usersa_info& info, const esn_head& state,
                             std::size_t length, ipsec::direction dir) {
    if (state.bitmap_words > XFRMA_REPLAY_ESN_MAX / 32)
        return fail(EINVAL, "ESN bitmap length must be <= 128");
    const std::size_t needed = sizeof state + state.bitmap_words * sizeof(std::uint32_t);
    if (length < needed && length != sizeof state)
        return fail(EINVAL, "ESN attribute is too short to fit the full bitmap length");
    if (info.replay_window != 0)
        return fail(EINVAL, "ESN not compatible with legacy replay_window");
    if (dir == ipsec::direction::out) return check_esn_output(state);
    if (dir == ipsec::direction::in && (state.sent != 0 || state.sent_high != 0))
        return fail(EINVAL, "Replay oseq and oseq_hi should be 0 for input SA");
    if (state.window > state.bitmap_words * 32)
        return fail(EINVAL, "ESN replay window is too large for the chosen bitmap size");
    if ((info.flags & XFRM_STATE_ESN) != 0 && state.window == 0)
        return fail(EINVAL, "ESN replay window must be > 0");
    return {};
}

result<void> decode_esn_state(const xfrm_usersa_info& info, bytes value, ipsec::sa& s) {
    const auto state = read_fixed<esn_head>(value);
    if (!state) {
        if ((info.flags & XFRM_STATE_ESN) != 0)
            return fail(EINVAL, "Missing required attribute for ESN");
        return {};
    }
    if (auto ok = check_esn_state(info, *state, value.size(), s.dir); !ok) return ok;
    s.replay_esn_form = true;
    s.replay_window = state->window;
    s.replay.sent = join(state->sent_high, state->sent);
    s.replay.received = join(state->received_high, state->received);
    // iproute2 sends the head alone: the bitmap is empty then.
    std::vector<std::uint32_t> ring(state->bitmap_words);
    const bytes bitmap = value.subspan(sizeof *state);
    const std::size_t length = ring.size() * sizeof(std::uint32_t);
    if (length > 0 && bitmap.size() >= length) std::memcpy(ring.data(), bitmap.data(), length);
    s.replay.bitmap = from_ring(ring, state->received, state->window);
    return {};
}

void decode_legacy_state(const xfrm_usersa_info& info, const attributes& a, ipsec::sa& s) {
    s.replay_window = std::min<std::uint32_t>(info.replay_window, 32);
    if (const auto state = a.load<xfrm_replay_state>(XFRMA_REPLAY_VAL)) {
        s.replay.sent = state->oseq;
        s.replay.received = state->seq;
        s.replay.bitmap = {state->bitmap};
    }
}

result<void> decode_replay(const xfrm_usersa_info& info, const attributes& a, ipsec::sa& s) {
    if (auto ok = decode_esn_state(info, a.get(XFRMA_REPLAY_ESN_VAL), s); !ok) return ok;
    if (!s.replay_esn_form) decode_legacy_state(info, a, s);
    return {};
}

result<void> decode_encap(const attributes& a, ipsec::sa& s) {
    const auto encap = a.load<xfrm_encap_tmpl>(XFRMA_ENCAP);
    if (!encap) return {};
    if (encap->encap_type != encap_espinudp)
        return fail(EINVAL, "Unsupported encapsulation type for ESP");
    s.encap = ipsec::udp_encapsulation{wire::be16::from_network(encap->encap_sport),
                                       wire::be16::from_network(encap->encap_dport),
                                       address_from(encap->encap_oa, s.id.destination.fam)};
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

/// verify_newsa_info, as far as it does not depend on values of attributes.
result<void> check_sa(const xfrm_usersa_info& info, const attributes& a) {
    if (auto ok = check_families(info); !ok) return ok;
    if (auto ok = check_protocol(info.id.proto, "Unsupported protocol", "id.proto"); !ok) return ok;
    if (auto ok = check_algorithm_attributes(a); !ok) return ok;
    return check_mode(info.mode, "Unsupported mode", "mode");
}

ipsec::sa sa_from(const xfrm_usersa_info& info) {
    ipsec::sa s;
    const ipsec::family family = family_from(info.family);
    s.id = {address_from(info.id.daddr, family), wire::be32::from_network(info.id.spi),
            info.id.proto};
    s.source = address_from(info.saddr, family);
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

result<void> check_protocol(std::uint8_t protocol, const char* unknown, const char* field) {
    if (protocol == IPPROTO_ESP) return {};
    const std::string_view name = other_protocol(protocol);
    if (name.empty()) return fail(EINVAL, unknown);
    return fail(EPROTONOSUPPORT, std::string(name) + " is not carried, only ESP is", field);
}

result<void> check_mode(std::uint8_t mode, const char* unknown, const char* field) {
    if (mode == XFRM_MODE_TUNNEL) return {};
    if (mode >= xfrm_mode_max || mode == XFRM_MODE_IN_TRIGGER) return fail(EINVAL, unknown);
    return fail(EOPNOTSUPP,
                "mode " + std::string(mode_names[mode]) + " is not carried, only tunnel is", field);
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

result<ipsec::sa> decode_sa(const xfrm_usersa_info& info, const attributes& a) {
    if (auto ok = check_sa(info, a); !ok) return tl::unexpected(std::move(ok.error()));
    ipsec::sa s = sa_from(info);
    s.dir = direction_from(a);
    if (auto ok = decode_algorithms(a, s.algs); !ok) return tl::unexpected(std::move(ok.error()));
    if (auto ok = decode_replay(info, a, s); !ok) return tl::unexpected(std::move(ok.error()));
    if (auto ok = check_direction(info, a, s.dir); !ok)
        return tl::unexpected(std::move(ok.error()));
    if (auto ok = decode_encap(a, s); !ok) return tl::unexpected(std::move(ok.error()));
    s.extra_flags = a.load<std::uint32_t>(XFRMA_SA_EXTRA_FLAGS).value_or(0);
    s.if_id = decode_if_id(a);
    if (const auto current = a.load<xfrm_lifetime_cur>(XFRMA_LTIME_VAL))
        s.current = current_from(*current);
    return s;
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

void encode_replay(message_writer& w, const ipsec::sa& s) {
    const auto low = static_cast<std::uint32_t>(s.replay.received);
    if (!s.replay_esn_form) {
        w.attribute(XFRMA_REPLAY_VAL,
                    xfrm_replay_state{static_cast<std::uint32_t>(s.replay.sent), low,
                                      s.replay.bitmap.empty() ? 0 : s.replay.bitmap[0]});
        return;
    }
    const auto ring = to_ring(s.replay.bitmap, low, s.replay_window);
    std::vector<std::uint8_t> value(sizeof(esn_head) + ring.size() * sizeof(std::uint32_t));
    const esn_head head{static_cast<std::uint32_t>(ring.size()),
                        static_cast<std::uint32_t>(s.replay.sent),
                        low,
                        static_cast<std::uint32_t>(s.replay.sent >> 32),
                        static_cast<std::uint32_t>(s.replay.received >> 32),
                        s.replay_window};
    std::memcpy(value.data(), &head, sizeof head);
    if (!ring.empty())
        std::memcpy(value.data() + sizeof head, ring.data(), value.size() - sizeof head);
    w.attribute_bytes(XFRMA_REPLAY_ESN_VAL, value);
}

void encode_if_id(message_writer& w, std::uint32_t if_id) {
    if (if_id != 0) w.attribute(XFRMA_IF_ID, if_id);
}

std::uint32_t decode_if_id(const attributes& a) noexcept {
    return a.load<std::uint32_t>(XFRMA_IF_ID).value_or(0);
}

void encode_direction(message_writer& w, const ipsec::sa& s) {
    if (s.dir == ipsec::direction::unknown) return;
    w.attribute(xfrma_sa_dir, s.dir == ipsec::direction::in ? xfrm_sa_dir_in : xfrm_sa_dir_out);
}

static void encode_encap(message_writer& w, const ipsec::udp_encapsulation& e) {
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
    encode_replay(w, s);
    encode_if_id(w, s.if_id);
    encode_direction(w, s);
}

ipsec::sa_id decode_sa_id(const xfrm_usersa_id& id) noexcept {
    return {address_from(id.daddr, family_from(id.family)), wire::be32::from_network(id.spi),
            id.proto};
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
    r.reqid = info.info.reqid;
    r.seq = info.info.seq;
    r.if_id = decode_if_id(a);
    r.dir = direction_from(a);
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
    if (filter->splen > 128 || filter->dplen > 128)
        return fail(EINVAL, "Invalid prefix length in XFRMA_ADDRESS_FILTER (must be <= 128)");
    out.fam = family_from(filter->family);
    out.source = filter->saddr;
    out.destination = filter->daddr;
    out.source_prefix = filter->splen;
    out.destination_prefix = filter->dplen;
    return out;
}

} // namespace esplane::xfrm

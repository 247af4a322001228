// SPDX-License-Identifier: Apache-2.0
#include "fastpath/embed/translate.h"

#include <algorithm>

#include "lib/wire/headers.h"

namespace esplane::embed {

namespace {

using ipsec::family;

constexpr std::uint8_t encap_espinudp = 2;
constexpr std::uint32_t any_algorithm = ~std::uint32_t{0};

tl::unexpected<error> wrong(const char* field, const std::string& what) {
    return fail(EINVAL, std::string(field) + " " + what, field);
}

tl::unexpected<error> not_carried(const char* field, const std::string& what) {
    return fail(EOPNOTSUPP, std::string(field) + ": " + what, field);
}

bool is_family(std::uint8_t f) noexcept {
    return f == ESPLANE_IPV4 || f == ESPLANE_IPV6;
}

template <typename T, std::size_t N>
bool all_zero(const T (&values)[N]) noexcept {
    return std::all_of(values, values + N, [](T v) { return v == 0; });
}

/// A later version may give it a meaning, which a program that leaves rubbish there does not mean.
///
/// where   what it is in: "selector."
result<void> check_reserved(bool zero, const std::string& where = {}) {
    if (zero) return {};
    return fail(EINVAL, where + "reserved is not zero", where + "reserved");
}

result<void> check_reserved(const esplane_address& a, const char* field) {
    return check_reserved(all_zero(a.reserved), std::string(field) + ".");
}

/// Bytes beyond the family's length are not looked at.
ipsec::address copy_address(const esplane_address& a, family f) noexcept {
    ipsec::address out;
    out.fam = f;
    std::copy_n(a.bytes, ipsec::address_length(f), out.bytes.begin());
    return out;
}

/// An address that may be missing: the family is then `otherwise`, or none.
result<ipsec::address> optional_address(const esplane_address& a, family otherwise,
                                        const char* field) {
    if (a.family != ESPLANE_ANY_FAMILY || !all_zero(a.bytes)) return address_from(a, field);
    if (auto ok = check_reserved(a, field); !ok) return tl::unexpected(ok.error());
    return copy_address(a, otherwise);
}

esplane_address address_to(const ipsec::address& a) noexcept {
    esplane_address out{};
    std::copy(a.bytes.begin(), a.bytes.end(), out.bytes);
    out.family = static_cast<std::uint8_t>(a.fam);
    return out;
}

result<void> check_prefixes(const esplane_selector& s, family f) {
    const std::uint8_t longest = f == family::ipv4 ? 32 : 128;
    if (s.source_prefix > longest)
        return wrong("selector.source_prefix", "is longer than an address");
    if (s.destination_prefix > longest)
        return wrong("selector.destination_prefix", "is longer than an address");
    return check_reserved(all_zero(s.reserved), "selector.");
}

/// An unspecified family stays one.
result<ipsec::selector> selector_from(const esplane_selector& s, family f) {
    if (s.family != ESPLANE_ANY_FAMILY && !is_family(s.family))
        return wrong("selector.family", "is neither 4 nor 6");
    if (auto ok = check_prefixes(s, f); !ok) return tl::unexpected(ok.error());
    ipsec::selector out;
    out.fam = f;
    const auto source = optional_address(s.source, f, "selector.source");
    if (!source) return tl::unexpected(source.error());
    const auto destination = optional_address(s.destination, f, "selector.destination");
    if (!destination) return tl::unexpected(destination.error());
    if (source->fam != f || destination->fam != f)
        return wrong("selector", "has addresses of another family than its own");
    out.source = *source;
    out.destination = *destination;
    out.source_prefix = s.source_prefix;
    out.destination_prefix = s.destination_prefix;
    out.source_port = wire::be16(s.source_port);
    out.source_port_mask = wire::be16(s.source_port_mask);
    out.destination_port = wire::be16(s.destination_port);
    out.destination_port_mask = wire::be16(s.destination_port_mask);
    out.protocol = s.protocol;
    return out;
}

esplane_selector selector_to(const ipsec::selector& s) noexcept {
    esplane_selector out{};
    out.source = address_to(s.source);
    out.destination = address_to(s.destination);
    out.source_prefix = s.source_prefix;
    out.destination_prefix = s.destination_prefix;
    out.family = static_cast<std::uint8_t>(s.fam);
    out.protocol = s.protocol;
    out.source_port = s.source_port.host();
    out.source_port_mask = s.source_port_mask.host();
    out.destination_port = s.destination_port.host();
    out.destination_port_mask = s.destination_port_mask.host();
    return out;
}

ipsec::lifetime_limits limits_from(const esplane_limits& l) noexcept {
    return {l.soft_bytes, l.hard_bytes, l.soft_packets, l.hard_packets,
            l.soft_add_s, l.hard_add_s, l.soft_use_s,   l.hard_use_s};
}

esplane_limits limits_to(const ipsec::lifetime_limits& l) noexcept {
    return {l.soft_bytes, l.hard_bytes, l.soft_packets, l.hard_packets,
            l.soft_add_s, l.hard_add_s, l.soft_use_s,   l.hard_use_s};
}

ipsec::lifetime_current usage_from(const esplane_usage& u) noexcept {
    return {u.bytes, u.packets, u.add_time, u.use_time};
}

esplane_usage usage_to(const ipsec::lifetime_current& u) noexcept {
    return {u.bytes, u.packets, u.add_time, u.use_time};
}

/// Keys of more than this are no keys: the longest of an HMAC that anybody sends is 128 bytes.
constexpr std::uint32_t longest_key = 512;

result<ipsec::keyed_algorithm> algorithm_from(const esplane_algorithm& a, const char* field) {
    ipsec::keyed_algorithm out;
    if (a.name == nullptr) return out;
    if (a.key == nullptr && a.key_length != 0) return wrong(field, "has a key_length and no key");
    if (a.key_length > longest_key) return wrong(field, "has a key of more than 512 bytes");
    out.name = a.name;
    out.key = secret({a.key, a.key_length});
    out.icv_bits = a.icv_bits;
    return out;
}

esplane_algorithm algorithm_to(const ipsec::keyed_algorithm& a, keys k) noexcept {
    esplane_algorithm out{};
    if (!a.present()) return out;
    out.name = a.name.c_str();
    out.icv_bits = a.icv_bits;
    out.key_length = static_cast<std::uint32_t>(a.key.size());
    if (k == keys::shown) out.key = a.key.bytes().data();
    return out;
}

result<ipsec::algorithms> algorithms_from(const esplane_sa& s) {
    ipsec::algorithms a;
    auto aead = algorithm_from(s.aead, "aead");
    if (!aead) return tl::unexpected(aead.error());
    auto cipher = algorithm_from(s.cipher, "cipher");
    if (!cipher) return tl::unexpected(cipher.error());
    auto auth = algorithm_from(s.auth, "auth");
    if (!auth) return tl::unexpected(auth.error());
    a.aead = std::move(*aead);
    a.cipher = std::move(*cipher);
    a.auth = std::move(*auth);
    if (!a.aead.present() && !a.cipher.present() && !a.auth.present())
        return wrong("aead", "is missing, and so are cipher and auth: an SA needs an algorithm");
    if (a.aead.present() && (a.cipher.present() || a.auth.present()))
        return wrong("aead", "cannot be used together with cipher or auth");
    if (auto ok = ipsec::resolve(a); !ok) return tl::unexpected(ok.error());
    return a;
}

result<void> check_carried(std::uint8_t protocol, std::uint8_t mode) {
    if (protocol != wire::proto_esp) return not_carried("protocol", "only ESP, 50, is carried");
    if (mode != ESPLANE_TUNNEL && mode != ESPLANE_TRANSPORT)
        return not_carried("mode", "only tunnel and transport are carried");
    return {};
}

result<void> decode_replay(const esplane_sa& s, ipsec::sa& into) {
    if (s.replay_window > ipsec::max_replay_window)
        return wrong("replay_window", "is more than 4096 packets");
    if (s.replay_window % 32 != 0) return wrong("replay_window", "is no multiple of 32");
    if ((s.flags & ESPLANE_SA_ESN) != 0 && s.replay_window == 0 && s.direction != ESPLANE_SA_OUT)
        return wrong("replay_window", "is 0, and ESN needs a window");
    if (s.bitmap_words != 0 && s.bitmap_words != s.replay_window / 32)
        return wrong("bitmap_words", "is neither 0 nor replay_window / 32");
    if (s.bitmap_words != 0 && s.bitmap == nullptr)
        return wrong("bitmap", "is NULL, and bitmap_words is not 0");
    into.replay_window = s.replay_window;
    into.replay_esn_form = true;
    into.replay.sent = s.sequence_sent;
    into.replay.received = s.sequence_received;
    into.replay.bitmap.resize(s.replay_window / 32);
    std::copy_n(s.bitmap, s.bitmap_words, into.replay.bitmap.begin());
    return {};
}

result<void> decode_encapsulation(const esplane_encapsulation& e, ipsec::sa& into) {
    if (auto ok = check_reserved(e.reserved == 0, "encapsulation."); !ok) return ok;
    if (auto ok = check_reserved(e.original, "encapsulation.original"); !ok) return ok;
    if (e.type == 0) return {};
    if (e.type != encap_espinudp)
        return not_carried("encapsulation.type", "only ESP in UDP, 2, is carried");
    const auto original =
        optional_address(e.original, into.id.destination.fam, "encapsulation.original");
    if (!original) return tl::unexpected(original.error());
    into.encap = {wire::be16(e.source_port), wire::be16(e.destination_port), *original};
    return {};
}

esplane_encapsulation encapsulation_to(const ipsec::udp_encapsulation& e) noexcept {
    return {encap_espinudp, e.source_port.host(), e.destination_port.host(), 0,
            address_to(e.original)};
}

esplane_sa_id id_to(const ipsec::sa_id& id) noexcept {
    esplane_sa_id out{};
    out.destination = address_to(id.destination);
    out.spi = id.spi.host();
    out.protocol = id.protocol;
    return out;
}

/// The selector's family is the SA's where it names none and does not ask for both.
family inner_family(const esplane_sa& s) noexcept {
    if (s.selector.family != ESPLANE_ANY_FAMILY) return static_cast<family>(s.selector.family);
    if ((s.flags & ESPLANE_SA_ANY_INNER_FAMILY) != 0) return family::unspecified;
    return static_cast<family>(s.id.destination.family);
}

result<ipsec::template_> template_from(const esplane_template& t, family f, bool outbound) {
    if (auto ok = check_carried(t.id.protocol, t.mode); !ok) return tl::unexpected(ok.error());
    if (auto ok = check_reserved(all_zero(t.id.reserved), "template.id."); !ok)
        return tl::unexpected(ok.error());
    if (t.family != ESPLANE_ANY_FAMILY && !is_family(t.family))
        return wrong("template.family", "is neither 4 nor 6");
    const bool tunnel = t.mode == ESPLANE_TUNNEL;
    if (t.optional != 0 && outbound && tunnel)
        return wrong("template.optional", "has no meaning in an outbound policy for a tunnel");
    if (t.auth_algs != any_algorithm || t.cipher_algs != any_algorithm ||
        t.comp_algs != any_algorithm)
        return not_carried("template.auth_algs", "a choice of algorithms is not carried");
    ipsec::template_ out;
    out.run_mode = static_cast<ipsec::mode>(t.mode);
    out.fam = t.family == ESPLANE_ANY_FAMILY ? f : static_cast<family>(t.family);
    if (!tunnel && out.fam != f)
        return wrong("template.family", "is not the selector's, which transport mode keeps");
    const auto destination = optional_address(t.id.destination, out.fam, "template.id.destination");
    if (!destination) return tl::unexpected(destination.error());
    const auto source = optional_address(t.source, out.fam, "template.source");
    if (!source) return tl::unexpected(source.error());
    if (destination->fam != out.fam || source->fam != out.fam)
        return wrong("template", "has addresses of another family than its own");
    out.id = {*destination, wire::be32(t.id.spi), t.id.protocol};
    out.source = *source;
    out.reqid = t.reqid;
    out.share = t.share;
    out.optional = t.optional != 0;
    out.auth_algs = t.auth_algs;
    out.cipher_algs = t.cipher_algs;
    out.comp_algs = t.comp_algs;
    return out;
}

esplane_template template_to(const ipsec::template_& t) noexcept {
    esplane_template out{};
    out.id = id_to(t.id);
    out.source = address_to(t.source);
    out.family = static_cast<std::uint8_t>(t.fam);
    out.mode = static_cast<std::uint8_t>(t.run_mode);
    out.share = t.share;
    out.optional = t.optional ? 1 : 0;
    out.reqid = t.reqid;
    out.auth_algs = t.auth_algs;
    out.cipher_algs = t.cipher_algs;
    out.comp_algs = t.comp_algs;
    return out;
}

result<void> check_policy(const esplane_policy& p) {
    if (auto ok = check_reserved(all_zero(p.reserved)); !ok) return ok;
    if (p.direction > ESPLANE_FORWARD) return wrong("direction", "is none of in, out, forward");
    if (p.action > ESPLANE_BLOCK) return wrong("action", "is neither allow nor block");
    if (!is_family(p.selector.family)) return wrong("selector.family", "is neither 4 nor 6");
    if ((p.flags & ipsec::policy_flag::local_ok) != 0)
        return not_carried("flags", "localok is not carried");
    if (p.template_count > 1) return not_carried("templates", "more than one is not carried");
    if (p.template_count != 0 && p.templates == nullptr)
        return wrong("templates", "is NULL, and template_count is not 0");
    if (p.index != 0 && (p.index & 7) != p.direction)
        return wrong("index", "is of another direction");
    return {};
}

} // namespace

result<ipsec::address> address_from(const esplane_address& a, const char* field) {
    if (!is_family(a.family)) return wrong(field, "has a family that is neither 4 nor 6");
    if (auto ok = check_reserved(a, field); !ok) return tl::unexpected(ok.error());
    return copy_address(a, static_cast<family>(a.family));
}

result<ipsec::sa_id> id_from(const esplane_sa_id& id) {
    if (auto ok = check_reserved(all_zero(id.reserved), "id."); !ok)
        return tl::unexpected(ok.error());
    const auto destination = address_from(id.destination, "id.destination");
    if (!destination) return tl::unexpected(destination.error());
    return ipsec::sa_id{*destination, wire::be32(id.spi), id.protocol};
}

result<ipsec::sa> sa_from(const esplane_sa& s) {
    if (auto ok = check_reserved(all_zero(s.reserved) && s.reserved_end == 0); !ok)
        return tl::unexpected(ok.error());
    if (auto ok = check_carried(s.id.protocol, s.mode); !ok) return tl::unexpected(ok.error());
    if (s.direction > ESPLANE_SA_OUT) return wrong("direction", "is none of either, in, out");
    const auto id = id_from(s.id);
    if (!id) return tl::unexpected(id.error());
    if (id->spi == wire::be32()) return wrong("id.spi", "is 0, which names no SA");
    ipsec::sa out;
    out.id = *id;
    out.run_mode = static_cast<ipsec::mode>(s.mode);
    const auto source = optional_address(s.source, id->destination.fam, "source");
    if (!source) return tl::unexpected(source.error());
    if (source->fam != id->destination.fam)
        return wrong("source", "is of another family than id.destination");
    out.source = *source;
    const auto selector = selector_from(s.selector, inner_family(s));
    if (!selector) return tl::unexpected(selector.error());
    out.sel = *selector;
    auto algorithms = algorithms_from(s);
    if (!algorithms) return tl::unexpected(algorithms.error());
    out.algs = std::move(*algorithms);
    if (auto ok = decode_replay(s, out); !ok) return tl::unexpected(ok.error());
    if (auto ok = decode_encapsulation(s.encapsulation, out); !ok)
        return tl::unexpected(ok.error());
    if (auto ok = check_reserved(s.care_of, "care_of"); !ok) return tl::unexpected(ok.error());
    if (s.care_of.family != ESPLANE_ANY_FAMILY) {
        const auto care_of = address_from(s.care_of, "care_of");
        if (!care_of) return tl::unexpected(care_of.error());
        out.care_of = *care_of;
    }
    out.reqid = s.reqid;
    out.if_id = s.if_id;
    out.seq = s.seq;
    out.flags = s.flags;
    out.extra_flags = s.extra_flags;
    out.dir = static_cast<ipsec::direction>(s.direction);
    out.limits = limits_from(s.limits);
    out.current = usage_from(s.current);
    return out;
}

result<ipsec::policy> policy_from(const esplane_policy& p) {
    if (auto ok = check_policy(p); !ok) return tl::unexpected(ok.error());
    const auto selector = selector_from(p.selector, static_cast<family>(p.selector.family));
    if (!selector) return tl::unexpected(selector.error());
    ipsec::policy out;
    out.dir = static_cast<ipsec::policy_direction>(p.direction);
    out.sel = *selector;
    out.if_id = p.if_id;
    out.priority = p.priority;
    out.index = p.index;
    out.action = static_cast<ipsec::policy_action>(p.action);
    out.flags = p.flags;
    out.share = p.share;
    out.limits = limits_from(p.limits);
    for (const esplane_template& t : std::span(p.templates, p.template_count)) {
        const bool outbound = p.direction == ESPLANE_OUT;
        auto decoded = template_from(t, out.sel.fam, outbound);
        if (!decoded) return tl::unexpected(decoded.error());
        out.templates.push_back(*decoded);
    }
    return out;
}

result<ipsec::policy_key> policy_key_from(const esplane_policy_key& k) {
    if (auto ok = check_reserved(all_zero(k.reserved) && k.reserved_end == 0); !ok)
        return tl::unexpected(ok.error());
    if (k.direction > ESPLANE_FORWARD) return wrong("direction", "is none of in, out, forward");
    ipsec::policy_key out;
    out.dir = static_cast<ipsec::policy_direction>(k.direction);
    out.if_id = k.if_id;
    out.index = k.index;
    if (k.index != 0) return out;
    if (!is_family(k.selector.family)) return wrong("selector.family", "is neither 4 nor 6");
    const auto selector = selector_from(k.selector, static_cast<family>(k.selector.family));
    if (!selector) return tl::unexpected(selector.error());
    out.sel = *selector;
    return out;
}

result<control::spi_request> spi_request_from(const esplane_spi_request& r) {
    if (auto ok = check_reserved(all_zero(r.reserved) && r.reserved_end == 0); !ok)
        return tl::unexpected(ok.error());
    if (auto ok = check_carried(r.protocol, r.mode); !ok) return tl::unexpected(ok.error());
    control::spi_request out;
    const auto destination = address_from(r.destination, "destination");
    if (!destination) return tl::unexpected(destination.error());
    const auto source = optional_address(r.source, destination->fam, "source");
    if (!source) return tl::unexpected(source.error());
    out.source = *source;
    out.destination = *destination;
    out.run_mode = static_cast<ipsec::mode>(r.mode);
    out.reqid = r.reqid;
    out.seq = r.seq;
    out.if_id = r.if_id;
    out.min = r.min;
    out.max = r.max;
    return out;
}

esplane_sa sa_to(const ipsec::sa& s, keys k) noexcept {
    esplane_sa out{};
    out.size = sizeof out;
    out.id = id_to(s.id);
    out.source = address_to(s.source);
    out.selector = selector_to(s.sel);
    if (s.care_of) out.care_of = address_to(*s.care_of);
    out.mode = static_cast<std::uint8_t>(s.run_mode);
    out.direction = static_cast<std::uint8_t>(s.dir);
    out.state = static_cast<std::uint8_t>(s.state);
    out.dying = s.dying ? 1 : 0;
    out.flags = s.flags;
    out.extra_flags = s.extra_flags;
    out.reqid = s.reqid;
    out.if_id = s.if_id;
    out.seq = s.seq;
    if (s.encap) out.encapsulation = encapsulation_to(*s.encap);
    out.aead = algorithm_to(s.algs.aead, k);
    out.cipher = algorithm_to(s.algs.cipher, k);
    out.auth = algorithm_to(s.algs.auth, k);
    out.replay_window = s.replay_window;
    out.bitmap_words = static_cast<std::uint32_t>(s.replay.bitmap.size());
    out.bitmap = s.replay.bitmap.data();
    out.sequence_sent = s.replay.sent;
    out.sequence_received = s.replay.received;
    out.limits = limits_to(s.limits);
    out.current = usage_to(s.current);
    out.last_used = s.last_used;
    out.replay_too_old = s.statistics.replay_window;
    out.replay_duplicates = s.statistics.replay;
    out.integrity_failed = s.statistics.integrity_failed;
    return out;
}

esplane_policy policy_to(const ipsec::policy& p, std::vector<esplane_template>& templates) {
    templates.clear();
    for (const ipsec::template_& t : p.templates)
        templates.push_back(template_to(t));
    esplane_policy out{};
    out.size = sizeof out;
    out.selector = selector_to(p.sel);
    out.direction = static_cast<std::uint8_t>(p.dir);
    out.action = static_cast<std::uint8_t>(p.action);
    out.flags = p.flags;
    out.share = p.share;
    out.priority = p.priority;
    out.index = p.index;
    out.if_id = p.if_id;
    out.template_count = static_cast<std::uint32_t>(templates.size());
    out.dying = p.dying ? 1 : 0;
    out.templates = templates.data();
    out.limits = limits_to(p.limits);
    out.current = usage_to(p.current);
    return out;
}

} // namespace esplane::embed

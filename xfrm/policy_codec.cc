// SPDX-License-Identifier: Apache-2.0
#include "xfrm/policy_codec.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "xfrm/mark_codec.h"
#include "xfrm/sa_codec.h"
#include "xfrm/security_codec.h"

namespace esplane::xfrm {
namespace {

constexpr std::size_t max_templates = 6; // XFRM_MAX_DEPTH

/// verify_newpolicy_info.
result<void> check_policy(const xfrm_userpolicy_info& info) {
    if (info.share > XFRM_SHARE_UNIQUE) return fail(EINVAL, "Invalid policy share");
    if (info.action > XFRM_POLICY_BLOCK) return fail(EINVAL, "Invalid policy action");
    const ipsec::family family = family_from(info.sel.family);
    if (family == ipsec::family::unspecified) return fail(EINVAL, "Invalid selector family");
    if (auto ok = check_prefixes(info.sel, family); !ok) return ok;
    if (auto ok = check_carried(info.sel); !ok) return ok;
    if (auto ok = check_policy_direction(info.dir); !ok) return ok;
    if (info.index != 0 && (info.index & 7) != info.dir)
        return fail(EINVAL, "Policy index doesn't match direction");
    return {};
}

/// validate_tmpl for one template.  `family` is that of what the template is applied to.
result<void> check_template(const xfrm_user_tmpl& t, std::uint16_t family, std::uint8_t dir) {
    const bool wraps = t.mode == XFRM_MODE_TUNNEL || t.mode == XFRM_MODE_BEET;
    if (wraps && t.optional != 0 && dir == XFRM_POLICY_OUT)
        return fail(EINVAL, "Mode in optional template not allowed in outbound policy");
    if (!wraps && t.family != family)
        return fail(EINVAL, "Mode in template doesn't support a family change");
    if (t.mode >= xfrm_mode_max)
        return fail(EINVAL, "Mode in template must be < XFRM_MODE_MAX (6)");
    if (family_from(t.family) == ipsec::family::unspecified)
        return fail(EINVAL, "Invalid family in template");
    return check_protocol_known(t.id.proto, "Invalid XFRM protocol in template");
}

result<void> check_carried(const xfrm_user_tmpl& t) {
    if (auto ok = check_protocol(t.id.proto, "Invalid XFRM protocol in template", "XFRMA_TMPL");
        !ok)
        return ok;
    constexpr std::uint32_t all = ~std::uint32_t{0};
    if (t.aalgos != all || t.ealgos != all || t.calgos != all)
        return fail(EOPNOTSUPP, "XFRMA_TMPL with a choice of algorithms is not carried",
                    "XFRMA_TMPL");
    if (t.mode == XFRM_MODE_IN_TRIGGER)
        return fail(EOPNOTSUPP, "mode in_trigger is not carried", "XFRMA_TMPL");
    return check_mode(t.mode, "Unsupported mode", "XFRMA_TMPL");
}

ipsec::template_ template_from(const xfrm_user_tmpl& t) noexcept {
    ipsec::template_ out;
    out.fam = family_from(t.family);
    out.id = {address_from(t.id.daddr, out.fam), wire::be32::from_network(t.id.spi), t.id.proto};
    out.source = address_from(t.saddr, out.fam);
    out.reqid = t.reqid;
    out.run_mode = mode_from(t.mode);
    out.share = t.share;
    out.optional = t.optional != 0;
    out.auth_algs = t.aalgos;
    out.cipher_algs = t.ealgos;
    out.comp_algs = t.calgos;
    return out;
}

xfrm_user_tmpl template_to(const ipsec::template_& t) noexcept {
    xfrm_user_tmpl out{};
    out.id.daddr = address_to(t.id.destination);
    out.id.spi = t.id.spi.network();
    out.id.proto = t.id.protocol;
    out.family = address_family(t.fam);
    out.saddr = address_to(t.source);
    out.reqid = t.reqid;
    out.mode = static_cast<std::uint8_t>(t.run_mode);
    out.share = t.share;
    out.optional = t.optional ? 1 : 0;
    out.aalgos = t.auth_algs;
    out.ealgos = t.cipher_algs;
    out.calgos = t.comp_algs;
    return out;
}

result<void> decode_templates(const xfrm_userpolicy_info& info, bytes value, ipsec::policy& into) {
    if (value.size() / sizeof(xfrm_user_tmpl) > max_templates)
        return fail(EINVAL, "Template count must be <= XFRM_MAX_DEPTH (6)");
    std::vector<xfrm_user_tmpl> list;
    std::uint16_t family = info.sel.family;
    while (auto t = read_fixed<xfrm_user_tmpl>(value)) {
        if (t->family == AF_UNSPEC) t->family = info.sel.family;
        if (auto ok = check_template(*t, family, info.dir); !ok) return ok;
        family = t->family;
        list.push_back(*t);
        value = value.subspan(sizeof *t);
    }
    if (list.size() > 1)
        return fail(EOPNOTSUPP, "XFRMA_TMPL with more than one template is not carried",
                    "XFRMA_TMPL");
    for (const xfrm_user_tmpl& t : list) {
        if (auto ok = check_carried(t); !ok) return ok;
        into.templates.push_back(template_from(t));
    }
    return {};
}

} // namespace

result<void> check_policy_direction(std::uint8_t dir) {
    if (dir > XFRM_POLICY_FWD) return fail(EINVAL, "Invalid policy direction");
    return {};
}

result<ipsec::policy_type> decode_policy_type(const attributes& a) {
    const auto type = a.load<xfrm_userpolicy_type>(XFRMA_POLICY_TYPE);
    if (!type) return ipsec::policy_type::main;
    if (type->type > XFRM_POLICY_TYPE_SUB) return fail(EINVAL, "Invalid policy type");
    return static_cast<ipsec::policy_type>(type->type);
}

result<ipsec::policy> decode_policy(const xfrm_userpolicy_info& info, const attributes& a) {
    if (auto ok = check_policy(info); !ok) return tl::unexpected(std::move(ok.error()));
    auto security = decode_security(a);
    if (!security) return tl::unexpected(std::move(security.error()));
    const auto type = decode_policy_type(a);
    if (!type) return tl::unexpected(type.error());
    ipsec::policy p;
    p.type = *type;
    p.security = std::move(*security);
    p.dir = static_cast<ipsec::policy_direction>(info.dir);
    p.sel = selector_from(info.sel);
    p.priority = info.priority;
    p.index = info.index;
    p.action = static_cast<ipsec::policy_action>(info.action);
    p.flags = info.flags;
    p.share = info.share;
    p.limits = limits_from(info.lft);
    p.if_id = decode_if_id(a);
    p.mark = decode_mark(a);
    if (auto ok = decode_templates(info, a.get(XFRMA_TMPL), p); !ok)
        return tl::unexpected(std::move(ok.error()));
    return p;
}

xfrm_userpolicy_info policy_info(const ipsec::policy& p) noexcept {
    xfrm_userpolicy_info info{};
    info.sel = selector_to(p.sel);
    info.lft = limits_to(p.limits);
    info.curlft = current_to(p.current);
    info.priority = p.priority;
    info.index = p.index;
    info.dir = static_cast<std::uint8_t>(p.dir);
    info.action = static_cast<std::uint8_t>(p.action);
    info.flags = p.flags;
    info.share = XFRM_SHARE_ANY; // the kernel shows no other
    return info;
}

void encode_policy_type(message_writer& w, ipsec::policy_type type) {
    xfrm_userpolicy_type out{};
    out.type = static_cast<std::uint8_t>(type);
    w.attribute(XFRMA_POLICY_TYPE, out);
}

void encode_policy_attributes(message_writer& w, const ipsec::policy& p) {
    if (!p.templates.empty()) {
        std::vector<std::uint8_t> value(p.templates.size() * sizeof(xfrm_user_tmpl));
        std::uint8_t* at = value.data();
        for (const ipsec::template_& t : p.templates) {
            const xfrm_user_tmpl out = template_to(t);
            std::memcpy(at, &out, sizeof out);
            at += sizeof out;
        }
        w.attribute_bytes(XFRMA_TMPL, value);
    }
    encode_security(w, p.security);
    encode_policy_type(w, p.type);
    encode_mark(w, p.mark);
    encode_if_id(w, p.if_id);
}

result<ipsec::policy_key> decode_policy_key(const xfrm_userpolicy_id& id, const attributes& a) {
    const auto type = decode_policy_type(a);
    if (!type) return tl::unexpected(type.error());
    if (auto ok = check_policy_direction(id.dir); !ok) return tl::unexpected(std::move(ok.error()));
    ipsec::policy_key key{static_cast<ipsec::policy_direction>(id.dir),
                          selector_from(id.sel),
                          id.index,
                          decode_if_id(a),
                          decode_mark_as_given(a),
                          *type};
    if (id.index != 0) return key; // the kernel looks at no context then
    auto security = decode_security(a);
    if (!security) return tl::unexpected(std::move(security.error()));
    key.security = std::move(*security);
    return key;
}

/// xfrm_add_acquire: the SA's own id gives way to that of each template.
result<acquire_request> decode_acquire(const xfrm_user_acquire& body, const attributes& a) {
    const auto cpu = a.load<std::uint32_t>(xfrma_sa_pcpu);
    if (auto ok = check_cpu(cpu, EINVAL); !ok) return tl::unexpected(std::move(ok.error()));
    auto p = decode_policy(body.policy, a);
    if (!p) return tl::unexpected(std::move(p.error()));
    for (ipsec::template_& t : p->templates) {
        t.auth_algs = body.aalgos;
        t.cipher_algs = body.ealgos;
        t.comp_algs = body.calgos;
    }
    ipsec::sa wanted;
    wanted.source = address_from(body.saddr, p->sel.fam);
    wanted.sel = selector_from(body.sel);
    wanted.state = ipsec::sa_state::larval;
    wanted.dir = ipsec::direction::out;
    wanted.pcpu = cpu;
    p->dir = ipsec::policy_direction::out; // so it is announced
    return acquire_request{std::move(wanted), std::move(*p)};
}

ipsec::default_actions decode_defaults(const xfrm_userpolicy_default& d,
                                       ipsec::default_actions now) noexcept {
    const auto take = [&now](std::uint8_t value, ipsec::policy_direction dir) {
        if (value != XFRM_USERPOLICY_BLOCK && value != XFRM_USERPOLICY_ACCEPT) return;
        now[static_cast<std::size_t>(dir)] = value == XFRM_USERPOLICY_BLOCK
                                                 ? ipsec::policy_action::block
                                                 : ipsec::policy_action::allow;
    };
    take(d.in, ipsec::policy_direction::in);
    take(d.fwd, ipsec::policy_direction::fwd);
    take(d.out, ipsec::policy_direction::out);
    return now;
}

xfrm_userpolicy_default defaults_to(const ipsec::default_actions& d) noexcept {
    const auto value = [&d](ipsec::policy_direction dir) -> std::uint8_t {
        return ipsec::action_of(d, dir) == ipsec::policy_action::block ? XFRM_USERPOLICY_BLOCK
                                                                       : XFRM_USERPOLICY_ACCEPT;
    };
    return {value(ipsec::policy_direction::in), value(ipsec::policy_direction::fwd),
            value(ipsec::policy_direction::out)};
}

xfrm_userpolicy_id policy_id_to(const ipsec::policy& p, bool by_index) noexcept {
    xfrm_userpolicy_id out{};
    out.dir = static_cast<std::uint8_t>(p.dir);
    if (by_index)
        out.index = p.index;
    else
        out.sel = selector_to(p.sel);
    return out;
}

} // namespace esplane::xfrm

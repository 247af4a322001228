// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/packed_policy.h"

#include "lib/ipsec/packing.h"

namespace esplane::ipsec {

/// A field that walk_fields() did not know would be lost.
static_assert(sizeof(template_) == 72 && sizeof(policy) == 264, "pack what is new, and test it");

/// Calls `f` for each field, in the order they are packed in.
template <typename Template, typename F>
requires std::is_same_v<std::remove_const_t<Template>, template_>
void walk_fields(Template& t, F& f) {
    f(t.id.destination);
    f(t.id.spi);
    f(t.id.protocol);
    f(t.id.mark);
    f(t.source);
    f(t.fam);
    f(t.run_mode);
    f(t.reqid);
    f(t.share);
    f(t.optional);
    f(t.auth_algs);
    f(t.cipher_algs);
    f(t.comp_algs);
}

/// But for what stands beside it.
template <typename Policy, typename F>
requires std::is_same_v<std::remove_const_t<Policy>, policy>
void walk_fields(Policy& p, F& f) {
    f(p.sel.source);
    f(p.sel.destination);
    f(p.sel.source_prefix);
    f(p.sel.destination_prefix);
    f(p.sel.source_port);
    f(p.sel.source_port_mask);
    f(p.sel.destination_port);
    f(p.sel.destination_port_mask);
    f(p.sel.protocol);
    f(p.sel.fam);
    f(p.sel.ifindex);
    f(p.sel.user);
    f(p.if_id);
    f(p.mark);
    f(p.security);
    f(p.priority);
    f(p.action);
    f(p.flags);
    f(p.share);
    f(p.templates);
    f(p.limits);
    f(p.current.bytes);
    f(p.current.packets);
    f(p.current.add_time);
    f(p.current.use_time);
    f(p.dying);
}

packed_policy::packed_policy(const policy& p)
    : kept_(packing::pack([&p](auto& f) { walk_fields(p, f); })) {}

policy packed_policy::unpack() const {
    policy p;
    packing::unpack(kept_, [&p](auto& f) { walk_fields(p, f); });
    return p;
}

} // namespace esplane::ipsec

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
    packing::walk_selector(p.sel, f);
    f(p.if_id);
    f(p.mark);
    f(p.security);
    f(p.priority);
    f(p.action);
    f(p.flags);
    f(p.share);
    f(p.templates);
    f(p.limits);
    packing::walk_counts(p.current, f);
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

// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/packed_sa.h"

#include "lib/ipsec/packing.h"

namespace esplane::ipsec {

namespace {

/// A field that for_each_field() did not know would be lost.
static_assert(sizeof(sa) == 632, "pack what is new, and test it");

/// Calls `f` for each field, in the order they are packed in; keys are apart.
template <typename Sa, typename F>
void for_each_field(Sa& s, F& f) {
    f(s.source);
    packing::walk_selector(s.sel, f);
    f(s.run_mode);
    f(s.reqid);
    f(s.if_id);
    f(s.seq);
    f(s.output_mark);
    f(s.flags);
    f(s.extra_flags);
    f(s.dir);
    f(s.state);
    f(s.dying);
    f(s.encap);
    f(s.mapping_threshold);
    f(s.nat_keepalive);
    f(s.care_of);
    f(s.security);
    f(s.pcpu);
    f(s.tfc_pad);
    f(s.replay_window);
    f(s.replay_esn_form);
    f(s.replay.sent);
    f(s.replay.received);
    f(s.replay.bitmap);
    f(s.replay_threshold);
    f(s.replay_timer);
    f(s.limits);
    packing::walk_counts(s.current, f);
    f(s.last_used);
    f(s.statistics.replay_window);
    f(s.statistics.replay);
    f(s.statistics.integrity_failed);
    f(s.algs.run);
}

template <typename Algorithms, typename F>
void for_each_key(Algorithms& a, F& f) {
    f(a.aead);
    f(a.cipher);
    f(a.auth);
}

} // namespace

packed_sa::packed_sa(const sa& s)
    : kept_(packing::pack([&s](auto& f) {
        for_each_field(s, f);
        for_each_key(s.algs, f);
    })) {}

packed_sa packed_sa::without_keys(const sa& s) {
    packed_sa all_else;
    all_else.kept_ = packing::pack([&s](auto& f) { for_each_field(s, f); });
    return all_else;
}

sa packed_sa::unpack(const sa_id& id) const {
    sa s;
    s.id = id;
    packing::unpack(kept_, [&s](auto& f) {
        for_each_field(s, f);
        for_each_key(s.algs, f);
    });
    return s;
}

sa packed_sa::unpack_without_keys(const sa_id& id) const {
    sa s;
    s.id = id;
    packing::unpack(kept_, [&s](auto& f) { for_each_field(s, f); });
    return s;
}

} // namespace esplane::ipsec

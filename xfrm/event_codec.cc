// SPDX-License-Identifier: Apache-2.0
#include "xfrm/event_codec.h"

#include "xfrm/fields.h"
#include "xfrm/mark_codec.h"
#include "xfrm/policy_codec.h"
#include "xfrm/replay_codec.h"
#include "xfrm/sa_codec.h"

namespace esplane::xfrm {

void encode_sa_event(message_writer& w, const ipsec::sa& s, std::uint32_t flags) {
    xfrm_aevent_id id{};
    id.sa_id = sa_id_to(s.id);
    id.saddr = address_to(s.source);
    id.reqid = s.reqid;
    id.flags = flags;
    w.fixed(id);
    encode_replay(w, s);
    w.attribute_64bit(XFRMA_LTIME_VAL, current_to(s.current));
    encode_mark(w, s.id.mark);
    encode_if_id(w, s.if_id);
    encode_direction(w, s);
}

std::uint32_t flags_of(ipsec::sa_moved::cause why) noexcept {
    switch (why) {
    case ipsec::sa_moved::cause::threshold:
        return XFRM_AE_CR;
    case ipsec::sa_moved::cause::timer:
        return XFRM_AE_CE;
    case ipsec::sa_moved::cause::given:
        return XFRM_AE_CU;
    case ipsec::sa_moved::cause::asked:
        break;
    }
    return 0;
}

void encode_migration(message_writer& w, const ipsec::migration& m) {
    ipsec::policy selected;
    selected.dir = m.selected.dir;
    selected.sel = m.selected.sel;
    w.fixed(policy_id_to(selected, false));
    if (m.km) {
        xfrm_user_kmaddress km{};
        km.local = address_to(m.km->local);
        km.remote = address_to(m.km->remote);
        km.reserved = m.km->reserved;
        km.family = address_family(m.km->local.fam);
        w.attribute(XFRMA_KMADDRESS, km);
    }
    if (m.encap) encode_encap(w, *m.encap);
    encode_policy_type(w, m.selected.type);
    for (const ipsec::sa_move& move : m.moves) {
        xfrm_user_migrate out{};
        out.old_daddr = address_to(move.old_destination);
        out.old_saddr = address_to(move.old_source);
        out.new_daddr = address_to(move.new_destination);
        out.new_saddr = address_to(move.new_source);
        out.proto = move.protocol;
        out.mode = static_cast<std::uint8_t>(move.run_mode);
        out.reqid = move.reqid;
        out.old_family = address_family(move.old_destination.fam);
        out.new_family = address_family(move.new_destination.fam);
        w.attribute(XFRMA_MIGRATE, out);
    }
}

} // namespace esplane::xfrm

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
    if ((flags & XFRM_AE_RTHR) != 0) w.attribute(XFRMA_REPLAY_THRESH, s.replay_threshold);
    if ((flags & XFRM_AE_ETHR) != 0) w.attribute(XFRMA_ETIMER_THRESH, s.replay_timer);
    encode_mark(w, s.id.mark);
    encode_if_id(w, s.if_id);
    encode_pcpu(w, s);
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

namespace {

constexpr std::size_t max_moves = 6; // XFRM_MAX_DEPTH

/// Modes and protocols that no SA has are no error: there is nothing to move then.
ipsec::sa_move move_from(const xfrm_user_migrate& m) noexcept {
    const ipsec::family before = family_from(m.old_family), after = family_from(m.new_family);
    return {address_from(m.old_saddr, before),
            address_from(m.old_daddr, before),
            address_from(m.new_saddr, after),
            address_from(m.new_daddr, after),
            m.proto,
            static_cast<ipsec::mode>(m.mode),
            m.reqid};
}

/// copy_from_user_migrate
result<std::vector<ipsec::sa_move>> decode_moves(bytes value) {
    if (value.size() / sizeof(xfrm_user_migrate) > max_moves)
        return fail(EINVAL, "Invalid number of SAs to migrate, must be 0 < num <= "
                            "XFRM_MAX_DEPTH (6)");
    std::vector<ipsec::sa_move> moves;
    while (const auto m = read_fixed<xfrm_user_migrate>(value)) {
        moves.push_back(move_from(*m));
        if (moves.back().new_destination.fam == ipsec::family::unspecified)
            return fail(EAFNOSUPPORT, "XFRMA_MIGRATE to neither IPv4 nor IPv6", "XFRMA_MIGRATE");
        value = value.subspan(sizeof *m);
    }
    return moves;
}

} // namespace

result<ipsec::migration> decode_migration(const xfrm_userpolicy_id& id, const attributes& a) {
    if (!a.has(XFRMA_MIGRATE)) return fail(EINVAL, "Missing required MIGRATE attribute");
    const auto type = decode_policy_type(a);
    if (!type) return tl::unexpected(type.error());
    auto moves = decode_moves(a.get(XFRMA_MIGRATE));
    if (!moves) return tl::unexpected(std::move(moves.error()));
    if (auto ok = check_policy_direction(id.dir); !ok) return tl::unexpected(std::move(ok.error()));
    const auto encap = decode_encap(a, moves->front().new_destination.fam);
    if (!encap) return tl::unexpected(encap.error());
    ipsec::migration m;
    m.selected.dir = static_cast<ipsec::policy_direction>(id.dir);
    m.selected.type = *type;
    m.selected.sel = selector_from(id.sel);
    m.selected.if_id = decode_if_id(a);
    m.moves = std::move(*moves);
    m.encap = *encap;
    if (const auto km = a.load<xfrm_user_kmaddress>(XFRMA_KMADDRESS)) {
        const ipsec::family f = family_from(km->family);
        m.km = {address_from(km->local, f), address_from(km->remote, f), km->reserved};
    }
    return m;
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

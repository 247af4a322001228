// SPDX-License-Identifier: Apache-2.0
#include "xfrm/events.h"

#include "xfrm/event_codec.h"
#include "xfrm/mark_codec.h"
#include "xfrm/policy_codec.h"
#include "xfrm/sa_codec.h"

namespace esplane::xfrm {
namespace {

class event_writer {
  public:
    explicit event_writer(datagram& into)
        : into_(into) {}

    std::uint32_t operator()(const ipsec::sa_added& e) { return sa(XFRM_MSG_NEWSA, e.what, e.by); }
    std::uint32_t operator()(const ipsec::sa_updated& e) {
        return sa(XFRM_MSG_UPDSA, e.what, e.by);
    }

    std::uint32_t operator()(const ipsec::sa_deleted& e) {
        message_writer w = begin(XFRM_MSG_DELSA, e.by);
        w.fixed(sa_id_to(e.what.id));
        w.attribute(XFRMA_SA, sa_info(e.what));
        encode_sa_attributes(w, e.what);
        w.finish();
        return XFRMNLGRP_SA;
    }

    std::uint32_t operator()(const ipsec::sa_flushed& e) {
        message_writer w = begin(XFRM_MSG_FLUSHSA, e.by);
        w.fixed(xfrm_usersa_flush{e.protocol});
        w.finish();
        return XFRMNLGRP_SA;
    }

    std::uint32_t operator()(const ipsec::sa_expired& e) {
        message_writer w = begin(XFRM_MSG_EXPIRE, {e.by.port_id, 0});
        xfrm_user_expire body{};
        body.state = sa_info(e.what);
        body.hard = e.hard ? 1 : 0;
        w.fixed(body);
        encode_mark(w, e.what.id.mark);
        encode_if_id(w, e.what.if_id);
        encode_pcpu(w, e.what);
        encode_direction(w, e.what);
        w.finish();
        return XFRMNLGRP_EXPIRE;
    }

    std::uint32_t operator()(const ipsec::acquire& e) {
        message_writer w = begin(XFRM_MSG_ACQUIRE, {});
        xfrm_user_acquire body{};
        body.id = sa_info(e.larval).id;
        body.saddr = address_to(e.larval.source);
        body.sel = selector_to(e.larval.sel);
        body.policy = policy_info(e.what);
        body.aalgos = e.wanted.auth_algs;
        body.ealgos = e.wanted.cipher_algs;
        body.calgos = e.wanted.comp_algs;
        body.seq = e.larval.seq;
        w.fixed(body);
        encode_policy_attributes(w, e.what);
        encode_pcpu(w, e.larval);
        w.finish();
        return XFRMNLGRP_ACQUIRE;
    }

    std::uint32_t operator()(const ipsec::sa_mapping& e) {
        message_writer w = begin(XFRM_MSG_MAPPING, {});
        xfrm_user_mapping body{};
        body.id = sa_id_to(e.what.id);
        body.reqid = e.what.reqid;
        body.old_saddr = address_to(e.what.source);
        body.new_saddr = address_to(e.source);
        body.old_sport = e.what.encap->source_port.network();
        body.new_sport = e.port.network();
        w.fixed(body);
        w.finish();
        return XFRMNLGRP_MAPPING;
    }

    std::uint32_t operator()(const ipsec::sa_moved& e) {
        message_writer w = begin(XFRM_MSG_NEWAE, e.by);
        encode_sa_event(w, e.what, flags_of(e.why));
        w.finish();
        return XFRMNLGRP_AEVENTS;
    }

    std::uint32_t operator()(const ipsec::policies_migrated& e) {
        message_writer w = begin(XFRM_MSG_MIGRATE, {});
        encode_migration(w, e.what);
        w.finish();
        return XFRMNLGRP_MIGRATE;
    }

    std::uint32_t operator()(const ipsec::packet_reported& e) {
        message_writer w = begin(XFRM_MSG_REPORT, {});
        w.fixed(xfrm_user_report{e.protocol, selector_to(e.sel)});
        if (e.care_of) w.attribute(XFRMA_COADDR, address_to(*e.care_of));
        w.finish();
        return XFRMNLGRP_REPORT;
    }

    std::uint32_t operator()(const ipsec::defaults_changed& e) {
        message_writer w = begin(XFRM_MSG_GETDEFAULT, {});
        w.fixed(defaults_to(e.what));
        w.finish();
        return XFRMNLGRP_POLICY;
    }

    std::uint32_t operator()(const ipsec::policy_added& e) {
        return policy(XFRM_MSG_NEWPOLICY, e.what, e.by);
    }
    std::uint32_t operator()(const ipsec::policy_updated& e) {
        return policy(XFRM_MSG_UPDPOLICY, e.what, e.by);
    }

    std::uint32_t operator()(const ipsec::policy_deleted& e) {
        message_writer w = begin(XFRM_MSG_DELPOLICY, e.by);
        w.fixed(policy_id_to(e.what, e.by_index));
        w.attribute(XFRMA_POLICY, policy_info(e.what));
        encode_policy_attributes(w, e.what);
        w.finish();
        return XFRMNLGRP_POLICY;
    }

    std::uint32_t operator()(const ipsec::policy_flushed& e) {
        message_writer w = begin(XFRM_MSG_FLUSHPOLICY, e.by);
        encode_policy_type(w, e.type);
        w.finish();
        return XFRMNLGRP_POLICY;
    }

    std::uint32_t operator()(const ipsec::policy_expired& e) {
        message_writer w = begin(XFRM_MSG_POLEXPIRE, {e.by.port_id, 0});
        xfrm_user_polexpire body{};
        body.pol = policy_info(e.what);
        body.hard = e.hard ? 1 : 0;
        w.fixed(body);
        encode_policy_attributes(w, e.what);
        w.finish();
        return XFRMNLGRP_EXPIRE;
    }

  private:
    message_writer begin(std::uint16_t type, ipsec::originator by) {
        return {into_, type, 0, by.sequence, by.port_id};
    }

    std::uint32_t sa(std::uint16_t type, const ipsec::sa& s, ipsec::originator by) {
        message_writer w = begin(type, by);
        w.fixed(sa_info(s));
        encode_sa_attributes(w, s);
        w.finish();
        return XFRMNLGRP_SA;
    }

    std::uint32_t policy(std::uint16_t type, const ipsec::policy& p, ipsec::originator by) {
        message_writer w = begin(type, by);
        w.fixed(policy_info(p));
        encode_policy_attributes(w, p);
        w.finish();
        return XFRMNLGRP_POLICY;
    }

    datagram& into_;
};

} // namespace

std::uint32_t encode_event(const ipsec::event& e, datagram& into) {
    return std::visit(event_writer(into), e);
}

} // namespace esplane::xfrm

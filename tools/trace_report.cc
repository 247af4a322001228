// SPDX-License-Identifier: Apache-2.0
#include "tools/trace_report.h"

#include "tools/report.h"

namespace esplane::tools {

using nlohmann::json;

namespace {

ordered_json report(const xfrm::printed& p);

ordered_json report(const xfrm::printed_fields& fields) {
    ordered_json all = ordered_json::object();
    for (const xfrm::printed& p : fields)
        all[p.name] = report(p);
    return all;
}

ordered_json report(const xfrm::printed_list& list) {
    ordered_json all = ordered_json::array();
    for (const xfrm::printed& p : list.items)
        all.push_back(report(p));
    return all;
}

ordered_json report(const xfrm::printed& p) {
    return std::visit(
        [](const auto& is) -> ordered_json {
            if constexpr (requires { report(is); })
                return report(is);
            else
                return is;
        },
        p.is);
}

json by(ipsec::originator who) {
    if (who.port_id == 0 && who.sequence == 0) return nullptr;
    return {{"port", who.port_id}, {"seq", who.sequence}};
}

/// Makes one object of each kind of event.
class event_report {
  public:
    json operator()(const ipsec::sa_added& e) { return sa("sa_added", e.what, e.by); }
    json operator()(const ipsec::sa_updated& e) { return sa("sa_updated", e.what, e.by); }
    json operator()(const ipsec::sa_deleted& e) { return sa("sa_deleted", e.what, e.by); }
    json operator()(const ipsec::sa_flushed& e) {
        return {{"event", "sas_flushed"}, {"protocol", e.protocol}, {"by", by(e.by)}};
    }
    json operator()(const ipsec::sa_expired& e) {
        json j = sa("sa_expired", e.what, e.by);
        j["hard"] = e.hard;
        return j;
    }
    json operator()(const ipsec::acquire& e) {
        return {{"event", "sa_wanted"},
                {"sa", report_sa(e.larval)},
                {"seq", e.larval.seq},
                {"flow", e.larval.sel.to_string()},
                {"policy", report_policy(e.what)}};
    }
    json operator()(const ipsec::sa_mapping& e) {
        return {{"event", "sa_mapping"},
                {"sa", report_sa(e.what)},
                {"source", e.source.to_string()},
                {"source_port", e.port.host()}};
    }
    json operator()(const ipsec::sa_moved& e) {
        json j = sa("sa_moved", e.what, e.by);
        j["why"] = cause_of(e.why);
        return j;
    }
    json operator()(const ipsec::policies_migrated& e) {
        json moves = json::array();
        for (const ipsec::sa_move& m : e.what.moves)
            moves.push_back({{"old_source", m.old_source.to_string()},
                             {"old_destination", m.old_destination.to_string()},
                             {"new_source", m.new_source.to_string()},
                             {"new_destination", m.new_destination.to_string()},
                             {"reqid", m.reqid}});
        return {{"event", "policies_migrated"},
                {"selector", e.what.selected.sel.to_string()},
                {"moves", std::move(moves)},
                {"by", by(e.by)}};
    }
    json operator()(const ipsec::packet_reported& e) {
        return {{"event", "packet_reported"},
                {"protocol", e.protocol},
                {"selector", e.sel.to_string()}};
    }
    json operator()(const ipsec::policy_added& e) { return policy("policy_added", e.what, e.by); }
    json operator()(const ipsec::policy_updated& e) {
        return policy("policy_updated", e.what, e.by);
    }
    json operator()(const ipsec::policy_deleted& e) {
        return policy("policy_deleted", e.what, e.by);
    }
    json operator()(const ipsec::policy_flushed& e) {
        const bool sub = e.type == ipsec::policy_type::sub;
        return {{"event", "policies_flushed"}, {"type", sub ? "sub" : "main"}, {"by", by(e.by)}};
    }
    json operator()(const ipsec::policy_expired& e) {
        json j = policy("policy_expired", e.what, e.by);
        j["hard"] = e.hard;
        return j;
    }
    json operator()(const ipsec::defaults_changed& e) {
        const auto word = [&e](ipsec::policy_direction d) {
            return action_of(e.what, d) == ipsec::policy_action::block ? "block" : "accept";
        };
        return {{"event", "defaults_changed"},
                {"in", word(ipsec::policy_direction::in)},
                {"fwd", word(ipsec::policy_direction::fwd)},
                {"out", word(ipsec::policy_direction::out)}};
    }

  private:
    static json sa(const char* event, const ipsec::sa& s, ipsec::originator who) {
        return {{"event", event}, {"sa", report_sa(s)}, {"by", by(who)}};
    }
    static json policy(const char* event, const ipsec::policy& p, ipsec::originator who) {
        return {{"event", event}, {"policy", report_policy(p)}, {"by", by(who)}};
    }
    static const char* cause_of(ipsec::sa_moved::cause why) {
        switch (why) {
        case ipsec::sa_moved::cause::threshold:
            return "threshold";
        case ipsec::sa_moved::cause::timer:
            return "timer";
        case ipsec::sa_moved::cause::given:
            return "given";
        case ipsec::sa_moved::cause::asked:
            break;
        }
        return "asked";
    }
};

} // namespace

ordered_json report_message(const xfrm::printed_message& m) {
    ordered_json all = {{"type", m.type},
                        {"seq", m.sequence},
                        {"length", m.length},
                        {"sender", m.port_id},
                        {"flags", report(m.flags)},
                        {"fixed", report(m.fixed)},
                        {"attributes", ordered_json::array()}};
    for (const xfrm::printed& a : m.attributes)
        all["attributes"].push_back({{"name", a.name}, {"value", report(a)}});
    if (!m.request.empty()) all["request"] = report_message(m.request.front());
    if (m.unknown_bytes != 0) all["unknown_bytes"] = m.unknown_bytes;
    return all;
}

json report_event(const ipsec::event& e) {
    return std::visit(event_report(), e);
}

} // namespace esplane::tools

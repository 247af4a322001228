// SPDX-License-Identifier: Apache-2.0
#include "tools/report.h"

#include <array>
#include <cstdio>
#include <string_view>

#include "fastpath/drop.h"
#include "tools/options.h"
#include "tools/worker_care.h"

namespace esplane::tools {

using nlohmann::json;

namespace {

std::string spi_text(wire::be32 spi) {
    std::array<char, 11> text{};
    std::snprintf(text.data(), text.size(), "0x%08x", spi.host());
    return text.data();
}

json protocol_text(std::uint8_t protocol) {
    switch (protocol) {
    case 0:
        return nullptr;
    case wire::proto_icmp:
        return "icmp";
    case wire::proto_tcp:
        return "tcp";
    case wire::proto_udp:
        return "udp";
    case wire::proto_esp:
        return "esp";
    case wire::proto_ah:
        return "ah";
    case wire::proto_icmpv6:
        return "icmpv6";
    case wire::proto_sctp:
        return "sctp";
    default:
        return std::to_string(protocol);
    }
}

std::string_view text_of(ipsec::mode m) {
    return m == ipsec::mode::tunnel ? "tunnel" : "transport";
}

/// As the client said, else as the SA was used; null where neither says.
json direction_of(const ipsec::sa& s) {
    if (s.dir == ipsec::direction::in) return "in";
    if (s.dir == ipsec::direction::out) return "out";
    const bool received = s.replay.received != 0;
    if (received == (s.replay.sent != 0)) return nullptr;
    return received ? "in" : "out";
}

std::string_view text_of(ipsec::sa_state s) {
    switch (s) {
    case ipsec::sa_state::larval:
        return "larval";
    case ipsec::sa_state::valid:
        return "valid";
    case ipsec::sa_state::expired:
        break;
    }
    return "expired";
}

std::string_view text_of(ipsec::policy_direction d) {
    switch (d) {
    case ipsec::policy_direction::in:
        return "in";
    case ipsec::policy_direction::out:
        return "out";
    case ipsec::policy_direction::fwd:
        break;
    }
    return "fwd";
}

std::string_view action_of(const ipsec::policy& p) {
    if (p.action == ipsec::policy_action::block) return "discard";
    return p.protects() ? "protect" : "bypass";
}

/// A limit that is not there is null.
json limit(std::uint64_t value, std::uint64_t none) {
    return value == none ? json() : json(value);
}

json report_limits(const ipsec::lifetime_limits& l) {
    return {{"soft_bytes", limit(l.soft_bytes, ipsec::no_limit)},
            {"hard_bytes", limit(l.hard_bytes, ipsec::no_limit)},
            {"soft_packets", limit(l.soft_packets, ipsec::no_limit)},
            {"hard_packets", limit(l.hard_packets, ipsec::no_limit)},
            {"soft_add_s", limit(l.soft_add_s, 0)},
            {"hard_add_s", limit(l.hard_add_s, 0)},
            {"soft_use_s", limit(l.soft_use_s, 0)},
            {"hard_use_s", limit(l.hard_use_s, 0)}};
}

json report_encapsulation(const std::optional<ipsec::udp_encapsulation>& e) {
    if (!e) return nullptr;
    return {{"type", "espinudp"},
            {"source_port", e->source_port.host()},
            {"destination_port", e->destination_port.host()}};
}

json prefix(const ipsec::address& a, unsigned length) {
    return a.to_string() + "/" + std::to_string(length);
}

/// A port with its mask; null where every port matches.
json masked_port(wire::be16 port, wire::be16 mask) {
    if (mask == wire::be16()) return nullptr;
    if (mask == wire::be16(0xffff)) return port.host();
    return std::to_string(port.host()) + "/" + std::to_string(mask.host());
}

json report_selector(const ipsec::selector& s) {
    return {{"source", prefix(s.source, s.source_prefix)},
            {"destination", prefix(s.destination, s.destination_prefix)},
            {"protocol", protocol_text(s.protocol)},
            {"source_port", masked_port(s.source_port, s.source_port_mask)},
            {"destination_port", masked_port(s.destination_port, s.destination_port_mask)}};
}

json report_template(const ipsec::template_& t) {
    return {{"source", t.source.to_string()},
            {"destination", t.id.destination.to_string()},
            {"protocol", protocol_text(t.id.protocol)},
            {"spi", t.id.spi == wire::be32() ? json() : json(spi_text(t.id.spi))},
            {"mode", text_of(t.run_mode)},
            {"reqid", t.reqid},
            {"optional", t.optional}};
}

/// "0x5/0xff", as ip(8) takes it; null where none was given.
json report_mark(const ipsec::mark_mask& m) {
    if (!m.given()) return nullptr;
    std::array<char, 24> text{};
    std::snprintf(text.data(), text.size(), "0x%x/0x%x", m.value, m.mask);
    return text.data();
}

void add_current(json& into, const ipsec::lifetime_current& c) {
    into["packets"] = c.packets;
    into["bytes"] = c.bytes;
    into["add_time"] = c.add_time;
    into["use_time"] = limit(c.use_time, 0);
}

/// One page of a walk: `next` gives pointers, `describe` makes JSON of what they point to.
json report_page(const char* key, control::cursor at, auto&& next, auto&& describe) {
    json entries = json::array();
    json follows = nullptr;
    while (const auto* entry = next(at)) {
        entries.push_back(describe(*entry));
        if (entries.size() == page_size) {
            follows = at.next;
            break;
        }
    }
    return {{key, std::move(entries)}, {"next", std::move(follows)}};
}

} // namespace

json report_sa(const ipsec::sa& s) {
    const bool larval = s.state == ipsec::sa_state::larval;
    json j = {{"source", s.source.to_string()},
              {"destination", s.id.destination.to_string()},
              {"spi", spi_text(s.id.spi)},
              {"protocol", protocol_text(s.id.protocol)},
              {"mode", text_of(s.run_mode)},
              {"reqid", s.reqid},
              {"if_id", limit(s.if_id, 0)},
              {"mark", report_mark(s.id.mark)},
              {"output_mark", report_mark(s.output_mark)},
              {"cpu", s.pcpu ? json(*s.pcpu) : json()},
              {"direction", direction_of(s)},
              {"state", text_of(s.state)},
              {"dying", s.dying},
              {"algorithm", larval ? json() : json(ipsec::name_of(s.algs.run))},
              {"esn", s.esn()},
              {"replay_window", s.replay_window},
              {"encapsulation", report_encapsulation(s.encap)},
              {"sent_sequence", s.replay.sent},
              {"received_sequence", s.replay.received},
              {"last_used", limit(s.last_used, 0)},
              {"limits", report_limits(s.limits)},
              {"errors",
               {{"replay_duplicate", s.statistics.replay},
                {"replay_too_old", s.statistics.replay_window},
                {"icv_mismatch", s.statistics.integrity_failed}}}};
    add_current(j, s.current);
    return j;
}

json report_policy(const ipsec::policy& p) {
    json j = {{"direction", text_of(p.dir)},
              {"action", action_of(p)},
              {"selector", report_selector(p.sel)},
              {"priority", p.priority},
              {"index", p.index},
              {"if_id", limit(p.if_id, 0)},
              {"mark", report_mark(p.mark)},
              {"templates", json::array()},
              {"limits", report_limits(p.limits)}};
    for (const ipsec::template_& t : p.templates)
        j["templates"].push_back(report_template(t));
    add_current(j, p.current);
    return j;
}

json report_port(const fastpath::port& p) {
    const fastpath::port_counters c = p.counters();
    json extended = json::object();
    for (const fastpath::named_count& one : p.extended_counters())
        extended[one.name] = one.value;
    return {{"name", p.name()},
            {"kind", p.kind()},
            {"device", p.device()},
            {"ifindex", p.ifindex()},
            {"role", name_of(p.role())},
            {"up", p.up()},
            {"mode", p.mode().empty() ? json() : json(p.mode())},
            {"lanes", p.lanes()},
            {"rx_packets", c.rx_packets},
            {"rx_bytes", c.rx_bytes},
            {"rx_no_buffer", c.rx_no_buffer},
            {"rx_linearised", c.rx_linearised},
            {"tx_packets", c.tx_packets},
            {"tx_bytes", c.tx_bytes},
            {"tx_full", c.tx_full},
            {"tx_copied", c.tx_copied},
            {"punted", c.punted},
            {"punt_full", c.punt_full},
            {"kernel_denied", c.kernel_denied},
            {"extended", std::move(extended)}};
}

json report_sas(control::layer& l, control::cursor from) {
    return report_page(
        "sas", from, [&](control::cursor& c) { return l.next_sa(c); }, report_sa);
}

json report_policies(control::layer& l, control::cursor from) {
    return report_page(
        "policies", from, [&](control::cursor& c) { return l.next_policy(c); }, report_policy);
}

json report_packets(const fastpath::worker_counters& c) {
    return {{"received", c.received.get()},
            {"created", c.created.get()},
            {"sent", c.sent.get()},
            {"punted", c.punted.get()},
            {"dropped", c.dropped_total()},
            {"held", c.held.get()},
            {"absorbed", c.absorbed.get()},
            {"encrypted", c.encrypted.get()},
            {"decrypted", c.decrypted.get()},
            {"bypassed", c.bypassed.get()},
            {"fragmented", c.fragmented.get()},
            {"reassembled", c.reassembled.get()},
            {"clamped", c.clamped.get()},
            {"handed_out", c.handed_out.get()},
            {"handed_in", c.handed_in.get()}};
}

json report_drops(const fastpath::worker_counters& c) {
    json drops = json::array();
    for (unsigned i = 1; i < fastpath::drop_reason_count; ++i) {
        const auto& d = fastpath::describe(static_cast<fastpath::drop_reason>(i));
        drops.push_back({{"reason", d.name}, {"packets", c.dropped[i].get()}, {"text", d.text}});
    }
    return drops;
}

json report_worker(const fastpath::worker& w, std::size_t index, const worker_care* care) {
    json r = report_packets(w.counters());
    const bool stuck = care != nullptr && care->watch().stuck(index);
    const bool runs = w.vitals().running.load(std::memory_order_relaxed);
    r["worker"] = index;
    r["cpu"] = w.cpu() < 0 ? json() : json(w.cpu());
    r["state"] = stuck ? "stuck" : runs ? "awake" : "asleep";
    r["busy"] = care != nullptr ? json(care->busy_share(index)) : json();
    r["stuck"] = care != nullptr ? care->watch().times_stuck(index) : 0;
    return r;
}

json report_filter(const fastpath::rule_filter* f) {
    json rules = json::array();
    if (f != nullptr) {
        const auto hits = f->count();
        for (std::size_t i = 0; i < hits.size(); ++i)
            rules.push_back({{"rule", f->rules()[i].text},
                             {"packets", hits[i].packets},
                             {"bytes", hits[i].bytes}});
    }
    return {{"rules", std::move(rules)}};
}

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
#include "tools/guarding.h"

#include <algorithm>
#include <set>

namespace esplane::tools {

namespace {

std::uint16_t tag_of(const control::link& vlan) {
    constexpr std::uint16_t service = 0x88a8;
    return static_cast<std::uint16_t>(ESPLANE_TAG | (vlan.vlan_id & ESPLANE_TAG_ID) |
                                      (vlan.vlan_protocol == service ? ESPLANE_TAG_SERVICE : 0));
}

/// Those one or two tags deep.
std::vector<fastpath::egress_device> vlan_devices_on(int ifindex,
                                                     const std::vector<control::link>& links) {
    std::vector<fastpath::egress_device> found;
    for (const control::link& outer : links) {
        if (outer.kind != control::link_kind::vlan || outer.parent != ifindex) continue;
        found.push_back({outer.ifindex, {tag_of(outer), 0}});
        for (const control::link& inner : links)
            if (inner.kind == control::link_kind::vlan && inner.parent == outer.ifindex)
                found.push_back({inner.ifindex, {tag_of(outer), tag_of(inner)}});
    }
    return found;
}

/// The machine's addresses for whatever comes in on a device and the VLANs on it.  One of a VRF
/// that not all of them are in may be somebody else's address there: it is left out, and what is
/// sent to it goes the longer way, through the path, which knows.
std::vector<ipsec::address> local_addresses_on(int ifindex, const control::network& n) {
    const auto vrf_of = [&](int of) {
        const auto is_it = [&](const control::link& l) { return l.ifindex == of; };
        const auto at = std::find_if(n.links.begin(), n.links.end(), is_it);
        return at == n.links.end() ? 0 : at->vrf;
    };
    std::set<std::uint32_t> vrfs{vrf_of(ifindex)};
    for (const fastpath::egress_device& vlan : vlan_devices_on(ifindex, n.links))
        vrfs.insert(vrf_of(vlan.ifindex));
    std::vector<ipsec::address> locals;
    for (const control::interface_address& a : n.addresses) {
        const std::uint32_t vrf = vrf_of(a.ifindex);
        if (vrf == 0 || (vrfs.size() == 1 && vrfs.contains(vrf))) locals.push_back(a.local);
    }
    return locals;
}

} // namespace

guarding::guarding(std::vector<fastpath::guard*> guards, log l)
    : guards_(std::move(guards))
    , log_(std::move(l)) {}

void guarding::on_event(const ipsec::event& e) {
    if (const auto* added = std::get_if<ipsec::policy_added>(&e)) learn(added->what);
    if (const auto* updated = std::get_if<ipsec::policy_updated>(&e)) learn(updated->what);
    if (const auto* deleted = std::get_if<ipsec::policy_deleted>(&e)) forget(deleted->what);
    if (std::holds_alternative<ipsec::policy_flushed>(e)) forget_all();
    if (const auto* expired = std::get_if<ipsec::policy_expired>(&e); expired && expired->hard)
        forget(expired->what);
}

void guarding::stay_closed(std::function<void()> opened) {
    closed_ = true;
    opened_ = std::move(opened);
    for (fastpath::guard* g : guards_)
        check(*g, "staying closed", g->deny_all());
}

void guarding::open() {
    closed_ = false;
    publish_out();
    publish_in();
    opened_();
}

void guarding::learn(const ipsec::policy& p) {
    const bool bypass = p.action == ipsec::policy_action::allow && !p.protects();
    if (p.if_id == 0) policies_[p.index] = {p.position, p.dir, {p.sel, p.priority, bypass}};
    if (closed_ && p.dir == ipsec::policy_direction::out && !bypass)
        open();
    else if (p.if_id == 0)
        publish(p.dir);
}

void guarding::forget(const ipsec::policy& p) {
    if (policies_.erase(p.index) != 0) publish(p.dir);
}

void guarding::forget_all() {
    policies_.clear();
    if (closed_) return;
    publish_out();
    publish_in();
}

void guarding::publish(ipsec::policy_direction changed) {
    if (closed_) return;
    if (changed == ipsec::policy_direction::out) publish_out();
    if (changed == ipsec::policy_direction::in) publish_in();
}

/// Among equal priorities the earlier wins: rules go in order of position.
void guarding::publish_out() {
    std::vector<const known_policy*> order;
    for (const auto& [index, p] : policies_)
        if (p.dir == ipsec::policy_direction::out) order.push_back(&p);
    std::sort(order.begin(), order.end(), [](const known_policy* a, const known_policy* b) {
        return a->position < b->position;
    });
    std::vector<fastpath::egress_rule> rules;
    for (const known_policy* p : order)
        rules.push_back(p->rule);
    for (fastpath::guard* g : guards_)
        check(*g, "policies for what the machine sends", g->set_out_policies(rules));
}

void guarding::publish_in() {
    const bool take = std::any_of(policies_.begin(), policies_.end(), [](const auto& entry) {
        return entry.second.dir == ipsec::policy_direction::in && !entry.second.rule.allow;
    });
    if (take == take_local_) return;
    bool all = true; // a guard that failed is told again at the next change
    for (fastpath::guard* g : guards_)
        all &= check(*g, "policies for what the machine receives", g->set_take_local(take));
    if (all) take_local_ = take;
}

void guarding::set_network(const control::network& n) {
    for (fastpath::guard* g : guards_) {
        check(*g, "addresses of the machine",
              g->set_local_addresses(local_addresses_on(g->ifindex(), n)));
        check(*g, "VLAN devices", g->set_vlan_devices(vlan_devices_on(g->ifindex(), n.links)));
    }
}

void guarding::set_encap_ports(const std::vector<wire::be16>& ports) {
    for (fastpath::guard* g : guards_)
        check(*g, "UDP ports that carry ESP", g->set_encap_ports(ports));
}

bool guarding::check(const fastpath::guard& g, const char* what, const result<void>& done) {
    if (!done) log_(g.device() + ": " + what + ": " + done.error().text);
    return done.has_value();
}

} // namespace esplane::tools

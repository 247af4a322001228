// SPDX-License-Identifier: Apache-2.0
#include "tools/guarding.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <set>
#include <utility>

#include "tools/opening.h"

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

constexpr std::uint32_t before_all = 0;
constexpr std::uint32_t behind_all = ~std::uint32_t{0};

/// The priority among all rules: main policies keep their order between the two.
std::uint32_t priority_of(const ipsec::policy& p, bool bypass) {
    if (p.type == ipsec::policy_type::sub) return bypass ? behind_all : before_all;
    return std::clamp(p.priority, before_all + 1, behind_all - 1);
}

/// Nothing leaves in clear that no policy covers.
std::array<fastpath::egress_rule, 2> default_rules() {
    const auto deny_all_of = [](ipsec::family f, std::uint32_t position) {
        fastpath::egress_rule r{{}, behind_all, false, position};
        r.sel.fam = r.sel.source.fam = r.sel.destination.fam = f;
        return r;
    };
    return {deny_all_of(ipsec::family::ipv4, behind_all - 1),
            deny_all_of(ipsec::family::ipv6, behind_all)};
}

} // namespace

guarding::guarding(std::vector<fastpath::guard*> guards, log l)
    : guards_(std::move(guards))
    , log_(std::move(l)) {}

void guarding::on_event(const ipsec::event& e) {
    if (const auto* added = std::get_if<ipsec::policy_added>(&e)) learn(added->what);
    if (const auto* updated = std::get_if<ipsec::policy_updated>(&e)) learn(updated->what);
    if (const auto* deleted = std::get_if<ipsec::policy_deleted>(&e)) forget(deleted->what);
    if (const auto* flushed = std::get_if<ipsec::policy_flushed>(&e)) forget_all(flushed->type);
    if (const auto* changed = std::get_if<ipsec::defaults_changed>(&e)) learn(changed->what);
    if (const auto* expired = std::get_if<ipsec::policy_expired>(&e); expired && expired->hard)
        forget(expired->what);
    if (closed_ && opens(e)) open();
}

void guarding::stay_closed(std::function<void()> opened) {
    closed_ = true;
    opened_ = std::move(opened);
    for (fastpath::guard* g : guards_) {
        check(*g, "staying closed", g->deny_all());
        check(*g, "staying closed", g->set_take_local(true));
    }
}

void guarding::open() {
    closed_ = false;
    publish_default();
    for (fastpath::guard* g : guards_)
        check(*g, "policies for what the machine sends", g->obey_policies());
    publish_in();
    opened_();
}

/// A rule has room for half a policy's position: it counts from first_position_.  One that changes
/// where it is keeps it.
std::uint32_t guarding::position_of(const ipsec::policy& p) {
    const auto known = policies_.find(p.index);
    if (known != policies_.end() && known->second.position == p.position)
        return known->second.rule.position;
    constexpr std::uint32_t positions = behind_all - 1; // the rest is for the defaults
    if (p.position - first_position_ >= positions) {
        renumber();
        first_position_ = p.position - policies_.size();
    }
    return static_cast<std::uint32_t>(p.position - first_position_);
}

/// In the order they have.  The guards change all rules at one moment, or stay closed.
void guarding::renumber() {
    std::vector<fastpath::egress_rule*> rules;
    for (auto& [index, p] : policies_) {
        if (closed_ && p.dir == ipsec::policy_direction::out) tell(p.rule, false);
        rules.push_back(&p.rule);
    }
    std::ranges::sort(rules, {}, &fastpath::egress_rule::position);
    std::uint32_t next = 0;
    for (fastpath::egress_rule* r : rules)
        r->position = next++;
    if (begun_ && !closed_) return tell_all();
    for (const auto& [index, p] : policies_)
        if (p.dir == ipsec::policy_direction::out) tell(p.rule, true);
}

/// The new one first: a packet falls under one of the two, never under none.
void guarding::learn(const ipsec::policy& p) {
    const bool bypass = p.action == ipsec::policy_action::allow && !p.protects();
    // The programs see no marks: what lets some packets pass lets none pass there.
    if (bypass && p.mark.given()) {
        forget(p);
    } else if (p.if_id == 0) {
        const known_policy now{
            p.dir, p.type, p.position, {p.sel, priority_of(p, bypass), bypass, position_of(p)}};
        add(now);
        const auto [at, fresh] = policies_.try_emplace(p.index, now);
        if (!fresh) remove(std::exchange(at->second, now));
        publish_in();
    }
}

void guarding::forget(const ipsec::policy& p) {
    const auto known = policies_.find(p.index);
    if (known == policies_.end()) return;
    remove(known->second);
    policies_.erase(known);
    publish_in();
}

/// Where nothing leaves by default, no policy is missing that would keep something in.
void guarding::learn(const ipsec::default_actions& defaults) {
    defaults_ = defaults;
    publish_default();
    publish_in();
}

void guarding::forget_all(ipsec::policy_type type) {
    std::erase_if(policies_, [&](const auto& known) {
        if (known.second.type != type) return false;
        remove(known.second);
        return true;
    });
    publish_in();
}

void guarding::begin() {
    begun_ = true;
    if (closed_) return;
    default_denies_ = blocks_by_default(ipsec::policy_direction::out);
    tell_all();
    publish_in();
}

void guarding::tell_all() {
    const auto rules = out_rules();
    for (fastpath::guard* g : guards_)
        check(*g, "policies for what the machine sends", g->set_out_policies(rules));
}

void guarding::add(const known_policy& p) {
    if (p.dir == ipsec::policy_direction::in && !p.rule.allow) ++protecting_in_;
    if (p.dir == ipsec::policy_direction::out) tell(p.rule, true);
}

void guarding::remove(const known_policy& p) {
    if (p.dir == ipsec::policy_direction::in && !p.rule.allow) --protecting_in_;
    if (p.dir == ipsec::policy_direction::out) tell(p.rule, false);
}

void guarding::tell(const fastpath::egress_rule& r, bool more) {
    if (!begun_) return;
    for (fastpath::guard* g : guards_)
        check(*g, "policies for what the machine sends",
              more ? g->add_out_policy(r) : g->remove_out_policy(r));
}

void guarding::publish_default() {
    const bool denies = blocks_by_default(ipsec::policy_direction::out);
    if (!begun_ || denies == default_denies_) return;
    default_denies_ = denies;
    for (const fastpath::egress_rule& r : default_rules())
        tell(r, denies);
}

std::vector<fastpath::egress_rule> guarding::out_rules() const {
    std::vector<fastpath::egress_rule> rules;
    for (const auto& [index, p] : policies_)
        if (p.dir == ipsec::policy_direction::out) rules.push_back(p.rule);
    std::ranges::sort(rules, {}, &fastpath::egress_rule::rank);
    if (blocks_by_default(ipsec::policy_direction::out))
        std::ranges::copy(default_rules(), std::back_inserter(rules));
    return rules;
}

void guarding::publish_in() {
    const bool take = protecting_in_ != 0 || blocks_by_default(ipsec::policy_direction::in);
    if (closed_ || !begun_ || take == take_local_) return;
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

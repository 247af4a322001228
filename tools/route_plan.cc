// SPDX-License-Identifier: Apache-2.0
#include "tools/route_plan.h"

#include <algorithm>
#include <tuple>

namespace esplane::tools {

using xfrm::host_prefix;

namespace {

bool is_pass(const ipsec::policy& p) noexcept {
    return p.action == ipsec::policy_action::allow && p.templates.empty();
}

host_prefix prefix_of(const ipsec::address& a, std::uint8_t length, ipsec::family family) {
    host_prefix where{ipsec::masked(a, length), length};
    where.address.fam = family;
    return where;
}

host_prefix destinations_of(const ipsec::policy& p) {
    return prefix_of(p.sel.destination, p.sel.destination_prefix, p.sel.fam);
}

host_prefix sources_of(const ipsec::policy& p) {
    return prefix_of(p.sel.source, p.sel.source_prefix, p.sel.fam);
}

host_prefix alone(const ipsec::address& a) {
    return {a, ipsec::address_bits(a.fam)};
}

bool within(const host_prefix& inner, const host_prefix& outer) {
    return outer.length <= inner.length && outer.holds(inner.address);
}

/// Whether some of its destinations' packets are left to other policies.
bool is_partial(const ipsec::selector& s) noexcept {
    return s.protocol != 0 || s.source_port_mask != wire::be16{} ||
           s.destination_port_mask != wire::be16{} || s.ifindex != 0;
}

bool wins(const ipsec::policy& a, const ipsec::policy& b) noexcept {
    const auto rank = [](const ipsec::policy& p) {
        return std::tuple(p.type == ipsec::policy_type::main, p.priority, p.position);
    };
    return rank(a) < rank(b);
}

/// The peer of a tunnel, where it is of the family of what is inside.
const ipsec::address* peer_of(const ipsec::policy& p) noexcept {
    if (!p.protects()) return nullptr;
    const ipsec::address& peer = p.templates.front().id.destination;
    return peer.fam == p.sel.fam && !peer.is_any() ? &peer : nullptr;
}

bool is_loopback(const ipsec::address& a) noexcept {
    if (a.fam == ipsec::family::ipv4) return a.bytes[0] == 127;
    return std::all_of(a.bytes.begin(), a.bytes.end() - 1, [](auto b) { return b == 0; }) &&
           a.bytes[15] == 1;
}

bool is_of_link(const ipsec::address& a) noexcept {
    return a.fam == ipsec::family::ipv6 ? a.bytes[0] == 0xfe && (a.bytes[1] & 0xc0) == 0x80
                                        : a.bytes[0] == 169 && a.bytes[1] == 254;
}

/// Where the machine's own loopback is covered any address is: the kernel's choice is good.
bool covers_loopback(const host_prefix& where) {
    ipsec::address a;
    a.fam = where.address.fam;
    a.bytes[0] = a.fam == ipsec::family::ipv4 ? 127 : 0;
    a.bytes[a.fam == ipsec::family::ipv4 ? 3 : 15] = 1;
    return where.holds(a);
}

void drop(std::map<host_prefix, std::set<std::uint32_t>>& from, const host_prefix& where,
          std::uint32_t index) {
    const auto at = from.find(where);
    if (at == from.end()) return;
    at->second.erase(index);
    if (at->second.empty()) from.erase(at);
}

} // namespace

/// Those with an interface are of that interface's traffic: a route to it is by request only.
/// Beside a sub-policy that lets pass a main one may protect: the path knows.
bool route_plan::counts(const ipsec::policy& p) const noexcept {
    if (p.type == ipsec::policy_type::sub && is_pass(p)) return false;
    if (p.dir != ipsec::policy_direction::out || p.sel.fam == ipsec::family::unspecified)
        return false;
    return p.if_id == 0 || (options_.install_routes_xfrmi && !is_pass(p));
}

/// In transport mode the peer is all there is.
bool route_plan::is_peer_alone(const ipsec::policy& p) const noexcept {
    const ipsec::address* peer = peer_of(p);
    return peer != nullptr && p.templates.front().run_mode == ipsec::mode::tunnel &&
           destinations_of(p) == alone(*peer);
}

bool route_plan::leaves_out_peer(const ipsec::policy& p) const noexcept {
    const ipsec::address* peer = peer_of(p);
    if (options_.allow_peer_ts || peer == nullptr) return false;
    const host_prefix where = destinations_of(p);
    return where.length < ipsec::address_bits(p.sel.fam) && where.holds(*peer);
}

/// Its own destinations, the peer it leaves out, and those that go around it.
auto route_plan::touched_by(const ipsec::policy& p) const -> prefixes {
    const host_prefix own = destinations_of(p);
    prefixes touched{own};
    if (leaves_out_peer(p)) touched.insert(alone(*peer_of(p)));
    if (!is_pass(p))
        for (const auto& [where, passers] : passers_)
            if (within(where, own)) touched.insert(where);
    return touched;
}

auto route_plan::learn(const ipsec::policy& p) -> prefixes {
    prefixes touched = forget(p.index);
    if (!counts(p)) return touched;
    policies_[p.index] = p;
    (is_pass(p) ? passers_ : takers_)[destinations_of(p)].insert(p.index);
    if (leaves_out_peer(p)) peers_[alone(*peer_of(p))].insert(p.index);
    touched.merge(touched_by(p));
    return touched;
}

auto route_plan::forget(std::uint32_t index) -> prefixes {
    const auto at = policies_.find(index);
    if (at == policies_.end()) return {};
    const ipsec::policy p = std::move(at->second);
    policies_.erase(at);
    drop(is_pass(p) ? passers_ : takers_, destinations_of(p), index);
    if (leaves_out_peer(p)) drop(peers_, alone(*peer_of(p)), index);
    return touched_by(p);
}

auto route_plan::forget_all(ipsec::policy_type type) -> prefixes {
    std::vector<std::uint32_t> gone;
    for (const auto& [index, p] : policies_)
        if (p.type == type) gone.push_back(index);
    prefixes touched;
    for (const std::uint32_t index : gone)
        touched.merge(forget(index));
    return touched;
}

auto route_plan::destinations() const -> prefixes {
    prefixes all;
    for (const auto* some : {&takers_, &passers_, &peers_})
        for (const auto& [where, policies] : *some)
            all.insert(where);
    return all;
}

auto route_plan::peers() const -> prefixes {
    prefixes all;
    for (const auto& [where, policies] : peers_)
        all.insert(where);
    return all;
}

/// One with all bits of its own is a virtual address, in the manner of IKE daemons; those on the
/// device come first.
void route_plan::set_addresses(const control::network& n, int device) {
    const auto in_vrf = [&](int ifindex) {
        return std::any_of(n.links.begin(), n.links.end(), [&](const control::link& l) {
            return l.ifindex == ifindex && l.vrf != 0;
        });
    };
    addresses_.clear();
    for (const bool on_device : {true, false})
        for (const control::interface_address& a : n.addresses)
            if ((a.ifindex == device) == on_device && !is_loopback(a.local) &&
                !is_of_link(a.local) && !in_vrf(a.ifindex))
                addresses_.push_back(
                    {a.local, on_device || a.prefix == ipsec::address_bits(a.local.fam)});
}

auto route_plan::source_for(const ipsec::policy& p) const -> const ranked_address* {
    const host_prefix local = sources_of(p);
    if (covers_loopback(local)) return nullptr;
    const ranked_address* found = nullptr;
    for (const ranked_address& a : addresses_)
        if (local.holds(a.local) && (found == nullptr || (a.is_virtual && !found->is_virtual)))
            found = &a;
    return found;
}

/// Those that take the destination's packets, best first.
auto route_plan::in_order(const host_prefix& where) const -> std::vector<const ipsec::policy*> {
    std::vector<const ipsec::policy*> order;
    if (const auto at = takers_.find(where); at != takers_.end())
        for (const std::uint32_t index : at->second)
            order.push_back(&policies_.at(index));
    std::sort(order.begin(), order.end(), [](const ipsec::policy* a, const ipsec::policy* b) {
        return std::make_tuple(a->if_id != 0, a->priority, a->position) <
               std::make_tuple(b->if_id != 0, b->priority, b->position);
    });
    return order;
}

planned_route route_plan::into(const std::vector<const ipsec::policy*>& takers) const {
    planned_route r{.if_id = takers.front()->if_id};
    const ranked_address* source = nullptr;
    for (const ipsec::policy* p : takers) {
        const ranked_address* own = source_for(*p);
        if (own != nullptr && (source == nullptr || (own->is_virtual && !source->is_virtual)))
            source = own;
        const std::uint32_t mtu = options_.mtu == 0 && mtu_ ? mtu_(*p) : options_.mtu;
        if (mtu != 0 && (r.mtu == 0 || mtu < r.mtu)) r.mtu = mtu;
    }
    if (source != nullptr) r.source = source->local;
    return r;
}

/// Only where nothing that another policy protects would go that way too: packets that it takes
/// from others' sources, or of other ports, must not leave in clear.
bool route_plan::may_go_around(const ipsec::policy& passes) const {
    if (is_partial(passes.sel)) return false;
    const host_prefix where = destinations_of(passes);
    return std::all_of(takers_.begin(), takers_.end(), [&](const auto& entry) {
        if (!within(where, entry.first)) return true;
        return std::all_of(entry.second.begin(), entry.second.end(), [&](std::uint32_t index) {
            const ipsec::policy& taker = policies_.at(index);
            return wins(passes, taker) && within(sources_of(taker), sources_of(passes));
        });
    });
}

std::optional<planned_route> route_plan::route_to(const host_prefix& where) const {
    if (const auto takers = in_order(where); !takers.empty()) {
        const bool refused = !options_.allow_peer_ts &&
                             std::all_of(takers.begin(), takers.end(), [&](const auto* p) {
                                 return p->protects() && is_peer_alone(*p);
                             });
        return refused ? planned_route{.what = planned_route::way::nowhere} : into(takers);
    }
    if (peers_.contains(where)) return planned_route{.what = planned_route::way::past};
    const auto passers = passers_.find(where);
    if (passers == passers_.end()) return {};
    if (!std::any_of(passers->second.begin(), passers->second.end(),
                     [&](std::uint32_t index) { return may_go_around(policies_.at(index)); }))
        return {};
    return planned_route{.what = planned_route::way::around};
}

} // namespace esplane::tools

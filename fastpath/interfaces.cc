// SPDX-License-Identifier: Apache-2.0
#include "fastpath/interfaces.h"

#include <algorithm>
#include <bit>

namespace esplane::fastpath {

namespace {

constexpr std::uint32_t default_mtu = 1500;
constexpr std::uint16_t vid_mask = 0x0fff;

const interface nobody;

const control::link* find_link(const control::network& n, int ifindex) {
    for (const control::link& l : n.links)
        if (l.ifindex == ifindex) return &l;
    return nullptr;
}

/// Puts a tag in front of what is there; false where it does not fit.
bool push_tag(vlan_tags& tags, std::uint16_t protocol, std::uint16_t id) {
    if (tags.length == tags.bytes.size()) return false;
    std::copy_backward(tags.bytes.begin(), tags.bytes.begin() + tags.length,
                       tags.bytes.begin() + tags.length + vlan_tags::tag_bytes);
    wire::store(tags.bytes.data(), wire::be16(protocol));
    wire::store(tags.bytes.data() + 2, wire::be16(id));
    tags.length += vlan_tags::tag_bytes;
    return true;
}

void describe(interface& i, const control::network& n, const control::link& l,
              const std::function<std::uint16_t(std::uint32_t)>& vrf_of) {
    i.ifindex = l.ifindex;
    i.vrf = vrf_of(l.vrf);
    i.mtu = l.mtu != 0 ? l.mtu : default_mtu;
    i.mac = l.mac;
    i.up = l.up;
    for (const control::interface_address& a : n.addresses)
        if (a.ifindex == l.ifindex) i.addresses.push_back(a);
}

} // namespace

interface_table::interface_table(const control::network& n, const device_bindings& bindings,
                                 const interface_table& before,
                                 const std::function<std::uint16_t(std::uint32_t)>& vrf_of) {
    for (const port_binding& b : bindings.ports) {
        if (all_.size() <= b.port) all_.resize(b.port + 1u);
        interface& i = all_[b.port];
        i.kind = b.of_machine ? interface_kind::machine : interface_kind::port;
        i.port = b.port;
        if (const control::link* l = find_link(n, b.ifindex)) describe(i, n, *l, vrf_of);
    }
    const std::size_t first = all_.size();
    add_tunnels(n, bindings.tunnels, before, first, vrf_of);
    add_vlans(n, before, first, vrf_of);
    if (bindings.by_kernel != no_port) add_others(n, bindings.by_kernel, before, first, vrf_of);
    for (const control::interface_address& a : n.addresses) {
        const control::link* l = find_link(n, a.ifindex);
        addresses_.push_back({a, l != nullptr ? vrf_of(l->vrf) : std::uint16_t{0}});
    }
    index_tags();
}

interface_table::interface_table(std::uint8_t port, std::uint32_t mtu)
    : all_(port + 1u) {
    all_[port].kind = interface_kind::port;
    all_[port].port = port;
    all_[port].mtu = mtu;
}

void interface_table::add_tunnels(const control::network& n,
                                  std::span<const tunnel_binding> tunnels,
                                  const interface_table& before, std::size_t first,
                                  const std::function<std::uint16_t(std::uint32_t)>& vrf_of) {
    for (const tunnel_binding& t : tunnels) {
        const control::link* l = find_link(n, t.ifindex);
        if (l == nullptr) continue;
        const std::uint16_t index = place_for(t.ifindex, before, first);
        if (index == none) continue;
        interface& i = all_[index];
        i.kind = interface_kind::tunnel;
        i.if_id = t.if_id;
        describe(i, n, *l, vrf_of);
        if (i.up) tunnels_.emplace_back(t.if_id, index);
    }
    std::sort(tunnels_.begin(), tunnels_.end());
}

/// Links that are nothing else.
void interface_table::add_others(const control::network& n, std::uint8_t port,
                                 const interface_table& before, std::size_t first,
                                 const std::function<std::uint16_t(std::uint32_t)>& vrf_of) {
    for (const control::link& l : n.links) {
        if (find(l.ifindex) != none) continue;
        const std::uint16_t index = place_for(l.ifindex, before, first);
        if (index == none) return;
        interface& i = all_[index];
        i.kind = interface_kind::kernel;
        i.port = port;
        describe(i, n, l, vrf_of);
    }
}

/// Links that are VLANs of a port, or of such a VLAN.
void interface_table::add_vlans(const control::network& n, const interface_table& before,
                                std::size_t first,
                                const std::function<std::uint16_t(std::uint32_t)>& vrf_of) {
    for (const control::link& l : n.links) {
        if (l.kind != control::link_kind::vlan || find(l.ifindex) != none) continue;
        vlan_tags tags;
        const control::link* at = &l;
        std::uint16_t below = none;
        while (at != nullptr && at->kind == control::link_kind::vlan && below == none &&
               push_tag(tags, at->vlan_protocol, at->vlan_id)) {
            const auto parent = find(at->parent);
            if (parent != none && all_[parent].kind == interface_kind::port) below = parent;
            at = find_link(n, at->parent);
        }
        if (below == none) continue;
        const std::uint16_t index = place_for(l.ifindex, before, first);
        if (index == none) return; // 65,535 of them
        interface& i = all_[index];
        i.kind = interface_kind::vlan;
        i.port = all_[below].port;
        i.tags = tags;
        describe(i, n, l, vrf_of);
    }
}

/// The index a link had before, else a free one.  Makes room for it; none where all are taken.
std::uint16_t interface_table::place_for(int ifindex, const interface_table& before,
                                         std::size_t first) {
    std::size_t index = before.find(ifindex);
    if (index == none || index < first) {
        index = first;
        while ((index < all_.size() && all_[index].kind != interface_kind::none) ||
               (index < before.size() && before.all_[index].kind != interface_kind::none))
            ++index;
    }
    if (index >= none) return none;
    if (index >= all_.size()) all_.resize(index + 1);
    return static_cast<std::uint16_t>(index);
}

std::uint16_t interface_table::find_tunnel(std::uint32_t if_id) const noexcept {
    const auto at =
        std::lower_bound(tunnels_.begin(), tunnels_.end(), std::pair(if_id, std::uint16_t{0}));
    return at != tunnels_.end() && at->first == if_id ? at->second : none;
}

const interface& interface_table::operator[](std::uint16_t index) const noexcept {
    return index < all_.size() ? all_[index] : nobody;
}

bool interface_table::has_vrfs() const noexcept {
    return std::any_of(all_.begin(), all_.end(), [](const auto& i) { return i.vrf != 0; });
}

interface_table::tagged interface_table::key_of(std::uint8_t port, const vlan_tags& tags) noexcept {
    tagged key{0, 0, port, tags.length, true};
    for (unsigned at = 0; at < tags.length; at += vlan_tags::tag_bytes) {
        const auto protocol = wire::load<wire::be16>(tags.bytes.data() + at).host();
        const auto id = wire::load<wire::be16>(tags.bytes.data() + at + 2).host() & vid_mask;
        key.tags = key.tags << 32 | std::uint64_t{protocol} << 16 | static_cast<unsigned>(id);
    }
    return key;
}

std::size_t interface_table::home_of(const tagged& key) const noexcept {
    const std::uint64_t h = (key.tags ^ std::uint64_t{key.port} << 56) * 0x9e3779b97f4a7c15;
    return (h >> 40) & (by_tags_.size() - 1);
}

void interface_table::index_tags() {
    const auto receives = [](const interface& i) { return i.kind == interface_kind::vlan && i.up; };
    const auto vlans = static_cast<std::size_t>(std::count_if(all_.begin(), all_.end(), receives));
    if (vlans == 0) return;
    by_tags_.resize(std::bit_ceil(2 * vlans + 1));
    for (std::size_t i = 0; i < all_.size(); ++i) {
        if (!receives(all_[i])) continue;
        tagged key = key_of(all_[i].port, all_[i].tags);
        key.index = static_cast<std::uint16_t>(i);
        std::size_t at = home_of(key);
        while (by_tags_[at].used)
            at = (at + 1) & (by_tags_.size() - 1);
        by_tags_[at] = key;
    }
}

std::uint16_t interface_table::find(std::uint8_t port, const vlan_tags& tags) const noexcept {
    if (by_tags_.empty()) return none;
    const tagged key = key_of(port, tags);
    for (std::size_t at = home_of(key); by_tags_[at].used; at = (at + 1) & (by_tags_.size() - 1)) {
        const tagged& t = by_tags_[at];
        if (t.tags == key.tags && t.port == port && t.length == key.length) return t.index;
    }
    return none;
}

std::uint16_t interface_table::find(int ifindex) const noexcept {
    for (std::size_t i = 0; i < all_.size(); ++i)
        if (all_[i].ifindex == ifindex && ifindex != 0 && all_[i].kind != interface_kind::none)
            return static_cast<std::uint16_t>(i);
    return none;
}

const ipsec::address* interface_table::source_for(std::uint16_t index,
                                                  const ipsec::address& peer) const noexcept {
    const auto usable = [&](const control::interface_address& a) {
        const bool link_local = a.local.fam == ipsec::family::ipv6 && a.local.bytes[0] == 0xfe &&
                                (a.local.bytes[1] & 0xc0) == 0x80;
        const bool loopback = a.local.fam == ipsec::family::ipv4
                                  ? a.local.bytes[0] == 127
                                  : a.prefix == 128 && a.ifindex == 1;
        return a.local.fam == peer.fam && !link_local && !loopback;
    };
    const interface& i = (*this)[index];
    const ipsec::address* found = nullptr;
    for (const control::interface_address& a : i.addresses) {
        if (!usable(a)) continue;
        if (ipsec::prefix_equal(a.local.bytes.data(), peer.bytes.data(), a.prefix)) return &a.local;
        if (found == nullptr) found = &a.local;
    }
    if (found != nullptr) return found;
    for (const machine_address& a : addresses_)
        if (a.vrf == i.vrf && usable(a.address)) return &a.address.local;
    return nullptr;
}

} // namespace esplane::fastpath

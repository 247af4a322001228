// SPDX-License-Identifier: Apache-2.0
#include "fastpath/fib.h"

#include <algorithm>
#include <atomic>
#include <map>

namespace esplane::fastpath {

namespace {

using ipsec::family;

constexpr std::uint32_t default_mtu = 1500;
const port_identity nobody;

using neighbour_map = std::map<std::pair<int, ipsec::address>, wire::mac_address>;

neighbour_map resolved_neighbours(const control::network& n) {
    neighbour_map known;
    for (const control::neighbour& one : n.neighbours)
        if (one.resolved) known[{one.ifindex, one.ip}] = one.mac;
    return known;
}

const control::link* find_link(const control::network& n, int ifindex) {
    for (const control::link& l : n.links)
        if (l.ifindex == ifindex) return &l;
    return nullptr;
}

const port_binding* find_port(std::span<const port_binding> ports, int ifindex) {
    for (const port_binding& p : ports)
        if (p.ifindex == ifindex) return &p;
    return nullptr;
}

bool is_host_route(const control::route& r) {
    return r.prefix == ipsec::address_bits(r.destination.fam);
}

void resolve(adjacency& a, const neighbour_map& known, const ipsec::address& next_hop) {
    const auto found = known.find({a.ifindex, next_hop});
    if (found == known.end()) return;
    a.kind = adjacency_kind::forward;
    a.destination = found->second;
}

adjacency adjacency_of(const control::route& r, const control::network& n,
                       std::span<const port_binding> ports, const neighbour_map& known) {
    adjacency a;
    a.ifindex = r.ifindex;
    a.gateway = r.gateway;
    if (r.kind == control::route_kind::local) {
        a.kind = adjacency_kind::local;
        return a;
    }
    if (r.kind != control::route_kind::unicast) {
        a.kind = adjacency_kind::denied;
        return a;
    }
    const port_binding* binding = find_port(ports, r.ifindex);
    const control::link* link = find_link(n, r.ifindex);
    if (binding == nullptr || link == nullptr) {
        a.kind = adjacency_kind::foreign;
        return a;
    }
    a.kind = adjacency_kind::unresolved;
    a.port = binding->port;
    a.mtu = link->mtu != 0 ? link->mtu : default_mtu;
    if (r.mtu != 0) a.mtu = std::min(a.mtu, r.mtu);
    a.source = link->mac;
    if (!r.gateway.is_any())
        resolve(a, known, r.gateway);
    else if (is_host_route(r))
        resolve(a, known, r.destination);
    return a;
}

/// Never 0, which is an SA's that has looked up no route yet.
std::uint64_t next_generation() noexcept {
    static std::atomic<std::uint64_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

} // namespace

fib::fib()
    : generation_(next_generation())
    , nodes_(2)
    , adjacencies_(1) {}

std::unique_ptr<const fib> fib::build(const control::network& n,
                                      std::span<const port_binding> ports) {
    std::unique_ptr<fib> f(new fib);
    f->addresses_ = n.addresses;
    for (const port_binding& b : ports) {
        if (f->identities_.size() <= b.port) f->identities_.resize(b.port + 1u);
        port_identity& who = f->identities_[b.port];
        if (const control::link* l = find_link(n, b.ifindex)) who.mac = l->mac;
        for (const control::interface_address& a : n.addresses)
            if (a.ifindex == b.ifindex) who.addresses.push_back(a);
    }
    f->insert_routes(n, ports);
    return f;
}

/// Ascending by prefix, so that a longer one lands on top; host routes after the neighbours, so
/// that a route to a host beats the neighbour entry of its address.
void fib::insert_routes(const control::network& n, std::span<const port_binding> ports) {
    const neighbour_map known = resolved_neighbours(n);
    std::vector<const control::route*> order;
    order.reserve(n.routes.size());
    for (auto r = n.routes.rbegin(); r != n.routes.rend(); ++r) // the first of equals comes last
        order.push_back(&*r);
    std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
        return std::pair(is_host_route(*a), a->prefix) < std::pair(is_host_route(*b), b->prefix);
    });
    bool neighbours_done = false;
    for (const control::route* r : order) {
        if (is_host_route(*r) && !neighbours_done) {
            insert_neighbours(n, ports);
            neighbours_done = true;
        }
        insert(r->destination, r->prefix, add(adjacency_of(*r, n, ports, known)));
    }
    if (!neighbours_done) insert_neighbours(n, ports);
}

/// A neighbour counts where its address is routed on the link it was seen on.
void fib::insert_neighbours(const control::network& n, std::span<const port_binding> ports) {
    for (const control::neighbour& one : n.neighbours) {
        if (!one.resolved || find_port(ports, one.ifindex) == nullptr) continue;
        adjacency a = lookup(one.ip);
        if (a.kind != adjacency_kind::unresolved || a.ifindex != one.ifindex || !a.gateway.is_any())
            continue;
        a.kind = adjacency_kind::forward;
        a.destination = one.mac;
        insert(one.ip, ipsec::address_bits(one.ip.fam), add(a));
    }
}

std::unique_ptr<const fib> fib::everywhere(std::uint8_t port, std::uint32_t mtu,
                                           std::span<const ipsec::address> locals) {
    std::unique_ptr<fib> f(new fib);
    f->identities_.resize(port + 1u);
    adjacency out;
    out.kind = adjacency_kind::bare;
    out.port = port;
    out.mtu = mtu;
    const std::uint32_t any = f->add(out);
    f->insert(ipsec::address::v4({}), 0, any);
    f->insert(ipsec::address::v6({}), 0, any);
    adjacency here;
    here.kind = adjacency_kind::local;
    const std::uint32_t local = f->add(here);
    for (const ipsec::address& a : locals)
        f->insert(a, ipsec::address_bits(a.fam), local);
    return f;
}

std::uint32_t fib::add(const adjacency& a) {
    adjacencies_.push_back(a);
    return static_cast<std::uint32_t>(adjacencies_.size() - 1);
}

void fib::insert(const ipsec::address& destination, unsigned prefix,
                 std::uint32_t adjacency_index) {
    std::size_t at = destination.fam == family::ipv4 ? 0 : 1;
    unsigned level = 0;
    for (; prefix > (level + 1) * 8; ++level) {
        const std::uint32_t slot = nodes_[at].entry[destination.bytes[level]];
        if ((slot & node_bit) != 0) {
            at = slot & ~node_bit;
            continue;
        }
        const auto child = static_cast<std::uint32_t>(nodes_.size());
        nodes_.emplace_back();
        nodes_[child].entry.fill(slot);
        nodes_[at].entry[destination.bytes[level]] = child | node_bit;
        at = child;
    }
    const unsigned rest = prefix - level * 8; // 0..8 bits decide within this node
    const unsigned first = rest == 0 ? 0 : destination.bytes[level] & (0xff00u >> rest) & 0xffu;
    for (unsigned i = 0; i < (256u >> rest); ++i)
        fill(nodes_[at].entry[first + i], adjacency_index);
}

/// Sets a slot, or everything below it.
void fib::fill(std::uint32_t& slot, std::uint32_t adjacency_index) {
    if ((slot & node_bit) == 0) {
        slot = adjacency_index;
        return;
    }
    for (std::uint32_t& below : nodes_[slot & ~node_bit].entry)
        fill(below, adjacency_index);
}

const adjacency& fib::lookup(const ipsec::address& destination) const noexcept {
    return destination.fam == family::ipv4 ? lookup_v4(destination.as_v4())
                                           : lookup_v6(destination.bytes.data());
}

const port_identity& fib::identity(std::uint16_t port) const noexcept {
    return port < identities_.size() ? identities_[port] : nobody;
}

const ipsec::address* fib::source_for(std::uint16_t port,
                                      const ipsec::address& peer) const noexcept {
    const auto usable = [&](const control::interface_address& a) {
        const bool link_local = a.local.fam == family::ipv6 && a.local.bytes[0] == 0xfe &&
                                (a.local.bytes[1] & 0xc0) == 0x80;
        const bool loopback = a.local.fam == family::ipv4 ? a.local.bytes[0] == 127
                                                          : a.prefix == 128 && a.ifindex == 1;
        return a.local.fam == peer.fam && !link_local && !loopback;
    };
    const ipsec::address* found = nullptr;
    for (const control::interface_address& a : identity(port).addresses) {
        if (!usable(a)) continue;
        if (ipsec::prefix_equal(a.local.bytes.data(), peer.bytes.data(), a.prefix)) return &a.local;
        if (found == nullptr) found = &a.local;
    }
    if (found != nullptr) return found;
    for (const control::interface_address& a : addresses_)
        if (usable(a)) return &a.local;
    return nullptr;
}

} // namespace esplane::fastpath

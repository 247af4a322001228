// SPDX-License-Identifier: Apache-2.0
#include "fastpath/tables.h"

namespace esplane::fastpath {

tables::interface_policies::interface_policies(std::uint32_t id, retired& graveyard)
    : if_id(id)
    , hash(hash_of(id))
    , by_direction{spd(graveyard), spd(graveyard), spd(graveyard)} {}

tables::tables()
    : routes_(new fib)
    , inbound_(graveyard_)
    , policies_{spd(graveyard_), spd(graveyard_), spd(graveyard_)}
    , interfaces_(graveyard_) {}

tables::~tables() {
    delete filter_.load(std::memory_order_relaxed);
    delete routes_.load(std::memory_order_relaxed);
}

void tables::publish(std::unique_ptr<fib> f) {
    const fib* before = routes_.exchange(f.release(), std::memory_order_acq_rel);
    graveyard_.add([before] { delete before; });
    graveyard_.reclaim();
}

void tables::apply(const control::network_change& change, const control::network& now,
                   const device_bindings& bindings) {
    routes_.load(std::memory_order_relaxed)->apply(change, now, bindings, graveyard_);
    graveyard_.reclaim();
}

void tables::set_filter(std::unique_ptr<packet_filter> f) {
    const packet_filter* before = filter_.exchange(f.release(), std::memory_order_acq_rel);
    if (before == nullptr) return;
    graveyard_.add([before] { delete before; });
    graveyard_.reclaim();
}

auto tables::find(std::uint32_t if_id) const noexcept -> interface_policies* {
    return interfaces_.find(hash_of(if_id),
                            [&](const interface_policies& one) { return one.if_id == if_id; });
}

auto tables::policies(ipsec::policy_direction d, std::uint32_t if_id) const noexcept -> const spd* {
    const interface_policies* of = find(if_id);
    return of == nullptr ? nullptr : &of->by_direction[static_cast<std::size_t>(d)];
}

namespace {

template <std::size_t Words>
policy_table<Words>& table_of(tables::spd& policies) {
    if constexpr (Words == v4_words)
        return policies.v4;
    else
        return policies.v6;
}

} // namespace

template <std::size_t Words>
void tables::insert(keyed_policy<Words>* e, ipsec::policy_direction d, std::uint32_t if_id,
                    const ipsec::selector& s) {
    const auto way = static_cast<std::size_t>(d);
    if (if_id == 0) {
        table_of<Words>(policies_[way]).insert(e, s);
        return;
    }
    interface_policies* of = find(if_id);
    if (of == nullptr) {
        of = new interface_policies(if_id, graveyard_);
        interfaces_.insert(of);
    }
    ++of->count;
    table_of<Words>(of->by_direction[way]).insert(e, s);
}

template <std::size_t Words>
void tables::erase(keyed_policy<Words>* e, ipsec::policy_direction d, std::uint32_t if_id,
                   const ipsec::selector& s) {
    const auto way = static_cast<std::size_t>(d);
    if (if_id == 0) {
        table_of<Words>(policies_[way]).erase(e, s);
        return;
    }
    interface_policies* of = find(if_id);
    table_of<Words>(of->by_direction[way]).erase(e, s);
    if (--of->count != 0) return;
    interfaces_.erase(of);
    graveyard_.add([of] { delete of; });
}

template void tables::insert(keyed_policy<v4_words>*, ipsec::policy_direction, std::uint32_t,
                             const ipsec::selector&);
template void tables::insert(keyed_policy<v6_words>*, ipsec::policy_direction, std::uint32_t,
                             const ipsec::selector&);
template void tables::erase(keyed_policy<v4_words>*, ipsec::policy_direction, std::uint32_t,
                            const ipsec::selector&);
template void tables::erase(keyed_policy<v6_words>*, ipsec::policy_direction, std::uint32_t,
                            const ipsec::selector&);

void tables::set_encap_port(wire::be16 port, bool on) noexcept {
    const std::uint16_t n = port.host();
    const std::uint64_t bit = std::uint64_t{1} << (n % 64);
    if (on)
        encap_ports_[n / 64].fetch_or(bit, std::memory_order_relaxed);
    else
        encap_ports_[n / 64].fetch_and(~bit, std::memory_order_relaxed);
}

} // namespace esplane::fastpath

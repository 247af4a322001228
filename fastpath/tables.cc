// SPDX-License-Identifier: Apache-2.0
#include "fastpath/tables.h"

namespace esplane::fastpath {

tables::scoped_policies::scoped_policies(const policy_scope& of, retired& graveyard)
    : scope(of)
    , hash(hash_of(of))
    , by_direction{spd(graveyard), spd(graveyard), spd(graveyard)} {}

tables::tables()
    : routes_(new fib)
    , inbound_(graveyard_)
    , policies_{spd(graveyard_), spd(graveyard_), spd(graveyard_)}
    , scopes_(graveyard_)
    , mark_masks_(new std::vector<std::uint32_t>) {}

tables::~tables() {
    delete mark_masks_.load(std::memory_order_relaxed);
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

auto tables::find(const policy_scope& scope) const noexcept -> scoped_policies* {
    return scopes_.find(hash_of(scope),
                        [&](const scoped_policies& one) { return one.scope == scope; });
}

auto tables::policies(ipsec::policy_direction d, const policy_scope& scope) const noexcept
    -> const spd* {
    const scoped_policies* of = find(scope);
    return of == nullptr ? nullptr : &of->by_direction[static_cast<std::size_t>(d)];
}

void tables::count_mask(const ipsec::mark_mask& mark, int by) {
    if (!mark.given()) return;
    int& users = mask_users_[mark.mask];
    const bool was_used = users != 0;
    users += by;
    if (was_used == (users != 0)) return;
    if (users == 0) mask_users_.erase(mark.mask);
    auto masks = std::make_unique<std::vector<std::uint32_t>>();
    for (const auto& [mask, count] : mask_users_)
        masks->push_back(mask);
    const auto* before = mark_masks_.exchange(masks.release(), std::memory_order_acq_rel);
    graveyard_.add([before] { delete before; });
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

void tables::set_defaults(const ipsec::default_actions& actions) noexcept {
    unsigned blocked = 0;
    for (std::size_t d = 0; d < actions.size(); ++d)
        blocked |= (actions[d] == ipsec::policy_action::block ? 1u : 0u) << d;
    blocked_.store(static_cast<std::uint8_t>(blocked), std::memory_order_relaxed);
}

/// A mask is published after its policies and taken back before they go: a reader that knows of it
/// finds them.
template <std::size_t Words>
void tables::insert(keyed_policy<Words>* e, ipsec::policy_direction d, const policy_scope& scope,
                    const ipsec::selector& s) {
    const auto way = static_cast<std::size_t>(d);
    if (scope.all()) {
        table_of<Words>(policies_[way]).insert(e, s);
        return;
    }
    scoped_policies* of = find(scope);
    const bool first = of == nullptr;
    if (first) of = new scoped_policies(scope, graveyard_);
    ++of->count;
    table_of<Words>(of->by_direction[way]).insert(e, s);
    if (scope.type == ipsec::policy_type::sub) subs_.fetch_add(1, std::memory_order_release);
    if (!first) return;
    scopes_.insert(of);
    count_mask(scope.mark, 1);
}

template <std::size_t Words>
void tables::erase(keyed_policy<Words>* e, ipsec::policy_direction d, const policy_scope& scope) {
    const auto way = static_cast<std::size_t>(d);
    if (scope.all()) {
        table_of<Words>(policies_[way]).erase(e);
        return;
    }
    scoped_policies* of = find(scope);
    table_of<Words>(of->by_direction[way]).erase(e);
    if (scope.type == ipsec::policy_type::sub) subs_.fetch_sub(1, std::memory_order_release);
    if (--of->count != 0) return;
    count_mask(scope.mark, -1);
    scopes_.erase(of);
    graveyard_.add([of] { delete of; });
}

template void tables::insert(keyed_policy<v4_words>*, ipsec::policy_direction, const policy_scope&,
                             const ipsec::selector&);
template void tables::insert(keyed_policy<v6_words>*, ipsec::policy_direction, const policy_scope&,
                             const ipsec::selector&);
template void tables::erase(keyed_policy<v4_words>*, ipsec::policy_direction, const policy_scope&);
template void tables::erase(keyed_policy<v6_words>*, ipsec::policy_direction, const policy_scope&);

void tables::set_encap_port(wire::be16 port, bool on) noexcept {
    const std::uint16_t n = port.host();
    const std::uint64_t bit = std::uint64_t{1} << (n % 64);
    if (on)
        encap_ports_[n / 64].fetch_or(bit, std::memory_order_relaxed);
    else
        encap_ports_[n / 64].fetch_and(~bit, std::memory_order_relaxed);
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
#include "fastpath/fib.h"

#include "fastpath/fib_ledger.h"

namespace esplane::fastpath {

using ipsec::family;

namespace {

/// Retired memory that is not waited for before a change is complete.
constexpr std::size_t most_retired_blocks = 1 << 18;

/// Never 0, which is an SA's that has looked up no route yet.  Not that of another fib either.
std::uint64_t next_generation() noexcept {
    static std::atomic<std::uint64_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

} // namespace

fib::fib()
    : generation_(next_generation())
    , vrfs_(new std::atomic<const vrf_tables*>[most_vrfs + 1u])
    , ledger_(std::make_shared<ledger>(*this)) {
    targets_ = ledger_->paths.targets();
}

fib::~fib() = default;

std::unique_ptr<fib> fib::build(const control::network& n, std::span<const port_binding> ports) {
    return build(n, device_bindings{{ports.begin(), ports.end()}, {}, no_port});
}

std::unique_ptr<fib> fib::build(const control::network& n, const device_bindings& bindings) {
    auto f = std::make_unique<fib>();
    f->load(n, bindings);
    return f;
}

void fib::load(const control::network& n, const device_bindings& bindings) {
    control::network_change all;
    all.interfaces = all.routes_afresh = true;
    for (const control::neighbour& one : n.neighbours)
        all.neighbours.push_back({one, false});
    for (auto r = n.routes.rbegin(); r != n.routes.rend(); ++r) // the first of equals comes last
        all.routes.push_back({*r, false});
    retired unseen; // nobody reads it yet
    apply(all, n, bindings, unseen);
}

std::unique_ptr<fib> fib::everywhere(std::uint8_t port, std::uint32_t mtu,
                                     std::span<const ipsec::address> locals) {
    auto f = std::make_unique<fib>();
    ledger& l = *f->ledger_;
    l.use(std::make_unique<interface_table>(port, mtu));
    const auto lead = [&](const ipsec::address& to, unsigned length, const path& p) {
        l.set_route(0, to, length, l.paths.take(p));
    };
    const path out{path_kind::bare, 0, mtu, {{port, {}, 1}}};
    lead(ipsec::address::v4({}), 0, out);
    lead(ipsec::address::v6({}), 0, out);
    for (const ipsec::address& a : locals)
        lead(a, ipsec::address_bits(a.fam), {path_kind::local, 0, 0, {}});
    return f;
}

void fib::apply(const control::network_change& change, const control::network& now,
                const device_bindings& bindings, retired& graveyard) {
    if (change.empty() && !ledger_->is_loading()) return;
    if (change.interfaces) ledger_->change_interfaces(now, bindings);
    for (const auto& n : change.neighbours)
        ledger_->change_neighbour(n);
    if (change.routes_afresh) ledger_->begin_afresh();
    for (const auto& r : change.routes) {
        ledger_->change_route(r);
        if (ledger_->retired_blocks() < most_retired_blocks) continue;
        hand_over(graveyard);
        graveyard.reclaim();
    }
    if (ledger_->is_loading() && !change.continues) ledger_->end_afresh();
    hand_over(graveyard);
}

/// After this a result that is kept counts no more, and then what it may point to is retired.
void fib::hand_over(retired& graveyard) {
    near_.store(ledger_->is_near(), std::memory_order_relaxed);
    generation_.store(next_generation(), std::memory_order_release);
    auto old = std::make_shared<ledger::garbage>(ledger_->take_garbage());
    graveyard.add([owner = ledger_, old] { owner->recycle(*old); });
}

fib_usage fib::usage() const {
    return ledger_->usage();
}

std::uint16_t fib::vrf_of(std::uint32_t table) const {
    return ledger_->index_of(table);
}

const adjacency& fib::lookup(const ipsec::address& destination, std::uint16_t vrf,
                             std::uint32_t flow_hash) const noexcept {
    return destination.fam == family::ipv4 ? lookup_v4(vrf, destination.as_v4(), flow_hash)
                                           : lookup_v6(vrf, destination.bytes.data(), flow_hash);
}

template <unsigned Bytes>
void fib::find_burst(std::uint16_t vrf, std::span<const std::uint8_t* const> destinations,
                     route_target* targets) const noexcept {
    std::array<std::uint32_t, lpm_table<Bytes>::max_burst> numbers;
    const vrf_tables& main = *main_.load(std::memory_order_acquire);
    const vrf_tables* own = vrf != 0 ? tables_of(vrf) : nullptr;
    const auto& table = (own != nullptr ? *own : main).of<Bytes>();
    table.find(destinations, numbers.data());
    for (std::size_t i = 0; i < destinations.size(); ++i) {
        if (own != nullptr && numbers[i] == next_hops::missing)
            numbers[i] = main.of<Bytes>().find(destinations[i]);
        targets[i] = target(numbers[i]);
    }
}

template void fib::find_burst<4>(std::uint16_t, std::span<const std::uint8_t* const>,
                                 route_target*) const noexcept;
template void fib::find_burst<16>(std::uint16_t, std::span<const std::uint8_t* const>,
                                  route_target*) const noexcept;

} // namespace esplane::fastpath

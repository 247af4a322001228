// SPDX-License-Identifier: Apache-2.0
#include "tools/path_care.h"

#include <algorithm>

namespace esplane::tools {

namespace {

/// What the kernel's sockets have refused is lost until its limit is taken over.
constexpr std::uint64_t interval_ns = 250'000'000;
constexpr std::uint64_t idle_interval_ns = 1'000'000'000; ///< without sockets

constexpr std::uint32_t smallest_device_mtu = 1280; ///< below it the kernel takes IPv6 off a device

/// 0 where nothing can leave that way.
std::uint32_t route_mtu(const fastpath::tables& tables, const ipsec::address& peer) {
    using enum fastpath::adjacency_kind;
    const fastpath::adjacency& route = tables.routes().lookup(peer);
    const bool leads_out = route.kind == forward || route.kind == unresolved || route.kind == bare;
    return leads_out ? route.mtu : 0;
}

} // namespace

path_care::path_care(engine& e, log l)
    : engine_(e)
    , log_(std::move(l))
    , limits_(
          {.route_mtu = [&e](const ipsec::address& peer) { return route_mtu(e.tables(), peer); },
           .limit_sa =
               [&e](const ipsec::sa_id& id, std::optional<std::uint32_t> mtu) {
                   e.backend().set_path_mtu(id, mtu.value_or(fastpath::no_path_limit));
               }}) {
    engine_.control().subscribe(&limits_);
    engine_.on_path_limit([this](const fastpath::worker_event& said) {
        limits_.heard(said.id, said.source, said.mtu, fastpath::now().monotonic_ns);
    });
}

void path_care::follow_ports(const std::vector<std::string>& fixed) {
    for (fastpath::port* p : engine_.ports()) {
        if (auto* socket = dynamic_cast<fastpath::socket_port*>(p)) sockets_.push_back(socket);
        auto* machine = dynamic_cast<fastpath::host_port*>(p);
        const bool follows = std::ranges::find(fixed, p->name()) == fixed.end();
        if (machine != nullptr && follows) machine_.push_back(machine);
    }
}

path_care::~path_care() {
    engine_.on_path_limit({});
    engine_.control().unsubscribe(&limits_);
}

void path_care::tend(std::uint64_t now_ns) {
    if (now_ns < next_ns_) return;
    next_ns_ = now_ns + (sockets_.empty() ? idle_interval_ns : interval_ns);
    for (fastpath::socket_port* port : sockets_)
        for (const fastpath::path_limit& known : port->take_path_limits())
            limits_.learnt(known.to, known.mtu, now_ns);
    if (!limits_.tend(now_ns)) return;
    set_device_mtu();
    if (changed_) changed_();
}

/// The device keeps the last one where no SA is left: the next one will cost about the same.
void path_care::set_device_mtu() {
    if (machine_.empty()) return;
    const auto smallest = limits_.smallest_mtu();
    if (!smallest) return;
    const std::uint32_t mtu =
        std::clamp(*smallest, smallest_device_mtu, fastpath::host_port::largest_mtu);
    if (std::exchange(device_mtu_, mtu) == mtu) return;
    for (fastpath::host_port* port : machine_)
        if (auto set = port->set_mtu(mtu); !set)
            log_(port->name() + ": MTU " + std::to_string(mtu) + ": " + set.error().text);
}

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
#include "tools/ports.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <net/if.h>
#include <thread>

#include "fastpath/numa.h"
#include "lib/base/beside.h"
#ifdef ESPLANE_HAVE_DPDK
#include "tools/ports_dpdk.h"
#endif
#include "tools/ports_packet.h"
#include "tools/ports_socket.h"
#include "tools/ports_tun.h"
#ifdef ESPLANE_HAVE_XDP
#include "fastpath/xdp/privileged.h"
#include "tools/ports_xdp.h"
#endif

namespace esplane::tools {

namespace {

constexpr std::uint32_t ring_frames = 1024;    ///< of an rx or tx ring, whatever the kind
constexpr std::uint32_t spare_buffers = 4096;  ///< held, created, on their way
constexpr std::uint32_t most_buffers = 131072; ///< 512 MiB

/// Devices have seldom more queues than the machine has CPUs; each fills one ring and sends from
/// another.  Beside that, what lanes may keep to themselves.
std::uint32_t buffers_for(std::size_t ports, unsigned lanes) {
    const std::uint32_t queues = std::max(1u, std::thread::hardware_concurrency());
    const auto rings = static_cast<std::uint32_t>(ports) * (queues + lanes);
    return std::min(most_buffers, rings * ring_frames + spare_buffers +
                                      fastpath::buffer_pool::kept_by_lanes(lanes));
}

result<std::unique_ptr<fastpath::buffer_pool>> make_buffers(const daemon_options& options) {
    std::vector<int> nodes;
    for (const unsigned cpu : options.cpus)
        nodes.push_back(fastpath::node_of_cpu(static_cast<int>(cpu)));
    return fastpath::buffer_pool::make(buffers_for(options.ports.size(), options.workers),
                                       options.workers, nodes);
}

tl::unexpected<error> port_failed(const port_spec& spec, const error& e) {
    return fail(e.code, "--port " + spec.text + ": " + e.text, "port");
}

using reserve_port = std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>;

/// The kinds of this build.  What a kind's ports share lives as long as the functions do.
std::map<std::string, reserve_port> kinds_of(const port_surroundings& around) {
    std::map<std::string, reserve_port> kinds;
#ifdef ESPLANE_HAVE_DPDK
    kinds["dpdk"] = dpdk_openers(around);
#endif
    kinds["packet"] = packet_openers(around);
    kinds["socket"] = socket_openers(around);
    kinds["tun"] = tun_openers(around);
#ifdef ESPLANE_HAVE_XDP
    kinds["xdp"] = xdp_openers(around);
#endif
    return kinds;
}

} // namespace

result<void> check_device(const std::string& device) {
    if (::if_nametoindex(device.c_str()) != 0) return {};
    return fail(ENODEV, "no such device: create it or name another (ip link)");
}

result<std::unique_ptr<fastpath::buffer_pool>> prepare_ahead(const daemon_options& options) {
#ifdef ESPLANE_HAVE_XDP
    const auto n =
        std::ranges::count_if(options.ports, [](const auto& s) { return s.kind == "xdp"; });
    fastpath::own_privileges::load_ahead(static_cast<std::size_t>(n));
#endif
    return make_buffers(options);
}

result<std::unique_ptr<port_set>>
port_set::reserve(const daemon_options& options, std::function<void(const std::string&)> log,
                  std::unique_ptr<fastpath::buffer_pool> buffers) {
    const std::vector<port_spec>& specs = options.ports;
    const unsigned lanes = options.workers;
    std::unique_ptr<port_set> all(new port_set(specs));
    if (!buffers) {
        auto made = make_buffers(options);
        if (!made) return tl::unexpected(made.error());
        buffers = std::move(*made);
    }
    all->buffers_ = std::move(buffers);
    const auto kinds = kinds_of({*all->buffers_, specs, lanes, options.eal, std::move(log)});
    for (const port_spec& spec : specs) {
        auto opener = kinds.at(spec.kind)(spec);
        if (!opener) return port_failed(spec, opener.error());
        all->openers_.push_back(std::move(*opener));
    }
    return all;
}

result<void> port_set::cover() {
    return attach(false);
}

result<void> port_set::replace_cover() {
    return attach(true);
}

result<void> port_set::attach(bool covered) {
    for (std::size_t i = 0; i < openers_.size(); ++i)
        if (openers_[i]->is_covered() == covered)
            if (auto attached = openers_[i]->attach(); !attached)
                return port_failed(specs_[i], attached.error());
    return {};
}

result<void> port_set::open() {
    for (std::size_t i = 0; i < openers_.size(); ++i) {
        auto port = openers_[i]->open();
        if (!port) return port_failed(specs_[i], port.error());
        ports_.push_back(std::move(*port));
    }
    return {};
}

bool port_set::let_go() noexcept {
    std::atomic<bool> free = true;
    {
        beside closing;
        for (const auto& o : openers_)
            closing.run([&o, &free] {
                if (!o->let_go()) free = false;
            });
    }
    return free;
}

std::vector<guarded_device> port_set::devices() const {
    std::vector<guarded_device> list;
    for (std::size_t i = 0; i < openers_.size(); ++i)
        if (const int ifindex = openers_[i]->guarded_ifindex(); ifindex != 0)
            list.push_back({specs_[i].name, specs_[i].kind, specs_[i].device, ifindex,
                            current_network_namespace()});
    return list;
}

bool port_set::keeps_twin_of(const std::vector<guarded_device>& recorded) const {
    const std::uint64_t here = current_network_namespace();
    return std::any_of(recorded.begin(), recorded.end(), [&](const guarded_device& d) {
        return d.network_namespace == here &&
               std::any_of(openers_.begin(), openers_.end(),
                           [&](const auto& o) { return o->kept_twin() == d.ifindex; });
    });
}

std::vector<fastpath::guard*> port_set::guards() const {
    std::vector<fastpath::guard*> list;
    for (const auto& o : openers_)
        if (fastpath::guard* g = o->guard()) list.push_back(g);
    return list;
}

std::vector<fastpath::port*> port_set::ports() const {
    std::vector<fastpath::port*> list;
    for (const auto& p : ports_)
        list.push_back(p.get());
    return list;
}

} // namespace esplane::tools

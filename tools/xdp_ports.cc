// SPDX-License-Identifier: Apache-2.0
#include "tools/xdp_ports.h"

#include <algorithm>
#include <net/if.h>
#include <thread>

#include "fastpath/xdp/bpf.h"

namespace esplane::tools {

namespace {

constexpr std::uint32_t spare_buffers = 4096; ///< held, created, on their way
constexpr std::uint32_t most_buffers = 65536; ///< 256 MiB

/// Devices have seldom more queues than the machine has CPUs; each fills one ring, each port sends
/// from one more.
std::uint32_t buffers_for(std::size_t ports) {
    const std::uint32_t queues = std::max(1u, std::thread::hardware_concurrency());
    const auto rings = static_cast<std::uint32_t>(ports) * (queues + 1);
    return std::min(most_buffers, rings * fastpath::umem::ring_size + spare_buffers);
}

tl::unexpected<error> port_failed(const port_spec& spec, const error& e) {
    return fail(e.code, "--port " + spec.text + ": " + e.text, "port");
}

result<void> check_device(const port_spec& spec) {
    if (::if_nametoindex(spec.device.c_str()) != 0) return {};
    return port_failed(spec, {ENODEV, "no such device: create it or name another (ip link)", {}});
}

} // namespace

result<std::unique_ptr<xdp_ports>> xdp_ports::reserve(const std::vector<port_spec>& specs) {
    fastpath::silence_bpf_libraries();
    std::unique_ptr<xdp_ports> all(new xdp_ports(specs));
    for (const port_spec& spec : specs) {
        if (auto there = check_device(spec); !there) return tl::unexpected(there.error());
        auto guard = fastpath::guard::open(spec.device);
        if (!guard) return port_failed(spec, guard.error());
        all->guards_.push_back(std::move(*guard));
    }
    auto buffers = fastpath::buffer_pool::make(buffers_for(specs.size()));
    if (!buffers) return tl::unexpected(buffers.error());
    all->buffers_ = std::move(*buffers);
    auto memory = fastpath::umem::make(*all->buffers_);
    if (!memory) return tl::unexpected(memory.error());
    all->memory_ = std::move(*memory);
    return all;
}

result<void> xdp_ports::attach() {
    for (std::size_t i = 0; i < guards_.size(); ++i)
        if (auto attached = guards_[i]->attach(); !attached)
            return port_failed(specs_[i], attached.error());
    return {};
}

result<void> xdp_ports::open() {
    for (std::size_t i = 0; i < guards_.size(); ++i) {
        auto port = fastpath::xdp_port::open({specs_[i].name, specs_[i].device, specs_[i].role},
                                             *memory_, *guards_[i]);
        if (!port) return port_failed(specs_[i], port.error());
        ports_.push_back(std::move(*port));
    }
    return {};
}

std::vector<guarded_device> xdp_ports::devices() const {
    std::vector<guarded_device> list;
    for (std::size_t i = 0; i < guards_.size(); ++i)
        list.push_back({specs_[i].name, specs_[i].kind, specs_[i].device, guards_[i]->ifindex(),
                        current_network_namespace()});
    return list;
}

std::vector<fastpath::guard*> xdp_ports::guards() const {
    std::vector<fastpath::guard*> list;
    for (const auto& g : guards_)
        list.push_back(g.get());
    return list;
}

std::vector<fastpath::port*> xdp_ports::ports() const {
    std::vector<fastpath::port*> list;
    for (const auto& p : ports_)
        list.push_back(p.get());
    return list;
}

} // namespace esplane::tools

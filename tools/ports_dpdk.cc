// SPDX-License-Identifier: Apache-2.0
#include "tools/ports_dpdk.h"

#include <regex>

#include "fastpath/dpdk/eal.h"
#include "fastpath/dpdk/port_dpdk.h"
#include "fastpath/port_packet.h"

namespace esplane::tools {

namespace {

/// What is left of a port's options for the device: as DPDK takes them.
std::string device_arguments(const port_spec& spec) {
    std::string arguments;
    for (const auto& [key, value] : spec.options)
        arguments += (arguments.empty() ? "" : ",") + key + (value.empty() ? "" : "=" + value);
    return arguments;
}

bool is_pci_function(const std::string& device) {
    static const std::regex form("([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\\.[0-7]");
    return std::regex_match(device, form);
}

std::vector<std::string> pci_functions(const std::vector<port_spec>& specs) {
    std::vector<std::string> functions;
    for (const port_spec& spec : specs) {
        if (spec.kind != "dpdk" || !is_pci_function(spec.device)) continue;
        const std::string arguments = device_arguments(spec);
        functions.push_back(spec.device + (arguments.empty() ? "" : "," + arguments));
    }
    return functions;
}

/// A virtual device on a netdev, which the kernel sees too: it must not forward there.
result<void> check_netdev(const port_spec& spec) {
    const bool on_netdev = spec.device.starts_with("net_af_xdp") ||
                           spec.device.starts_with("net_af_packet") ||
                           spec.device.starts_with("net_pcap");
    for (const auto& [key, value] : spec.options)
        if (on_netdev && (key == "iface" || key == "rx_iface" || key == "rx_iface_in"))
            if (auto alone = fastpath::check_not_forwarded(value); !alone) return alone;
    return {};
}

class dpdk_opener final : public port_opener {
  public:
    dpdk_opener(fastpath::dpdk_port_options options, std::shared_ptr<fastpath::mbuf_memory> memory,
                fastpath::tap twin)
        : options_(std::move(options))
        , memory_(std::move(memory))
        , twin_(std::move(twin))
        , existed_(twin_.existed())
        , ifindex_(twin_.ifindex()) {}

    /// Of the TAP, where it is ours to take away again.  One of an earlier daemon's stands in the
    /// record already.
    [[nodiscard]] int guarded_ifindex() const override { return existed_ ? 0 : ifindex_; }
    [[nodiscard]] int kept_twin() const override { return existed_ ? ifindex_ : 0; }
    [[nodiscard]] result<void> attach() override {
        twin_.keep();
        return {};
    }
    [[nodiscard]] result<std::unique_ptr<fastpath::port>> open() override {
        return fastpath::dpdk_port::open(options_, *memory_, std::move(twin_));
    }

  private:
    fastpath::dpdk_port_options options_;
    std::shared_ptr<fastpath::mbuf_memory> memory_;
    fastpath::tap twin_;
    bool existed_;
    int ifindex_;
};

} // namespace

std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
dpdk_openers(const port_surroundings& around) {
    const fastpath::eal_options eal{around.eal, pci_functions(around.specs)};
    return [eal, lanes = around.lanes, log = around.log,
            memory = std::shared_ptr<fastpath::mbuf_memory>()](
               const port_spec& spec) mutable -> result<std::unique_ptr<port_opener>> {
        if (auto alone = check_netdev(spec); !alone) return tl::unexpected(alone.error());
        if (!memory) {
            const auto started = fastpath::start_eal(eal);
            if (!started) return tl::unexpected(started.error());
            if (!started->empty()) log(*started);
            memory = std::make_shared<fastpath::mbuf_memory>();
        }
        fastpath::dpdk_port_options o;
        o.name = spec.name;
        o.device = spec.device;
        o.arguments = device_arguments(spec);
        o.role = spec.role;
        o.lanes = lanes;
        auto twin = fastpath::tap::open(spec.name);
        if (!twin) return tl::unexpected(twin.error());
        return std::make_unique<dpdk_opener>(std::move(o), memory, std::move(*twin));
    };
}

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// Leads the machine's traffic into its host ports: rules and routes, in step with the policies.
//
//   prio  217  what the machine itself sends as ESP, or from IKE's ports  ──► on behind 221
//              what carries the mark of ESP                               ──► on behind 221
//         218  what carries a host port's own mark                        ──► that port's table
//         219  what does not carry the mark of ESP                        ──► table 219
//         221  (landing, behind charon's own rule)
//
// A policy's route is there before the client that asked for it has its answer.  All of it outlives
// the daemon: what was protected stays blocked by a device that nobody reads, until a new daemon
// takes it up or `esplane release` takes it away.  The record of it, DIR/routing, is written first.
// Threads: control.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fastpath/interfaces.h"
#include "fastpath/port.h"
#include "lib/ipsec/event.h"
#include "tools/options.h"
#include "tools/route_plan.h"

namespace esplane::tools {

/// A host port: where traffic is led to.
struct host_device {
    std::string port;      ///< its name
    std::string name;      ///< the device's
    ipsec::mark_mask mark; ///< of its traffic; not given: it takes all other
    std::function<int()> ifindex;
};

/// The ports among `all` that are the machine itself, those for all traffic first.  They outlive
/// what is returned.
[[nodiscard]] std::vector<host_device> host_devices(const std::vector<fastpath::port*>& all);
/// The UDP ports whose traffic is IKE's, or ESP already: 500, 4500, and those of socket ports.
[[nodiscard]] std::vector<std::uint16_t> exempt_udp_ports(const std::vector<port_spec>& ports);

struct routing_surroundings {
    std::string run_dir;
    std::vector<std::uint16_t> udp_ports; ///< of IKE and of ESP in UDP
    route_plan::inner_mtu mtu;
    /// Those of tunnels by route.
    std::function<std::vector<fastpath::tunnel_binding>()> interfaces;
    std::function<void(const std::string& line)> log;
};

class host_routing final : public ipsec::listener {
  public:
    /// Records, then installs the rules; takes up what routes an earlier daemon has left: they stay
    /// as they are until a policy protects or blocks something.
    ///
    /// Errors: EPERM, EOPNOTSUPP where the kernel has no rules; what writing the record gives.
    [[nodiscard]] static result<std::unique_ptr<host_routing>>
    make(const routing_options& options, std::vector<host_device> devices,
         routing_surroundings around);
    ~host_routing() override;
    host_routing(const host_routing&) = delete;
    host_routing& operator=(const host_routing&) = delete;

    void on_event(const ipsec::event& e) override;
    /// To be called with each change: sources and ways past follow, and what the kernel has dropped
    /// with a device is put back.
    void set_network(const control::network_change& change, const control::network& now);
    /// What could not be installed is tried again, about once a second.
    void tend(std::uint64_t now_ns);
    /// Another interface stands for an if_id, or SAs and paths take packets of another size.
    void refresh();

  private:
    struct outlet;

    host_routing(const routing_options& options, routing_surroundings around);
    [[nodiscard]] result<void> add(host_device device, std::uint32_t table);
    [[nodiscard]] result<void> set_rules();
    [[nodiscard]] outlet* outlet_of(const ipsec::policy& p);
    void learn(const ipsec::policy& p);
    void learn(const ipsec::default_actions& defaults);
    void learn_default();
    void forget(const ipsec::policy& p);
    void forget_all(ipsec::policy_type type);
    void apply(outlet& o, const route_plan::prefixes& where);
    void apply(outlet& o, const xfrm::host_prefix& where);
    void reconcile(outlet& o, bool read);
    [[nodiscard]] std::optional<xfrm::host_route> resolve(outlet& o, const xfrm::host_prefix& where,
                                                          const planned_route& planned);
    [[nodiscard]] result<void> put(outlet& o, const xfrm::host_prefix& where,
                                   xfrm::host_route route);
    void say(const xfrm::host_prefix& where, const std::string& line);
    void tune(outlet& o);

    routing_options options_;
    routing_surroundings around_;
    std::vector<std::unique_ptr<outlet>> outlets_;
    std::map<xfrm::host_prefix, std::string> said_; ///< each complaint once
    bool closed_ = false;
    bool blocks_by_default_ = false; ///< what no `out` policy covers
    bool incomplete_ = false;        ///< the kernel has refused something
    std::uint64_t retry_ns_ = 0;
};

struct released_routing {
    std::uint32_t table = 0;
    std::size_t routes = 0;
    std::string failure; ///< empty: all of it is gone
};

/// Takes away all rules and routes that `run_dir` records, and forgets them.  The caller holds the
/// lock.  Errors: EINVAL, a broken record.
[[nodiscard]] result<std::vector<released_routing>> release_routing(const std::string& run_dir);

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// Keeps the guards of all devices in step with the control layer and the machine.
//
// A policy's effect on the egress programs is there before the client that asked for it has its
// answer; all `out` policies are written anew for it, so N of them cost N² rules to program: each
// client's answer waits for its own.  Where a guard cannot be told, it denies everything
// (guard::set_out_policies); the fault is handed to the log.  Policies with an interface id are not
// the devices': they are for what a route sends into their interface.
// Threads: control.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "fastpath/xdp/guard.h"
#include "lib/control/network.h"
#include "lib/ipsec/event.h"

namespace esplane::tools {

class guarding final : public ipsec::listener {
  public:
    using log = std::function<void(const std::string& line)>;

    /// All guards outlive this.
    guarding(std::vector<fastpath::guard*> guards, log l);

    /// After an earlier daemon that was not released: the machine sends nothing in clear, and
    /// `opened` is called once, when the guards know the first `out` policy that protects or
    /// blocks. Before it, what it is about to protect would leave in clear, whatever else is
    /// programmed.
    void stay_closed(std::function<void()> opened);
    [[nodiscard]] bool closed() const noexcept { return closed_; }

    void on_event(const ipsec::event& e) override;
    /// Addresses of the machine, and VLAN devices on the guarded ones: policies may name them.
    void set_network(const control::network& n);
    void set_encap_ports(const std::vector<wire::be16>& ports);

  private:
    struct known_policy {
        std::uint64_t position = 0;
        ipsec::policy_direction dir = ipsec::policy_direction::out;
        fastpath::egress_rule rule;
    };

    void learn(const ipsec::policy& p);
    void forget(const ipsec::policy& p);
    void forget_all();
    void open();
    void publish(ipsec::policy_direction changed);
    void publish_out();
    void publish_in();
    bool check(const fastpath::guard& g, const char* what, const result<void>& done);

    std::vector<fastpath::guard*> guards_;
    log log_;
    std::map<std::uint32_t, known_policy> policies_; ///< by index
    bool take_local_ = false;
    bool closed_ = false;
    std::function<void()> opened_;
};

} // namespace esplane::tools

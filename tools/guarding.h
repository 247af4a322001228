// SPDX-License-Identifier: Apache-2.0
//
// Keeps the guards of all devices in step with the control layer and the machine.
//
// A policy's effect on the egress programs is there before the client that asked for it has its
// answer.  Where a guard cannot be told, it denies everything (guard::add_out_policy); the fault is
// handed to the log.  Policies with an interface id are not
// the devices': they are for what a route sends into their interface.
//
// A default that blocks is a rule behind all others.  The programs know one rank, and so of a
// sub-policy no more than this: what it protects or blocks is denied, whatever else covers it; what
// it lets pass is up to the main policies, and only where there is none up to it.
//
// Threads: control.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
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

    /// Before begin(), where nothing is programmed.  After an earlier daemon that was not released:
    /// the machine sends nothing in clear, and what it is sent goes to esplane; `opened` is called
    /// once, when the guards know the first `out` policy that protects or blocks. Before it, what
    /// it is about to protect would leave in clear, whatever else is programmed.
    void stay_closed(std::function<void()> opened);
    [[nodiscard]] bool closed() const noexcept { return closed_; }

    /// The guards are told nothing before this, and then everything: they obey the policies that
    /// are there, or stay_closed().
    void begin();

    void on_event(const ipsec::event& e) override;
    /// What the egress programs hold what the machine sends against, the best first.
    [[nodiscard]] std::vector<fastpath::egress_rule> out_rules() const;
    /// Addresses of the machine, and VLAN devices on the guarded ones: policies may name them.
    void set_network(const control::network& n);
    void set_encap_ports(const std::vector<wire::be16>& ports);

  private:
    struct known_policy {
        ipsec::policy_direction dir = ipsec::policy_direction::out;
        ipsec::policy_type type = ipsec::policy_type::main;
        std::uint64_t position = 0;
        fastpath::egress_rule rule;
    };

    [[nodiscard]] std::uint32_t position_of(const ipsec::policy& p);
    void renumber();
    void tell_all();
    void learn(const ipsec::policy& p);
    void forget(const ipsec::policy& p);
    void forget_all(ipsec::policy_type type);
    void learn(const ipsec::default_actions& defaults);
    [[nodiscard]] bool blocks_by_default(ipsec::policy_direction dir) const noexcept {
        return ipsec::action_of(defaults_, dir) == ipsec::policy_action::block;
    }
    void open();
    void add(const known_policy& p);
    void remove(const known_policy& p);
    /// A rule more for each guard, or one less.
    void tell(const fastpath::egress_rule& r, bool more);
    void publish_default();
    void publish_in();
    bool check(const fastpath::guard& g, const char* what, const result<void>& done);

    std::vector<fastpath::guard*> guards_;
    log log_;
    std::unordered_map<std::uint32_t, known_policy> policies_; ///< by index
    std::size_t protecting_in_ = 0;                            ///< of these, `in` and not allowing
    std::uint64_t first_position_ = 0; ///< that of the policy whose rule has position 0
    bool default_denies_ = false;      ///< the guards have its rules
    ipsec::default_actions defaults_{};
    std::optional<bool> take_local_; ///< what all guards were told
    bool begun_ = false;
    bool closed_ = false;
    std::function<void()> opened_;
};

} // namespace esplane::tools

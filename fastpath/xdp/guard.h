// SPDX-License-Identifier: Apache-2.0
//
// Keeps the machine fail-closed on one device.
//
// Two programs stand on it: esplane_ingress (XDP) takes from the machine's stack what esplane has
// to see, and drops it where nobody holds the sockets; esplane_egress (tc) drops what the kernel
// would forward and what the machine itself would send in clear although an `out` policy protects
// or blocks it.  Both stay when the process ends, however it ends; release() takes them off.
//
//   open() -> set_...() -> attach() -> hold() for each queue -> set_...() whenever it changes
//
// VLAN tags, up to two, hide nothing: what is tagged is held against the same addresses and
// policies.
//
// Threads: control.  Does not: change forwarding sysctls.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "fastpath/xdp/attachment.h"
#include "fastpath/xdp/bpf.h"
#include "fastpath/xdp/egress_rules.h"
#include "fastpath/xdp/privileged.h"
#include "lib/ipsec/address.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

/// Packets by what the programs did with them, since attach().
struct guard_counters {
    std::array<std::uint64_t, esplane_ingress_counters> ingress{};
    std::array<std::uint64_t, esplane_egress_counters> egress{};

    /// What the kernel was not allowed to send, for whatever cause.
    [[nodiscard]] std::uint64_t denied() const noexcept;
};

class guard {
  public:
    /// Highest number of rx queues of a device.
    static constexpr std::uint32_t max_queues = 256;

    /// Reserves the device against other daemons and loads the programs.  Nothing is attached yet.
    ///
    /// means    who does what needs privileges; nullptr = this process
    /// Errors: ENODEV without such a device, EOPNOTSUPP where it is not Ethernet, EBUSY where
    /// another daemon has it, EPERM.
    [[nodiscard]] static result<std::unique_ptr<guard>>
    open(const std::string& device, std::shared_ptr<privileged> means = nullptr);
    /// Leaves the programs where they are.
    ~guard();
    guard(const guard&) = delete;
    guard& operator=(const guard&) = delete;

    /// Attaches both programs, in the place of those of an earlier daemon.  Again where the device
    /// has gone and come back, under another index: all that was set holds for it.
    [[nodiscard]] result<void> attach(xdp_wish wish = xdp_wish::automatic);

    /// Addresses of the machine, both families, on whatever device.  Adds before it removes.
    [[nodiscard]] result<void> set_local_addresses(std::span<const ipsec::address> addresses);
    /// UDP ports of the machine that carry ESP.
    [[nodiscard]] result<void> set_encap_ports(std::span<const wire::be16> ports);
    /// Whether clear traffic for the machine goes to esplane too (where `in` policies exist).
    [[nodiscard]] result<void> set_take_local(bool take);
    /// Replaces all rules at one moment.  On failure the egress program drops all IP of the machine
    /// but the exempt.
    ///
    /// Errors: E2BIG where the rules cannot be expressed, ENOMEM.
    [[nodiscard]] result<void> set_out_policies(std::span<const egress_rule> rules);
    /// One rule more, or one less, as it was added; rules of one selector have different ranks.
    /// Takes as long however many there are.  On failure as above, until all can be expressed: it
    /// is told once.
    [[nodiscard]] result<void> add_out_policy(const egress_rule& r);
    [[nodiscard]] result<void> remove_out_policy(const egress_rule& r);
    /// The VLAN devices on this one, as policies may name them.
    [[nodiscard]] result<void> set_vlan_devices(std::span<const egress_device> devices);
    /// Drops all IP of the machine but the exempt until obey_policies() or set_out_policies().
    [[nodiscard]] result<void> deny_all();
    [[nodiscard]] result<void> obey_policies();
    /// Whether an earlier daemon's programs are on the device: it was not released.  Then the
    /// programs begin as after deny_all() and set_take_local(true).
    [[nodiscard]] bool was_guarded() const noexcept { return parts_.was_guarded; }
    /// Whether both are: until attach() they do what that daemon told them, so it may wait until
    /// all is known that they knew.
    [[nodiscard]] bool is_covered() const noexcept { return parts_.cover.has_value(); }
    /// Gives what arrives on a queue to an AF_XDP socket.  It ends when the socket is closed. Under
    /// cover that begins before attach().
    [[nodiscard]] result<void> hold(std::uint32_t queue, int socket);

    [[nodiscard]] guard_counters counters() const;
    [[nodiscard]] const std::string& device() const noexcept { return device_; }
    [[nodiscard]] int ifindex() const noexcept { return parts_.ifindex; }
    [[nodiscard]] xdp_mode mode() const noexcept { return mode_; }
    [[nodiscard]] privileged& means() const noexcept { return *means_; }
    /// The program that hands frames up to the stack, for BPF_PROG_TEST_RUN.
    [[nodiscard]] int punt_program() const noexcept { return parts_[guard_part::punt_program]; }
    /// In generic mode: the source MAC address that punted frames must bear, or they would be taken
    /// again.  Random; never on the wire.
    [[nodiscard]] const wire::mac_address& punt_source() const noexcept { return punt_source_; }

    /// Takes the programs off a device; needs no daemon, and refuses while one runs.
    ///
    /// Errors: ENODEV, EBUSY; what the kernel says otherwise.
    [[nodiscard]] static result<attachments> release(const std::string& device);
    /// Devices of this network namespace that carry one of the programs.
    [[nodiscard]] static std::vector<std::string> guarded_devices();

  private:
    guard(std::string device, std::shared_ptr<privileged> means, guard_parts parts);
    [[nodiscard]] result<void> begin();
    [[nodiscard]] result<void> configure_ingress();
    [[nodiscard]] result<void> configure_egress(bool deny_all);
    void arrange_rules();
    [[nodiscard]] result<void> follow(const egress_change& change);
    [[nodiscard]] result<void> apply(const egress_change& change);
    [[nodiscard]] result<void> install();
    [[nodiscard]] result<void> write_masks();
    [[nodiscard]] result<void> write_rules(std::uint32_t rules);
    void remove_rules_but(std::uint32_t rules);
    [[nodiscard]] result<void> close_on(const error& why);

    std::string device_;
    std::shared_ptr<privileged> means_;
    guard_parts parts_;
    xdp_mode mode_ = xdp_mode::native;
    wire::mac_address punt_source_{};
    bool take_local_ = false;
    bool denies_all_ = false;
    bool told_to_deny_ = false;                          ///< by deny_all()
    bool maps_follow_ = true;                            ///< the maps hold what rules_ says
    std::uint32_t generation_ = 0;                       ///< of the masks in force
    std::uint32_t rules_number_ = 0;                     ///< generation of the rules in force
    std::multimap<std::uint64_t, egress_rule> policies_; ///< by rank
    std::vector<egress_device> vlan_devices_;
    egress_rule_space rules_{{}};
    std::set<ipsec::address> local_addresses_;
    std::set<wire::be16> encap_ports_;
};

} // namespace esplane::fastpath

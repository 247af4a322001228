// SPDX-License-Identifier: Apache-2.0
//
// esplaned: what knows every room.
//
//   XFRM clients --> xfrm::server --> control::layer --> user_backend --> tables --> worker
//                                           |                               |          |
//                                       guarding --> guards                fib       ports
//                                           |                               |
//   the kernel ----> xfrm::route_monitor ---'-------------------------------'
//
// daemon_takeover.cc has what it does where one daemon takes over from another.
// Threads: control.  The workers are the engine's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fastpath/keepalive.h"
#include "lib/base/unique_fd.h"
#include "tools/answers.h"
#include "tools/control_socket.h"
#include "tools/engine.h"
#include "tools/event_loop.h"
#include "tools/guarding.h"
#include "tools/host_routing.h"
#include "tools/interfaces.h"
#include "tools/nat_keepalives.h"
#include "tools/options.h"
#include "tools/path_care.h"
#include "tools/port_watch.h"
#include "tools/ports.h"
#include "tools/run_dir.h"
#include "tools/state_file.h"
#include "tools/takeover.h"
#include "tools/trace.h"
#include "tools/worker_care.h"
#include "xfrm/link_watch.h"
#include "xfrm/route.h"

namespace esplane::tools {

/// One line to standard error.
void log(const std::string& line);

class daemon {
  public:
    explicit daemon(daemon_options options);
    ~daemon();
    daemon(const daemon&) = delete;
    daemon& operator=(const daemon&) = delete;

    /// Everything is there and the workers run when this returns well.
    [[nodiscard]] result<void> start();
    void run();
    /// Programs may be on the devices, and stay when this process ends.
    [[nodiscard]] bool has_guarded() const noexcept { return guarded_; }
    /// Whether what it lacks is what `esplane xdp-helper` does for others.
    [[nodiscard]] bool is_for_helper() const noexcept;

  private:
    [[nodiscard]] result<void> take_over();
    [[nodiscard]] result<void> restore_ahead();
    void forget_ahead();
    [[nodiscard]] result<state_descriptors> hand_over(const std::string& state, bool for_good);
    [[nodiscard]] result<void> check_cpus();
    [[nodiscard]] result<void> guard_devices();
    [[nodiscard]] result<void> record_devices(const std::vector<guarded_device>& earlier);
    [[nodiscard]] result<void> find_state();
    [[nodiscard]] std::vector<fastpath::worker_options> worker_options() const;
    [[nodiscard]] result<void> make_databases();
    [[nodiscard]] result<void> reserve_memory();
    [[nodiscard]] result<void> make_engine();
    void introduce_policies(ipsec::listener& to);
    [[nodiscard]] std::vector<std::string> ports_of_fixed_mtu() const;
    [[nodiscard]] result<void> adopt_interfaces();
    [[nodiscard]] result<void> follow_network();
    [[nodiscard]] result<void> lead_traffic();
    [[nodiscard]] result<void> restore_state();
    [[nodiscard]] result<void> open_sockets();
    [[nodiscard]] result<void> watch_all();
    [[nodiscard]] result<void> begin_work();
    void announce();
    void take_network(const control::network_change& change);
    void tend_ports(bool links_changed);
    [[nodiscard]] std::vector<int> machine_links() const;
    void kernel_spoke();
    void worker_spoke();
    void client_spoke();
    void serve_takeover();
    void send_keepalive(const ipsec::sa& s);
    [[nodiscard]] int timeout_ms();

    daemon_options options_;
    daemon_facts facts_;
    unique_fd signals_;
    unique_fd wake_; ///< written by the workers
    std::unique_ptr<run_lock> lock_;
    std::unique_ptr<port_set> devices_;
    std::unique_ptr<port_watch> watch_;
    std::unique_ptr<guarding> guarding_;
    std::unique_ptr<host_routing> routing_; ///< where a port is the machine itself
    std::unique_ptr<state_file> state_;     ///< SAs stand in its memory
    std::unique_ptr<engine> engine_;
    std::unique_ptr<path_care> paths_;
    std::optional<fastpath::keepalive_sender> keepalive_sockets_; ///< once there is one to send
    std::unique_ptr<nat_keepalives> keepalives_;
    std::unique_ptr<worker_care> workers_;
    std::unique_ptr<interfaces> interfaces_;
    std::unique_ptr<xfrm::link_watch> links_;
    std::unique_ptr<xfrm::route_monitor> routes_;
    std::unique_ptr<control_server> control_;
    std::unique_ptr<takeover_server> takeover_;
    handed_state handed_; ///< by the daemon before
    std::unique_ptr<fastpath::buffer_pool> buffers_ahead_;
    std::unique_ptr<trace> trace_;
    event_loop loop_;
    bool stopping_ = false;
    bool twin_was_kept_ = false;   ///< by an earlier daemon, and not released
    bool devices_changed_ = false; ///< ours, and not taken in yet
    bool guarded_ = false;
    bool workers_stopped_ = false; ///< for the daemon that takes over
    bool state_is_written_ = true;
    bool restored_ = false; ///< what an earlier daemon knew, all policies with it
};

} // namespace esplane::tools

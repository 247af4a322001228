// SPDX-License-Identifier: Apache-2.0
//
// Keeps path limits fed, and the machine's ports and routes to them: what of path_limits needs an
// engine and ports.
//
// Threads: control.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "fastpath/port_host.h"
#include "fastpath/port_socket.h"
#include "tools/engine.h"
#include "tools/path_limits.h"

namespace esplane::tools {

class path_care {
  public:
    using log = std::function<void(const std::string& line)>;

    /// `e` outlives this; its SAs and policies come later.
    path_care(engine& e, log l);
    ~path_care();
    path_care(const path_care&) = delete;
    path_care& operator=(const path_care&) = delete;

    /// The engine has its ports, which outlive this.
    ///
    /// fixed   names of those whose MTU the user has given
    void follow_ports(const std::vector<std::string>& fixed);
    /// Links or routes are others.
    void network_changed() noexcept { limits_.network_changed(); }
    /// Where it is time; see next_ns().
    void tend(std::uint64_t now_ns);
    [[nodiscard]] std::uint64_t next_ns() const noexcept { return next_ns_; }

    /// Called when mtu_for() may have another answer.
    void on_change(std::function<void()> changed) { changed_ = std::move(changed); }
    /// As path_limits::mtu_for().
    [[nodiscard]] std::uint32_t mtu_for(const ipsec::policy& p) const { return limits_.mtu_for(p); }

  private:
    void set_device_mtu();

    engine& engine_;
    log log_;
    path_limits limits_;
    std::vector<fastpath::socket_port*> sockets_;
    std::vector<fastpath::host_port*> machine_; ///< whose MTU follows the paths
    std::uint32_t device_mtu_ = 0;              ///< that was set last
    std::function<void()> changed_;
    std::uint64_t next_ns_ = 0;
};

} // namespace esplane::tools

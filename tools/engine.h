// SPDX-License-Identifier: Apache-2.0
//
// The engine: control layer, user-space backend, tables, workers and, where asked for, the XFRM
// server.  `esplaned` drives it with ports and threads, `esplane pcap` with a capture.
//
// Threads: control's, except the workers' loops.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fastpath/backend.h"
#include "fastpath/buffer_pool.h"
#include "fastpath/port_tun.h"
#include "fastpath/tables.h"
#include "fastpath/worker.h"
#include "lib/control/layer.h"
#include "lib/control/network.h"
#include "xfrm/proc.h"
#include "xfrm/server.h"

namespace esplane::tools {

/// A next hop whose MAC address a packet waits for.
struct wanted_next_hop {
    int ifindex = 0;
    ipsec::address address;
};

class engine {
  public:
    /// The databases alone: they may be filled before there are ports.  workers   as equip()'s
    explicit engine(const std::vector<fastpath::worker_options>& workers);
    /// Gives it all that takes packets.  `buffers` and `ports` outlive the engine.
    ///
    /// workers   one for each; `index` is set here
    /// Errors: those of worker::make.
    [[nodiscard]] result<void> equip(fastpath::buffer_pool& buffers,
                                     std::vector<fastpath::port*> ports,
                                     std::vector<fastpath::worker_options> workers);
    /// Both.
    [[nodiscard]] static result<std::unique_ptr<engine>>
    make(fastpath::buffer_pool& buffers, std::vector<fastpath::port*> ports,
         std::vector<fastpath::worker_options> workers);
    engine(const engine&) = delete;
    engine& operator=(const engine&) = delete;

    /// Answers XFRM clients at `path` whenever xfrm() is served.  Errors: those of server::open.
    [[nodiscard]] result<void> open_xfrm(const std::string& path);
    [[nodiscard]] xfrm::server* xfrm() noexcept { return server_.get(); }

    /// What XFRM clients read and write as files.
    [[nodiscard]] xfrm::proc_files& files() noexcept { return files_; }
    [[nodiscard]] control::layer& control() noexcept { return layer_; }
    [[nodiscard]] fastpath::user_backend& backend() noexcept { return backend_; }
    [[nodiscard]] fastpath::tables& tables() noexcept { return tables_; }
    [[nodiscard]] const std::vector<std::unique_ptr<fastpath::worker>>& workers() const noexcept {
        return workers_;
    }
    /// What all workers counted.
    void count(fastpath::worker_counters& into) const noexcept;
    /// Starts all threads.  Errors: those of worker::start; none runs then.
    [[nodiscard]] result<void> start();
    void stop();
    /// The same, and does not wait longer than that for a worker that hangs.  False: one does, and
    /// what it works with must stay.
    [[nodiscard]] bool stop_within(std::chrono::milliseconds limit);
    [[nodiscard]] const std::vector<fastpath::port*>& ports() const noexcept { return ports_; }
    /// The interfaces of tunnels by route: one port of the workers beside ports().
    [[nodiscard]] fastpath::tun_port& interfaces() noexcept { return *interfaces_; }
    /// Which devices they are, from the next change of interfaces on.
    void set_tunnels(std::vector<fastpath::tunnel_binding> tunnels) {
        tunnels_ = std::move(tunnels);
    }

    /// Takes in what has changed in the kernel; ports are found by their ifindex.
    ///
    /// now   after the change: links and addresses
    void apply_network(const control::network_change& change, const control::network& now);

    /// The built-in filter inside the tunnels; without rules: none.
    void set_filter(std::vector<fastpath::filter_rule> rules);
    /// The one in force; nullptr where there is none.
    [[nodiscard]] const fastpath::rule_filter* filter() const noexcept { return filter_; }

    /// Who hears what routers say of paths that are too short.
    void on_path_limit(std::function<void(const fastpath::worker_event&)> hear) {
        hear_path_limit_ = std::move(hear);
    }
    /// Hands what the workers told to the control layer; returns the next hops they wait for.
    [[nodiscard]] std::vector<wanted_next_hop> deliver_events();

  private:
    std::vector<fastpath::port*> ports_;
    std::vector<fastpath::tunnel_binding> tunnels_;
    fastpath::tables tables_;
    std::unique_ptr<fastpath::tun_port> interfaces_;
    const fastpath::rule_filter* filter_ = nullptr; ///< of tables_
    fastpath::user_backend backend_;
    control::layer layer_;
    xfrm::proc_files files_;
    std::unique_ptr<xfrm::server> server_;
    std::function<void(const fastpath::worker_event&)> hear_path_limit_;
    fastpath::handover_mesh mesh_;
    std::vector<std::unique_ptr<fastpath::worker>> workers_; ///< first to go: they read the others
};

/// getrandom(2): never fails once the system has started.
void kernel_random(std::span<std::uint8_t> into);

} // namespace esplane::tools

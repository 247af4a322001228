// SPDX-License-Identifier: Apache-2.0
//
// The engine: control layer, user-space backend, tables, one worker and, where asked for, the XFRM
// server.  `esplaned` drives it with AF_XDP ports and a thread, `esplane pcap` with a capture.
//
// Threads: control's, except the worker's loop.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fastpath/backend.h"
#include "fastpath/buffer_pool.h"
#include "fastpath/tables.h"
#include "fastpath/worker.h"
#include "lib/control/layer.h"
#include "lib/control/network.h"
#include "xfrm/server.h"

namespace esplane::tools {

/// A next hop whose MAC address a packet waits for.
struct wanted_next_hop {
    int ifindex = 0;
    ipsec::address address;
};

class engine {
  public:
    /// `buffers` and `ports` outlive the engine.  Errors: those of worker::make.
    [[nodiscard]] static result<std::unique_ptr<engine>> make(fastpath::buffer_pool& buffers,
                                                              std::vector<fastpath::port*> ports,
                                                              fastpath::worker_options options);
    engine(const engine&) = delete;
    engine& operator=(const engine&) = delete;

    /// Answers XFRM clients at `path` whenever xfrm() is served.  Errors: those of server::open.
    [[nodiscard]] result<void> open_xfrm(const std::string& path);
    [[nodiscard]] xfrm::server* xfrm() noexcept { return server_.get(); }

    [[nodiscard]] control::layer& control() noexcept { return layer_; }
    [[nodiscard]] fastpath::user_backend& backend() noexcept { return backend_; }
    [[nodiscard]] fastpath::tables& tables() noexcept { return tables_; }
    [[nodiscard]] fastpath::worker& worker() noexcept { return *worker_; }
    [[nodiscard]] const std::vector<fastpath::port*>& ports() const noexcept { return ports_; }

    /// Routes by what the kernel says; ports are found by their ifindex.
    void publish_network(const control::network& n);

    /// Hands what the worker told to the control layer; returns the next hops it waits for.
    [[nodiscard]] std::vector<wanted_next_hop> deliver_events();

  private:
    explicit engine(std::vector<fastpath::port*> ports);

    std::vector<fastpath::port*> ports_;
    fastpath::tables tables_;
    fastpath::user_backend backend_;
    control::layer layer_;
    std::unique_ptr<xfrm::server> server_;
    std::unique_ptr<fastpath::worker> worker_; ///< first to go: it reads all the others
};

/// getrandom(2): never fails once the system has started.
void kernel_random(std::span<std::uint8_t> into);

} // namespace esplane::tools

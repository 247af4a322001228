// SPDX-License-Identifier: Apache-2.0
//
// The AF_XDP ports of a daemon, with what lies under them: packet buffers, umem, guards.
#pragma once

#include <memory>
#include <vector>

#include "fastpath/buffer_pool.h"
#include "fastpath/xdp/guard.h"
#include "fastpath/xdp/port_xdp.h"
#include "fastpath/xdp/umem.h"
#include "tools/options.h"
#include "tools/run_dir.h"

namespace esplane::tools {

class xdp_ports {
  public:
    /// Reserves the devices and loads the programs.  Nothing is attached yet.
    /// Errors: ENODEV, EBUSY, EPERM, ENOMEM, each with the port as the user gave it.
    [[nodiscard]] static result<std::unique_ptr<xdp_ports>>
    reserve(const std::vector<port_spec>& specs);

    /// Attaches the programs: from here on the devices are protected until they are released.
    [[nodiscard]] result<void> attach();
    /// Opens the sockets.  After attach().
    [[nodiscard]] result<void> open();

    [[nodiscard]] std::vector<guarded_device> devices() const;
    [[nodiscard]] std::vector<fastpath::guard*> guards() const;
    [[nodiscard]] std::vector<fastpath::port*> ports() const;
    [[nodiscard]] fastpath::buffer_pool& buffers() noexcept { return *buffers_; }

  private:
    explicit xdp_ports(std::vector<port_spec> specs)
        : specs_(std::move(specs)) {}

    std::vector<port_spec> specs_;
    std::unique_ptr<fastpath::buffer_pool> buffers_;
    std::unique_ptr<fastpath::umem> memory_;
    std::vector<std::unique_ptr<fastpath::guard>> guards_; ///< in step with specs_
    std::vector<std::unique_ptr<fastpath::xdp_port>> ports_;
};

} // namespace esplane::tools

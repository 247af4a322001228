// SPDX-License-Identifier: Apache-2.0
//
// The ports of a daemon, of every kind this build has, with what lies under them.
//
// A kind of port is one port_opener, in a file of its own (ports_KIND.h): it knows what has to be
// reserved, attached and opened, and in which order.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fastpath/buffer_pool.h"
#include "fastpath/port.h"
#include "tools/options.h"
#include "tools/run_dir.h"

namespace esplane::fastpath {
class guard;
} // namespace esplane::fastpath

namespace esplane::tools {

/// What is between a port as the user gave it and the port: one implementation for each kind.
class port_opener {
  public:
    virtual ~port_opener() = default;

    /// The device it protects from attach() until it is released; ifindex 0 where it does none.
    [[nodiscard]] virtual int guarded_ifindex() const { return 0; }
    /// What keeps the kernel from sending in clear on that device; nullptr where nothing does.
    [[nodiscard]] virtual fastpath::guard* guard() noexcept { return nullptr; }
    /// The kernel twin that an earlier daemon left and the port goes on with; 0 = there is none.
    [[nodiscard]] virtual int kept_twin() const { return 0; }
    /// Whether an earlier daemon's is still there in full: attach() may wait.
    [[nodiscard]] virtual bool is_covered() const { return false; }
    /// Attaches that protection.
    [[nodiscard]] virtual result<void> attach() { return {}; }
    /// Gives the device up for the next daemon, sooner than the end of this process would.  False:
    /// that end is needed; else nothing is in the way once this process has closed its files.
    [[nodiscard]] virtual bool let_go() noexcept { return false; }
    /// Opens the port.  After attach(), unless that may wait.
    [[nodiscard]] virtual result<std::unique_ptr<fastpath::port>> open() = 0;
};

/// What openers share.
struct port_surroundings {
    fastpath::buffer_pool& buffers;
    const std::vector<port_spec>& specs; ///< of all kinds
    unsigned lanes;                      ///< workers
    std::string eal;                     ///< arguments for DPDK's EAL
    std::function<void(const std::string& line)> log;
};

/// Does what takes long and needs no device, before another daemon gives them up.
/// Returns the buffers for port_set::reserve().  Errors: those of buffer_pool::make.
[[nodiscard]] result<std::unique_ptr<fastpath::buffer_pool>>
prepare_ahead(const daemon_options& options);

class port_set {
  public:
    /// Reserves the devices; nothing is attached yet.  log   takes a line where a port will do
    /// with less than it could.  buffers   of prepare_ahead(), or nullptr
    /// Errors: ENODEV, EBUSY, EPERM, ENOMEM, each with the port as the user gave it.
    [[nodiscard]] static result<std::unique_ptr<port_set>>
    reserve(const daemon_options& options, std::function<void(const std::string& line)> log,
            std::unique_ptr<fastpath::buffer_pool> buffers = nullptr);

    /// Attaches protection where there is none in full: from here on the devices are protected
    /// until they are released.
    [[nodiscard]] result<void> cover();
    /// Attaches it in the place of an earlier daemon's.  Once the guards know what its did: it
    /// goes.
    [[nodiscard]] result<void> replace_cover();
    /// Opens the ports.  After cover().
    [[nodiscard]] result<void> open();
    /// Gives the devices up for the next daemon.  No worker runs, nor will.  Returns as the
    /// openers' do, for all of them.
    [[nodiscard]] bool let_go() noexcept;

    [[nodiscard]] std::vector<guarded_device> devices() const;
    /// Whether a port goes on with the kernel twin that an earlier daemon recorded and kept.
    [[nodiscard]] bool keeps_twin_of(const std::vector<guarded_device>& recorded) const;
    [[nodiscard]] std::vector<fastpath::guard*> guards() const;
    [[nodiscard]] std::vector<fastpath::port*> ports() const;
    [[nodiscard]] fastpath::buffer_pool& buffers() noexcept { return *buffers_; }

  private:
    explicit port_set(std::vector<port_spec> specs)
        : specs_(std::move(specs)) {}
    [[nodiscard]] result<void> attach(bool covered);

    std::vector<port_spec> specs_;
    std::unique_ptr<fastpath::buffer_pool> buffers_;
    std::vector<std::unique_ptr<port_opener>> openers_; ///< in step with specs_
    std::vector<std::unique_ptr<fastpath::port>> ports_;
};

/// A device that must be there.  Errors: ENODEV.
[[nodiscard]] result<void> check_device(const std::string& device);

} // namespace esplane::tools

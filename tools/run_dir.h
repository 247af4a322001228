// SPDX-License-Identifier: Apache-2.0
//
// The run directory: sockets of one daemon, its lock, and the list of devices it guards.
//
//   DIR/lock           held by flock for the daemon's life
//   DIR/xfrm.sock      where the shim connects
//   DIR/control.sock   where `esplane` asks
//   DIR/ports          JSON; stays when the daemon is gone, because protection does
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::tools {

[[nodiscard]] std::string xfrm_socket_path(const std::string& run_dir);
[[nodiscard]] std::string control_socket_path(const std::string& run_dir);

/// The lock on a run directory.
class run_lock {
  public:
    /// Takes the lock, where `create` making the directory (0700) first.
    ///
    /// Errors: EBUSY where another process holds it; EPERM where the directory is another user's
    /// or others may write to it; what mkdir and open give.
    [[nodiscard]] static result<run_lock> take(const std::string& run_dir, bool create);

  private:
    explicit run_lock(unique_fd fd) noexcept
        : fd_(std::move(fd)) {}
    unique_fd fd_;
};

/// A device that is guarded, or was made, until it is released.
struct guarded_device {
    std::string name; ///< of the port
    std::string kind;
    std::string device;
    int ifindex = 0;
    std::uint64_t network_namespace = 0; ///< its inode: devices are numbered anew in each
    std::uint32_t if_id = 0;             ///< not 0: the interface of a tunnel by route

    friend bool operator==(const guarded_device&, const guarded_device&) = default;
};

/// The network namespace this process is in, as guarded_device has it.
[[nodiscard]] std::uint64_t current_network_namespace();

/// Empty where there is no list.  Errors: EINVAL where it cannot be understood; what open gives.
[[nodiscard]] result<std::vector<guarded_device>> read_guarded(const std::string& run_dir);
/// Atomic; an empty list removes the file.
[[nodiscard]] result<void> write_guarded(const std::string& run_dir,
                                         const std::vector<guarded_device>& devices);
/// `recorded` and `added`, a device (by namespace and ifindex) once, as in `added`.  Those that
/// this namespace no longer has are left out: nothing is to be released, and each link flap makes
/// one.
[[nodiscard]] std::vector<guarded_device> merge_guarded(std::vector<guarded_device> recorded,
                                                        const std::vector<guarded_device>& added);

} // namespace esplane::tools

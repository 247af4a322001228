// SPDX-License-Identifier: Apache-2.0
//
// The device under a guard and its port: what it is, and whether it is free.
//
// Threads: control.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>

#include <net/if.h>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::fastpath {

/// Errors: ENODEV.
[[nodiscard]] result<int> index_of(const std::string& device);

/// Asks the kernel about a device by ioctl; the name is filled in.
[[nodiscard]] result<void> ask_device(unsigned long request, const std::string& device,
                                      ifreq& question);

struct bond {
    std::string mode; ///< "802.3ad"
};
/// What kind of bond a device is; nothing where it is none.
[[nodiscard]] std::optional<bond> as_bond(const std::string& device);

/// Queues in use.  A device that does not know channels has one of each.
struct queue_counts {
    std::uint32_t rx = 1;
    std::uint32_t tx = 1;
};
[[nodiscard]] result<queue_counts> queues_of(const std::string& device);

/// Frames of other devices have no Ethernet header, and the programs read one.
///
/// Errors: EOPNOTSUPP where it is no Ethernet device.
[[nodiscard]] result<void> check_ethernet(const std::string& device);

/// Reserves a device against other daemons and `release`, until the descriptor is closed or the
/// process ends, however it ends.
///
/// Two signs say that a device is taken, and only root can set either: a name in the abstract
/// socket space would do in one line, and let any user keep the daemon away.
///
///   a lock      on a file in /run/esplane-locks, which is root's alone; its name says which
///   network
///               namespace and device.  Settles who is first where two start at once.
///   its queue   has an AF_XDP socket while a daemon runs.  The kernel has one place for it, so
///   that
///               is seen from a mount namespace with another /run too.
///
/// Errors: EBUSY where it is taken; EPERM where the directory is not root's alone; EACCES.
[[nodiscard]] result<unique_fd> reserve_device(const std::string& device, int ifindex);

/// The first of these signs alone: for a device that has just come into being.
[[nodiscard]] result<unique_fd> lock_device(const std::string& device, int ifindex);

/// Calls `attempt` again for a second while it returns -EBUSY: a socket that was just closed keeps
/// its queue for a moment.
template <typename Attempt>
[[nodiscard]] int retry_while_busy(Attempt attempt) {
    constexpr int attempts = 500;
    constexpr auto pause = std::chrono::milliseconds(2);
    int e = attempt();
    for (int i = 1; i < attempts && e == -EBUSY; ++i) {
        std::this_thread::sleep_for(pause);
        e = attempt();
    }
    return e;
}

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// DPDK's environment: started once, for the life of the process.
//
// What EAL and its drivers print is swallowed; the first error of each step becomes the text of the
// error that the caller gets.  EAL starts no thread for packets: workers are esplane's own.
// Threads: control's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/result.h"

namespace esplane::fastpath {

struct eal_options {
    std::string arguments;                  ///< the operator's own, with blanks between; they win
    std::vector<std::string> pci_functions; ///< the ones to probe; none: no bus is looked at
    std::uint32_t memory_mib = 256;         ///< how much the ports need
};

/// What the command line of EAL depends on beside the options.
struct eal_surroundings {
    bool hugepages = false; ///< enough of them are free
    unsigned cpu = 0;       ///< one that this process may run on
};

/// EAL's command line, argv[0] included.  A default is left out where the operator's arguments
/// speak of the same thing: memory, CPUs, PCI, telemetry.
[[nodiscard]] std::vector<std::string> eal_command_line(const eal_options& o,
                                                        const eal_surroundings& s);

/// Starts EAL.  The value is a line for the log where it runs with less than it could, else empty.
/// A second call does nothing.
///
/// Errors: EINVAL for arguments it does not take, EPERM, ENOMEM and what else it says, in its own
/// words.  After an error it can often not be started again in this process.
[[nodiscard]] result<std::string> start_eal(const eal_options& o);

/// Makes the ethdev of a device known to DPDK: "net_memif0,role=client", "0000:3b:00.0".  One that
/// is known already is left as it is.  Returns its number.
///
/// Errors: ENODEV where there is no such device or driver, else what the driver says.
[[nodiscard]] result<std::uint16_t> probe_device(const std::string& device,
                                                 const std::string& arguments);

/// Which end of a socket a device is.
enum class socket_end : std::uint8_t {
    none,
    server, ///< listens: memif's server, vhost, virtio_user with server=1
    client, ///< connects: memif's client, virtio_user, vhost with client=1
};
[[nodiscard]] socket_end socket_end_of(const std::string& device, const std::string& arguments);

/// Runs a step of DPDK's with everything it prints swallowed.
///
/// step      returns 0, or an error number that may be negative
/// returns   the step's error number, positive, with the first error it logged as the text
[[nodiscard]] result<void> quietly(int (*step)(void* context), void* context);

template <typename Step>
[[nodiscard]] result<void> quietly(Step step) {
    return quietly([](void* context) -> int { return (*static_cast<Step*>(context))(); }, &step);
}

} // namespace esplane::fastpath

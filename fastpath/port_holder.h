// SPDX-License-Identifier: Apache-2.0
//
// Who else has bound a UDP port of this network namespace, and a way to get hold of that socket.
//
// Threads: control.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"
#include "lib/ipsec/address.h"

namespace esplane::fastpath {

struct port_holder {
    std::uint64_t inode = 0; ///< of the socket
    std::uint32_t user = 0;
    bool any_address = false; ///< bound to no address of its own

    friend bool operator==(const port_holder&, const port_holder&) = default;
};

/// Unconnected sockets on the port, but those of this process, in the order that the kernel tells.
[[nodiscard]] std::vector<port_holder> port_holders(ipsec::family family, std::uint16_t port);

/// A socket of another process, as a descriptor of this one.
struct fetched_socket {
    unique_fd fd;
    int process = 0;
    std::string command; ///< "charon"
};
/// Errors: ESRCH where no process that this one sees has it; EPERM without CAP_SYS_PTRACE; ENOSYS
/// before Linux 5.6.
[[nodiscard]] result<fetched_socket> fetch_socket(std::uint64_t inode);

} // namespace esplane::fastpath

// SPDX-License-Identifier: Apache-2.0
//
// `esplane run --seccomp`: XFRM clients that the shim cannot be loaded into, statically linked ones
// and those of Go.
//
//   esplane run ──fork──► supervisor ──fork──► COMMAND, its threads and children
//     waits, passes            ▲                   │ socket(AF_NETLINK, …, NETLINK_XFRM), and what
//     on signals               └── notifications ──┘ is called on what that gave
//
// A seccomp filter hands the supervisor the calls that an AF_UNIX socket would answer otherwise
// than a netlink socket.  It tells them by the descriptor: those it injects are 900 to 1023
// (clients that use select() can hold no higher ones).  poll, select, epoll, close, fork and exec
// are the kernel's.
//
// The supervisor stays until the last process under the filter has ended; `esplane run` ends with
// COMMAND.
//
// Does not: reach 32-bit programs, whose socket() fails, nor files under /proc; io_uring is refused
// to the command.  A duplicate below 900 (dup2) is refused.
#pragma once

#include <string>
#include <vector>

#include "lib/base/result.h"

namespace esplane::tools {

/// Runs `command` against the XFRM server at `xfrm_socket`.  Returns its exit status, 128 + N where
/// signal N ended it.
/// Errors: ENOSYS where the kernel is older than Linux 5.19; those of fork and pipe; the field is
/// "exec" where the command could not be started.
[[nodiscard]] result<int> run_supervised(const std::string& xfrm_socket,
                                         const std::vector<std::string>& command);

} // namespace esplane::tools

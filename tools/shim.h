// SPDX-License-Identifier: Apache-2.0
//
// The shim: how an unmodified XFRM client is brought to talk to esplane.
#pragma once

#include <string>
#include <vector>

#include "lib/base/result.h"

namespace esplane::tools {

/// Where libesplane-preload.so lies: beside this binary, or where it is installed.
/// Errors: ENOENT; EINVAL where its path cannot be written in LD_PRELOAD.
[[nodiscard]] result<std::string> find_shim();

/// Sets LD_PRELOAD (what stands there stays, after the shim) and ESPLANE_XFRM_SOCKET for the
/// programs this process starts.  Errors: those of find_shim; ENOENT where the socket is missing.
[[nodiscard]] result<void> use_shim(const std::string& xfrm_socket);

/// Says whether a program, looked up as execvp does, ignores LD_PRELOAD because it is statically
/// linked.
[[nodiscard]] bool is_static(const std::string& program);

/// The file of the AppArmor profile that keeps `program` from loading the shim, without its
/// folder: there is one in `folder`, and it has no rules of esplane's.  "": nothing does.
[[nodiscard]] std::string confining_profile(const std::string& program,
                                            const std::string& folder = "/etc/apparmor.d");

/// `esplane run`: becomes COMMAND under the shim of the daemon in `run_dir`.
/// Returns only where that failed; with the field "exec" where the command could not be started.
[[nodiscard]] error run_command(const std::string& run_dir,
                                const std::vector<std::string>& command);

/// `esplane run --seccomp`: COMMAND against the daemon in `run_dir`, without the shim.  Returns its
/// exit status.
[[nodiscard]] result<int> run_supervised_command(const std::string& run_dir,
                                                 const std::vector<std::string>& command);

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// A privileged helper for an esplaned without privileges: `esplane xdp-helper -- COMMAND`.
//
// The helper stays what it is and starts COMMAND, which is to lay its privileges down (setpriv) and
// become esplaned, with one end of a socket pair.  esplaned asks there for what it may not do:
//
//   prepare, attach, release   the programs of a device (fastpath::privileged)
//   socket                     an AF_XDP socket
//   resolve                    a neighbour's MAC address
//
// and gets descriptors back.  Who has the socket is who may ask: it has no name.  What is asked is
// looked at as input from a stranger is; nobody but the helper chooses the programs.
// Threads: control.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fastpath/xdp/privileged.h"
#include "lib/ipsec/address.h"

namespace esplane::tools {

/// Names the descriptor of the socket in the environment of COMMAND.
inline constexpr char xdp_helper_variable[] = "ESPLANE_XDP_HELPER";

/// The daemon's end.
class xdp_helper final : public fastpath::privileged {
  public:
    /// The helper this process was started under; nullptr where it was not.
    /// Errors: EBADF where the variable names no socket.
    [[nodiscard]] static result<std::shared_ptr<xdp_helper>> of_this_process();
    explicit xdp_helper(unique_fd socket) noexcept
        : socket_(std::move(socket)) {}

    [[nodiscard]] result<fastpath::guard_parts> prepare(const std::string& device) override;
    [[nodiscard]] result<fastpath::guard_attached> attach(const std::string& device,
                                                          fastpath::xdp_wish wish) override;
    [[nodiscard]] result<unique_fd> open_socket(unsigned busy_poll_us) override;
    [[nodiscard]] result<fastpath::attachments> release(const std::string& device) override;
    [[nodiscard]] result<void> resolve(int ifindex, const ipsec::address& neighbour);

  private:
    unique_fd socket_;
};

/// What does the privileged work of this process: its helper, or itself.
[[nodiscard]] result<std::shared_ptr<fastpath::privileged>> means_of_this_process();

/// The helper's end: answers the request that waits on `socket`.  False where the other end is
/// gone.
[[nodiscard]] bool serve_xdp_helper(int socket, fastpath::privileged& means);

/// Runs COMMAND, and serves it until it ends.  Returns its exit status.
/// Errors: with the field "exec" where it could not be started.
[[nodiscard]] result<int> run_under_xdp_helper(const std::vector<std::string>& command);

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// Sends NAT keepalives (RFC 3948 section 2.3): one byte in UDP, so that a NAT on the way does not
// forget which inside address a port is.
//
// By raw sockets, since the UDP port is the IKE daemon's or a lane's; the machine's stack routes.
// Threads: control.
#pragma once

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"
#include "lib/ipsec/sa.h"

namespace esplane::fastpath {

class keepalive_sender {
  public:
    /// mark   of all that is sent, where an SA has none of its own
    /// Errors: EPERM without CAP_NET_RAW.
    [[nodiscard]] static result<keepalive_sender> open(std::uint32_t mark);

    /// To the peer of an outbound SA in UDP, from where its ESP comes.
    /// Errors: what the kernel says; ENETUNREACH where the machine lacks the family.
    [[nodiscard]] result<void> send(const ipsec::sa& sa) const;

  private:
    explicit keepalive_sender(std::uint32_t mark)
        : mark_(mark) {}

    std::uint32_t mark_;
    unique_fd v4_, v6_;
};

} // namespace esplane::fastpath

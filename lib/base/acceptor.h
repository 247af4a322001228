// SPDX-License-Identifier: Apache-2.0
//
// Accepts connections also where this process has no descriptor left.
//
// A connection that cannot be accepted stays in the queue and keeps its listening socket readable:
// the loop that waits for it would spin.  So one descriptor is kept in reserve, given up to take
// the connection, close it, and taken again.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>

#include "lib/base/unique_fd.h"

namespace esplane {

class acceptor {
  public:
    acceptor() { refill(); }

    /// The next connection, non-blocking; invalid where there is none, or where it had to be turned
    /// away for lack of descriptors.
    [[nodiscard]] unique_fd accept(int listening) {
        unique_fd s = take(listening);
        if (!s.valid() && (errno == EMFILE || errno == ENFILE)) {
            reserve_ = unique_fd();
            (void)take(listening);
            refill();
        }
        return s;
    }

  private:
    static unique_fd take(int listening) {
        return unique_fd(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    }
    void refill() { reserve_ = unique_fd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

    unique_fd reserve_;
};

} // namespace esplane

// SPDX-License-Identifier: Apache-2.0
//
// Says that something has become of the kernel's links, before what else rtnetlink tells has been
// read: that can be a million routes.
//
// Threads: control.  Network namespace: the one of the thread that calls open().
#pragma once

#include "lib/base/result.h"
#include "xfrm/route_socket.h"

namespace esplane::xfrm {

class link_watch {
  public:
    /// Errors: those of socket(2) and bind(2).
    [[nodiscard]] static result<link_watch> open();

    /// Readable when changed() has something to say.
    [[nodiscard]] int descriptor() const noexcept { return events_.descriptor(); }
    /// Whether a link has come, gone or changed since the last call; true too where it cannot be
    /// told.
    [[nodiscard]] bool changed();

  private:
    explicit link_watch(route_socket events)
        : events_(std::move(events)) {}

    route_socket events_;
};

} // namespace esplane::xfrm

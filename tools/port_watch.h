// SPDX-License-Identifier: Apache-2.0
//
// Tends to the ports about once a second: says in the log when one goes down or comes back, and
// keeps the record of guarded devices true.
//
// Threads: control.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/ports.h"

namespace esplane::tools {

class port_watch {
  public:
    using log = std::function<void(const std::string& line)>;

    /// `ports` outlives this, and is recorded in `run_dir` as it is now.  Those that are down from
    /// the start are named at once.
    port_watch(port_set& ports, std::string run_dir, log l);

    /// Where a second has passed since the last time, or, `at_once`, in any case.  True where a
    /// port went down or came up, or stands on another device now: what is known of the network
    /// has to be bound to the ports anew.
    bool tend(std::uint64_t now_ns, bool at_once);
    [[nodiscard]] std::uint64_t next_ns() const noexcept { return next_ns_; }

  private:
    struct watched {
        fastpath::port* port;
        std::string complaint; ///< what tend() said last
    };
    bool tend(watched& w);
    bool record();

    port_set& set_;
    std::string run_dir_;
    log log_;
    std::vector<watched> ports_;
    std::vector<guarded_device> recorded_;
    std::uint64_t next_ns_ = 0;
};

} // namespace esplane::tools

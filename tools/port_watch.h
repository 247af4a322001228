// SPDX-License-Identifier: Apache-2.0
//
// Tends to the ports about once a second, and at once when the kernel's links change: says in the
// log when one goes down, and why, or comes back, and keeps the record of guarded devices true.
//
// Threads: control.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fastpath/port.h"
#include "tools/run_dir.h"

namespace esplane::tools {

class port_watch {
  public:
    using log = std::function<void(const std::string& line)>;

    /// Those that are down from the start are named at once.
    ///
    /// devices   gives the guarded devices of the ports; as they are now they are recorded in
    ///           `run_dir`
    port_watch(const std::vector<fastpath::port*>& ports,
               std::function<std::vector<guarded_device>()> devices, std::string run_dir, log l);

    /// Where a second has passed since the last time; or, where `links_changed`, in any case to
    /// those that stand on a link.  True where a port went down or came up, or stands on another
    /// device now: what is known of the network has to be bound to the ports anew.
    bool tend(std::uint64_t now_ns, bool links_changed);
    [[nodiscard]] std::uint64_t next_ns() const noexcept { return next_ns_; }

    /// "" where a port is up.
    [[nodiscard]] std::string why_down(const fastpath::port& p) const;

  private:
    struct watched {
        fastpath::port* port;
        bool up;
        std::string complaint; ///< what tend() said last
        std::string said;      ///< in the log, of why it is down
    };
    bool tend(watched& w, bool due);
    void say_down(watched& w);
    bool record();

    std::function<std::vector<guarded_device>()> devices_;
    std::string run_dir_;
    log log_;
    std::vector<watched> ports_;
    std::vector<guarded_device> recorded_;
    std::uint64_t next_ns_ = 0;
};

} // namespace esplane::tools

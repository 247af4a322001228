// SPDX-License-Identifier: Apache-2.0
//
// Follows the XFRM server's talk with its clients, and the control layer's events, for whoever asks
// over the control socket.
//
//   {"command": "trace"}      every message: {"time_us", "way": "request|reply|event", "pid",
//                             "command", "port", ...} and report_message(); pid, command and port
//                             are null in an event
//   {"command": "monitor"}    every event: {"time_us", ...} and report_event()
//
// The first answer is {"streaming": "trace"}; then comes one packet for each message until the
// reader closes its socket; {"lost": N} says how many it was too slow for.  While nobody reads,
// nobody is shown anything, at no cost.
//
// Threads: the control thread.
#pragma once

#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "lib/control/layer.h"
#include "tools/trace_readers.h"
#include "xfrm/server.h"

namespace esplane::tools {

class trace final : private ipsec::listener {
  public:
    /// `layer` outlives it, `server` too; it may be nullptr: then there is no talk to follow.
    [[nodiscard]] static result<std::unique_ptr<trace>> make(control::layer& layer,
                                                             xfrm::server* server);
    ~trace() override;
    trace(const trace&) = delete;
    trace& operator=(const trace&) = delete;

    /// Takes a connection that asks for a stream, and answers on it: with {"error"} where it cannot
    /// have one.  False: it asks for something else.
    [[nodiscard]] bool take(const nlohmann::json& request, unique_fd& connection);

    /// Readable when serve() has something to do.
    [[nodiscard]] int descriptor() const noexcept { return poller_.get(); }
    void serve();

  private:
    trace(control::layer& layer, xfrm::server* server, unique_fd poller, trace_readers talk,
          trace_readers events);
    void follow(bool talk);
    void show(const xfrm::traced& what);
    void on_event(const ipsec::event& e) override;

    control::layer& layer_;
    xfrm::server* server_;
    unique_fd poller_; ///< of both kinds of readers
    trace_readers talk_;
    trace_readers events_;
    bool follows_talk_ = false;
    bool follows_events_ = false;
};

} // namespace esplane::tools

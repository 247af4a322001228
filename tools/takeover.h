// SPDX-License-Identifier: Apache-2.0
//
// An upgrade in place: a new daemon asks the one that runs to stop, and goes on with its state.
//
//   new   loads what takes long (BPF programs), connects to DIR/takeover.sock, asks
//   old   refuses where the new one would keep its state elsewhere; else stops its workers, sends
//         the two files of its state (SCM_RIGHTS), ends
//   new   waits until that process is gone, and with it its sockets and locks; then starts
//
// Nothing is forwarded between the two: there are programs on the devices all the time.
// Threads: control.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::tools {

/// The two files of a state, of a daemon that is gone.
struct handed_state {
    unique_fd log;
    unique_fd live;
    std::string token; ///< state_place::token()
};

/// What the daemon that runs lends to be sent.
struct state_descriptors {
    int log = -1;
    int live = -1;
    std::string token;
};

class takeover_server {
  public:
    /// Stops all work; from then on this process does nothing but end.  Errors: what the asking
    /// daemon is told, and everything goes on.
    ///
    /// state   state_options::text() of that daemon
    using hand_over = std::function<result<state_descriptors>(const std::string& state)>;

    /// Errors: those of listen_on().
    [[nodiscard]] static result<std::unique_ptr<takeover_server>> open(const std::string& run_dir,
                                                                       hand_over give);
    ~takeover_server();
    takeover_server(const takeover_server&) = delete;
    takeover_server& operator=(const takeover_server&) = delete;

    [[nodiscard]] int descriptor() const noexcept { return listener_.get(); }
    /// True: the state is handed over.
    [[nodiscard]] bool serve();

  private:
    takeover_server(std::string path, unique_fd listener, hand_over give);

    std::string path_;
    unique_fd listener_;
    hand_over give_;
    bool given_ = false;
};

/// Asks the daemon of `run_dir` and waits, at most 10 s, until its process is gone.
/// state   state_options::text()
/// Errors: ECONNREFUSED where there is none; its own line; ETIMEDOUT; EPROTO.
[[nodiscard]] result<handed_state> take_over(const std::string& run_dir, const std::string& state);

} // namespace esplane::tools

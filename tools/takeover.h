// SPDX-License-Identifier: Apache-2.0
//
// An upgrade in place: a new daemon asks the one that runs to stop, and goes on with its state.
//
//   new   loads what takes long (BPF programs), borrows the two files of the old one's
//         state by DIR/takeover.sock, and brings its SAs back
//   old   goes on meanwhile; what becomes of its SAs goes to the end of the log
//   new   asks it to stop
//   old   refuses where the new one would keep its state elsewhere; else stops its workers, sends
//         the two files of its state (SCM_RIGHTS)
//   new   catches up with what has become of them
//   old   closes its sockets and locks, says so where nothing else is in the way, and ends: with
//         many SAs the kernel needs longer for its memory than for all that
//   new   starts when it is told so, or when that process is gone
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

/// The two files of a state, of a daemon that is gone or goes on.
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
    /// Errors: what the asking daemon is told, and everything goes on.
    ///
    /// state      state_options::text() of that daemon
    /// for_good   stops all work; from then on this process does nothing but end
    using hand_over =
        std::function<result<state_descriptors>(const std::string& state, bool for_good)>;

    /// Errors: those of listen_on().
    [[nodiscard]] static result<std::unique_ptr<takeover_server>> open(const std::string& run_dir,
                                                                       hand_over give);
    ~takeover_server();
    takeover_server(const takeover_server&) = delete;
    takeover_server& operator=(const takeover_server&) = delete;

    [[nodiscard]] int descriptor() const noexcept { return listener_.get(); }
    /// True: the state is handed over for good, and the process is to end: release().
    [[nodiscard]] bool serve();
    /// Closes all that this process has open but its output.
    ///
    /// free   nothing is left that the next daemon waits for
    void release(bool free);

  private:
    takeover_server(std::string path, unique_fd listener, hand_over give);

    std::string path_;
    unique_fd listener_;
    hand_over give_;
    unique_fd given_to_;
};

/// The files of a daemon that goes on.
/// Errors: ECONNREFUSED where there is none; EPROTO with its own line, or where it is of a version
/// that lends nothing; ETIMEDOUT.
[[nodiscard]] result<handed_state> borrow_state(const std::string& run_dir,
                                                const std::string& state);

/// Asks the daemon of `run_dir` and waits, at most 10 s, until nothing of it is in the way.
///
/// state            state_options::text()
/// while_it_ends    called when it has stopped work
/// Errors: ECONNREFUSED where there is none; its own line; ETIMEDOUT; EPROTO.
[[nodiscard]] result<handed_state>
take_over(const std::string& run_dir, const std::string& state,
          const std::function<void(handed_state& handed)>& while_it_ends);

} // namespace esplane::tools

// SPDX-License-Identifier: Apache-2.0
//
// Who hears when of replay states that move: xfrm_replay_notify() over a backend.
//
//   moved by replay_threshold ---------------------------> XFRM_AE_CR
//   replay_timer is over, moved since the last event -----> XFRM_AE_CE, the timer runs again
//   replay_timer is over, not moved: the next movement ---> XFRM_AE_CE, the timer runs again
//
// Only while somebody listens: nothing is kept and nothing asked of the backend else.  A threshold
// that is passed more often than this is called is told of once.
// Threads: control.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "lib/control/announcer.h"
#include "lib/control/backend.h"
#include "lib/control/timer_queue.h"
#include "lib/ipsec/sad.h"

namespace esplane::control {

class replay_watch {
  public:
    using entry = ipsec::sad::entry;
    /// An SA with its counters up to date.
    using describer = std::function<ipsec::sa(const entry&)>;

    replay_watch(backend& b, const announcer& out, ipsec::sad& sad, describer describe);

    /// Whether anybody hears of them from now on.
    void listen(bool somebody);
    /// A valid SA is there.
    void begin(const entry& e, const ipsec::sa& s, moment now);
    /// A client has given something of what is looked at here; `s` is up to date.
    ///
    /// replay   the state itself, too: it has not moved since
    void change(const entry& e, const ipsec::sa& s, bool replay);
    /// An SA is gone.
    void end(const entry& e);
    /// backend_listener::on_replay().
    void on_reached(const entry& e, moment now);

    void tick(moment now);
    [[nodiscard]] std::optional<std::int64_t> next_ns() const;

  private:
    struct watched {
        ipsec::replay_state told; ///< when listeners last heard of it
        bool deferred = false;    ///< the timer is over: they hear of the next movement
    };

    void begin_some(moment now);
    void begin_running(const entry& e, moment now);
    void aim(const entry& e, const ipsec::sa& s, const watched& w);
    void announce(const entry& e, const ipsec::sa& s, watched& w, ipsec::sa_moved::cause why,
                  moment now);
    void on_timer(const entry& e, moment now);

    backend& backend_;
    const announcer& out_;
    ipsec::sad& sad_;
    describer describe_;
    bool listening_ = false;
    std::uint64_t to_begin_ = 0; ///< up to this serial SAs were there before somebody listened
    std::unordered_map<std::uint64_t, watched> watched_; ///< by serial
    timer_queue timers_;                                 ///< by serial
    std::vector<std::uint64_t> reached_;                 ///< serials of which the backend said so
};

} // namespace esplane::control

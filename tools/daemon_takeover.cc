// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <unistd.h>

#include "tools/daemon.h"

namespace esplane::tools {

/// First all that can be done while the other daemon is at work.  From when that has stopped
/// nothing passes until this one is ready.
result<void> daemon::take_over() {
    auto buffers = prepare_ahead(options_);
    if (!buffers) return tl::unexpected(buffers.error());
    buffers_ahead_ = std::move(*buffers);
    const std::string state = options_.state.text();
    if (auto lent = borrow_state(options_.run_dir, state)) {
        handed_ = std::move(*lent);
        if (auto ahead = restore_ahead(); !ahead) return ahead;
    } // else it says why again, or does not know how
    auto handed = tools::take_over(options_.run_dir, state, [this](handed_state& now) {
        if (state_ &&
            !state_->catch_up(engine_->control(), now.log.get(), now.live, fastpath::now()))
            forget_ahead();
    });
    if (!handed) return tl::unexpected(handed.error());
    handed_ = std::move(*handed);
    return {};
}

/// Many SAs and policies take long to bring back.
result<void> daemon::restore_ahead() {
    if (auto found = find_state(); !found || !state_) return found;
    if (auto made = make_databases(); !made) return made;
    if (!state_->restore_ahead(engine_->control(), fastpath::now())) forget_ahead();
    return {};
}

/// All is done anew when the other daemon has stopped.
void daemon::forget_ahead() {
    keepalives_.reset();
    paths_.reset();
    engine_.reset();
    state_.reset();
    facts_.state = nullptr;
}

/// Nothing is taken down but what takes the kernel long: the process ends as if it had been killed,
/// and as fast.
result<state_descriptors> daemon::hand_over(const std::string& state, bool for_good) {
    if (!state_)
        return fail(ENOTSUP, "the daemon that runs keeps no state (--state), so nothing would come "
                             "over: stop it and start the new one");
    if (const std::string own = options_.state.text(); state != own)
        return fail(EINVAL, "the daemon that runs keeps its state elsewhere (--state " + own +
                                "): give the same, or stop it and start the new one");
    if (!state_->stands().written)
        return fail(ENOSPC, "the daemon that runs cannot write its state, so nothing would come "
                            "over: make room, or stop it and start the new one");
    const state_descriptors given{state_->log_descriptor(), state_->live_descriptor(),
                                  state_->place_token()};
    if (!for_good) {
        state_->lend(fastpath::now());
        return given;
    }
    constexpr std::chrono::seconds patience(1);
    workers_stopped_ = engine_->stop_within(patience);
    if (!workers_stopped_) log("a worker hangs: it ends with this process");
    return given;
}

/// Those that came back before there was anybody to hear of them.
void daemon::introduce_policies(ipsec::listener& to) {
    control::cursor c;
    while (const ipsec::policy* p = engine_->control().next_policy(c))
        to.on_event(ipsec::policy_added{*p, {}});
}

void daemon::serve_takeover() {
    if (!takeover_->serve()) return;
    takeover_->release(workers_stopped_ && devices_->let_go());
    log("handed over to the daemon that asked");
    ::_exit(0);
}

} // namespace esplane::tools

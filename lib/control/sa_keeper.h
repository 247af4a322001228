// SPDX-License-Identifier: Apache-2.0
//
// The rules for SAs: net/xfrm/xfrm_state.c over the SAD and a backend.
//
// Effects go to the backend first, then the database, then the listeners: where the backend
// refuses, nothing has changed.  What goes is the other way round: listeners hear of it first, and
// whoever keeps the state over restarts knows before the numbers of the SA end with it.  Larval SAs
// never reach the backend.  Contracts of the calls that layer.h has too stand there.
#pragma once

#include <functional>
#include <optional>
#include <unordered_set>

#include "lib/control/announcer.h"
#include "lib/control/layer.h"
#include "lib/control/replay_watch.h"
#include "lib/control/timer_queue.h"
#include "lib/ipsec/sad.h"

namespace esplane::control {

/// What a move changes of an SA.
struct sa_place {
    ipsec::sa_id id;
    ipsec::address source;
    std::optional<ipsec::udp_encapsulation> encap;
    bool dying = false;
};
[[nodiscard]] sa_place place_of(const ipsec::sa& s);

class sa_keeper {
  public:
    sa_keeper(backend& b, const announcer& out, random_source random);

    void set_acquire_expires(std::uint32_t seconds) { acquire_expires_s_ = seconds; }

    [[nodiscard]] result<void> add(ipsec::sa s, ipsec::originator by, moment now);
    [[nodiscard]] result<void> restore(ipsec::sa s, moment now);
    [[nodiscard]] result<void> restore_again(ipsec::sa s, moment now);
    void withdraw(const ipsec::sa_id& id);
    void begin_from(const ipsec::sa_id& id, const sa_usage& n, moment now);
    [[nodiscard]] result<void> update(ipsec::sa s, ipsec::originator by, moment now);
    [[nodiscard]] result<void> remove(const ipsec::sa_id& id, ipsec::originator by);
    void flush(std::uint8_t protocol, ipsec::originator by);
    [[nodiscard]] result<std::reference_wrapper<const ipsec::sa>> allocate_spi(const spi_request& r,
                                                                               moment now);
    /// xfrm_state_find(): tells listeners that the policy's template wants an SA for a flow, unless
    /// that was said and the larval SA which stands for it has not expired.
    ///
    /// cpu   it is to be for the traffic of that one alone
    void acquire(const ipsec::policy& p, const ipsec::flow& f, std::optional<std::uint32_t> cpu,
                 moment now);
    /// XFRM_MSG_ACQUIRE from a client: tells listeners that somebody wants an SA like `wanted` for
    /// each template of `p`.  Nothing is kept.
    void announce_acquire(ipsec::sa wanted, const ipsec::policy& p);
    /// xfrm_migrate_state_find(): the newest SA between the old addresses of a move, a larval one
    /// too; nullptr where there is none.  Looks at all SAs.  Valid until the next call.
    [[nodiscard]] const ipsec::sa* find_between(const ipsec::sa_move& m, std::uint32_t if_id);
    /// Whether relocate() finds the SA, and its new place free.  Errors: EEXIST, EINVAL as there.
    [[nodiscard]] result<void> may_relocate(const ipsec::sa_id& id, const ipsec::sa_id& to);
    /// xfrm_state_migrate(): the SA of exactly that id goes on in another place, as the newest.
    /// Errors: EEXIST (the place is taken), EINVAL (it is larval); what the backend says.
    [[nodiscard]] result<void> relocate(const ipsec::sa_id& id, const sa_place& to, moment now);
    [[nodiscard]] result<void> give_replay(const ipsec::sa_id& id, const replay_gift& g,
                                           ipsec::originator by, moment now);
    [[nodiscard]] result<void> expire_now(const ipsec::sa_id& id, bool hard, ipsec::originator by);
    void hear_replays(bool somebody) { replays_.listen(somebody); }
    [[nodiscard]] const ipsec::sa* get(const ipsec::sa_id& id);
    [[nodiscard]] const ipsec::sa* next(cursor& c);
    [[nodiscard]] std::size_t count() const noexcept { return sad_.size(); }

    void tick(moment now);
    [[nodiscard]] std::optional<std::int64_t> next_deadline_ns() const;

    void on_lifetime(const ipsec::sa_id& id, bool hard);
    /// `now` may be a little old: limits since first use then start a little early.
    void on_first_use(const ipsec::sa_id& id, moment now);
    void on_replay(const ipsec::sa_id& id, moment now);
    /// km_new_mapping(): listeners hear of it, the client decides.
    void on_mapping(const ipsec::sa_id& id, const ipsec::address& source, wire::be16 port);

  private:
    using entry = ipsec::sad::entry;

    [[nodiscard]] result<ipsec::packed_sa> admit(ipsec::sa& s, moment now) const;
    entry& insert(const ipsec::sa& s, ipsec::packed_sa packed, moment now);
    void keep_dying(entry& e, const ipsec::sa& s);
    void begin_life(entry& e, const ipsec::sa& s, moment now);
    void end_acquire(const ipsec::sa& answer);
    [[nodiscard]] entry* asked_for(const spi_request& r);
    static void redate(entry& e, const ipsec::lifetime_current& times, moment now);
    void start_timer(const entry& e, const ipsec::lifetime_limits& limits, moment now);
    [[nodiscard]] result<void> fill_larval(entry& larval, ipsec::sa s, ipsec::originator by,
                                           moment now);
    [[nodiscard]] result<void> change_valid(entry& e, ipsec::sa s, ipsec::originator by,
                                            moment now);
    [[nodiscard]] std::optional<wire::be32> free_spi(const spi_request& r);
    /// With counters as of now.
    [[nodiscard]] ipsec::sa as_it_is(const entry& e) const;
    /// `s` for whoever asked, until the next who does.
    const ipsec::sa& show(ipsec::sa s);
    /// Says that it is deleted, and drops it.
    void remove(entry& e, ipsec::originator by);
    /// Out of the backend and the database.
    void drop(entry& e);
    void expire(entry& e, ipsec::lifetime_verdict verdict);
    void check_time(entry& e, std::int64_t now_ns);

    backend& backend_;
    const announcer& out_;
    random_source random_;
    ipsec::sad sad_;
    ipsec::sa shown_;
    timer_queue timers_; ///< by serial
    /// Serials of those whose hard limit an UPDSA has set below what they counted: the client hears
    /// of its UPDSA before it hears that the SA is gone.
    std::unordered_set<std::uint64_t> spent_;
    replay_watch replays_;
    std::uint32_t acquire_expires_s_ = 30;
    std::uint32_t acquire_seq_ = 0;
};

} // namespace esplane::control

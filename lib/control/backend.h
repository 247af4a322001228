// SPDX-License-Identifier: Apache-2.0
//
// Who does the work: user space (fastpath/), the kernel, or a fake for tests.
//
// The control layer owns all rules and all descriptions; a backend carries them out.  Calls come
// from the control thread alone.  When a call returns, its effect is there: an SA that was added
// accepts the very next packet, a deleted one touches none.
#pragma once

#include <cstdint>
#include <optional>

#include "lib/base/clock.h"
#include "lib/base/result.h"
#include "lib/ipsec/packed_sa.h"
#include "lib/ipsec/policy.h"
#include "lib/ipsec/sa.h"

namespace esplane::control {

/// What only the data path knows of an SA.
struct sa_usage {
    ipsec::lifetime_current current; ///< bytes, packets; use_time; add_time is not looked at
    std::uint64_t last_used = 0;     ///< CLOCK_REALTIME seconds; 0 = never
    ipsec::replay_state replay;
    ipsec::sa_statistics statistics;
};

/// Which parts of a description a client has given to an SA in use (XFRM_MSG_NEWAE).
struct given_parts {
    bool replay = false;   ///< the replay state
    bool counters = false; ///< `current`
};

/// What a backend tells control, at most once per cause and object.
class backend_listener {
  public:
    virtual ~backend_listener() = default;
    /// A byte or packet limit was reached.  After hard the SA passes no packet.
    virtual void on_lifetime(const ipsec::sa_id& id, bool hard) = 0;
    /// The first packet used the SA: limits since first use start now.
    virtual void on_first_use(const ipsec::sa_id& id) = 0;
    /// An authentic packet of an encapsulated SA came from there, and not from where the SA says.
    virtual void on_mapping(const ipsec::sa_id& id, const ipsec::address& source,
                            wire::be16 port) = 0;
    /// A packet of this flow falls under the `out` policy of that index and no SA carries it.
    ///
    /// cpu   for whose traffic one of its own is wanted (RFC 9611); nullopt: for all
    virtual void on_sa_wanted(std::uint32_t index, const ipsec::flow& f,
                              std::optional<std::uint32_t> cpu) = 0;
    /// Its sequence numbers have come as far as watch_replay() said.
    virtual void on_replay(const ipsec::sa_id& id) = 0;
};

class backend {
  public:
    virtual ~backend() = default;

    /// Where events go; set once, before any SA.
    virtual void set_listener(backend_listener* l) = 0;

    /// A valid (never larval) SA.  Errors: ENOSYS, EINVAL with the field that cannot be carried;
    /// ENOMEM.  Nothing has changed then.
    ///
    /// packed   the same as `s`, for a backend that keeps it: so does control
    [[nodiscard]] virtual result<void> add_sa(const ipsec::sa& s,
                                              const ipsec::packed_sa& packed) = 0;
    /// The lifetimes, encapsulation, interface id or limits of an SA changed; keys, id and counters
    /// did not.
    [[nodiscard]] virtual result<void> update_sa(const ipsec::sa& s) = 0;
    /// A client has given those parts of `s`, or its mapping_threshold; what it has not given goes
    /// on as it is.  Takes effect between two packets.  Errors: ESRCH.
    [[nodiscard]] virtual result<void> set_replay(const ipsec::sa& s, given_parts parts) = 0;
    /// The SA `before` goes on as `s`: with another id, other addresses, other encapsulation; keys,
    /// what was counted and the replay state stay, and no nonce comes twice.  Atomic for packets
    /// but for those under way.
    /// Errors: EEXIST; EPROTONOSUPPORT; ENOBUFS.  Nothing has changed then.
    [[nodiscard]] virtual result<void> move_sa(const ipsec::sa_id& before, const ipsec::sa& s) = 0;
    /// Before its first packet: an SA goes on from there, after a restart.  Of `n.replay` only the
    /// numbers count: all below the highest that was received has come.
    virtual void begin_from(const ipsec::sa_id& id, const sa_usage& n) = 0;
    /// Once the SA has sent number `sent` or received number `received`, or a higher one,
    /// on_replay() comes, within 0.1 s; in place of what was asked before.  ~0: never.  True: it
    /// has already, and on_replay() may not come.
    [[nodiscard]] virtual bool watch_replay(const ipsec::sa_id& id, std::uint64_t sent,
                                            std::uint64_t received) = 0;
    /// Cannot fail; an SA that is not there is ignored.  Counters are final: query first.
    virtual void delete_sa(const ipsec::sa_id& id) = 0;
    /// Writes what the data path counted into `into`.  False where it has no such SA.
    virtual bool query_sa(const ipsec::sa_id& id, sa_usage& into) = 0;

    [[nodiscard]] virtual result<void> add_policy(const ipsec::policy& p) = 0;
    /// Same direction, interface id, selector and index; anything else may differ.  Atomic for
    /// packets.
    [[nodiscard]] virtual result<void> update_policy(const ipsec::policy& p) = 0;
    /// Cannot fail; one that is not there is ignored.
    virtual void delete_policy(std::uint32_t index) = 0;
    /// False where it has no such policy.
    virtual bool query_policy(std::uint32_t index, ipsec::lifetime_current& into) = 0;

    /// What becomes of packets that no policy covers; at first all pass.
    virtual void set_defaults(const ipsec::default_actions& actions) = 0;

    /// For how long packets that no SA carries yet may wait for one, which somebody will make; 0:
    /// nobody will, they are dropped.  Without `hold` they are dropped, too, but asked for.
    virtual void await_sas(std::uint32_t seconds, bool hold) = 0;

    /// Many deletions follow / have come: they may be made good together.  Calls do not nest.
    virtual void begin_batch() = 0;
    virtual void end_batch() = 0;
};

} // namespace esplane::control

// SPDX-License-Identifier: Apache-2.0
//
// The control layer: owns the SAD and the SPD, SPI allocation, lifetimes and events.  One place
// for the rules, whatever front asked; they are the Linux kernel's (net/xfrm), written down in
// doc/decisions/ where they differ from RFC 4301.
//
// Threads: all calls from one thread.  Time: the caller's, through tick() and `now`.
// Does not: speak a protocol (fronts do), touch a packet (backends do), log.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "lib/control/backend.h"
#include "lib/ipsec/event.h"

namespace esplane::control {

/// Fills a buffer with random bytes fit for SPIs and IVs (getrandom in the daemon, a fixed seed
/// in tests).
using random_source = std::function<void(std::span<std::uint8_t>)>;

/// What XFRM_MSG_ALLOCSPI asks for.
struct spi_request {
    ipsec::address source;
    ipsec::address destination;
    std::uint8_t protocol = 50;
    ipsec::mode run_mode = ipsec::mode::tunnel;
    std::uint32_t reqid = 0;
    std::uint32_t seq = 0;
    std::uint32_t if_id = 0;
    ipsec::mark_mask mark = {};
    ipsec::direction dir = ipsec::direction::unknown;
    std::optional<std::uint32_t> pcpu = {};
    std::uint32_t min = 0; ///< host order, inclusive
    std::uint32_t max = 0;
};

/// What a client gives to an SA in use: XFRM_MSG_NEWAE.
struct replay_gift {
    std::optional<ipsec::replay_state> replay;
    std::optional<std::uint32_t> replay_window; ///< packets
    std::optional<ipsec::lifetime_current> current;
    std::optional<std::uint32_t> replay_threshold;  ///< as in ipsec::sa
    std::optional<std::uint32_t> replay_timer;      ///< as in ipsec::sa
    std::optional<std::uint32_t> mapping_threshold; ///< as in ipsec::sa
};

/// A place in a walk over all SAs or policies, the newest first.  Whatever is there during the
/// whole walk comes exactly once, whatever comes and goes meanwhile; but a policy that is replaced
/// becomes the newest, as in the kernel, and where its turn had not come the walk does not meet it.
struct cursor {
    std::uint64_t next = ~std::uint64_t{0}; ///< serial numbers are walked from the newest down
};

struct spd_hash_thresholds {
    std::uint8_t local_v4 = 32, remote_v4 = 32, local_v6 = 128, remote_v6 = 128;
};

/// net.core.xfrm_*: what clients read and write of them is what the layer uses.
struct sysctls {
    std::uint32_t acq_expires = 30;  ///< seconds a larval SA lives
    std::uint32_t aevent_etime = 10; ///< replay_timer of an SA that names none
    std::uint32_t aevent_rseqth = 2; ///< replay_threshold of an SA that names none
    std::uint32_t larval_drop = 0;   ///< not 0: packets do not wait for the SA of an ACQUIRE

    friend bool operator==(const sysctls&, const sysctls&) = default;
};

/// GETSPDINFO's counters, as the kernel numbers them.
struct spd_counts {
    std::uint32_t in = 0, out = 0, fwd = 0;
};

class layer final : private backend_listener {
  public:
    /// `b` outlives the layer.
    layer(backend& b, random_source random);
    ~layer() override;

    /// Listeners are called in order of subscription, during the call that caused the event.  They
    /// may read the layer then, not change it.
    void subscribe(ipsec::listener* l);
    void unsubscribe(ipsec::listener* l);

    /// Whether a listener makes SAs that an ACQUIRE asks for, from now on.  While nobody does, none
    /// is announced and what no SA carries is dropped: km_is_alive().
    void answer_acquires(const ipsec::listener* l, bool answers);
    /// Whether a listener wants to hear of replay states that move, from now on.  While nobody does
    /// none is looked at: xfrm_aevent_is_on().
    void hear_replays(const ipsec::listener* l, bool hears);

    /// For what is made from now on.
    void set_sysctls(const sysctls& s);
    [[nodiscard]] const sysctls& current_sysctls() const noexcept;
    /// acq_expires alone: seconds a larval SA lives, and packets wait for one that an ACQUIRE asks
    /// for.
    void set_acquire_expires(std::uint32_t seconds);

    // SAs.  Every error leaves everything as it was.

    /// XFRM_MSG_NEWSA.  `s.algs` is resolved already (ipsec::resolve).
    /// Errors: EEXIST; what the backend says.
    [[nodiscard]] result<void> add_sa(ipsec::sa s, ipsec::originator by, moment now);
    /// XFRM_MSG_UPDSA: fills a larval SA, or changes lifetimes, encapsulation and (where `s` names
    /// one) the interface id and the output mark of a valid one.
    /// The event carries `s` as given.  Errors: ESRCH (none, or of another direction); EINVAL
    /// (encapsulation added or taken away); what the backend says.
    [[nodiscard]] result<void> update_sa(ipsec::sa s, ipsec::originator by, moment now);
    /// XFRM_MSG_NEWAE: takes effect between two packets; announced.
    /// Errors: ESRCH; EINVAL (larval); what the backend says.
    [[nodiscard]] result<void> give_replay(const ipsec::sa_id& id, const replay_gift& g,
                                           ipsec::originator by, moment now);
    /// XFRM_MSG_EXPIRE from a client: says so to listeners and, where `hard`, deletes the SA.
    /// Errors: ENOENT; EINVAL (larval).
    [[nodiscard]] result<void> expire_sa(const ipsec::sa_id& id, bool hard, ipsec::originator by);
    /// Errors: ESRCH.
    [[nodiscard]] result<void> delete_sa(const ipsec::sa_id& id, ipsec::originator by);
    /// protocol 0 or 255: all.  Errors: none; ESRCH is what the kernel says of an empty flush and
    /// xfrm_user turns into success, so success it is; nothing is announced then.
    void flush_sas(std::uint8_t protocol, ipsec::originator by);
    /// XFRM_MSG_ALLOCSPI: a larval SA with a free SPI in [min, max].  The reference is valid until
    /// the next call.  Errors: EINVAL (min > max); ENOENT (none free).
    [[nodiscard]] result<std::reference_wrapper<const ipsec::sa>> allocate_spi(const spi_request& r,
                                                                               moment now);
    /// With counters as of now; nullptr where there is none.  Valid until the next call.
    [[nodiscard]] const ipsec::sa* get_sa(const ipsec::sa_id& id);
    /// The next SA of a walk, with counters as of now; nullptr at the end.
    [[nodiscard]] const ipsec::sa* next_sa(cursor& c);
    [[nodiscard]] std::size_t sa_count() const noexcept;

    // Policies.

    /// XFRM_MSG_NEWPOLICY.  Errors: EEXIST (same direction, interface id, mark and selector);
    /// EINVAL (an index of another direction); what the backend says.
    [[nodiscard]] result<void> add_policy(ipsec::policy p, ipsec::originator by, moment now);
    /// XFRM_MSG_UPDPOLICY: replaces or adds.  A policy that is replaced keeps its index and becomes
    /// the newest among equal priorities.  Errors: EINVAL as above; what the backend says.
    [[nodiscard]] result<void> update_policy(ipsec::policy p, ipsec::originator by, moment now);
    /// Errors: ENOENT.
    [[nodiscard]] result<void> delete_policy(const ipsec::policy_key& k, ipsec::originator by);
    /// Those of one type.
    void flush_policies(ipsec::policy_type type, ipsec::originator by);
    /// XFRM_MSG_POLEXPIRE from a client: says so to listeners and, where `hard`, deletes the
    /// policy. Errors: ENOENT.
    [[nodiscard]] result<void> expire_policy(const ipsec::policy_key& k, bool hard,
                                             ipsec::originator by);
    /// As get_sa().
    [[nodiscard]] const ipsec::policy* get_policy(const ipsec::policy_key& k);
    /// As next_sa().
    [[nodiscard]] const ipsec::policy* next_policy(cursor& c);
    [[nodiscard]] spd_counts policy_counts() const noexcept;

    [[nodiscard]] spd_hash_thresholds& hash_thresholds() noexcept;

    // After a restart, before there are clients: the oldest first.

    /// An SA as an earlier layer had it, with what it counted and its times; announced as added.  A
    /// limit that passed meanwhile is found by tick(), a second later.
    /// Errors: EEXIST; what the backend says.
    [[nodiscard]] result<void> restore_sa(ipsec::sa s, moment now);
    /// An SA that restore_sa() has brought back is another now: all of it but its age is. Announced
    /// as updated.  Errors: ESRCH; what the backend says, and then it is gone.
    [[nodiscard]] result<void> restore_again(ipsec::sa s, moment now);
    /// It was not to be brought back.  Announced as deleted; ignored where it is not there.
    void withdraw_sa(const ipsec::sa_id& id);
    /// Where an SA that was brought back goes on from; see backend::begin_from().  Ignored where it
    /// is not there.
    void begin_from(const ipsec::sa_id& id, const sa_usage& n, moment now);
    /// A policy with its index and its times; announced as added.  Errors: EEXIST; what the backend
    /// says.
    [[nodiscard]] result<void> restore_policy(ipsec::policy p, moment now);

    /// XFRM_MSG_SETDEFAULT: what becomes of what no policy covers.  Said to listeners in any case.
    void set_defaults(const ipsec::default_actions& actions);
    [[nodiscard]] const ipsec::default_actions& defaults() const noexcept;

    /// XFRM_MSG_MIGRATE: see control::migrate() for what it does, and its errors.
    [[nodiscard]] result<void> migrate(const ipsec::migration& m, ipsec::originator by, moment now);
    /// XFRM_MSG_ACQUIRE from a client, see sa_keeper::announce_acquire().
    void announce_acquire(ipsec::sa wanted, const ipsec::policy& p);
    /// km_report(): a packet that a client should know of.
    void report_packet(const ipsec::packet_reported& r);

    /// Runs all timers that are due.  To be called before the backend is polled, too: the events
    /// that it reports are dated with the latest `now`.
    void tick(moment now);
    /// Monotonic nanoseconds at which tick() has something to do; nullopt where nothing is timed.
    [[nodiscard]] std::optional<std::uint64_t> next_deadline_ns() const;

  private:
    void on_lifetime(const ipsec::sa_id& id, bool hard) override;
    void on_first_use(const ipsec::sa_id& id) override;
    void on_mapping(const ipsec::sa_id& id, const ipsec::address& source, wire::be16 port) override;
    void on_sa_wanted(std::uint32_t index, const ipsec::flow& f,
                      std::optional<std::uint32_t> cpu) override;
    void on_replay(const ipsec::sa_id& id) override;

    struct state;
    std::unique_ptr<state> state_;
};

} // namespace esplane::control
